"""Weight gradient of a convolutional layer on GPU: every weight is a dot product of an output and an input channel.

Computes:   w[o, c, j] = sum_{n, i} y[n, o, i] * x[n, c, i*stride + j*dilation - pad_left] for the channels c of o's
            group; terms outside x are left out. With y the gradient of the outputs it is the weight gradient of
            conv1d; with x the gradient of the outputs and y the inputs, that of conv_transpose1d.
Algorithm:  a matrix product of y (rows o) and the matrix that im2col would make of x (columns (c, j)), both with their
            terms (n, i) as neighbours. A block computes a tile of weights from a part of the terms, DEPTH of them at a
            time in shared memory; while it multiplies one such chunk, the next is on the way to its registers. Half
            types take the tensor cores (`ldmatrix`, `mma.m16n8k16`) where the target has them; else a square of sums
            per thread.
Cost:       2*N*O*L_out*C/G*K flop; each tile gathers y and, for every tap, x from the caches, an element at a time:
            that is the limit of half types; of the others, two shared reads for a square's row and column.
Layout:     x (N, C, L), y (N, O, L_out), contiguous, aligned to their own element only; w (O, C/G, K) or `parts` of it.
Accuracy:   sums in accumulate.accum_dtype, in an order that the sizes alone decide; of half types 16 terms at a time
            in an order of the hardware's. Zeros stand for what is outside x: weight_gradient_gpu.mojo sees to NaN.
Gate:       none: any sizes >= 1, batch and outputs may be 0.
Tuning:     CONV_WEIGHT_GRADIENT_* of shared/tuning_gpu.mojo.
Source:     the shared-memory tile of a matrix product, CUDA C++ Programming Guide, section on shared memory; fragments
            as in the PTX ISA, section on mma.m16n8k16.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.compute.mma import ld_matrix, mma
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    CONV_WEIGHT_GRADIENT_DEPTH as DEPTH,
    CONV_WEIGHT_GRADIENT_ENOUGH_BLOCKS as ENOUGH_BLOCKS,
    CONV_WEIGHT_GRADIENT_FEW_ROWS as FEW_ROWS,
    CONV_WEIGHT_GRADIENT_LARGE as LARGE,
    CONV_WEIGHT_GRADIENT_LEAST_BLOCKS as LEAST_BLOCKS,
    CONV_WEIGHT_GRADIENT_LEAST_CHUNKS as LEAST_CHUNKS,
    CONV_WEIGHT_GRADIENT_MEDIUM as MEDIUM,
    CONV_WEIGHT_GRADIENT_SIDE as THREAD_SIDE,
    CONV_WEIGHT_GRADIENT_WARP_ROWS as WARP_ROWS,
    Tile,
    has_tensor_cores,
)

comptime THREADS = THREAD_SIDE * THREAD_SIDE
"""Threads of a block."""

comptime WARPS = THREADS // DEPTH
"""Warps of a block."""

comptime WARP_COLUMNS = WARPS // WARP_ROWS
"""Parts of a tile's columns, on the tensor cores."""

comptime NOWHERE = Int64(-1) << 62
"""A shift that leads outside every x."""


@always_inline
def count_blocks(tile: Tile, geometry: LayerGeometry) -> Int:
    """Counts the tiles of all weights.

    Args:
        tile: Output channels, and pairs of an input channel and a tap, that a block computes.
        geometry: Sizes and shifts.

    Returns:
        How many blocks one part of the terms takes.
    """
    var column_tiles = ceildiv(geometry.group_in() * geometry.taps, tile.columns)
    return geometry.groups * ceildiv(geometry.group_out(), tile.rows) * column_tiles


