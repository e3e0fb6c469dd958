"""CPython extension `gpu`: launches the GPU kernels of `_ops/kernels` on device addresses, without a MAX graph.

One function per algorithm and dtype, `direct_float32` and so on; all checks are made in Python, before the call.
Built by `maxconv._engine.native` with `mojo build --emit shared-lib --target-accelerator`, once per GPU family.
"""

from std.os import abort
from std.python import PythonObject
from std.python.bindings import PythonModuleBuilder
from max.gpu.host import DeviceContext

from _ops.kernels.columns_gpu import columns_gpu
from _ops.kernels.direct_gpu import direct_gpu
from _ops.shared.geometry import Geometry
from python_border import border_of


@export
def PyInit_gpu() abi("C") -> PythonObject:
    """Creates the Python module.

    Returns:
        The module.
    """
    try:
        var module = PythonModuleBuilder("gpu")
        module.def_function[direct_into[DType.float16]]("direct_float16")
        module.def_function[direct_into[DType.bfloat16]]("direct_bfloat16")
        module.def_function[direct_into[DType.float32]]("direct_float32")
        module.def_function[direct_into[DType.float64]]("direct_float64")
        module.def_function[direct_into[DType.int8]]("direct_int8")
        module.def_function[direct_into[DType.int16]]("direct_int16")
        module.def_function[direct_into[DType.int32]]("direct_int32")
        module.def_function[direct_into[DType.int64]]("direct_int64")
        module.def_function[columns_into[DType.float16]]("columns_float16")
        module.def_function[columns_into[DType.bfloat16]]("columns_bfloat16")
        module.def_function[columns_into[DType.float32]]("columns_float32")
        module.def_function[columns_into[DType.float64]]("columns_float64")
        module.def_function[columns_into[DType.int8]]("columns_int8")
        module.def_function[columns_into[DType.int16]]("columns_int16")
        module.def_function[columns_into[DType.int32]]("columns_int32")
        module.def_function[columns_into[DType.int64]]("columns_int64")
        return module.finalize()
    except e:
        abort(String("maxconv: the native GPU extension could not be initialised: ", e))


def direct_into[dtype: DType](context: PythonObject, arrays: PythonObject, sizes: PythonObject) raises -> PythonObject:
    """Enqueues a direct convolution or correlation of x and k into y; returns before it is computed.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        context: Address of the device's context, `max.driver.Device._device_context_ptr()`.
        arrays: Device addresses (y, x, k).
        sizes: (N, K, L_out, pad_left, flip, rows, tap_rows) as in `Geometry`; flip is 1 for convolution.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var geometry = Geometry(
        samples=Int(py=sizes[0]),
        taps=Int(py=sizes[1]),
        outputs=Int(py=sizes[2]),
        pad_left=Int(py=sizes[3]),
        flip=Int(py=sizes[4]) != 0,
        rows=Int(py=sizes[5]),
        tap_rows=Int(py=sizes[6]),
    )
    var device = DeviceContext(Pointer[NoneType, MutUntrackedOrigin](unsafe_from_address=Int(py=context)))
    direct_gpu(
        device_pointer[dtype](arrays[0]),
        device_pointer[dtype](arrays[1]),
        device_pointer[dtype](arrays[2]),
        geometry,
        device,
    )
    return PythonObject(None)


def columns_into[
    dtype: DType
](context: PythonObject, arrays: PythonObject, sizes: PythonObject, border: PythonObject) raises -> PythonObject:
    """Enqueues a direct convolution or correlation of the columns of x into y; returns before it is computed.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        context: As for `direct_into`.
        arrays: Device addresses (y, x, k).
        sizes: (N, K, L_out, pad_left, flip, outer, inner, per_column); the flags are 1 or 0.
        border: (mode, value), see `border_of`.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var geometry = Geometry(
        samples=Int(py=sizes[0]),
        taps=Int(py=sizes[1]),
        outputs=Int(py=sizes[2]),
        pad_left=Int(py=sizes[3]),
        flip=Int(py=sizes[4]) != 0,
        rows=Int(py=sizes[5]),
        tap_rows=1,
    )
    var inner = Int(py=sizes[6])
    var beyond = border_of[dtype](border)
    var device = DeviceContext(Pointer[NoneType, MutUntrackedOrigin](unsafe_from_address=Int(py=context)))
    var y = device_pointer[dtype](arrays[0])
    var x = device_pointer[dtype](arrays[1])
    var k = device_pointer[dtype](arrays[2])
    if Int(py=sizes[7]) != 0:
        columns_gpu[dtype, True](y, x, k, geometry, inner, beyond, device)
    else:
        columns_gpu[dtype, False](y, x, k, geometry, inner, beyond, device)
    return PythonObject(None)


def device_pointer[dtype: DType](address: PythonObject) raises -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer of an address.

    Parameters:
        dtype: Element type.

    Args:
        address: A device address as a Python integer.

    Returns:
        The pointer.

    Raises:
        If `address` is not an integer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(py=address))
