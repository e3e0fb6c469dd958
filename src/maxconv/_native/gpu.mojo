"""CPython extension `gpu`: launches the GPU kernels of `_ops/kernels` on device addresses, without a MAX graph.

One function per algorithm and dtype, `direct_float32` and so on; all checks are made in Python, before the call.
Built by `maxconv._engine.native` with `mojo build --emit shared-lib --target-accelerator`, once per GPU family.
"""

from std.memory import bitcast
from std.os import abort
from std.python import Python, PythonObject
from std.python._cpython import GILReleased
from std.python.bindings import PythonModuleBuilder
from max.gpu.host import DeviceBuffer

from _ops.kernels.cast_gpu import SOURCES, cast_gpu
from _ops.kernels.columns_gpu import columns_gpu
from _ops.kernels.copy_columns_gpu import copy_columns_gpu
from _ops.kernels.direct_gpu import direct_gpu
from _ops.kernels.polyphase_gpu import polyphase_gpu
from _ops.shared.border import Border
from _ops.shared.extension import Extension
from _ops.shared.geometry import Geometry
from _ops.shared.polyphase_geometry import PolyphaseGeometry
from device import device_context, device_pointer
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
        module.def_function[polyphase_into[DType.float32]]("polyphase_float32")
        module.def_function[polyphase_into[DType.float64]]("polyphase_float64")
        module.def_function[cast_into[DType.float32]]("cast_float32")
        module.def_function[cast_into[DType.float64]]("cast_float64")
        module.def_function[copy_columns_into[DType.uint8]]("copy_columns_1")
        module.def_function[copy_columns_into[DType.uint16]]("copy_columns_2")
        module.def_function[copy_columns_into[DType.uint32]]("copy_columns_4")
        module.def_function[copy_columns_into[DType.uint64]]("copy_columns_8")
        module.def_function[upload]("upload")
        module.def_function[download]("download")
        module.def_function[wait]("wait")
        return module.finalize()
    except e:
        abort(
            String(
                "maxconv: the native GPU extension could not be initialised: ",
                e,
            )
        )


def direct_into[
    dtype: DType
](
    context: PythonObject,
    y: PythonObject,
    x: PythonObject,
    k: PythonObject,
    sizes: PythonObject,
) raises -> PythonObject:
    """Enqueues a direct convolution or correlation of x and k into y; returns before it is computed.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        context: Address of the device's context, `max.driver.Device._device_context_ptr()`.
        y: Device address of the result.
        x: Device address of the signals.
        k: Device address of the taps.
        sizes: Host address of nine words, which are read faster than a tuple: (N, K, L_out, pad_left, flip, rows,
            tap_rows) as in `Geometry`, flip being 1 for convolution; then (mode, value) as in `Border`, the value of
            a floating-point type by its bits as float64.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var words = device_pointer[DType.int64](sizes)
    var geometry = Geometry(
        samples=Int(words[unsafe_offset=0]),
        taps=Int(words[unsafe_offset=1]),
        outputs=Int(words[unsafe_offset=2]),
        pad_left=Int(words[unsafe_offset=3]),
        flip=words[unsafe_offset=4] != 0,
        rows=Int(words[unsafe_offset=5]),
        tap_rows=Int(words[unsafe_offset=6]),
    )
    var value = words[unsafe_offset=8]
    var beyond: Scalar[dtype]
    comptime if dtype.is_floating_point():
        beyond = bitcast[DType.float64](value).cast[dtype]()
    else:
        beyond = value.cast[dtype]()
    direct_gpu(
        device_pointer[dtype](y),
        device_pointer[dtype](x),
        device_pointer[dtype](k),
        geometry,
        device_context(context),
        Border[dtype](Int(words[unsafe_offset=7]), beyond),
    )
    return PythonObject(None)


def columns_into[
    dtype: DType
](context: PythonObject, arrays: PythonObject, sizes: PythonObject, border: PythonObject,) raises -> PythonObject:
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
    var beyond = border_of[dtype](border[0], border[1])
    var device = device_context(context)
    var y = device_pointer[dtype](arrays[0])
    var x = device_pointer[dtype](arrays[1])
    var k = device_pointer[dtype](arrays[2])
    if Int(py=sizes[7]) == 0:
        columns_gpu[dtype, False](y, x, k, geometry, inner, beyond, device)
    else:
        comptime if dtype.is_floating_point():  # what networks have: integers would double the time to build
            columns_gpu[dtype, True](y, x, k, geometry, inner, beyond, device)
    return PythonObject(None)


def polyphase_into[
    dtype: DType
](context: PythonObject, arrays: PythonObject, sizes: PythonObject, extension: PythonObject,) raises -> PythonObject:
    """Enqueues upsampling, filtering and downsampling of x into y; returns before it is computed.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        context: As for `direct_into`.
        arrays: Device addresses (y, x, h).
        sizes: (N, K, up, down, start, L_out, rows) as in `PolyphaseGeometry`; the rows are contiguous.
        extension: (mode, value) as in `Extension`.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    var geometry = PolyphaseGeometry(
        samples=Int(py=sizes[0]),
        taps=Int(py=sizes[1]),
        up=Int(py=sizes[2]),
        down=Int(py=sizes[3]),
        start=Int(py=sizes[4]),
        outputs=Int(py=sizes[5]),
        rows=Int(py=sizes[6]),
        x_stride=Int(py=sizes[0]),
        y_stride=Int(py=sizes[5]),
    )
    var device = device_context(context)
    polyphase_gpu(
        device_pointer[dtype](arrays[0]),
        device_pointer[dtype](arrays[1]),
        device_pointer[dtype](arrays[2]),
        geometry,
        Extension[dtype](Int(py=extension[0]), Float64(py=extension[1]).cast[dtype]()),
        device,
    )
    return PythonObject(None)


