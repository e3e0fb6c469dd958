"""The direct GPU kernels alone, in shares of a device copy: for tuning, without Python and without MAX models.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_direct_gpu.mojo -o bench_direct_gpu
"""

from std.sys.info import size_of
from max.gpu.host import DeviceBuffer, DeviceContext

from _ops.kernels.direct_gpu import direct_gpu
from _ops.shared.geometry import Geometry
from _ops.shared.tuning_gpu import DIRECT_CHUNK, DIRECT_THREADS, DIRECT_VECTORS_PER_THREAD

comptime BYTES = 1 << 28
"""Of the signals: 2^26 samples of float32, more than any cache holds."""

comptime ROWS = 1024
"""Signals, where the same samples are many."""

comptime LAUNCHES = 10
"""Launches that are timed together."""

comptime REPEATS = 5
"""Timings, of which the median counts."""


def pointer_to[dtype: DType](buffer: DeviceBuffer[dtype]) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer without an origin of a buffer, which must outlive it.

    Parameters:
        dtype: Element type.

    Args:
        buffer: The buffer.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(buffer.unsafe_ptr()))


def make_noise[dtype: DType](ctx: DeviceContext, count: Int) raises -> DeviceBuffer[dtype]:
    """Fills a buffer on the device with pseudo-random numbers: constant ones draw less power and run faster.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        count: Elements.

    Returns:
        The buffer.

    Raises:
        If the device refuses.
    """
    var there = ctx.enqueue_create_buffer[dtype](count)
    var here = ctx.enqueue_create_host_buffer[dtype](count)
    ctx.synchronize()
    var state = UInt32(20261122)
    for i in range(count):
        state = state * 1664525 + 1013904223
        here[i] = (Float32(Int32(state >> 8)) / 8388608 - 1).cast[dtype]()
    ctx.enqueue_copy(there, here)
    ctx.synchronize()
    _ = here^
    return there^


def median_time[F: def() raises -> None](ctx: DeviceContext, launch: F) raises -> Float64:
    """Times a launch.

    Parameters:
        F: Type of the function.

    Args:
        ctx: The device.
        launch: Enqueues it.

    Returns:
        Microseconds.

    Raises:
        If the device refuses.
    """
    _ = ctx.execution_time(launch, 3)
    var times = List[Float64]()
    for _ in range(REPEATS):
        times.append(Float64(ctx.execution_time(launch, LAUNCHES)) / 1000 / LAUNCHES)
    sort(times)
    return times[len(times) // 2]


def measure[dtype: DType](ctx: DeviceContext, tap_counts: List[Int]) raises:
    """Times filters of one signal, whose windows begin with a vector and elsewhere, and of many signals.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        tap_counts: Numbers of taps.

    Raises:
        If the device refuses.
    """
    var count = BYTES // size_of[dtype]()
    var x = make_noise[dtype](ctx, count)
    var y = ctx.enqueue_create_buffer[dtype](count)
    var yp = pointer_to(y)
    var xp = pointer_to(x)

    def copy() raises {imm}:
        ctx.enqueue_copy(y, x)

    var copying = median_time(ctx, copy)
    print(dtype, "copy", copying, "us")
    for taps in tap_counts:
        var k = make_noise[dtype](ctx, taps)
        var kp = pointer_to(k)
        for shape in [(1, 0), (1, 1), (1, (taps - 1) // 2), (ROWS, (taps - 1) // 2)]:
            var samples = count // shape[0]
            var geometry = Geometry(samples, taps, samples, shape[1], False, shape[0], 1)

            def launch() raises {imm}:
                direct_gpu(yp, xp, kp, geometry, ctx)

            var time = median_time(ctx, launch)
            print(dtype, "K", taps, "rows", shape[0], "pad", shape[1], ":", time, "us, ratio to copy", time / copying)
        _ = k^
    _ = x^
    _ = y^


def main() raises:
    """Times the taps that the project promises figures for.

    Raises:
        If the device refuses.
    """
    var ctx = DeviceContext()
    print(ctx.name(), "threads", DIRECT_THREADS, "vectors per thread", DIRECT_VECTORS_PER_THREAD, "chunk", DIRECT_CHUNK)
    measure[DType.float32](ctx, [1, 4, 8, 16, 64, 256])
    measure[DType.bfloat16](ctx, [4, 8, 16])
    measure[DType.float16](ctx, [4, 8, 16])
    measure[DType.float64](ctx, [4, 8, 16, 64])
