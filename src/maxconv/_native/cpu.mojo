"""CPython extension `cpu`: the CPU kernels of `_ops/kernels` on NumPy arrays, without MAX.

One function per algorithm and dtype, `direct_float32` and so on; all checks are made in Python, before the call.
Built by `maxconv._engine.native` with `mojo build --emit shared-lib`, once per CPU level.
"""

from std.os import abort
from std.python import Python, PythonObject
from std.python._cpython import GILReleased
from std.python.bindings import PythonModuleBuilder

from _ops.kernels.columns_cpu import columns_cpu
from _ops.kernels.direct_cpu import direct_cpu
from _ops.kernels.overlap_save_cpu import overlap_save_cpu, prepare_plans
from _ops.kernels.polyphase_cpu import polyphase_cpu
from _ops.shared.accumulate import accum_dtype
from _ops.shared.extension import Extension
from _ops.shared.fft_block import plan_length
from _ops.shared.geometry import Geometry
from _ops.shared.polyphase_geometry import PolyphaseGeometry
from numpy_array import READY, data_of, flags_of, length_of, rows_of
from python_border import border_of


@export
def PyInit_cpu() abi("C") -> PythonObject:
    """Creates the Python module.

    Returns:
        The module.
    """
    try:
        var module = PythonModuleBuilder("cpu")
        module.def_function[locate]("locate", docstring="(data address, rows, length, flags) of an array.")
        module.def_function[direct_into[DType.float16]]("direct_float16")
        module.def_function[direct_into[DType.bfloat16]]("direct_bfloat16")
        module.def_function[direct_into[DType.float32]]("direct_float32")
        module.def_function[direct_into[DType.float64]]("direct_float64")
        module.def_function[direct_into[DType.int8]]("direct_int8")
        module.def_function[direct_into[DType.int16]]("direct_int16")
        module.def_function[direct_into[DType.int32]]("direct_int32")
        module.def_function[direct_into[DType.int64]]("direct_int64")
        module.def_function[vectors_into[DType.float16]]("vectors_float16")
        module.def_function[vectors_into[DType.float32]]("vectors_float32")
        module.def_function[vectors_into[DType.float64]]("vectors_float64")
        module.def_function[vectors_into[DType.int8]]("vectors_int8")
        module.def_function[vectors_into[DType.int16]]("vectors_int16")
        module.def_function[vectors_into[DType.int32]]("vectors_int32")
        module.def_function[vectors_into[DType.int64]]("vectors_int64")
        module.def_function[columns_into[DType.float16]]("columns_float16")
        module.def_function[columns_into[DType.bfloat16]]("columns_bfloat16")
        module.def_function[columns_into[DType.float32]]("columns_float32")
        module.def_function[columns_into[DType.float64]]("columns_float64")
        module.def_function[columns_into[DType.int8]]("columns_int8")
        module.def_function[columns_into[DType.int16]]("columns_int16")
        module.def_function[columns_into[DType.int32]]("columns_int32")
        module.def_function[columns_into[DType.int64]]("columns_int64")
        module.def_function[direct_with_border_into[DType.float16]]("direct_with_border_float16")
        module.def_function[direct_with_border_into[DType.bfloat16]]("direct_with_border_bfloat16")
        module.def_function[direct_with_border_into[DType.float32]]("direct_with_border_float32")
        module.def_function[direct_with_border_into[DType.float64]]("direct_with_border_float64")
        module.def_function[direct_with_border_into[DType.int8]]("direct_with_border_int8")
        module.def_function[direct_with_border_into[DType.int16]]("direct_with_border_int16")
        module.def_function[direct_with_border_into[DType.int32]]("direct_with_border_int32")
        module.def_function[direct_with_border_into[DType.int64]]("direct_with_border_int64")
        module.def_function[plan_length_of[DType.float32]]("plan_length_float32")
        module.def_function[plan_length_of[DType.float64]]("plan_length_float64")
        module.def_function[prepare_into[DType.float32]]("prepare_float32")
        module.def_function[prepare_into[DType.float64]]("prepare_float64")
        module.def_function[overlap_save_into[DType.float32]]("overlap_save_float32")
        module.def_function[overlap_save_into[DType.float64]]("overlap_save_float64")
        module.def_function[polyphase_into[DType.float32]]("polyphase_float32")
        module.def_function[polyphase_into[DType.float64]]("polyphase_float64")
        return module.finalize()
    except e:
        abort(String("maxconv: the native CPU extension could not be initialised: ", e))