@always_inline
def count_parts(tile: Tile, geometry: LayerGeometry) -> Int:
    """Decides how many blocks share the terms of a tile.

    Args:
        tile: As for `count_blocks`.
        geometry: Sizes and shifts.

    Returns:
        At least 1.
    """
    var chunks = geometry.batch * ceildiv(geometry.outputs, DEPTH)
    return max(1, min(chunks // LEAST_CHUNKS, ceildiv(ENOUGH_BLOCKS, count_blocks(tile, geometry))))


def tile_of[dtype: DType](geometry: LayerGeometry) -> Tile:
    """Chooses the tile for a layer.

    Parameters:
        dtype: Element type of x and y.

    Args:
        geometry: Sizes and shifts.

    Returns:
        One of the three tiles.
    """
    if geometry.group_out() <= FEW_ROWS.rows:
        return FEW_ROWS
    var columns = geometry.group_in() * geometry.taps
    var are_many = geometry.group_out() > MEDIUM.rows and columns > MEDIUM.columns and dtype != DType.float64
    return (
        LARGE if are_many and count_blocks(LARGE, geometry) * count_parts(LARGE, geometry) >= ENOUGH_BLOCKS else MEDIUM
    )


def conv_weight_gradient_parts[dtype: DType](geometry: LayerGeometry) -> Int:
    """Counts the partial sums of each weight.

    Parameters:
        dtype: Element type of x and y.

    Args:
        geometry: Sizes and shifts.

    Returns:
        How many there are.
    """
    return count_parts(tile_of[dtype](geometry), geometry)


def conv_weight_gradient_gpu[
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
        partial: Partial sums on the device, shape (parts, O, C/G, K).
        x: Signals on the device, shape (N, C, L).
        y: Outputs on the device, shape (N, O, L_out).
        geometry: Sizes and shifts.
        queue: Where to enqueue it.

    Returns:
        How many parts there are; every element of them is written.

    Raises:
        If the launch is refused.
    """
    var tile = tile_of[dtype](geometry)
    if tile.rows == FEW_ROWS.rows:
        launch[FEW_ROWS](partial, x, y, geometry, queue)
    elif tile.rows == MEDIUM.rows:
        launch[MEDIUM](partial, x, y, geometry, queue)
    else:
        comptime if dtype != DType.float64:  # its sums would not fit into the registers
            launch[LARGE](partial, x, y, geometry, queue)
    return count_parts(tile, geometry)


def launch[
    dtype: DType, //, tile: Tile
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    queue: Queue,
) raises:
    """Enqueues the kernel for one tile.

    Parameters:
        dtype: As for `conv_weight_gradient_gpu`.
        tile: What a block computes.

    Args:
        partial: As for `conv_weight_gradient_gpu`.
        x: As for `conv_weight_gradient_gpu`.
        y: As for `conv_weight_gradient_gpu`.
        geometry: Sizes and shifts.
        queue: As for `conv_weight_gradient_gpu`.

    Raises:
        If the launch is refused.
    """
    comptime kernel = compute_weights[dtype, tile]
    var blocks = count_blocks(tile, geometry) * count_parts(tile, geometry)
    queue.enqueue[kernel](partial, x, y, geometry, grid_dim=blocks, block_dim=THREADS)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS[dtype, tile.rows]),
)
def compute_weights[
    dtype: DType, tile: Tile
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
):
    """Kernel: one block computes one tile of the weights of a group, from one part of the terms.

    Parameters:
        dtype: As for `conv_weight_gradient_gpu`.
        tile: What a block computes.

    Args:
        partial: As for `conv_weight_gradient_gpu`.
        x: As for `conv_weight_gradient_gpu`.
        y: As for `conv_weight_gradient_gpu`.
        geometry: As for `conv_weight_gradient_gpu`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime ON_TENSOR_CORES = has_tensor_cores[dtype]()
    comptime STAGED = dtype if ON_TENSOR_CORES else ACC
    # From one staged channel to the next: an odd number spreads what a warp reads over the banks; of half types five
    # times 16 bytes, for the eight rows of a fragment.
    comptime PITCH = DEPTH + 8 if ON_TENSOR_CORES else DEPTH + 1
    comptime LOADED_ROWS = tile.rows // WARPS
    comptime LOADED_COLUMNS = tile.columns // WARPS
    var outputs = unsafe_stack_allocation[
        tile.rows * PITCH, Scalar[STAGED], address_space=AddressSpace.SHARED, alignment=16
    ]()
    var samples = unsafe_stack_allocation[
        tile.columns * PITCH, Scalar[STAGED], address_space=AddressSpace.SHARED, alignment=16
    ]()
    var shifts = unsafe_stack_allocation[tile.columns, Int64, address_space=AddressSpace.SHARED]()
    var channels = unsafe_stack_allocation[tile.columns, Int64, address_space=AddressSpace.SHARED]()
    var columns = geometry.group_in() * geometry.taps
    var column_tiles = ceildiv(columns, tile.columns)
    var row_tiles = ceildiv(geometry.group_out(), tile.rows)
    var block = Int(block_idx.x)
    var first_column = block % column_tiles * tile.columns
    var first_row = block // column_tiles % row_tiles * tile.rows
    var group = block // column_tiles // row_tiles % geometry.groups
    var part = block // column_tiles // row_tiles // geometry.groups
    var thread = Int32(thread_idx.x)
    var lane = thread % Int32(DEPTH)
    var warp = thread // Int32(DEPTH)

    # Where the samples of a column are: computed once, as divisions cost more than a load.
    if thread < Int32(tile.columns):
        var column = first_column + Int(thread)
        shifts[unsafe_offset=thread] = Int64(geometry.position(0, column % geometry.taps))
        if column >= columns:
            shifts[unsafe_offset=thread] = NOWHERE
        channels[unsafe_offset=thread] = Int64(column // geometry.taps * geometry.length)
    barrier()

    var row_chunks = ceildiv(geometry.outputs, DEPTH)
    var chunks = geometry.batch * row_chunks
    var parts = count_parts(tile, geometry)
    var chunk = chunks * part // parts
    var end = chunks * (part + 1) // parts
    var next_n = chunk // max(1, row_chunks)
    var next_first = (chunk - next_n * row_chunks) * DEPTH
    var rows_left = Int32(min(geometry.group_out() - first_row, tile.rows))
    var row_length = geometry.outputs
    var length = Int64(geometry.length)
    var stride = geometry.stride
    var y_signal = geometry.out_channels * geometry.outputs
    var x_signal = geometry.in_channels * geometry.length
    var rows = y.unsafe_offset(geometry.output_offset(0, group * geometry.group_out() + first_row + Int(warp), 0))
    var group_samples = x.unsafe_offset(geometry.input_offset(0, group * geometry.group_in(), 0))
    var next_outputs = Array[Scalar[dtype], LOADED_ROWS](fill=0)
    var next_samples = Array[Scalar[dtype], LOADED_COLUMNS](fill=0)

    @always_inline
    def load_chunk() {mut}:
        var i = next_first + Int(lane)
        var exists = i < row_length
        var row = rows.unsafe_offset(next_n * y_signal + i)
        comptime for each in range(LOADED_ROWS):
            next_outputs[each] = 0
            if exists and warp + Int32(each * WARPS) < rows_left:
                next_outputs[each] = row[unsafe_offset=each * WARPS * row_length]
        var signal = group_samples.unsafe_offset(next_n * x_signal)
        var start = Int64(i * stride) if exists else NOWHERE
        comptime for each in range(LOADED_COLUMNS):
            var place = warp + Int32(each * WARPS)
            var at = start + shifts[unsafe_offset=place]
            next_samples[each] = 0
            if at >= 0 and at < length:
                next_samples[each] = signal[unsafe_offset=channels[unsafe_offset=place] + at]
        next_first += DEPTH
        if next_first >= row_length:
            next_first = 0
            next_n += 1

    var row_place = thread // Int32(THREAD_SIDE)
    var column_place = thread % Int32(THREAD_SIDE)
    comptime PER_ROW = tile.rows // THREAD_SIDE
    comptime PER_COLUMN = tile.columns // THREAD_SIDE
    comptime ROW_FRAGMENTS = tile.rows // WARP_ROWS // 16
    comptime COLUMN_FRAGMENTS = tile.columns // WARP_COLUMNS // 8
    var first_warp_row = warp // Int32(WARP_COLUMNS) * Int32(tile.rows // WARP_ROWS)
    var first_warp_column = warp % Int32(WARP_COLUMNS) * Int32(tile.columns // WARP_COLUMNS)
    var sums = Array[Scalar[ACC], 1 if ON_TENSOR_CORES else PER_ROW * PER_COLUMN](fill=0)
    var fragments = Array[SIMD[DType.float32, 4], ROW_FRAGMENTS * COLUMN_FRAGMENTS if ON_TENSOR_CORES else 1](fill=0)

    if chunk < end:
        load_chunk()
    while chunk < end:
        comptime for each in range(LOADED_ROWS):
            var at = (warp + Int32(each * WARPS)) * Int32(PITCH) + lane
            outputs[unsafe_offset=at] = next_outputs[each].cast[STAGED]()
        comptime for each in range(LOADED_COLUMNS):
            var at = (warp + Int32(each * WARPS)) * Int32(PITCH) + lane
            samples[unsafe_offset=at] = next_samples[each].cast[STAGED]()
        barrier()
        chunk += 1
        if chunk < end:
            load_chunk()
        comptime if ON_TENSOR_CORES:
            add_fragments[COLUMN_FRAGMENTS, PITCH](fragments, outputs, samples, first_warp_row, first_warp_column, lane)
        else:
            add_squares[PER_COLUMN, PITCH](sums, outputs, samples, row_place, column_place)
        barrier()  # the next outputs overwrite what slower threads still read

    @always_inline
    def store(row: Int32, column: Int32, sum: Scalar[ACC]) {imm}:
        if row < rows_left and first_column + Int(column) < columns:
            var o = part * geometry.out_channels + group * geometry.group_out() + first_row + Int(row)
            partial[unsafe_offset=o * columns + first_column + Int(column)] = sum

    comptime if ON_TENSOR_CORES:
        # A lane has two neighbours in row lane // 4 of a fragment, and two in the row 8 below.
        comptime for u in range(ROW_FRAGMENTS):
            comptime for v in range(COLUMN_FRAGMENTS):
                comptime for each in range(4):
                    var row = first_warp_row + Int32(u * 16 + each // 2 * 8) + lane // 4
                    var column = first_warp_column + Int32(v * 8 + each % 2) + lane % 4 * 2
                    store(row, column, fragments[u * COLUMN_FRAGMENTS + v][each].cast[ACC]())
    else:
        comptime for u in range(PER_ROW):
            comptime for v in range(PER_COLUMN):
                var row = row_place + Int32(u * THREAD_SIDE)
                store(row, column_place + Int32(v * THREAD_SIDE), sums[u * PER_COLUMN + v])


@always_inline
def add_fragments[
    dtype: DType, count: Int, //, columns: Int, pitch: Int
](
    mut fragments: Array[SIMD[DType.float32, 4], count],
    outputs: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    samples: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    first_row: Int32,
    first_column: Int32,
    lane: Int32,
):
    """Adds the products of a chunk to the sums of a warp, on the tensor cores.

    Parameters:
        dtype: Element type of the factors.
        count: Fragments of a warp.
        columns: How many of them lie side by side.
        pitch: From one staged channel to the next.

    Args:
        fragments: The sums, 16 by 8 of each.
        outputs: Staged channels of y.
        samples: Staged samples.
        first_row: The first of these channels that the warp takes.
        first_column: The first samples that it takes.
        lane: Index of the thread in its warp.
    """
    # The row of a fragment whose 16 bytes a lane fetches, as in conv_mma_gpu.mojo.
    var row_at = (first_row + lane % 16) * Int32(pitch) + lane // 16 * 8
    var column_at = (first_column + lane // 16 * 8 + lane % 8) * Int32(pitch) + lane // 8 % 2 * 8
    comptime for step in range(DEPTH // 16):
        var right = Array[SIMD[dtype, 8], columns // 2](fill=0)
        comptime for v in range(columns // 2):
            right[v] = ld_matrix[8](samples.unsafe_offset(column_at + Int32(v * 16 * pitch + step * 16)))
        comptime for u in range(count // columns):
            var left = ld_matrix[8](outputs.unsafe_offset(row_at + Int32(u * 16 * pitch + step * 16)))
            comptime for v in range(columns):
                comptime index = u * columns + v
                var four = right[v // 2].slice[4, offset=v % 2 * 4]()
                mma(fragments[index], left, four, fragments[index])


@always_inline
def add_squares[
    dtype: DType, acc: DType, count: Int, //, columns: Int, pitch: Int
](
    mut sums: Array[Scalar[acc], count],
    outputs: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    samples: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    row: Int32,
    column: Int32,
):
    """Adds the products of a chunk to the sums of a thread, THREAD_SIDE rows and columns apart.

    Parameters:
        dtype: Type of the factors, which is that of the sums.
        acc: Type of the sums.
        count: Sums of a thread.
        columns: How many of them lie side by side.
        pitch: From one staged channel to the next.

    Args:
        sums: The sums.
        outputs: Staged channels of y.
        samples: Staged samples.
        row: The first of these channels that the thread takes.
        column: The first samples that it takes.
    """
    comptime for term in range(DEPTH):
        var right = Array[Scalar[acc], columns](fill=0)
        comptime for v in range(columns):
            var at = (column + Int32(v * THREAD_SIDE)) * Int32(pitch) + Int32(term)
            right[v] = rebind[Scalar[acc]](samples[unsafe_offset=at])
        comptime for u in range(count // columns):
            var at = (row + Int32(u * THREAD_SIDE)) * Int32(pitch) + Int32(term)
            var left = rebind[Scalar[acc]](outputs[unsafe_offset=at])
            comptime for v in range(columns):
                sums[u * columns + v] = multiply_add(left, right[v], sums[u * columns + v])