def cast_into[
    dtype: DType
](context: PythonObject, arrays: PythonObject, count: PythonObject, source: PythonObject,) raises -> PythonObject:
    """Enqueues the conversion of x into y; returns before it is done.

    Parameters:
        dtype: Element type of y.

    Args:
        context: As for `direct_into`.
        arrays: Device addresses (y, x).
        count: How many elements.
        source: Name of the element type of x.

    Returns:
        None.

    Raises:
        If there is no such type, or the launch is refused.
    """
    var device = device_context(context)
    var name = String(py=source)
    comptime for given in SOURCES:
        if name == String(given):
            cast_gpu(
                device_pointer[dtype](arrays[0]),
                device_pointer[DType.uint8](arrays[1]),
                given,
                Int(py=count),
                device,
            )
            return PythonObject(None)
    raise Error("cast_into: no element type ", name)


def copy_columns_into[
    dtype: DType
](context: PythonObject, arrays: PythonObject, sizes: PythonObject) raises -> PythonObject:
    """Enqueues the copy of some columns of x into y; returns before it is done.

    Parameters:
        dtype: Any type of the elements' size.

    Args:
        context: As for `direct_into`.
        arrays: Device addresses (y, x) of the first elements to write and to read.
        sizes: (rows, count, row stride of y, row stride of x), in elements.

    Returns:
        None.

    Raises:
        If the launch is refused.
    """
    copy_columns_gpu(
        device_pointer[dtype](arrays[0]),
        device_pointer[dtype](arrays[1]),
        Int(py=sizes[0]),
        Int(py=sizes[1]),
        Int(py=sizes[2]),
        Int(py=sizes[3]),
        device_context(context),
    )
    return PythonObject(None)


def upload(
    context: PythonObject,
    there: PythonObject,
    here: PythonObject,
    size: PythonObject,
) raises -> PythonObject:
    """Enqueues a copy to the device; returns before it is done if the memory here is page-locked.

    Args:
        context: As for `direct_into`.
        there: Address on the device.
        here: Address in host memory.
        size: Bytes.

    Returns:
        None.

    Raises:
        If the copy is refused.
    """
    var device = device_context(context)
    device.enqueue_copy(
        DeviceBuffer[DType.uint8](
            device,
            device_pointer[DType.uint8](there),
            Int(py=size),
            owning=False,
        ),
        device_pointer[DType.uint8](here),
    )
    return PythonObject(None)


def download(
    context: PythonObject,
    here: PythonObject,
    there: PythonObject,
    size: PythonObject,
) raises -> PythonObject:
    """Enqueues a copy from the device; returns before it is done if the memory here is page-locked.

    Args:
        context: As for `direct_into`.
        here: Address in host memory.
        there: Address on the device.
        size: Bytes.

    Returns:
        None.

    Raises:
        If the copy is refused.
    """
    var device = device_context(context)
    device.enqueue_copy(
        device_pointer[DType.uint8](here),
        DeviceBuffer[DType.uint8](
            device,
            device_pointer[DType.uint8](there),
            Int(py=size),
            owning=False,
        ),
    )
    return PythonObject(None)


def wait(context: PythonObject) raises -> PythonObject:
    """Waits until everything that was enqueued is done; other threads of Python run meanwhile.

    Args:
        context: As for `direct_into`.

    Returns:
        None.

    Raises:
        If something that was enqueued failed.
    """
    var device = device_context(context)
    with GILReleased(Python()):
        device.synchronize()
    return PythonObject(None)
