"""Every GPU kernel in one element type, or two where it depends on the type which kernel serves.

Nothing runs: what the compiler makes of this file, it makes of the kernels for any family of GPUs, in a quarter of the
time that all types take.
"""

from max.gpu.host import DeviceContext

from _ops.kernels.cast_gpu import cast_gpu
from _ops.kernels.columns_gpu import columns_gpu
from _ops.kernels.conv import conv, no_history, roll_state
from _ops.kernels.conv_gpu import conv_gpu
from _ops.kernels.conv_weight_gradient_gpu import conv_weight_gradient_gpu
from _ops.kernels.copy_columns_gpu import copy_columns_gpu
from _ops.kernels.depthwise_last_gpu import depthwise_last_gpu
from _ops.kernels.direct_gpu import direct_gpu
from _ops.kernels.overlap_save_gpu import overlap_save_gpu, prepare_plan_gpu
from _ops.kernels.overlap_save_long_gpu import overlap_save_long_gpu, prepare_plan_long_gpu
from _ops.kernels.overlap_save_mma_gpu import overlap_save_mma_gpu
from _ops.kernels.overlap_save_parts_gpu import overlap_save_parts_gpu, prepare_plan_parts_gpu
from _ops.kernels.overlap_save_rows_gpu import overlap_save_rows_gpu
from _ops.kernels.polyphase_gpu import polyphase_gpu
from _ops.kernels.weight_gradient_gpu import depthwise_gradients_gpu, weight_gradient_gpu
from _ops.shared.accumulate import accum_dtype
from _ops.shared.border import OMIT, Border
from _ops.shared.epilogue import NONE, Epilogue
from _ops.shared.extension import Extension
from _ops.shared.fft_columns import SHORTEST
from _ops.shared.fft_points import SMALLEST_SIZE
from _ops.shared.geometry import Geometry
from _ops.shared.layer_geometry import LayerGeometry
from _ops.shared.polyphase_geometry import PolyphaseGeometry
from _ops.shared.tuning_gpu import has_tensor_cores

comptime SIGNALS = DType.float32
"""Element type of signals and filters."""

comptime LAYERS = DType.bfloat16
"""Element type of layers: it takes the most kernels."""


def nowhere[dtype: DType]() -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer that nothing is read from.

    Parameters:
        dtype: Element type.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=8)


def no_bias[dtype: DType]() -> Epilogue[dtype]:
    """Makes the epilogue of layers that have none.

    Parameters:
        dtype: Element type.

    Returns:
        Neither bias nor activation.
    """
    return Epilogue[dtype](Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=8), False, NONE)


def launch_signals(ctx: DeviceContext) raises:
    """Launches what filters signals.

    Args:
        ctx: The device.

    Raises:
        If a launch is refused.
    """
    var p = nowhere[SIGNALS]()
    var plan = nowhere[accum_dtype[SIGNALS]()]()
    var geometry = Geometry(1, 1, 1, 0, False, 1, 1)
    var border = Border[SIGNALS](OMIT, 0)
    direct_gpu(p, p, p, geometry, ctx)
    columns_gpu[SIGNALS, False](p, p, p, geometry, 1, border, ctx)
    columns_gpu[SIGNALS, True](p, p, p, geometry, 1, border, ctx)
    polyphase_gpu(p, p, p, PolyphaseGeometry(1, 1, 1, 1, 0, 1, 1, 1, 1), Extension[SIGNALS](0, 0), ctx)
    prepare_plan_gpu[SIGNALS](plan, p, geometry, SMALLEST_SIZE, ctx)
    overlap_save_gpu[SIGNALS](p, p, plan, geometry, border, SMALLEST_SIZE, ctx)
    prepare_plan_long_gpu[SIGNALS](plan, plan, p, geometry, SHORTEST, ctx)
    overlap_save_long_gpu[SIGNALS](p, p, plan, plan, 1, geometry, border, SHORTEST, ctx)
    prepare_plan_parts_gpu[SIGNALS](plan, p, geometry, ctx)
    overlap_save_parts_gpu[SIGNALS](p, p, plan, geometry, border, ctx)
    overlap_save_rows_gpu[SIGNALS](p, p, p, no_bias[SIGNALS](), plan, geometry, ctx)
    comptime if has_tensor_cores[LAYERS]():
        var q = nowhere[LAYERS]()
        overlap_save_mma_gpu(q, q, q, no_bias[LAYERS](), nowhere[DType.float32](), geometry, 1, ctx)
    cast_gpu[SIGNALS](p, nowhere[DType.uint8](), DType.int8, 1, ctx)
    copy_columns_gpu(p, p, 1, 1, 1, 1, ctx)


def launch_layers(ctx: DeviceContext) raises:
    """Launches what computes layers and their gradients.

    Args:
        ctx: The device.

    Raises:
        If a launch is refused.
    """
    var p = nowhere[LAYERS]()
    var sums = nowhere[accum_dtype[LAYERS]()]()
    var geometry = LayerGeometry(1, 1, 1, 1, 1, 1, 1, 1, 1, 0)
    conv["gpu", False](p, p, p, no_bias[LAYERS](), geometry, ctx)
    conv["gpu", True](p, p, p, no_bias[LAYERS](), geometry, ctx)
    depthwise_last_gpu(p, p, p, no_bias[LAYERS](), geometry, ctx)
    roll_state["gpu"](p, p, no_history(p), geometry, ctx)
    weight_gradient_gpu[LAYERS](p, sums, p, p, geometry, ctx)
    weight_gradient_gpu[LAYERS, True](p, sums, p, p, geometry, ctx)
    depthwise_gradients_gpu[LAYERS](p, p, sums, p, p, p, geometry, ctx)
    var wide = nowhere[SIGNALS]()
    conv_gpu[False](wide, wide, wide, no_bias[SIGNALS](), geometry, ctx)
    _ = conv_weight_gradient_gpu[SIGNALS](nowhere[accum_dtype[SIGNALS]()](), wide, wide, geometry, ctx)


def main() raises:
    """Launches everything.

    Raises:
        If a launch is refused.
    """
    var ctx = DeviceContext()
    launch_signals(ctx)
    launch_layers(ctx)
