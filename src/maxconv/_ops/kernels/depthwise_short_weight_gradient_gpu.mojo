"""Weight gradient of a depthwise layer on GPU with few taps: rows from memory to registers by whole vectors.

Computes:   what depthwise_weight_gradient_gpu.mojo says, of stride and dilation 1; with it, if wanted, the gradient of the
            signals, which reads the same gradient of the outputs.
Algorithm:  a block has a filter and a part of its outputs, a thread every THREADS-th vector of them. The vectors of
            VECTORS turns, and those of the samples they meet, are loaded before the first is used; a thread has one
            sum for each place of the filter in registers. Sums of threads meet at the end, in a fixed order. For the
            signals' gradient a thread loads the vectors behind its outputs, too: its neighbour's, out of level 1.
Cost:       2*N*O*L_out*K flop; reads N*C*L and N*O*L_out elements: memory-bound. Of 12288 channels by 16384 samples, 4
            taps, bfloat16: 805 MB, so 192 us at 4.2 TB/s. Measured on an H200 (2026-11-23, by
            benchmarks/mojo/bench_depthwise_gpu.mojo): 184 us, where a copy takes 192; 16 taps 1.53 copies. Both
            gradients move 1.5 times as much: 289 us, 1.51 copies; of 8 signals of 4096 by 2048 102 us, 1.54.
Layout:     as in depthwise_weight_gradient_gpu.mojo; rows may begin anywhere.
Accuracy:   sums in accumulate.accum_dtype, in an order that sizes and the place of the rows in memory decide. Zeros stand
            outside x and y: weight_gradient_gpu.mojo does a sum that comes out as NaN again without them.
            Gradients of signals have the bits of depthwise_short_gpu.mojo.
Gate:       `is_short_gradient`; otherwise depthwise_weight_gradient_gpu.mojo. Both gradients: `has_both_gradients`.
Tuning:     DEPTHWISE_SHORT_WEIGHT_GRADIENT_* and DEPTHWISE_SHORT_BOTH_GRADIENTS_* of shared/tuning_gpu.mojo.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.utils.numerics import isnan
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx

from max.gpu.sync import barrier
import max.gpu.primitives.warp as warps

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES, AlignedRow, vector_width, widen
from ..shared.epilogue import NONE, Epilogue
from ..shared.history import History
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    DEPTHWISE_SHORT_BOTH_GRADIENTS_THREADS as BOTH_THREADS,
    DEPTHWISE_SHORT_BOTH_GRADIENTS_VECTORS as BOTH_VECTORS,
    DEPTHWISE_SHORT_WEIGHT_GRADIENT_THREADS as THREADS,
    DEPTHWISE_SHORT_WEIGHT_GRADIENT_VECTORS as VECTORS,
    WARP,
)
from .depthwise_gpu import mirrored
from .depthwise_short_gpu import (
    ANY_LEAD,
    FEW_TAPS,
    MANY_TAPS,
    MOST_TAPS,
    causal_lead,
    common_lead,
    compute_existing,
    is_short_depthwise,
    load_count,
    load_piece,
    place_count,
)


def is_short_gradient[dtype: DType](geometry: LayerGeometry) -> Bool:
    """Tells whether `depthwise_short_weight_gradient_gpu` can compute the weights of a layer.

    Parameters:
        dtype: Element type of x and y.

    Args:
        geometry: Sizes and shifts of a depthwise layer.

    Returns:
        True for few taps, of stride and dilation 1, and rows of two vectors or more.
    """
    # Vectors of a filter are counted in 32 bits.
    return is_short_depthwise[dtype](geometry, False) and geometry.batch * geometry.outputs < 1 << 31


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
    comptime for taps in [FEW_TAPS, MANY_TAPS, MOST_TAPS]:
        if place_count(geometry.taps) == taps:
            comptime CAUSAL = causal_lead[dtype, taps]()
            comptime for known in [CAUSAL, ANY_LEAD]:
                if known == (CAUSAL if common_lead[taps](x, y, geometry) == CAUSAL else ANY_LEAD):
                    parts = launch_sums[dtype, taps, known, False, VECTORS, THREADS](
                        partial, x, x, y, x, geometry, most_parts, queue
                    )
    return parts


def has_both_gradients[
    dtype: DType, //
](
    dx: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
) -> Bool:
    """Tells whether `depthwise_short_gradients_gpu` can compute the gradients of a layer.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        dx: Gradients of the signals.
        x: Signals.
        y: Gradients of the outputs.
        geometry: Sizes and shifts of a depthwise layer.

    Returns:
        True for causal layers of FEW_TAPS taps, one filter a channel, whose rows all begin at a multiple of VECTOR_BYTES.
    """
    var is_causal = geometry.pad_left == geometry.taps - 1 and geometry.length == geometry.outputs
    if geometry.taps != FEW_TAPS or not is_causal or geometry.out_channels != geometry.in_channels:
        return False
    var is_aligned = common_lead[FEW_TAPS](x, y, geometry) != ANY_LEAD and Int(dx) % VECTOR_BYTES == 0
    return is_aligned and is_short_gradient[dtype](geometry)


def depthwise_short_gradients_gpu[
    dtype: DType
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    dx: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    most_parts: Int,
    queue: Queue,
) raises -> Int:
    """Enqueues the computation of the signals' gradient and of partial sums of all weights.

    Parameters:
        dtype: Element type of dx, x, y and w.

    Args:
        partial: As for `depthwise_short_weight_gradient_gpu`.
        dx: Gradients of the signals on the device, shape (N, C, L); every one is written.
        x: Signals on the device, shape (N, C, L).
        y: Gradients of the outputs on the device, shape (N, C, L).
        w: Weights on the device, shape (C, K).
        geometry: Sizes and shifts, of which `has_both_gradients` is true.
        most_parts: As for `depthwise_short_weight_gradient_gpu`.
        queue: Where to enqueue it.

    Returns:
        How many parts there are; every element of them is written.

    Raises:
        If the launch is refused.
    """
    comptime CAUSAL = causal_lead[dtype, FEW_TAPS]()
    return launch_sums[dtype, FEW_TAPS, CAUSAL, True, BOTH_VECTORS, BOTH_THREADS](
        partial, dx, x, y, w, geometry, most_parts, queue
    )


def launch_sums[
    dtype: DType, taps: Int, lead: Int, both: Bool, vectors: Int, threads: Int
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    dx: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    most_parts: Int,
    queue: Queue,
) raises -> Int:
    """Enqueues the kernel.

    Parameters:
        dtype: As for `depthwise_short_weight_gradient_gpu`.
        taps: Places of a filter, at least K.
        lead: The `common_lead` of the layer, or ANY_LEAD.
        both: Whether dx is computed, too.
        vectors: Vectors of outputs that a thread loads at a time.
        threads: Threads of a block.

    Args:
        partial: As for `depthwise_short_weight_gradient_gpu`.
        dx: As for `depthwise_short_gradients_gpu`, if `both`.
        x: As for `depthwise_short_weight_gradient_gpu`.
        y: As for `depthwise_short_weight_gradient_gpu`.
        w: As for `depthwise_short_gradients_gpu`, if `both`.
        geometry: As for `depthwise_short_weight_gradient_gpu`.
        most_parts: As for `depthwise_short_weight_gradient_gpu`.
        queue: As for `depthwise_short_weight_gradient_gpu`.

    Returns:
        How many parts there are.

    Raises:
        If the launch is refused.
    """
    comptime WIDTH = vector_width[dtype]()
    var row_slots = ceildiv(geometry.outputs + (WIDTH - 1 if lead == ANY_LEAD else 0), WIDTH)
    var slots = geometry.batch * row_slots
    var parts = max(1, min(most_parts, ceildiv(slots, threads * vectors)))
    comptime kernel = sum_vectors[dtype, taps, lead, both, vectors, threads]
    queue.enqueue[kernel](
        partial,
        dx,
        x,
        y,
        w,
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
    dtype: DType, taps: Int, lead: Int, both: Bool, vectors: Int, threads: Int
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    dx: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    row_slots: UInt32,
    share: UInt32,
    parts: UInt32,
):
    """Kernel: one block sums one part of the outputs of one filter.

    Parameters:
        dtype: As for `depthwise_short_weight_gradient_gpu`.
        taps: As for `launch_sums`.
        lead: As for `launch_sums`.
        both: As for `launch_sums`.
        vectors: As for `launch_sums`.
        threads: As for `launch_sums`.

    Args:
        partial: As for `depthwise_short_weight_gradient_gpu`.
        dx: As for `launch_sums`.
        x: As for `depthwise_short_weight_gradient_gpu`.
        y: As for `depthwise_short_weight_gradient_gpu`.
        w: As for `launch_sums`.
        geometry: As for `depthwise_short_weight_gradient_gpu`.
        row_slots: Vectors of a row of y.
        share: Vectors of a part.
        parts: Blocks that share the outputs of a filter.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime BEFORE = taps - 1
    comptime LOADS = load_count[dtype, taps, lead]()
    var warp_sums = unsafe_stack_allocation[threads // WARP * taps, Scalar[ACC], address_space=AddressSpace.SHARED]()
    var thread = Int32(thread_idx.x)
    var part = UInt32(block_idx.x) % parts
    var o = Int(UInt32(block_idx.x) // parts)
    var channel = Int(UInt32(o) // (UInt32(geometry.out_channels) // UInt32(geometry.in_channels)))
    var end = min((part + 1) * share, UInt32(geometry.batch) * row_slots)
    var sums = Array[Scalar[ACC], taps](fill=0)
    comptime AHEAD = load_count[dtype, taps, 0]() if both else 1
    var filter = Array[Scalar[ACC], taps](fill=0)
    comptime if both:  # as the gradient of the signals meets it
        comptime for t in range(taps):
            filter[t] = w[unsafe_offset=o * taps + taps - 1 - t].cast[ACC]()
    var is_spoilt = False
    var turn = part * share + UInt32(thread)
    while turn < end:
        var windows = Array[Array[SIMD[dtype, WIDTH], LOADS], vectors](fill=Array[SIMD[dtype, WIDTH], LOADS](fill=0))
        var news = Array[Array[SIMD[dtype, WIDTH], AHEAD], vectors](fill=Array[SIMD[dtype, WIDTH], AHEAD](fill=0))
        comptime for vector in range(vectors):
            var slot = min(turn + UInt32(vector * threads), end - 1)
            var place = Place[dtype, taps, lead].of(x, y, geometry, o, channel, slot, row_slots)
            comptime for each in range(AHEAD):
                news[vector][each] = place.outputs.load(place.first + Int32(each * WIDTH))
            comptime for each in range(LOADS):
                windows[vector][each] = place.signal.load(place.begin + Int32(each * WIDTH))
        comptime for vector in range(vectors):
            var slot = turn + UInt32(vector * threads)
            var place = Place[dtype, taps, lead].of(x, y, geometry, o, channel, min(slot, end - 1), row_slots)
            # Zeros, not a branch around the sums: loads that only a branch uses are made in it, one after another.
            comptime if lead == ANY_LEAD:
                var first = place.first if slot < end else place.outputs.length
                if not place.outputs.has(first, Int32(WIDTH)):
                    news[vector][0] = load_piece(place.outputs, place.outputs.samples, 0, first)
            else:  # a vector lies in its row or beside it; a call that is never made would cost 40 registers
                if slot >= end:
                    news[vector][0] = 0
            if not place.signal.has(place.begin, Int32(LOADS * WIDTH)):
                comptime for each in range(LOADS):
                    var position = place.begin + Int32(each * WIDTH)
                    if position + Int32(WIDTH) <= 0 or position >= place.signal.length:
                        windows[vector][each] = 0
                    else:
                        comptime if lead == ANY_LEAD:
                            if not place.signal.has(position, Int32(WIDTH)):
                                windows[vector][each] = load_piece(place.signal, place.signal.samples, 0, position)
            var samples = widen[BEFORE + WIDTH, lead](windows[vector], place.offset)
            comptime for output in range(WIDTH):
                comptime for t in range(taps):
                    sums[t] = multiply_add(news[vector][0][output].cast[ACC](), samples[output + t], sums[t])
            comptime if both:
                if slot < end:
                    var spoils = store_signal_gradient(dx, geometry, place, o, news[vector], filter)
                    is_spoilt = is_spoilt or spoils
        turn += UInt32(vectors * threads)

    comptime if both:
        if is_spoilt:
            for slot in range(part * share + UInt32(thread), end, UInt32(threads)):
                sum_existing_gradients(
                    dx, y, w, geometry, o, Place[dtype, taps, lead].of(x, y, geometry, o, o, slot, row_slots)
                )

    comptime for t in range(taps):
        var sum = warps.lane_group_sum[num_lanes=WARP](sums[t])
        if thread % Int32(WARP) == 0:
            warp_sums[unsafe_offset=thread // Int32(WARP) * Int32(taps) + Int32(t)] = sum
    barrier()
    var tap = Int(thread) - taps + geometry.taps
    if thread < Int32(taps) and tap >= 0:
        var sum = Scalar[ACC](0)
        comptime for warp in range(threads // WARP):
            sum += warp_sums[unsafe_offset=Int32(warp * taps) + thread]
        partial[unsafe_offset=(Int(part) * geometry.out_channels + o) * geometry.taps + tap] = sum


@always_inline
def store_signal_gradient[
    dtype: DType, taps: Int, lead: Int, ahead: Int, //
](
    dx: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    place: Place[dtype, taps, lead],
    o: Int,
    loaded: Array[SIMD[dtype, vector_width[dtype]()], ahead],
    filter: Array[Scalar[accum_dtype[dtype]()], taps],
) -> Bool:
    """Computes a vector of the signals' gradient of a causal layer.

    Parameters:
        dtype: Element type.
        taps: As for `launch_sums`.
        lead: As for `launch_sums`.
        ahead: Vectors that are loaded.

    Args:
        dx: As for `launch_sums`.
        geometry: Sizes and shifts.
        place: Where the vector is.
        o: Channel.
        loaded: The gradients of outputs from there on; others where these lie behind the row.
        filter: The weights, the last first.

    Returns:
        Whether zeros that stand behind the row may have made NaN.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    var news = loaded.copy()
    var is_edge = not place.outputs.has(place.first, Int32(ahead * WIDTH))
    if is_edge:
        comptime for each in range(1, ahead):
            if not place.outputs.has(place.first + Int32(each * WIDTH), Int32(WIDTH)):
                news[each] = 0
    var values = widen[WIDTH + taps - 1, 0](news, 0)
    var sums = SIMD[ACC, WIDTH](0)
    comptime for t in range(taps):
        comptime for sample in range(WIDTH):
            sums[sample] = multiply_add(values[sample + t], filter[t], sums[sample])
    var row = dx.unsafe_offset(geometry.input_offset(place.row, o, 0))
    row.unsafe_store[alignment=VECTOR_BYTES](Int(place.first), sums.cast[dtype]())
    return is_edge and isnan(sums.reduce_add())


@no_inline
def sum_existing_gradients[
    dtype: DType, taps: Int, lead: Int, //
](
    dx: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    o: Int,
    place: Place[dtype, taps, lead],
):
    """Computes a vector of the signals' gradient again, from the terms that exist.

    Parameters:
        dtype: Element type.
        taps: As for `launch_sums`.
        lead: As for `launch_sums`.

    Args:
        dx: As for `launch_sums`.
        y: As for `launch_sums`.
        w: As for `launch_sums`.
        geometry: Sizes and shifts.
        o: Channel.
        place: Where the vector is.
    """
    var nothing = w.unsafe_origin_cast[MutUntrackedOrigin]()
    var numbers = Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(w))
    var channel = place.row * geometry.in_channels + o
    compute_existing(
        AlignedRow[dtype].of[False](dx.unsafe_offset(channel * geometry.length), geometry.length),
        y,
        w.unsafe_offset((o + 1) * taps - 1),
        Epilogue[dtype](nothing, False, NONE),
        mirrored(geometry),
        History[dtype](nothing, False, numbers, False),
        -1,
        channel,
        o,
        place.first,
        Int32(vector_width[dtype]()),
    )


@fieldwise_init
struct Place[dtype: DType, taps: Int, lead: Int](TrivialRegisterPassable):
    """A vector of outputs, and the samples that it meets.

    Parameters:
        dtype: Element type.
        taps: As for `launch_sums`.
        lead: As for `launch_sums`.
    """

    var row: Int
    """Which signal of the batch."""
    var signal: AlignedRow[Self.dtype]
    """The row of samples."""
    var outputs: AlignedRow[Self.dtype]
    """The row of outputs."""
    var first: Int32
    """The first output; it may lie before the row."""
    var begin: Int32
    """Where the first vector of samples begins."""
    var offset: Int32
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
        var signal = AlignedRow[Self.dtype].of[Self.lead == ANY_LEAD](samples, geometry.length)
        var values = y.unsafe_offset(geometry.output_offset(n, o, 0))
        var outputs = AlignedRow[Self.dtype].of[Self.lead == ANY_LEAD](values, geometry.outputs)
        var first = Int32(slot % row_slots) * Int32(WIDTH) - outputs.skew
        var oldest = first + Int32(geometry.taps - 1 - geometry.pad_left) - Int32(BEFORE)
        var offset = signal.before(oldest) if Self.lead == ANY_LEAD else Int32(Self.lead)
        return Self(n, signal, outputs, first, oldest - offset, offset)
