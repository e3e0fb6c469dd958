"""The direct GPU kernel alone, in shares of a device copy: for tuning, without Python and without MAX models.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_direct_gpu.mojo -o bench_direct_gpu
"""

from max.gpu.host import DeviceContext

from _ops.kernels.direct_gpu import direct_gpu
from _ops.shared.geometry import Geometry
from _ops.shared.tuning_gpu import DIRECT_CHUNK, DIRECT_THREADS, DIRECT_VECTORS_PER_THREAD

comptime SAMPLES = 1 << 26
"""N: 256 MB of float32, more than any cache holds."""

comptime LAUNCHES = 20
"""Launches that are timed together."""


def measure[dtype: DType](ctx: DeviceContext, taps: Int, pad_left: Int) raises -> Float64:
    """Times one configuration, on numbers that are neither zero nor denormal.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        taps: K.
        pad_left: Where windows start; not a multiple of 4 takes the path of shifted loads.

    Returns:
        Microseconds per launch.

    Raises:
        If the device refuses.
    """
    var x = ctx.enqueue_create_buffer[dtype](SAMPLES)
    var y = ctx.enqueue_create_buffer[dtype](SAMPLES)
    var k = ctx.enqueue_create_buffer[dtype](taps)
    ctx.enqueue_memset(x, Scalar[dtype](1.37))
    ctx.enqueue_memset(k, Scalar[dtype](0.73))
    var geometry = Geometry(SAMPLES, taps, SAMPLES, pad_left, False, 1, 1)
    var yp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(y.unsafe_ptr()))
    var xp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(x.unsafe_ptr()))
    var kp = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(k.unsafe_ptr()))

    def launch() raises {imm}:
        direct_gpu(yp, xp, kp, geometry, ctx)

    def copy() raises {imm}:
        ctx.enqueue_copy(y, x)

    _ = ctx.execution_time(launch, 3)
    var microseconds = Float64(ctx.execution_time(launch, LAUNCHES)) / 1000 / LAUNCHES
    _ = ctx.execution_time(copy, 3)
    var copying = Float64(ctx.execution_time(copy, LAUNCHES)) / 1000 / LAUNCHES
    print(
        dtype, "K", taps, "pad", pad_left, ":", microseconds, "us, copy", copying, "us, ratio", microseconds / copying
    )
    _ = x^
    _ = y^
    _ = k^
    return microseconds


def main() raises:
    """Times the taps that the project promises figures for.

    Raises:
        If the device refuses.
    """
    var ctx = DeviceContext()
    print(ctx.name(), "threads", DIRECT_THREADS, "vectors per thread", DIRECT_VECTORS_PER_THREAD, "chunk", DIRECT_CHUNK)
    for taps in [1, 4, 8, 16, 64, 256]:
        _ = measure[DType.float32](ctx, taps, 0)
        _ = measure[DType.float32](ctx, taps, (taps - 1) // 2)
    _ = measure[DType.bfloat16](ctx, 4, 0)
    _ = measure[DType.bfloat16](ctx, 16, 0)
    _ = measure[DType.float64](ctx, 4, 0)
    _ = measure[DType.float64](ctx, 64, 0)
