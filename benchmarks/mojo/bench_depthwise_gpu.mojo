"""Depthwise GPU kernels beside a copy of the same bytes, each way: for tuning, without Python and without MAX models.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_depthwise_gpu.mojo -o bench_depthwise_gpu
"""

from std.sys.info import size_of
from max.gpu.host import DeviceContext

from _ops.kernels.depthwise_gpu import depthwise_gpu, mirrored
from _ops.kernels.depthwise_last_gpu import MOST_TAPS, depthwise_last_gpu
from _ops.kernels.weight_gradient_gpu import depthwise_gradients_gpu, weight_gradient_gpu, weight_gradient_workspace
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import NONE, SILU, Epilogue
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry

comptime CACHE_BYTES = 50 << 20
"""The level-2 cache of an H200: so many arrays take turns that none is left in it."""

comptime LAUNCHES = 20
"""Times that all arrays take their turn."""

comptime LEAST_COPIES = 2.5
"""Copies' worth of bytes of a training step: forward x and y, backward x, the gradient of y and that of x."""


def measure[
    dtype: DType
](ctx: DeviceContext, geometry: LayerGeometry, activation: Int = NONE, skew: Int = 0, is_ordered: Bool = False) raises:
    """Times one layer of one filter a channel.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        geometry: The layer, of stride and dilation 1.
        activation: One of the constants of epilogue.mojo, with a bias if it is one.
        skew: Elements between a boundary of 16 bytes and both arrays.
        is_ordered: Whether pieces of signals are to have the bits of the whole.

    Raises:
        If the device refuses.
    """
    var samples = geometry.batch * geometry.in_channels * geometry.length
    var values = geometry.batch * geometry.out_channels * geometry.outputs
    var arrays = 2 * CACHE_BYTES // ((samples + values) * size_of[dtype]()) + 1
    var x = ctx.enqueue_create_buffer[dtype](arrays * samples + skew)
    var y = ctx.enqueue_create_buffer[dtype](arrays * values + skew)
    var dx = ctx.enqueue_create_buffer[dtype](arrays * samples + skew)
    var w = ctx.enqueue_create_buffer[dtype](2 * geometry.out_channels * geometry.taps)  # and its gradient
    var workspace = ctx.enqueue_create_buffer[accum_dtype[dtype]()](
        max(weight_gradient_workspace[dtype](geometry), weight_gradient_workspace[dtype, True](geometry))
    )
    # Numbers that are neither zero nor denormal.
    ctx.enqueue_memset(x, Scalar[dtype](1.37))
    ctx.enqueue_memset(y, Scalar[dtype](0.73))
    ctx.enqueue_memset(w, Scalar[dtype](0.03))
    var wp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var dw = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(wp) + len(w) // 2 * size_of[dtype]())
    var parts = Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin](unsafe_from_address=Int(workspace.unsafe_ptr()))
    var nothing = Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var numbers = Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var epilogue = Epilogue[dtype](nothing, activation != NONE, activation)
    var history = History[dtype](nothing, False, numbers, False)

    def x_of(turn: Int) {imm} -> Pointer[Scalar[dtype], MutAnyOrigin]:
        var there = x.unsafe_ptr().unsafe_offset(turn * samples + skew)
        return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(there))

    def y_of(turn: Int) {imm} -> Pointer[Scalar[dtype], MutAnyOrigin]:
        var there = y.unsafe_ptr().unsafe_offset(turn * values + skew)
        return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(there))

    def copy() raises {imm}:
        for turn in range(arrays):
            var count = min(samples, values)
            var target = y.create_sub_buffer[dtype](turn * values, count)
            ctx.enqueue_copy(target, x.create_sub_buffer[dtype](turn * samples, count))

    def forward() raises {imm}:
        for turn in range(arrays):
            depthwise_gpu(y_of(turn), x_of(turn), wp, epilogue, geometry, history, ctx, is_ordered=is_ordered)

    def transposed() raises {imm}:
        for turn in range(arrays):
            depthwise_gpu(x_of(turn), y_of(turn), wp, epilogue, mirrored(geometry), history, ctx, True)

    def weights() raises {imm}:
        for turn in range(arrays):
            weight_gradient_gpu[dtype](wp, parts, x_of(turn), y_of(turn), geometry, ctx)

    def gradients() raises {imm}:
        for turn in range(arrays):
            var there = dx.unsafe_ptr().unsafe_offset(turn * samples + skew)
            var result = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(there))
            depthwise_gradients_gpu[dtype](result, dw, parts, x_of(turn), y_of(turn), wp, geometry, ctx)

    def forward_last() raises {imm}:
        for turn in range(arrays):
            depthwise_last_gpu(y_of(turn), x_of(turn), wp, epilogue, geometry, ctx)

    def transposed_last() raises {imm}:
        for turn in range(arrays):
            depthwise_last_gpu(x_of(turn), y_of(turn), wp, epilogue, mirrored(geometry), ctx)

    def weights_last() raises {imm}:
        for turn in range(arrays):
            weight_gradient_gpu[dtype, True](wp, parts, x_of(turn), y_of(turn), geometry, ctx)

    var each = Float64(1000 * LAUNCHES * arrays)
    _ = ctx.execution_time(copy, 3)
    var copying = Float64(ctx.execution_time(copy, LAUNCHES)) / each
    _ = ctx.execution_time(forward, 3)
    var forth = Float64(ctx.execution_time(forward, LAUNCHES)) / each
    _ = ctx.execution_time(transposed, 3)
    var back = Float64(ctx.execution_time(transposed, LAUNCHES)) / each
    _ = ctx.execution_time(weights, 3)
    var gradient = Float64(ctx.execution_time(weights, LAUNCHES)) / each
    var sizes = String(t"{dtype} N {geometry.batch} C {geometry.in_channels} L {geometry.length} K {geometry.taps}")
    if is_ordered:
        print("ordered:", end=" ")
    print(sizes, "pad", geometry.pad_left, "activation", activation, "skew", skew, ": copy", copying, "us, forward")
    print("   ", forth, "us", forth / copying, ", transposed", back, "us", back / copying, ", weights", gradient, "us")
    print("    all three", (forth + back + gradient) / copying / LEAST_COPIES, "of the least")
    _ = ctx.execution_time(gradients, 3)
    var both = Float64(ctx.execution_time(gradients, LAUNCHES)) / each
    print(
        "    gradients together", both, "us", both / copying, ", with forward", (forth + both) / copying / LEAST_COPIES
    )
    if skew == 0 and geometry.taps <= MOST_TAPS:
        _ = ctx.execution_time(forward_last, 3)
        forth = Float64(ctx.execution_time(forward_last, LAUNCHES)) / each
        _ = ctx.execution_time(transposed_last, 3)
        back = Float64(ctx.execution_time(transposed_last, LAUNCHES)) / each
        _ = ctx.execution_time(weights_last, 3)
        gradient = Float64(ctx.execution_time(weights_last, LAUNCHES)) / each
        print("    channels last", forth, "us", forth / copying, ", transposed", back, "us", back / copying)
        print("    weights", gradient, "us", gradient / copying)
        print("    all three", (forth + back + gradient) / copying / LEAST_COPIES, "of the least")
    _ = x^
    _ = y^
    _ = dx^
    _ = w^
    _ = workspace^


