"""The GPU kernels of layers alone, in flop a second: for tuning, without Python and without MAX models.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_layers_gpu.mojo -o bench_layers_gpu
"""

from max.gpu.host import DeviceContext

from _ops.kernels.conv_gpu import conv_gpu
from _ops.kernels.conv_mma_gpu import conv_mma_gpu
from _ops.kernels.depthwise_gpu import depthwise_gpu, is_mirrored_depthwise, mirrored
from _ops.kernels.depthwise_last_gpu import MOST_TAPS, depthwise_last_gpu
from _ops.kernels.weight_gradient_gpu import weight_gradient_gpu, weight_gradient_workspace
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import Epilogue
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry

comptime LAUNCHES = 20
"""Launches that are timed together."""


def measure[dtype: DType](ctx: DeviceContext, name: String, geometry: LayerGeometry) raises:
    """Times the sums of one layer, on numbers that are neither zero nor denormal.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        name: What to print.
        geometry: The layer.

    Raises:
        If the device refuses.
    """
    var x = ctx.enqueue_create_buffer[dtype](geometry.batch * geometry.in_channels * geometry.length)
    var w = ctx.enqueue_create_buffer[dtype](geometry.out_channels * geometry.group_in() * geometry.taps)
    var y = ctx.enqueue_create_buffer[dtype](geometry.batch * geometry.out_channels * geometry.outputs)
    var workspace = ctx.enqueue_create_buffer[accum_dtype[dtype]()](
        max(weight_gradient_workspace[dtype](geometry), weight_gradient_workspace[dtype, True](geometry))
    )
    ctx.enqueue_memset(x, Scalar[dtype](1.37))
    ctx.enqueue_memset(w, Scalar[dtype](0.03))
    ctx.enqueue_memset(y, Scalar[dtype](0.73))
    var xp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(x.unsafe_ptr()))
    var wp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var yp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(y.unsafe_ptr()))
    var parts = Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin](unsafe_from_address=Int(workspace.unsafe_ptr()))
    var nothing = Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var numbers = Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(w.unsafe_ptr()))
    var epilogue = Epilogue[dtype](nothing, False, 0)
    var history = History[dtype](nothing, False, numbers, False)
    var is_depthwise = geometry.groups == geometry.in_channels and geometry.group_out() < 4

    def forward() raises {imm}:
        if is_depthwise:
            depthwise_gpu(yp, xp, wp, epilogue, geometry, history, ctx)
            return
        comptime if dtype.is_half_float():
            conv_mma_gpu[False](yp, xp, wp, epilogue, geometry, ctx)
        else:
            conv_gpu[False](yp, xp, wp, epilogue, geometry, ctx)

    def transposed() raises {imm}:
        if is_mirrored_depthwise(geometry):
            depthwise_gpu(xp, yp, wp, epilogue, mirrored(geometry), history, ctx, True)
            return
        comptime if dtype.is_half_float():
            conv_mma_gpu[True](xp, yp, wp, epilogue, geometry, ctx)
        else:
            conv_gpu[True](xp, yp, wp, epilogue, geometry, ctx)

    def weights() raises {imm}:
        weight_gradient_gpu[dtype](wp, parts, xp, yp, geometry, ctx)

    def forward_last() raises {imm}:
        depthwise_last_gpu(yp, xp, wp, epilogue, geometry, ctx)

    def weights_last() raises {imm}:
        weight_gradient_gpu[dtype, True](wp, parts, xp, yp, geometry, ctx)

    _ = ctx.execution_time(forward, 3)
    var forth = Float64(ctx.execution_time(forward, LAUNCHES)) / 1000 / LAUNCHES
    _ = ctx.execution_time(transposed, 3)
    var back = Float64(ctx.execution_time(transposed, LAUNCHES)) / 1000 / LAUNCHES
    _ = ctx.execution_time(weights, 3)
    var gradient = Float64(ctx.execution_time(weights, LAUNCHES)) / 1000 / LAUNCHES
    var flop = 2e-6 * Float64(geometry.multiply_adds())
    print(
        dtype,
        name,
        ": forward",
        forth,
        "us",
        flop / forth,
        "TFLOP/s, transposed",
        back,
        "us",
        flop / back,
        "TFLOP/s, weights",
        gradient,
        "us",
    )
    comptime if dtype != DType.float64:
        if is_mirrored_depthwise(geometry) and geometry.dilation == 1 and geometry.taps <= MOST_TAPS:
            _ = ctx.execution_time(forward_last, 3)
            forth = Float64(ctx.execution_time(forward_last, LAUNCHES)) / 1000 / LAUNCHES
            _ = ctx.execution_time(weights_last, 3)
            gradient = Float64(ctx.execution_time(weights_last, LAUNCHES)) / 1000 / LAUNCHES
            print(dtype, name, "channels last: forward", forth, "us, weights", gradient, "us")
    _ = x^
    _ = w^
    _ = y^
    _ = workspace^


