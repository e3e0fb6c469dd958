"""Overlap-save on the GPU alone, in shares of a device copy: for tuning, without Python and without MAX models.

    mojo build --target-accelerator sm_90a -I src/maxconv benchmarks/mojo/bench_overlap_save_gpu.mojo -o bench

Every length of transform is timed for every number of taps that leaves it a hop of at least an eighth. Transforms of
2^18 points and more are timed with workspaces of several sizes. With the argument "layers" it times causal layers of a
filter for each channel alone, transforms of the filters included: as blocks of every length, and row by row, in half
precision as precision="fast" has them, too.
"""

from std.sys import argv
from max.gpu.host import DeviceBuffer, DeviceContext

from _ops.kernels.overlap_save_gpu import overlap_save_gpu, plan_length_gpu, prepare_plan_gpu
from _ops.kernels.overlap_save_long_gpu import overlap_save_long_gpu, prepare_plan_long_gpu
from _ops.kernels.overlap_save_parts_gpu import (
    overlap_save_parts_gpu,
    plan_length_parts_gpu,
    prepare_plan_parts_gpu,
)
from _ops.kernels.overlap_save_rows_gpu import overlap_save_rows_gpu, workspace_length_rows_gpu
from _ops.shared.accumulate import accum_dtype
from _ops.shared.block_pair import hop_length
from _ops.shared.border import OMIT, Border
from _ops.shared.epilogue import NONE, Epilogue
from _ops.shared.fft_columns import LONGEST, SHORTEST, plan_length_long_gpu
from _ops.shared.fft_parts import PARTS_BLOCK
from _ops.shared.fft_points import SMALLEST_SIZE
from _ops.shared.geometry import Geometry
from _ops.shared.tuning_gpu import BLOCK_PAIR_LONGEST_BLOCK as LONGEST_BLOCK

comptime SAMPLES = 1 << 26
"""N: 256 MB of float32, more than any cache holds."""

comptime ROWS = 1024
"""Signals of 65536 samples, where the same are many."""

comptime LAUNCHES = 20
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


