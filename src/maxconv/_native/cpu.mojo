"""CPython extension `cpu`: the CPU kernels of `_ops/kernels` on NumPy arrays, without MAX.

One function per algorithm and dtype, `direct_float32` and so on; all checks are made in Python, before the call.
Built by `maxconv._engine.native` with `mojo build --emit shared-lib`, once per CPU level.
"""

from std.os import abort
from std.python import Python, PythonObject
from std.python._cpython import GILReleased
from std.python.bindings import PythonModuleBuilder

from _ops.kernels.direct_cpu import direct_cpu
from _ops.shared.geometry import Geometry
from numpy_array import data_of, length_of, rows_of


@export
def PyInit_cpu() abi("C") -> PythonObject:
    """Creates the Python module.

    Returns:
        The module.
    """
    try:
        var module = PythonModuleBuilder("cpu")
        module.def_function[locate]("locate", docstring="(data address, rows, length) of an array.")
        module.def_function[direct_into[DType.float16]]("direct_float16")
        module.def_function[direct_into[DType.bfloat16]]("direct_bfloat16")
        module.def_function[direct_into[DType.float32]]("direct_float32")
        module.def_function[direct_into[DType.float64]]("direct_float64")
        module.def_function[direct_into[DType.int8]]("direct_int8")
        module.def_function[direct_into[DType.int16]]("direct_int16")
        module.def_function[direct_into[DType.int32]]("direct_int32")
        module.def_function[direct_into[DType.int64]]("direct_int64")
        return module.finalize()
    except e:
        abort(String("maxconv: the native CPU extension could not be initialised: ", e))


def locate(array: PythonObject) raises -> PythonObject:
    """Tells what this extension takes for an array's address and shape: its self-test.

    Args:
        array: A contiguous NumPy array of rank 1 or 2.

    Returns:
        A tuple (address, rows, length).

    Raises:
        If Python cannot make the tuple.
    """
    return Python.tuple(Int(data_of[DType.uint8](array)), rows_of(array), length_of(array))


def direct_into[
    dtype: DType
](
    y: PythonObject,
    x: PythonObject,
    k: PythonObject,
    pad_left: PythonObject,
    flip: PythonObject,
    max_workers: PythonObject,
) raises -> PythonObject:
    """Fills y by direct convolution or correlation of x and k.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs, a contiguous NumPy array (L_out) or (rows, L_out).
        x: Signals, likewise (N) or (rows, N).
        k: Taps, likewise (K) or (rows, K).
        pad_left: Positions before x[0] at which the first window starts.
        flip: 1 for convolution, 0 for correlation.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last three arguments is not an integer.
    """
    var geometry = Geometry(
        samples=length_of(x),
        taps=length_of(k),
        outputs=length_of(y),
        pad_left=Int(py=pad_left),
        flip=Int(py=flip) != 0,
        rows=rows_of(y),
        tap_rows=rows_of(k),
    )
    var output = data_of[dtype](y)
    var signal = data_of[dtype](x)
    var taps = data_of[dtype](k)
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        direct_cpu(output, signal, taps, geometry, workers)
    return PythonObject(None)