def measure_all[dtype: DType](ctx: DeviceContext) raises:
    """Times layers of published models, and one that fills the device.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.

    Raises:
        If the device refuses.
    """
    measure[dtype](ctx, "Whisper conv2", LayerGeometry(1, 384, 384, 1, 3000, 1500, 3, 2, 1, 1))
    measure[dtype](ctx, "wav2vec2 layer 0", LayerGeometry(1, 1, 512, 1, 16000, 3199, 10, 5, 1, 0))
    measure[dtype](ctx, "wav2vec2 layer 6", LayerGeometry(1, 512, 512, 1, 99, 49, 2, 2, 1, 0))
    measure[dtype](ctx, "HuBERT pos_conv", LayerGeometry(1, 768, 768, 16, 250, 251, 128, 1, 1, 64))
    measure[dtype](ctx, "HiFi-GAN resblock 256", LayerGeometry(1, 256, 256, 1, 800, 800, 11, 1, 5, 25))
    measure[dtype](ctx, "HiFi-GAN resblock 32", LayerGeometry(1, 32, 32, 1, 8192, 8192, 11, 1, 5, 25))
    measure[dtype](ctx, "HiFi-GAN upsampler 512", LayerGeometry(1, 256, 512, 1, 800, 100, 16, 8, 1, 4))
    measure[dtype](ctx, "WaveNet dilation 512", LayerGeometry(1, 64, 128, 1, 8192, 8192, 2, 1, 512, 512))
    measure[dtype](ctx, "Conformer depthwise", LayerGeometry(1, 512, 512, 512, 1000, 1000, 31, 1, 1, 15))
    measure[dtype](ctx, "Mamba", LayerGeometry(1, 1536, 1536, 1536, 2048, 2048, 4, 1, 1, 3))
    measure[dtype](ctx, "Mamba, batch of 8", LayerGeometry(8, 1536, 1536, 1536, 2048, 2048, 4, 1, 1, 3))
    measure[dtype](ctx, "pytorch#192902", LayerGeometry(1, 12288, 12288, 12288, 16384, 16384, 4, 1, 1, 3))
    measure[dtype](ctx, "EnCodec first, batch of 8", LayerGeometry(8, 1, 32, 1, 24000, 24000, 7, 1, 1, 3))
    measure[dtype](ctx, "Hyena", LayerGeometry(1, 768, 768, 768, 2048, 2048, 2048, 1, 1, 2047))
    measure[dtype](ctx, "batch of 32", LayerGeometry(32, 512, 512, 1, 3000, 3000, 3, 1, 1, 1))


def main() raises:
    """Times every type.

    Raises:
        If the device refuses.
    """
    var ctx = DeviceContext()
    print(ctx.name())
    comptime for dtype in [DType.float32, DType.bfloat16, DType.float64]:
        measure_all[dtype](ctx)