comptime FEWEST_WITHOUT_GIL = 1 << 14
"""Products that take some 0.3 us: to give the interpreter's lock back and take it again costs a tenth of that."""


def locate(array: PythonObject) raises -> PythonObject:
    """Tells what this extension takes for an array's address and shape: its self-test.

    Args:
        array: A contiguous NumPy array of rank 1 or 2.

    Returns:
        A tuple (address, rows, length, flags).

    Raises:
        If Python cannot make the tuple.
    """
    return Python.tuple(Int(data_of[DType.uint8](array)), rows_of(array), length_of(array), flags_of(array))


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
    if geometry.multiply_adds() < FEWEST_WITHOUT_GIL:
        direct_cpu(output, signal, taps, geometry, workers)
        return PythonObject(None)
    with GILReleased(Python()):
        direct_cpu(output, signal, taps, geometry, workers)
    return PythonObject(None)


def vectors_into[
    dtype: DType
](
    y: PythonObject,
    x: PythonObject,
    k: PythonObject,
    pad_left: PythonObject,
    flip: PythonObject,
    max_workers: PythonObject,
) raises -> PythonObject:
    """Fills y as `direct_into` does, if x and k are contiguous: asking here costs 0.1 us less than asking in Python.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs, a contiguous NumPy array (L_out).
        x: A signal, a NumPy array (N) in any layout.
        k: Taps, likewise (K).
        pad_left: Positions before x[0] at which the first window starts.
        flip: 1 for convolution, 0 for correlation.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        Whether y is filled.

    Raises:
        If one of the last three arguments is not an integer.
    """
    if flags_of(x) & flags_of(k) & READY != READY:
        return PythonObject(False)
    _ = direct_into[dtype](y, x, k, pad_left, flip, max_workers)
    return PythonObject(True)


