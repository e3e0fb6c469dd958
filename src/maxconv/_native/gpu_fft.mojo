"""CPython extension `gpu_fft`: launches the FFT kernels of `_ops/kernels` on device addresses, without a MAX graph.

Apart from the extension `gpu`, because long transforms take long to compile: the first direct call need not wait.
One function per algorithm and dtype; all checks are made in Python, before the call. Built by
`maxconv._engine.native` with `mojo build --emit shared-lib --target-accelerator`, once per GPU family.
"""

from std.os import abort
from std.python import PythonObject
from std.python.bindings import PythonModuleBuilder

from _ops.kernels.overlap_save_gpu import overlap_save_gpu, plan_length_gpu, prepare_plan_gpu
from _ops.kernels.overlap_save_long_gpu import overlap_save_long_gpu, prepare_plan_long_gpu
from _ops.kernels.overlap_save_parts_gpu import (
    overlap_save_parts_gpu,
    plan_length_parts_gpu,
    prepare_plan_parts_gpu,
)
from _ops.kernels.overlap_save_rows_gpu import overlap_save_rows_gpu, workspace_length_rows_gpu
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import NONE, Epilogue
from _ops.shared.fft_columns import SHORTEST, plan_length_long_gpu
from _ops.shared.fft_parts import PARTS_BLOCK
from _ops.shared.geometry import Geometry
from device import device_context, device_pointer
from python_border import border_of


@export
def PyInit_gpu_fft() abi("C") -> PythonObject:
    """Creates the Python module.

    Returns:
        The module.
    """
    try:
        var module = PythonModuleBuilder("gpu_fft")
        module.def_function[plan_length_of]("plan_length")
        module.def_function[prepare_into[DType.float16]]("prepare_float16")
        module.def_function[prepare_into[DType.bfloat16]]("prepare_bfloat16")
        module.def_function[prepare_into[DType.float32]]("prepare_float32")
        module.def_function[prepare_into[DType.float64]]("prepare_float64")
        module.def_function[overlap_save_into[DType.float16]]("overlap_save_float16")
        module.def_function[overlap_save_into[DType.bfloat16]]("overlap_save_bfloat16")
        module.def_function[overlap_save_into[DType.float32]]("overlap_save_float32")
        module.def_function[overlap_save_into[DType.float64]]("overlap_save_float64")
        module.def_function[rows_workspace_of[DType.float16]]("rows_workspace_float16")
        module.def_function[rows_workspace_of[DType.bfloat16]]("rows_workspace_bfloat16")
        module.def_function[rows_workspace_of[DType.float32]]("rows_workspace_float32")
        module.def_function[rows_workspace_of[DType.float64]]("rows_workspace_float64")
        module.def_function[overlap_save_rows_into[DType.float16]]("overlap_save_rows_float16")
        module.def_function[overlap_save_rows_into[DType.bfloat16]]("overlap_save_rows_bfloat16")
        module.def_function[overlap_save_rows_into[DType.float32]]("overlap_save_rows_float32")
        module.def_function[overlap_save_rows_into[DType.float64]]("overlap_save_rows_float64")
        return module.finalize()
    except e:
        abort(String("maxconv: the native extension for FFTs on GPU could not be initialised: ", e))


def plan_length_of(nfft: PythonObject, tap_rows: PythonObject) raises -> PythonObject:
    """Counts the elements that a plan needs.

    Args:
        nfft: Length of the transform.
        tap_rows: Number of filters.

    Returns:
        How many: float64 for float64 arrays, else float32.

    Raises:
        If an argument is not an integer.
    """
    var length = Int(py=nfft)
    var filters = Int(py=tap_rows)
    if length == PARTS_BLOCK:
        return PythonObject(plan_length_parts_gpu(filters))
    return PythonObject(
        plan_length_gpu(length, filters) if length < SHORTEST else plan_length_long_gpu(length, filters)
    )


