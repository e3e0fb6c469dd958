"""Weight gradient of a depthwise layer on GPU: every weight is a dot product of two rows.

Computes:   w[o, j] = sum_{n, i} y[n, o, i] * x[n, o // M, i*stride + j*dilation - pad_left], with M = O/C filters a
            channel; terms outside x are left out. With y the gradient of the outputs it is the weight gradient of
            conv1d; with x the gradient of the outputs and y the inputs, that of conv_transpose1d.
Algorithm:  a block has one filter, some of its taps and a part of all outputs. Of stride and dilation 1: TILE outputs
            and the samples they meet at a time in shared memory, widened; a thread multiplies RUN outputs by the
            window that TAPS taps see of them, in registers, and warps share taps and outputs. Else a thread an output,
            which reads samples through the level-1 cache. Sums of threads meet at the end, in a fixed order.
Cost:       2*N*O*L_out*K flop; reads N*C*L and N*O*L_out elements: memory-bound below K ~ 32. Of Mamba (1536 channels
            by 2048 samples, 4 taps) with 8 signals of bfloat16: 101 MB and 0.2 Gflop, so 24 us at 4.2 TB/s; several
            times that in fact, which is why depthwise_short_weight_gradient_gpu.mojo takes such layers.
Layout:     x (N, C, L), y (N, O, L_out), w (O, K) or `parts` of it; rows aligned to 16 bytes are read by vectors.
Accuracy:   sums in accumulate.accum_dtype, in an order that the sizes alone decide. No term outside x is multiplied.
Gate:       groups == in_channels.
Tuning:     DEPTHWISE_WEIGHT_GRADIENT_* of shared/tuning_gpu.mojo.
Source:     the sliding register window of direct_gpu.mojo, turned round.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys.info import size_of
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.sync import barrier
import max.gpu.primitives.warp as warps

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    DEPTHWISE_WEIGHT_GRADIENT_ENOUGH_BLOCKS as ENOUGH_BLOCKS,
    DEPTHWISE_WEIGHT_GRADIENT_LEAST_BLOCKS as LEAST_BLOCKS,
    DEPTHWISE_WEIGHT_GRADIENT_RUN as RUN,
    DEPTHWISE_WEIGHT_GRADIENT_TAPS as TAPS,
    DEPTHWISE_WEIGHT_GRADIENT_THREADS as THREADS,
    DEPTHWISE_WEIGHT_GRADIENT_TILE as TILE,
    WARP,
)
from .depthwise_short_weight_gradient_gpu import depthwise_short_weight_gradient_gpu, is_short_gradient

comptime WARPS = THREADS // WARP
"""Warps of a block, which share taps and outputs."""


@fieldwise_init
struct Division(TrivialRegisterPassable):
    """How the sums of a layer are divided among blocks and warps."""

    var is_dense: Bool
    """Whether outputs and taps are neighbours in x: stride and dilation are 1."""
    var is_aligned: Bool
    """Whether every row begins at a multiple of VECTOR_BYTES."""
    var lead: Int
    """Taps that do not exist before the first: where windows begin, vectors do."""
    var tap_blocks: Int
    """Blocks that share the taps of a filter."""
    var tap_warps: Int
    """Warps that share the taps of a block."""
    var row_tiles: Int
    """Tiles of a row of y."""
    var parts: Int
    """Blocks that share the outputs of a filter."""

    @staticmethod
    def of_layer(geometry: LayerGeometry, are_aligned: Bool, itemsize: Int) -> Division:
        """Divides a layer.

        Args:
            geometry: Sizes and shifts; not empty.
            are_aligned: Whether both arrays begin at a multiple of VECTOR_BYTES.
            itemsize: Bytes of an element.

        Returns:
            The division.
        """
        var is_dense = geometry.stride == 1 and geometry.dilation == 1
        var vector = VECTOR_BYTES // itemsize
        var is_aligned = are_aligned and geometry.length % vector == 0 and geometry.outputs % vector == 0
        var lead = -geometry.pad_left & (RUN - 1) if is_dense and is_aligned else 0
        var chunks = ceildiv(lead + geometry.taps, TAPS)
        var tap_blocks = ceildiv(chunks, WARPS)
        var row_tiles = ceildiv(geometry.outputs, TILE)
        var parts = min(max(1, geometry.batch * row_tiles), ceildiv(ENOUGH_BLOCKS, geometry.out_channels * tap_blocks))
        return Division(is_dense, is_aligned, lead, tap_blocks, ceildiv(chunks, tap_blocks), row_tiles, parts)


def depthwise_weight_gradient_parts(geometry: LayerGeometry) -> Int:
    """Counts the partial sums of each weight, aligned or not.

    Args:
        geometry: Sizes and shifts.

    Returns:
        At least as many as `depthwise_weight_gradient_gpu` makes.
    """
    return Division.of_layer(geometry, False, VECTOR_BYTES).parts


def depthwise_weight_gradient_gpu[
    dtype: DType
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    queue: Queue,
) raises -> Int:
    """Enqueues the computation of partial sums of all weights; returns before they are there.

    Parameters:
        dtype: Element type of x and y.

    Args:
        partial: Partial sums on the device, shape (parts, O, K) with at most as many parts as are counted beforehand.
        x: Signals on the device, shape (N, C, L).
        y: Outputs on the device, shape (N, O, L_out).
        geometry: Sizes and shifts.
        queue: Where to enqueue it.

    Returns:
        How many parts there are; every element of them is written.

    Raises:
        If the launch is refused.
    """
    if is_short_gradient[dtype](geometry):
        var most_parts = depthwise_weight_gradient_parts(geometry)
        return depthwise_short_weight_gradient_gpu[dtype](partial, x, y, geometry, most_parts, queue)
    var division = Division.of_layer(
        geometry, Int(x) % VECTOR_BYTES == 0 and Int(y) % VECTOR_BYTES == 0, size_of[dtype]()
    )
    var blocks = geometry.out_channels * division.parts * division.tap_blocks
    if division.is_dense:
        comptime kernel = sum_rows[dtype, True]
        queue.enqueue[kernel](partial, x, y, geometry, grid_dim=blocks, block_dim=THREADS)
    else:
        comptime kernel = sum_rows[dtype, False]
        queue.enqueue[kernel](partial, x, y, geometry, grid_dim=blocks, block_dim=THREADS)
    return division.parts


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS),
)
def sum_rows[
    dtype: DType, is_dense: Bool
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
):
    """Kernel: one block sums one part of the outputs, for some taps of one filter.

    Parameters:
        dtype: As for `depthwise_weight_gradient_gpu`.
        is_dense: As in `Division`.

    Args:
        partial: As for `depthwise_weight_gradient_gpu`.
        x: As for `depthwise_weight_gradient_gpu`.
        y: As for `depthwise_weight_gradient_gpu`.
        geometry: As for `depthwise_weight_gradient_gpu`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime VECTOR = VECTOR_BYTES // size_of[dtype]()
    comptime WINDOW = TILE + WARPS * TAPS + VECTOR + RUN if is_dense else RUN
    var window = unsafe_stack_allocation[
        WINDOW, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var staged_outputs = unsafe_stack_allocation[
        TILE if is_dense else RUN, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var warp_sums = unsafe_stack_allocation[WARPS * TAPS, Scalar[ACC], address_space=AddressSpace.SHARED]()
    var division = Division.of_layer(
        geometry, Int(x) % VECTOR_BYTES == 0 and Int(y) % VECTOR_BYTES == 0, size_of[dtype]()
    )
    var block = Int(block_idx.x)
    var tap_begin = block % division.tap_blocks * division.tap_warps * TAPS - division.lead
    var part = block // division.tap_blocks % division.parts
    var o = block // division.tap_blocks // division.parts
    var thread = Int32(thread_idx.x)
    var lane = thread % Int32(WARP)
    var tap_warps = Int32(division.tap_warps)
    var output_warps = Int32(WARPS) // tap_warps
    var warp_taps = thread // Int32(WARP) % tap_warps * Int32(TAPS)
    var output_warp = thread // Int32(WARP) // tap_warps
    var sums = Array[Scalar[ACC], TAPS](fill=0)

    var tiles = geometry.batch * division.row_tiles
    for tile in range(tiles * part // division.parts, tiles * (part + 1) // division.parts):
        var n = tile // division.row_tiles
        var tile_begin = tile % division.row_tiles * TILE
        var count = Int32(min(TILE, geometry.outputs - tile_begin))
        var samples = x.unsafe_offset(geometry.input_offset(n, o // geometry.group_out(), 0))
        var outputs = y.unsafe_offset(geometry.output_offset(n, o, 0))
        comptime if is_dense:
            var window_begin = geometry.position(tile_begin, tap_begin)
            var begin, end = existing(window_begin, geometry.length)
            if begin >= Int32(WINDOW) or end <= 0:
                continue  # no sample meets these taps here
            # Elements between the last boundary of a vector and the first sample: a multiple of RUN.
            var before = Int32(window_begin & (VECTOR - 1)) if division.is_aligned else Int32(0)
            var staged = before + count + tap_warps * Int32(TAPS) + Int32(RUN)
            barrier()  # slower threads still read the tile before
            var at = thread * Int32(VECTOR)
            while at < staged:
                var from_there = window_begin + Int(at - before)
                var vector = load_existing[VECTOR](samples, from_there, geometry.length, division.is_aligned)
                window.unsafe_store[alignment=VECTOR_BYTES](at, vector.cast[ACC]())
                at += Int32(THREADS * VECTOR)
            comptime for step in range(TILE // (THREADS * VECTOR)):
                at = thread * Int32(VECTOR) + Int32(step * THREADS * VECTOR)
                var vector = load_existing[VECTOR](outputs, tile_begin + Int(at), geometry.outputs, division.is_aligned)
                staged_outputs.unsafe_store[alignment=VECTOR_BYTES](at, vector.cast[ACC]())
            barrier()
            var run = (output_warp * Int32(WARP) + lane) * Int32(RUN)
            while run < count and output_warp < output_warps:
                var first = warp_taps + run
                var run_outputs = staged_outputs.unsafe_load[width=RUN, alignment=VECTOR_BYTES](run)
                var seen = Array[SIMD[ACC, RUN], (RUN + TAPS) // RUN](fill=0)
                comptime for vector in range((RUN + TAPS) // RUN):
                    seen[vector] = window.unsafe_load[width=RUN, alignment=VECTOR_BYTES](
                        before + first + Int32(vector * RUN)
                    )
                if begin <= first and first + Int32(RUN + TAPS) <= end and run + Int32(RUN) <= count:
                    comptime for output in range(RUN):
                        comptime for t in range(TAPS):
                            var sample = seen[(output + t) // RUN][(output + t) % RUN]
                            sums[t] = multiply_add(run_outputs[output], sample, sums[t])
                else:
                    comptime for output in range(RUN):
                        comptime for t in range(TAPS):
                            var place = first + Int32(output + t)
                            if begin <= place and place < end and run + Int32(output) < count:
                                var sample = seen[(output + t) // RUN][(output + t) % RUN]
                                sums[t] = multiply_add(run_outputs[output], sample, sums[t])
                run += output_warps * Int32(WARP * RUN)
        else:
            var i = output_warp * Int32(WARP) + lane
            while i < count and output_warp < output_warps:
                var output = outputs[unsafe_offset=tile_begin + Int(i)].cast[ACC]()
                var position = geometry.position(tile_begin + Int(i), tap_begin + Int(warp_taps))
                comptime for t in range(TAPS):
                    if 0 <= position and position < geometry.length:
                        sums[t] = multiply_add(output, samples[unsafe_offset=position].cast[ACC](), sums[t])
                    position += geometry.dilation
                i += output_warps * Int32(WARP)

    comptime for t in range(TAPS):
        var sum = warps.lane_group_sum[num_lanes=WARP](sums[t])
        if lane == 0 and output_warp < output_warps:
            warp_sums[unsafe_offset=output_warp * tap_warps * Int32(TAPS) + warp_taps + Int32(t)] = sum
    barrier()
    var tap = tap_begin + Int(thread)
    if thread < tap_warps * Int32(TAPS) and 0 <= tap and tap < geometry.taps:
        var sum = Scalar[ACC](0)
        for turn in range(output_warps):
            sum += warp_sums[unsafe_offset=turn * tap_warps * Int32(TAPS) + thread]
        partial[unsafe_offset=(part * geometry.out_channels + o) * geometry.taps + tap] = sum


@always_inline
def existing(window_begin: Int, length: Int) -> Tuple[Int32, Int32]:
    """Finds the part of a window that lies in a row.

    Args:
        window_begin: Position of the window's first element.
        length: Samples of the row.

    Returns:
        The first element and one past the last, clipped, so that 32 bits hold them.
    """
    comptime FAR = 1 << 30
    return Int32(min(max(-window_begin, 0), FAR)), Int32(max(min(length - window_begin, FAR), -FAR))


@always_inline
def load_existing[
    dtype: DType, //, width: Int
](row: Pointer[Scalar[dtype], MutAnyOrigin], at: Int, length: Int, is_aligned: Bool) -> SIMD[dtype, width]:
    """Reads neighbouring elements of a row.

    Parameters:
        dtype: Element type.
        width: How many.

    Args:
        row: The row.
        at: Index of the first; any integer.
        length: Elements of the row.
        is_aligned: Whether the row, and `at`, allow a vector access.

    Returns:
        The elements; zeros outside the row.
    """
    if is_aligned and at >= 0 and at + width <= length:
        return row.unsafe_load[width=width, alignment=VECTOR_BYTES, invariant=True](at)
    var vector = SIMD[dtype, width](0)
    comptime for each in range(width):
        if at + each >= 0 and at + each < length:
            vector[each] = row[unsafe_offset=at + each]
    return vector
