"""Polyphase FIR on GPU, the plain way: a thread for an output, or a warp where the taps are many.

Computes:   what polyphase_gpu.mojo does, for any sizes: the outputs that its panels leave, at the ends of a signal that
            goes on, or all of a call that does not fit them.
Algorithm:  each thread adds the terms of its output, or every 32nd of those of OUTPUTS neighbours; samples and taps
            come by way of the cache. Neighbours of one phase (up = 1) share each tap that is read.
Cost:       2*ceil(K/up) flop an output, two loads for each term: 10 and more times the time of the panels. Measured by
            benchmarks/mojo/bench_polyphase_gpu.mojo on an H200 (2026-11-23): 1/100 with 2001 taps 850 us, 6.5 copies of
            its bytes; 5712 us when each term was read by itself.
Layout:     as in polyphase_gpu.mojo.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file, in rising q by one thread; a warp's 32 sums are
            added up in a tree.
Gate:       none.
Tuning:     POLYPHASE_OUTPUTS_* of shared/tuning_gpu.mojo.
Source:     phases as in Crochiere and Rabiner, Multirate Digital Signal Processing, 1983.
"""

from std.math import ceildiv
from std.utils import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.primitives import warp

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.border import OMIT
from ..shared.extension import Extension
from ..shared.polyphase_geometry import PolyphaseGeometry
from ..shared.tuning_gpu import (
    POLYPHASE_OUTPUTS_BATCH as BATCH,
    POLYPHASE_OUTPUTS_MAX_BLOCKS as MAX_BLOCKS,
    POLYPHASE_OUTPUTS_OUTPUTS as OUTPUTS,
    POLYPHASE_OUTPUTS_TERMS as TERMS,
    POLYPHASE_OUTPUTS_WARPS as WARPS,
    WARP,
)

comptime THREADS = WARPS * WARP
"""Threads of a block."""