def median(var times: List[Float64]) -> Float64:
    """Picks the middle value.

    Args:
        times: Timings, an odd number of them.

    Returns:
        The median.
    """
    sort(times)
    return times[len(times) // 2]


def measure[
    dtype: DType
](
    ctx: DeviceContext,
    x: DeviceBuffer[dtype],
    y: DeviceBuffer[dtype],
    taps: Int,
    nfft: Int,
    rows: Int,
    pad_left: Int,
    copying: Float64,
    matrices: Int = 1,
) raises:
    """Times one configuration and prints a line.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        x: SAMPLES elements.
        y: As many.
        taps: K.
        nfft: Length of the transform.
        rows: Into how many signals x is cut.
        pad_left: Where windows start.
        copying: Microseconds of a device copy of x to y.
        matrices: Pairs of blocks that a long transform has under way.

    Raises:
        If the device refuses.
    """
    comptime ACC = accum_dtype[dtype]()
    var samples = SAMPLES // rows
    var k = make_noise[dtype](ctx, taps)
    var is_long = nfft >= SHORTEST
    var length = plan_length_long_gpu(nfft, 1) if is_long else plan_length_gpu(nfft, 1)
    if nfft == PARTS_BLOCK:
        length = plan_length_parts_gpu(1)
    var plan = ctx.enqueue_create_buffer[ACC](length)
    var workspace = ctx.enqueue_create_buffer[ACC](matrices * 2 * nfft if is_long else 1)
    var geometry = Geometry(
        samples=samples, taps=taps, outputs=samples, pad_left=pad_left, flip=True, rows=rows, tap_rows=1
    )
    var border = Border[dtype](OMIT, 0)
    var xp = pointer_to(x)
    var yp = pointer_to(y)
    var kp = pointer_to(k)
    var pp = pointer_to(plan)
    var wp = pointer_to(workspace)

    def prepare() raises {imm}:
        comptime if ACC == DType.float32:
            if nfft == PARTS_BLOCK:
                prepare_plan_parts_gpu[dtype](pp, kp, geometry, ctx)
                return
        if is_long:
            prepare_plan_long_gpu[dtype](pp, wp, kp, geometry, nfft, ctx)
        else:
            prepare_plan_gpu[dtype](pp, kp, geometry, nfft, ctx)

    def launch() raises {imm}:
        comptime if ACC == DType.float32:
            if nfft == PARTS_BLOCK:
                overlap_save_parts_gpu[dtype](yp, xp, pp, geometry, border, ctx)
                return
        if is_long:
            overlap_save_long_gpu[dtype](yp, xp, pp, wp, matrices, geometry, border, nfft, ctx)
        else:
            overlap_save_gpu[dtype](yp, xp, pp, geometry, border, nfft, ctx)

    _ = ctx.execution_time(prepare, 3)
    var preparing = Float64(ctx.execution_time(prepare, LAUNCHES)) / 1000 / LAUNCHES
    _ = ctx.execution_time(launch, 3)
    var times = List[Float64]()
    for _ in range(REPEATS):
        times.append(Float64(ctx.execution_time(launch, LAUNCHES)) / 1000 / LAUNCHES)
    var microseconds = median(times^)
    print(
        dtype,
        "K",
        taps,
        "nfft",
        nfft,
        "hop",
        hop_length(nfft, taps),
        "rows",
        rows,
        "pad",
        pad_left,
        ":",
        microseconds,
        "us, ratio to copy",
        microseconds / copying,
        "; plan",
        preparing,
        "us; matrices",
        matrices,
    )
    _ = k^
    _ = plan^
    _ = workspace^


def measure_layer[dtype: DType](ctx: DeviceContext, batch: Int, channels: Int, samples: Int, taps: Int) raises:
    """Times a causal layer of one filter a channel in every way, and prints a line for each.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        batch: B.
        channels: C.
        samples: N.
        taps: K.

    Raises:
        If the device refuses.
    """
    comptime ACC = accum_dtype[dtype]()
    var x = make_noise[dtype](ctx, batch * channels * samples)
    var y = ctx.enqueue_create_buffer[dtype](batch * channels * samples)
    var k = make_noise[dtype](ctx, channels * taps)
    var geometry = Geometry(
        samples=samples,
        taps=taps,
        outputs=samples,
        pad_left=taps - 1,
        flip=False,
        rows=batch * channels,
        tap_rows=channels,
    )
    var workspace = ctx.enqueue_create_buffer[ACC](
        max(plan_length_gpu(LONGEST_BLOCK, channels), workspace_length_rows_gpu[dtype](geometry))
    )
    var border = Border[dtype](OMIT, 0)
    var epilogue = Epilogue[dtype](
        Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(k.unsafe_ptr())), False, NONE
    )
    var xp = pointer_to(x)
    var yp = pointer_to(y)
    var kp = pointer_to(k)
    var wp = pointer_to[ACC](workspace)
    var copying = time_copy[dtype](ctx, x, y)
    print(dtype, "B", batch, "C", channels, "N", samples, "K", taps, ": copy", copying, "us")

    for fast in range(2 if dtype.is_half_float() else 1):

        def by_rows() raises {imm}:
            overlap_save_rows_gpu[dtype](yp, xp, kp, epilogue, wp, geometry, ctx, fast == 1)

        if samples <= LONGEST_BLOCK // 2:
            _ = ctx.execution_time(by_rows, 3)
            var rows_us = Float64(ctx.execution_time(by_rows, LAUNCHES)) / 1000 / LAUNCHES
            print("  by fast rows" if fast == 1 else "  by rows", rows_us, "us, copies", rows_us / copying)
    var nfft = SMALLEST_SIZE
    while nfft <= LONGEST_BLOCK:
        if taps <= nfft and hop_length(nfft, taps) >= nfft // 8:

            def by_blocks() raises {imm}:
                prepare_plan_gpu[dtype](wp, kp, geometry, nfft, ctx)
                overlap_save_gpu[dtype](yp, xp, wp, geometry, border, nfft, ctx)

            _ = ctx.execution_time(by_blocks, 3)
            var blocks_us = Float64(ctx.execution_time(by_blocks, LAUNCHES)) / 1000 / LAUNCHES
            print("  blocks of", nfft, blocks_us, "us, copies", blocks_us / copying)
        nfft *= 2
    _ = x^
    _ = y^
    _ = k^
    _ = workspace^