def layer(batch: Int, channels: Int, length: Int, taps: Int, pad_left: Int) -> LayerGeometry:
    """Makes a layer with as many outputs as samples.

    Args:
        batch: As in `LayerGeometry`.
        channels: Channels of x and y.
        length: Samples of both.
        taps: As in `LayerGeometry`.
        pad_left: As in `LayerGeometry`.

    Returns:
        The layer.
    """
    return LayerGeometry(batch, channels, channels, channels, length, length, taps, 1, 1, pad_left)


def main() raises:
    """Times the layers that the project promises figures for, and some beside them.

    Raises:
        If the device refuses.
    """
    var ctx = DeviceContext()
    print(ctx.name())
    comptime for dtype in [DType.bfloat16, DType.float16, DType.float32]:
        measure[dtype](ctx, layer(1, 12288, 16384, 4, 3))
        measure[dtype](ctx, layer(8, 4096, 2048, 4, 3))
        measure[dtype](ctx, layer(8, 4096, 2048, 4, 3), SILU)
        measure[dtype](ctx, layer(8, 4096, 2047, 4, 3))
        measure[dtype](ctx, layer(8, 4096, 2048, 4, 3), NONE, 1)
        measure[dtype](ctx, layer(8, 4096, 2048, 16, 7))
        measure[dtype](ctx, layer(64, 4096, 100, 3, 1))
    measure[DType.bfloat16](ctx, layer(8, 768, 8192, 128, 64))
    measure[DType.bfloat16](ctx, layer(8, 768, 8192, 128, 127))
    measure[DType.bfloat16](ctx, layer(8, 768, 8192, 128, 127), is_ordered=True)
    measure[DType.float16](ctx, layer(8, 768, 8192, 128, 127))
    measure[DType.bfloat16](ctx, layer(8, 768, 8192, 33, 32))
    measure[DType.bfloat16](ctx, layer(8, 512, 1000, 31, 15))