def prepare_into[dtype: DType](context: PythonObject, arrays: PythonObject, sizes: PythonObject) raises -> PythonObject:
    """Enqueues the computation of a plan for some filters.

    Parameters:
        dtype: Element type of the taps.

    Args:
        context: Address of the device's context, `max.driver.Device._device_context_ptr()`.
        arrays: Device addresses (plan, workspace, k); the workspace of one matrix is used by long transforms only.
        sizes: (K, tap_rows, flip, nfft); flip is 1 for convolution.

    Returns:
        None.

    Raises:
        If the size does not fit or a launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    var geometry = Geometry(
        samples=0,
        taps=Int(py=sizes[0]),
        outputs=0,
        pad_left=0,
        flip=Int(py=sizes[2]) != 0,
        rows=0,
        tap_rows=Int(py=sizes[1]),
    )
    var nfft = Int(py=sizes[3])
    var ctx = device_context(context)
    var plan = device_pointer[ACC](arrays[0])
    var taps = device_pointer[dtype](arrays[2])
    comptime if ACC == DType.float32:
        if nfft == PARTS_BLOCK:
            prepare_plan_parts_gpu[dtype](plan, taps, geometry, ctx)
            return PythonObject(None)
    if nfft < SHORTEST:
        prepare_plan_gpu[dtype](plan, taps, geometry, nfft, ctx)
    else:
        prepare_plan_long_gpu[dtype](plan, device_pointer[ACC](arrays[1]), taps, geometry, nfft, ctx)
    return PythonObject(None)


def overlap_save_into[
    dtype: DType
](context: PythonObject, arrays: PythonObject, sizes: PythonObject, border: PythonObject) raises -> PythonObject:
    """Enqueues overlap-save into y; returns before it is computed.

    Parameters:
        dtype: Element type of y and x.

    Args:
        context: Address of the device's context.
        arrays: Device addresses (y, x, plan, workspace); the workspace is used by long transforms only.
        sizes: (N, K, L_out, pad_left, rows, tap_rows, nfft, matrices of the workspace).
        border: (mode, value) as in `Border`; the value is 0 where terms beyond the ends are left out.

    Returns:
        None.

    Raises:
        If the size does not fit or a launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    var geometry = Geometry(
        samples=Int(py=sizes[0]),
        taps=Int(py=sizes[1]),
        outputs=Int(py=sizes[2]),
        pad_left=Int(py=sizes[3]),
        flip=False,  # the plan knows
        rows=Int(py=sizes[4]),
        tap_rows=Int(py=sizes[5]),
    )
    var nfft = Int(py=sizes[6])
    var beyond = border_of[dtype](border[0], border[1])
    var ctx = device_context(context)
    var output = device_pointer[dtype](arrays[0])
    var signal = device_pointer[dtype](arrays[1])
    var plan = device_pointer[ACC](arrays[2])
    comptime if ACC == DType.float32:
        if nfft == PARTS_BLOCK:
            overlap_save_parts_gpu[dtype](output, signal, plan, geometry, beyond, ctx)
            return PythonObject(None)
    if nfft < SHORTEST:
        overlap_save_gpu[dtype](output, signal, plan, geometry, beyond, nfft, ctx)
    else:
        overlap_save_long_gpu[dtype](
            output, signal, plan, device_pointer[ACC](arrays[3]), Int(py=sizes[7]), geometry, beyond, nfft, ctx
        )
    return PythonObject(None)


def rows_workspace_of[dtype: DType](sizes: PythonObject) raises -> PythonObject:
    """Counts the elements of the workspace that whole rows need.

    Parameters:
        dtype: Element type of the signals.

    Args:
        sizes: As for `overlap_save_rows_into`.

    Returns:
        How many: float64 for float64 arrays, else float32.

    Raises:
        If a size is not an integer.
    """
    return PythonObject(workspace_length_rows_gpu[dtype](rows_geometry(sizes)))


def rows_geometry(sizes: PythonObject) raises -> Geometry:
    """Reads the sizes of a call.

    Args:
        sizes: As for `overlap_save_rows_into`.

    Returns:
        Sizes and shifts.

    Raises:
        If a size is not an integer.
    """
    return Geometry(
        samples=Int(py=sizes[0]),
        taps=Int(py=sizes[1]),
        outputs=Int(py=sizes[2]),
        pad_left=Int(py=sizes[3]),
        flip=Int(py=sizes[6]) != 0,
        rows=Int(py=sizes[4]),
        tap_rows=Int(py=sizes[5]),
    )


def overlap_save_rows_into[
    dtype: DType
](context: PythonObject, arrays: PythonObject, sizes: PythonObject) raises -> PythonObject:
    """Enqueues the FFTs of whole rows, those of their filters included; returns before y is computed.

    Parameters:
        dtype: Element type of y, x, k and the bias.

    Args:
        context: Address of the device's context.
        arrays: Device addresses (y, x, k, bias, workspace); that of the bias is 0 if there is none.
        sizes: (N, K, L_out, pad_left, rows, tap_rows, flip, is_fast); flip is 1 for convolution.

    Returns:
        None.

    Raises:
        If rows are too long or a launch is refused.
    """
    var geometry = rows_geometry(sizes)
    var output = device_pointer[dtype](arrays[0])
    var signal = device_pointer[dtype](arrays[1])
    var taps = device_pointer[dtype](arrays[2])
    var bias = Int(py=arrays[3])
    # No pointer is null: without a bias it is not read.
    var there = Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=max(bias, 1))
    var workspace = device_pointer[accum_dtype[dtype]()](arrays[4])
    var epilogue = Epilogue[dtype](there, bias != 0, NONE)
    var ctx = device_context(context)
    overlap_save_rows_gpu[dtype](output, signal, taps, epilogue, workspace, geometry, ctx, Int(py=sizes[7]) != 0)
    return PythonObject(None)