def columns_into[
    dtype: DType
](
    y: PythonObject,
    x: PythonObject,
    k: PythonObject,
    sizes: PythonObject,
    border: PythonObject,
    max_workers: PythonObject,
) raises -> PythonObject:
    """Fills y by direct convolution or correlation of the columns of x.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs (outer, L_out, inner), a contiguous NumPy array of any rank.
        x: Signals (outer, N, inner), likewise.
        k: Taps (K), or of floating-point types (K, inner) with a filter per column, likewise.
        sizes: (N, K, L_out, pad_left, flip, outer, inner, per_column); the flags are 1 or 0.
        border: (mode, value), see `border_of`.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last three arguments does not hold numbers.
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
    var is_per_column = Int(py=sizes[7]) != 0
    var beyond = border_of[dtype](border[0], border[1])
    var output = data_of[dtype](y)
    var signal = data_of[dtype](x)
    var taps = data_of[dtype](k)
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        if not is_per_column:
            columns_cpu[dtype, False](output, signal, taps, geometry, inner, beyond, workers)
        comptime if dtype.is_floating_point():  # what networks have: integers would double the time to build
            if is_per_column:
                columns_cpu[dtype, True](output, signal, taps, geometry, inner, beyond, workers)
    return PythonObject(None)


def direct_with_border_into[
    dtype: DType
](
    y: PythonObject, x: PythonObject, k: PythonObject, sizes: PythonObject, max_workers: PythonObject
) raises -> PythonObject:
    """Fills y as `direct_into` does, of signals that go on beyond their ends.

    A function of its own, so that calls without a border, the tiny ones above all, need no tuple.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs, a contiguous NumPy array (L_out) or (rows, L_out).
        x: Signals, likewise (N) or (rows, N), N >= 1.
        k: Taps, likewise (K) or (rows, K).
        sizes: (pad_left, flip, border mode, border value).
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last two arguments does not hold numbers.
    """
    var geometry = Geometry(
        samples=length_of(x),
        taps=length_of(k),
        outputs=length_of(y),
        pad_left=Int(py=sizes[0]),
        flip=Int(py=sizes[1]) != 0,
        rows=rows_of(y),
        tap_rows=rows_of(k),
    )
    var border = border_of[dtype](sizes[2], sizes[3])
    var output = data_of[dtype](y)
    var signal = data_of[dtype](x)
    var taps = data_of[dtype](k)
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        direct_cpu(output, signal, taps, geometry, workers, border)
    return PythonObject(None)


def plan_length_of[dtype: DType](nfft: PythonObject) raises -> PythonObject:
    """Counts the elements that the plan of one filter needs.

    Parameters:
        dtype: Element type of the arrays, float32 or float64.

    Args:
        nfft: Block length.

    Returns:
        How many.

    Raises:
        If `nfft` is not an integer.
    """
    return PythonObject(plan_length[dtype](Int(py=nfft)))


def prepare_into[
    dtype: DType
](
    plan: PythonObject, k: PythonObject, flip: PythonObject, nfft: PythonObject, max_workers: PythonObject
) raises -> PythonObject:
    """Fills a plan with the twiddles of a block length and the spectra of the taps.

    Parameters:
        dtype: Element type of both arrays, float32 or float64.

    Args:
        plan: A contiguous NumPy array of tap_rows times `plan_length_of`; not to be moved afterwards.
        k: Taps, a contiguous NumPy array (K) or (tap_rows, K).
        flip: 1 for convolution, 0 for correlation.
        nfft: Block length.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last three arguments is not an integer.
    """
    var block = Int(py=nfft)
    var is_flipped = Int(py=flip) != 0
    var taps = length_of(k)
    var rows = rows_of(k)
    var plans = data_of[accum_dtype[dtype]()](plan)
    var filters = data_of[dtype](k)
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        prepare_plans[dtype](plans, filters, rows, taps, is_flipped, block, workers)
    return PythonObject(None)


def overlap_save_into[
    dtype: DType
](
    y: PythonObject, x: PythonObject, plan: PythonObject, sizes: PythonObject, max_workers: PythonObject
) raises -> PythonObject:
    """Fills y by overlap-save.

    Parameters:
        dtype: Element type of all arrays, float32 or float64.

    Args:
        y: Outputs, a contiguous NumPy array (L_out) or (rows, L_out).
        x: Signals, likewise (N) or (rows, N).
        plan: What `prepare_into` filled.
        sizes: (K, tap_rows, pad_left, nfft, border mode, border value).
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last two arguments does not hold numbers.
    """
    var geometry = Geometry(
        samples=length_of(x),
        taps=Int(py=sizes[0]),
        outputs=length_of(y),
        pad_left=Int(py=sizes[2]),
        flip=False,  # the plan knows
        rows=rows_of(y),
        tap_rows=Int(py=sizes[1]),
    )
    var nfft = Int(py=sizes[3])
    var border = border_of[dtype](sizes[4], sizes[5])
    var output = data_of[dtype](y)
    var signal = data_of[dtype](x)
    var plans = data_of[accum_dtype[dtype]()](plan)
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        overlap_save_cpu[dtype](output, signal, plans, geometry, nfft, workers, border)
    return PythonObject(None)


def polyphase_into[
    dtype: DType
](
    y: PythonObject,
    x: PythonObject,
    h: PythonObject,
    rates: PythonObject,
    start: PythonObject,
    extension: PythonObject,
    max_workers: PythonObject,
) raises -> PythonObject:
    """Fills y by upsampling, filtering and downsampling x.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs, a contiguous NumPy array (rows, L_out).
        x: Signals, likewise (rows, N).
        h: Taps, likewise (K).
        rates: (up, down).
        start: Index of the first output on the output grid.
        extension: (mode, value) as in `Extension`.
        max_workers: Upper bound of threads; 0 for one per core.

    Returns:
        None.

    Raises:
        If one of the last four arguments does not hold numbers.
    """
    var geometry = PolyphaseGeometry(
        samples=length_of(x),
        taps=length_of(h),
        up=Int(py=rates[0]),
        down=Int(py=rates[1]),
        start=Int(py=start),
        outputs=length_of(y),
        rows=rows_of(y),
        x_stride=length_of(x),
        y_stride=length_of(y),
    )
    var output = data_of[dtype](y)
    var signal = data_of[dtype](x)
    var taps = data_of[dtype](h)
    var beyond = Extension[dtype](Int(py=extension[0]), Scalar[dtype](Float64(py=extension[1])))
    var workers = Int(py=max_workers)
    with GILReleased(Python()):
        polyphase_cpu(output, signal, taps, geometry, workers, beyond)
    return PythonObject(None)
