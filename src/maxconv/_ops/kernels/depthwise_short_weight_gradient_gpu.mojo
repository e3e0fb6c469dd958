"""Weight gradient of a depthwise layer on GPU with few taps: rows from memory to registers by whole vectors.

Computes:   what depthwise_weight_gradient_gpu.mojo says, of stride and dilation 1.
Algorithm:  a block has a filter and a part of its outputs, a thread every THREADS-th vector of them. The vectors of
            VECTORS turns, and those of the samples they meet, are loaded before the first is used; a thread has one
            sum for each place of the filter in registers. Sums of threads meet at the end, in a fixed order.
Cost:       2*N*O*L_out*K flop; reads N*C*L and N*O*L_out elements: memory-bound.
Layout:     as in depthwise_weight_gradient_gpu.mojo; rows may begin anywhere.
Accuracy:   sums in accumulate.accum_dtype, in an order that sizes and the place of the rows in memory decide. No term
            outside x is multiplied.
Gate:       `is_short_gradient`; otherwise depthwise_weight_gradient_gpu.mojo.
Tuning:     VECTORS, THREADS.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx

from max.gpu.sync import barrier
import max.gpu.primitives.warp as warps

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import AlignedRow, vector_width, widen
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from .depthwise_short_gpu import FEW_TAPS, MOST_TAPS, is_aligned_depthwise, is_short_depthwise

comptime THREADS = 128
"""Threads of a block."""

comptime WARP = 32
"""Threads of a warp."""

comptime VECTORS = 4
"""Vectors of outputs that a thread loads at a time."""


def is_short_gradient[dtype: DType](geometry: LayerGeometry) -> Bool:
    """Tells whether `depthwise_short_weight_gradient_gpu` can compute the weights of a layer.

    Parameters:
        dtype: Element type of x and y.

    Args:
        geometry: Sizes and shifts of a depthwise layer.

    Returns:
        True for few taps, of stride and dilation 1, and rows of two vectors or more.
    """
    var is_long = geometry.outputs >= 2 * vector_width[dtype]()
    # Vectors of a filter are counted in 32 bits.
    return is_long and is_short_depthwise[dtype](geometry, False) and geometry.batch * geometry.outputs < 1 << 31


def depthwise_short_weight_gradient_gpu[
    dtype: DType
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    most_parts: Int,
    queue: Queue,
) raises -> Int:
    """Enqueues the computation of partial sums of all weights; returns before they are there.

    Parameters:
        dtype: Element type of x and y.

    Args:
        partial: Partial sums on the device, shape (parts, O, K).
        x: Signals on the device, shape (N, C, L).
        y: Outputs on the device, shape (N, O, L_out).
        geometry: Sizes and shifts, of which `is_short_gradient` is true.
        most_parts: How many parts there may be, at least 1.
        queue: Where to enqueue it.

    Returns:
        How many parts there are; every element of them is written.

    Raises:
        If the launch is refused.
    """
    var parts = 0
    comptime for taps in [FEW_TAPS, MOST_TAPS]:
        if (geometry.taps <= FEW_TAPS) == (taps == FEW_TAPS):
            if is_aligned_depthwise(x, y, geometry):
                parts = launch_sums[dtype, taps, False, VECTORS, THREADS](partial, x, y, geometry, most_parts, queue)
            else:
                parts = launch_sums[dtype, taps, True, VECTORS, THREADS](partial, x, y, geometry, most_parts, queue)
    return parts


def launch_sums[
    dtype: DType, taps: Int, is_skewed: Bool, vectors: Int, threads: Int
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    most_parts: Int,
    queue: Queue,
) raises -> Int:
    """Enqueues the kernel.

    Parameters:
        dtype: As for `depthwise_short_weight_gradient_gpu`.
        taps: Places of a filter, at least K.
        is_skewed: False: the layer is known to be `is_aligned_depthwise`.
        vectors: Vectors of outputs that a thread loads at a time.
        threads: Threads of a block.

    Args:
        partial: As for `depthwise_short_weight_gradient_gpu`.
        x: As for `depthwise_short_weight_gradient_gpu`.
        y: As for `depthwise_short_weight_gradient_gpu`.
        geometry: As for `depthwise_short_weight_gradient_gpu`.
        most_parts: As for `depthwise_short_weight_gradient_gpu`.
        queue: As for `depthwise_short_weight_gradient_gpu`.

    Returns:
        How many parts there are.

    Raises:
        If the launch is refused.
    """
    comptime WIDTH = vector_width[dtype]()
    var row_slots = ceildiv(geometry.outputs + (WIDTH - 1 if is_skewed else 0), WIDTH)
    var slots = geometry.batch * row_slots
    var parts = min(most_parts, ceildiv(slots, threads * vectors))
    comptime kernel = sum_vectors[dtype, taps, is_skewed, vectors, threads]
    queue.enqueue[kernel](
        partial,
        x,
        y,
        geometry,
        UInt32(row_slots),
        UInt32(ceildiv(slots, parts)),
        UInt32(parts),
        grid_dim=geometry.out_channels * parts,
        block_dim=threads,
    )
    return parts


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads)))
def sum_vectors[
    dtype: DType, taps: Int, is_skewed: Bool, vectors: Int, threads: Int
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    row_slots: UInt32,
    share: UInt32,
    parts: UInt32,
):
    """Kernel: one block sums one part of the outputs of one filter.

    Parameters:
        dtype: As for `depthwise_short_weight_gradient_gpu`.
        taps: As for `launch_sums`.
        is_skewed: As for `launch_sums`.
        vectors: As for `launch_sums`.
        threads: As for `launch_sums`.

    Args:
        partial: As for `depthwise_short_weight_gradient_gpu`.
        x: As for `depthwise_short_weight_gradient_gpu`.
        y: As for `depthwise_short_weight_gradient_gpu`.
        geometry: As for `depthwise_short_weight_gradient_gpu`.
        row_slots: Vectors of a row of y.
        share: Vectors of a part.
        parts: Blocks that share the outputs of a filter.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime BEFORE = taps - 1
    comptime LEAD = -BEFORE & (WIDTH - 1)
    comptime LOADS = ceildiv((WIDTH - 1 if is_skewed else LEAD) + BEFORE + WIDTH, WIDTH)
    var warp_sums = unsafe_stack_allocation[threads // WARP * taps, Scalar[ACC], address_space=AddressSpace.SHARED]()
    var thread = Int32(thread_idx.x)
    var part = UInt32(block_idx.x) % parts
    var o = Int(UInt32(block_idx.x) // parts)
    var channel = Int(UInt32(o) // (UInt32(geometry.out_channels) // UInt32(geometry.in_channels)))
    var end = min((part + 1) * share, UInt32(geometry.batch) * row_slots)
    var sums = Array[Scalar[ACC], taps](fill=0)
    var turn = part * share + UInt32(thread)
    while turn < end:
        var windows = Array[Array[SIMD[dtype, WIDTH], LOADS], vectors](fill=Array[SIMD[dtype, WIDTH], LOADS](fill=0))
        var news = Array[SIMD[dtype, WIDTH], vectors](fill=0)
        comptime for vector in range(vectors):
            var slot = min(turn + UInt32(vector * threads), end - 1)
            var place = Place[dtype, taps, is_skewed].of(x, y, geometry, o, channel, slot, row_slots)
            news[vector] = place.outputs.load(place.first)
            comptime for each in range(LOADS):
                windows[vector][each] = place.signal.load(place.begin + Int32(each * WIDTH))
        comptime for vector in range(vectors):
            var slot = turn + UInt32(vector * threads)
            var place = Place[dtype, taps, is_skewed].of(x, y, geometry, o, channel, min(slot, end - 1), row_slots)
            var is_inside = place.outputs.has(place.first, Int32(WIDTH))
            is_inside = is_inside and place.signal.has(place.begin, Int32(LOADS * WIDTH))
            # Zeros, not a branch: loads that only a branch uses are made in it, one vector after another.
            var is_summed = is_inside and slot < end
            var samples = widen[BEFORE + WIDTH](windows[vector], place.lead)
            comptime for each in range(BEFORE + WIDTH):
                samples[each] = samples[each] if is_summed else 0
            comptime for output in range(WIDTH):
                var value = news[vector][output].cast[ACC]() if is_summed else 0
                comptime for t in range(taps):
                    sums[t] = multiply_add(value, samples[output + t], sums[t])
            if slot < end and not is_inside:
                for output in range(max(place.first, 0), min(place.first + Int32(WIDTH), place.outputs.length)):
                    var value = place.outputs.samples[unsafe_offset=Int(output)].cast[ACC]()
                    var oldest = place.begin + place.lead + output - place.first
                    comptime for t in range(taps):
                        if place.signal.has(oldest + Int32(t), 1):
                            var sample = place.signal.samples[unsafe_offset=Int(oldest) + t].cast[ACC]()
                            sums[t] = multiply_add(value, sample, sums[t])
        turn += UInt32(vectors * threads)

    comptime for t in range(taps):
        var sum = warps.sum(sums[t])
        if thread % Int32(WARP) == 0:
            warp_sums[unsafe_offset=thread // Int32(WARP) * Int32(taps) + Int32(t)] = sum
    barrier()
    var tap = Int(thread) - taps + geometry.taps
    if thread < Int32(taps) and tap >= 0:
        var sum = Scalar[ACC](0)
        comptime for warp in range(threads // WARP):
            sum += warp_sums[unsafe_offset=Int32(warp * taps) + thread]
        partial[unsafe_offset=(Int(part) * geometry.out_channels + o) * geometry.taps + tap] = sum


@fieldwise_init
struct Place[dtype: DType, taps: Int, is_skewed: Bool](TrivialRegisterPassable):
    """A vector of outputs, and the samples that it meets.

    Parameters:
        dtype: Element type.
        taps: As for `launch_sums`.
        is_skewed: As for `launch_sums`.
    """

    var signal: AlignedRow[Self.dtype]
    """The row of samples."""
    var outputs: AlignedRow[Self.dtype]
    """The row of outputs."""
    var first: Int32
    """The first output; it may lie before the row."""
    var begin: Int32
    """Where the first vector of samples begins."""
    var lead: Int32
    """Samples of that vector which no tap meets."""

    @staticmethod
    @always_inline
    def of(
        x: Pointer[Scalar[Self.dtype], MutAnyOrigin],
        y: Pointer[Scalar[Self.dtype], MutAnyOrigin],
        geometry: LayerGeometry,
        o: Int,
        channel: Int,
        slot: UInt32,
        row_slots: UInt32,
    ) -> Self:
        """Finds a vector.

        Args:
            x: Signals.
            y: Outputs.
            geometry: Sizes and shifts.
            o: Output channel.
            channel: Input channel.
            slot: Which vector of the channel, counted over all signals.
            row_slots: Vectors of a row.

        Returns:
            The place.
        """
        comptime WIDTH = vector_width[Self.dtype]()
        comptime BEFORE = Self.taps - 1
        var n = Int(slot // row_slots)
        var samples = x.unsafe_offset(geometry.input_offset(n, channel, 0))
        var signal = AlignedRow[Self.dtype].of[Self.is_skewed](samples, geometry.length)
        var values = y.unsafe_offset(geometry.output_offset(n, o, 0))
        var outputs = AlignedRow[Self.dtype].of[Self.is_skewed](values, geometry.outputs)
        var first = Int32(slot % row_slots) * Int32(WIDTH) - outputs.skew
        var oldest = first + Int32(geometry.taps - 1 - geometry.pad_left) - Int32(BEFORE)
        var lead = signal.before(oldest) if Self.is_skewed else Int32(-BEFORE & (WIDTH - 1))
        return Self(signal, outputs, first, oldest - lead, lead)