def time_copy[dtype: DType](ctx: DeviceContext, x: DeviceBuffer[dtype], y: DeviceBuffer[dtype]) raises -> Float64:
    """Times a device copy.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        x: Source.
        y: Destination.

    Returns:
        Microseconds.

    Raises:
        If the device refuses.
    """

    def copy() raises {imm}:
        ctx.enqueue_copy(y, x)

    _ = ctx.execution_time(copy, 3)
    var times = List[Float64]()
    for _ in range(REPEATS):
        times.append(Float64(ctx.execution_time(copy, LAUNCHES)) / 1000 / LAUNCHES)
    return median(times^)


def main() raises:
    """Times the taps that the project promises figures for, then other types and many rows.

    Raises:
        If the device refuses.
    """
    var ctx = DeviceContext()
    if len(argv()) > 1 and argv()[1] == "layers":
        for taps in [8192, 1024, 128]:
            measure_layer[DType.float32](ctx, 8, 768, 8192, taps)
        for length in [8192, 4096, 2560]:
            measure_layer[DType.bfloat16](ctx, 8, 768, length, length)
        measure_layer[DType.float16](ctx, 8, 768, 8192, 8192)
        for length in [4096, 2048, 1024, 512]:
            measure_layer[DType.float32](ctx, 8, 768, length, length)
            measure_layer[DType.float32](ctx, 8, 768, length, 64)
        measure_layer[DType.float32](ctx, 1, 768, 8192, 8192)
        measure_layer[DType.float32](ctx, 64, 32, 8192, 8192)
        measure_layer[DType.float64](ctx, 4, 768, 4096, 4096)
        return
    var x = make_noise[DType.float32](ctx, SAMPLES)
    var y = ctx.enqueue_create_buffer[DType.float32](SAMPLES)
    var copying = time_copy[DType.float32](ctx, x, y)
    print(ctx.name(), "copy of", SAMPLES, "float32:", copying, "us")
    for taps in [16, 64, 256, 1024, 4096, 8192]:
        var nfft = SMALLEST_SIZE
        while nfft <= LONGEST_BLOCK:
            if taps <= nfft and hop_length(nfft, taps) >= nfft // 8:
                measure[DType.float32](ctx, x, y, taps, nfft, 1, 0, copying)
                measure[DType.float32](ctx, x, y, taps, nfft, 1, taps // 2 - 1, copying)  # unaligned loads
                measure[DType.float32](ctx, x, y, taps, nfft, ROWS, taps // 2 - 1, copying)
            nfft *= 2
    for taps in [8192, 16384, 24576]:
        measure[DType.float32](ctx, x, y, taps, PARTS_BLOCK, 1, 0, copying)
        measure[DType.float32](ctx, x, y, taps, PARTS_BLOCK, 1, taps // 2 - 1, copying)
        measure[DType.float32](ctx, x, y, taps, PARTS_BLOCK, ROWS, taps // 2 - 1, copying)
    for taps in [4096, 16384, 100000, 1000000]:
        var nfft = SHORTEST
        while nfft <= LONGEST:
            if taps <= nfft and hop_length(nfft, taps) >= nfft // 4:
                for megabytes in [16, 64, 1024]:
                    var matrices = megabytes * (1 << 20) // (8 * nfft)
                    if matrices > 0:
                        measure[DType.float32](ctx, x, y, taps, nfft, 1, 0, copying, matrices)
            nfft *= 2
    _ = x^
    _ = y^
    var x16 = make_noise[DType.bfloat16](ctx, SAMPLES)
    var y16 = ctx.enqueue_create_buffer[DType.bfloat16](SAMPLES)
    var copying16 = time_copy[DType.bfloat16](ctx, x16, y16)
    measure[DType.bfloat16](ctx, x16, y16, 1024, 4096, 1, 0, copying16)
    _ = x16^
    _ = y16^
    var x64 = make_noise[DType.float64](ctx, SAMPLES)
    var y64 = ctx.enqueue_create_buffer[DType.float64](SAMPLES)
    var copying64 = time_copy[DType.float64](ctx, x64, y64)
    for nfft in [1024, 2048, 4096, 8192]:
        measure[DType.float64](ctx, x64, y64, 256, nfft, 1, 0, copying64)
    _ = x64^
    _ = y64^