def launch_outputs[
    dtype: DType, //, lanes: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    extension: Extension[dtype],
    head: Int,
    tail: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues `compute_outputs`.

    Parameters:
        dtype: Element type of all three arrays.
        lanes: Threads of an output.

    Args:
        y: Outputs on the device.
        x: Signals on the device.
        h: Taps on the device.
        geometry: Sizes, rates and shifts.
        extension: What stands beyond the ends of each signal.
        head: The first outputs of each row, which are computed.
        tail: The first of the last outputs, which are computed too.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    comptime kernel = compute_outputs[dtype, lanes]
    comptime EACH = OUTPUTS if lanes > 1 else 1
    var wanted = geometry.rows * ceildiv(head + geometry.outputs - tail, EACH)
    if wanted == 0:
        return
    ctx.enqueue_function[kernel](
        y,
        x,
        h,
        extension.value,
        Int64(geometry.samples),
        Int64(geometry.outputs),
        Int64(geometry.start),
        Int64(geometry.rows),
        Int64(head),
        Int64(tail),
        Int64(geometry.x_stride),
        Int64(geometry.y_stride),
        Int64(geometry.taps),
        Int64(geometry.up),
        Int64(geometry.down),
        Int32(extension.mode),
        grid_dim=min(ceildiv(wanted * lanes, THREADS), MAX_BLOCKS),
        block_dim=THREADS,
    )


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)))
def compute_outputs[
    dtype: DType, lanes: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    value: Scalar[dtype],
    samples: Int64,
    outputs: Int64,
    start: Int64,
    rows: Int64,
    head: Int64,
    tail: Int64,
    x_stride: Int64,
    y_stride: Int64,
    taps: Int64,
    up: Int64,
    down: Int64,
    mode: Int32,
):
    """Kernel: `lanes` threads compute some neighbouring outputs, and every so many further ones, by way of the cache.

    Parameters:
        dtype: Element type of all three arrays.
        lanes: Threads of an output: 1, or a warp.

    Args:
        y: Outputs.
        x: Signals.
        h: Taps.
        value: As in `Extension`.
        samples: N.
        outputs: L_out.
        start: First output on the output grid.
        rows: How many signals.
        head: The first outputs of each row, which are computed.
        tail: The first of the last outputs, which are computed too.
        x_stride: From one signal to the next.
        y_stride: From one row of outputs to the next.
        taps: K.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        mode: As in `Extension`.
    """
    comptime EACH = OUTPUTS if lanes > 1 else 1
    var extension = Extension[dtype](Int(mode), value)
    var thread = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    var lane = thread % lanes
    var place = thread // lanes
    var wanted = Int(head + outputs - tail)
    var groups = ceildiv(wanted, EACH)
    while place < Int(rows) * groups:
        var row = place // groups
        var x_row = x.unsafe_offset(row * Int(x_stride))
        var y_row = y.unsafe_offset(row * Int(y_stride))
        var first = (place - row * groups) * EACH
        var last = min(first + EACH, wanted) - 1
        first += 0 if first < Int(head) else Int(tail - head)
        last += 0 if last < Int(head) else Int(tail - head)
        var sums = SIMD[accum_dtype[dtype](), EACH](0)
        comptime if lanes > 1:
            var newest = (Int(start) + first) * Int(down)
            var is_whole = last - first == EACH - 1 and newest >= Int(taps) - 1
            if up == 1 and extension.omits() and is_whole and newest + (EACH - 1) * Int(down) < Int(samples):
                sums = sum_neighbours[lanes, EACH](x_row.unsafe_offset(newest), h, Int(taps), Int(down), lane)
                comptime for each in range(EACH):
                    sums[each] = warp.lane_group_sum[num_lanes=lanes](sums[each])
                if lane == 0:
                    comptime for each in range(EACH):
                        y_row[unsafe_offset=first + each] = sums[each].cast[dtype]()
                last = first - 1
        for at in range(Int(last >= first) * EACH):
            var i = (place - row * groups) * EACH + at
            i += 0 if i < Int(head) else Int(tail - head)
            if i > last:
                break
            var sum = sum_terms[lanes](
                x_row, h, Int(samples), Int(taps), Int(up), Int(down), Int(start) + i, lane, extension
            )
            comptime if lanes > 1:
                sum = warp.lane_group_sum[num_lanes=lanes](sum)
            if lane == 0:
                y_row[unsafe_offset=i] = sum.cast[dtype]()
        place += Int(grid_dim.x) * (THREADS // lanes)


@always_inline
def sum_neighbours[
    dtype: DType, //, lanes: Int, count: Int
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int,
    down: Int,
    lane: Int,
) -> SIMD[accum_dtype[dtype](), count]:
    """Adds every so many terms of neighbouring outputs of one phase, all of which exist: a tap that is read serves all.

    Parameters:
        dtype: Element type.
        lanes: Of so many terms one is added.
        count: How many outputs.

    Args:
        x: The newest sample of the first output.
        h: Taps.
        taps: K.
        down: From one output's newest sample to the next one's.
        lane: The first of the terms.

    Returns:
        Their sums.
    """
    comptime ACC = accum_dtype[dtype]()
    var sums = SIMD[ACC, count](0)
    var newer = x.unsafe_offset(-lane)
    var tap = h.unsafe_offset(lane)
    var left = taps - lane
    while left > 0:
        var some = Array[SIMD[dtype, count], BATCH](fill=0)
        var these = Array[Scalar[dtype], BATCH](fill=0)
        comptime for k in range(BATCH):
            if left > k * lanes:
                these[k] = tap[unsafe_offset=k * lanes]
                comptime for each in range(count):
                    some[k][each] = newer[unsafe_offset=each * down - k * lanes]
        comptime for k in range(BATCH):
            if left > k * lanes:
                sums = multiply_add(some[k].cast[ACC](), SIMD[ACC, count](these[k].cast[ACC]()), sums)
        newer = newer.unsafe_offset(-BATCH * lanes)
        tap = tap.unsafe_offset(BATCH * lanes)
        left -= BATCH * lanes
    return sums


@no_inline
def sum_again[
    dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    taps: Int,
    up: Int,
    down: Int,
    m: Int,
) -> Scalar[dtype]:
    """Computes an output from its own terms alone. Not inlined: it is rare, and would take the registers of the rest.

    Parameters:
        dtype: Element type.

    Args:
        x: The row's signal.
        h: Taps.
        samples: N.
        taps: K.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        m: Index on the output grid.

    Returns:
        The output.
    """
    return sum_terms[1](x, h, samples, taps, up, down, m, 0, Extension[dtype](OMIT, 0)).cast[dtype]()


@always_inline
def sum_terms[
    dtype: DType, //, lanes: Int
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    taps: Int,
    up: Int,
    down: Int,
    m: Int,
    lane: Int,
    extension: Extension[dtype],
) -> Scalar[accum_dtype[dtype]()]:
    """Adds the terms of one output, or every so many of them.

    Parameters:
        dtype: Element type.
        lanes: Of so many terms one is added.

    Args:
        x: The row's signal.
        h: Taps.
        samples: N.
        taps: K.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        m: Index on the output grid.
        lane: The first of the terms.
        extension: What stands beyond the ends.

    Returns:
        Their sum.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime BATCH = TERMS if lanes > 1 else 1
    var newest = m * down // up
    var phase = m * down - newest * up
    var begin = 0
    var end = ceildiv(taps - phase, up) if phase < taps else 0
    if extension.omits():  # only taps that meet a sample: a term outside x is skipped, not multiplied by zero
        begin = max(0, newest - samples + 1)
        end = min(end, newest + 1)
    var sum = Scalar[ACC](0)
    var q = begin + lane
    if extension.omits():
        var newer = x.unsafe_offset(newest - q)
        var tap = h.unsafe_offset(phase + q * up)
        var step = lanes * up
        while q + (BATCH - 1) * lanes < end:
            var some = Array[Scalar[dtype], BATCH](fill=0)
            var these = Array[Scalar[dtype], BATCH](fill=0)
            comptime for k in range(BATCH):
                some[k] = newer[unsafe_offset=-k * lanes]
                these[k] = tap[]
                tap = tap.unsafe_offset(step)
            comptime for k in range(BATCH):
                sum = multiply_add(some[k].cast[ACC](), these[k].cast[ACC](), sum)
            newer = newer.unsafe_offset(-BATCH * lanes)
            q += BATCH * lanes
    while q < end:
        var sample = extension.sample(x, newest - q, samples).cast[ACC]()
        sum = multiply_add(sample, h[unsafe_offset=phase + q * up].cast[ACC](), sum)
        q += lanes
    return sum
