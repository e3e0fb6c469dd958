"""Grouped 1-D convolution and transposed convolution of half-precision layers on the tensor cores of NVIDIA GPUs.

Computes:   what conv_gpu.mojo does, of float16 and bfloat16.
Algorithm:  the same implicit matrix product, with DEPTH terms a chunk as half-precision numbers in shared memory,
            either operand with its terms as neighbours: `ldmatrix` reads fragments, `mma.m16n8k16` multiplies them
            and adds in float32. A warp computes a part of the tile; the parts of a block share the chunks.
Cost:       2*N*O*L_out*C/G*K flop; each tile gathers its samples up to K times from the caches, two bytes at a time:
            that, not the tensor cores, is the limit.
Layout:     as conv_gpu.mojo.
Tile:       row_tile result channels by column_tile results; two chunks of both operands in shared memory, 41 KB at
            most.
Accuracy:   products are exact, sums in float32, 16 terms at a time in an order of the hardware's; rounded once, after
            bias and activation. A sum that comes out as NaN at an edge is done again, as in conv_gpu.mojo.
Gate:       `has_tensor_cores`; otherwise conv_gpu.
Tuning:     CONV_MMA_* of shared/tuning_gpu.mojo.
Source:     fragments as in the PTX ISA, section on mma.m16n8k16; im2col as addresses as in Chetlur et al., cuDNN, 2014.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.compute.mma import ld_matrix, mma
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype
from ..shared.aligned_row import VECTOR_BYTES
from ..shared.epilogue import Epilogue
from ..shared.layer_geometry import LayerGeometry
from ..shared.layer_walk import LayerWalk
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    CONV_ENOUGH_BLOCKS as ENOUGH_BLOCKS,
    CONV_FEW_BLOCKS as FEW_BLOCKS,
    CONV_MMA_DEPTH as DEPTH,
    CONV_MMA_FEW_ROWS as FEW_ROWS,
    CONV_MMA_LARGE as LARGE,
    CONV_MMA_LEAST_BLOCKS as LEAST_BLOCKS,
    CONV_MMA_MEDIUM as MEDIUM,
    CONV_MMA_SMALL as SMALL,
    CONV_SPLITS as SPLITS,
    WARP,
    Tile,
)
from .conv_gpu import Cursor, Place, count_blocks, finish_rows

comptime PITCH = DEPTH + 8
"""From one staged row to the next: five times 16 bytes, so that eight rows of a fragment lie in different banks."""

comptime RUN = VECTOR_BYTES // 2
"""Terms that a thread loads of a row or a column: 16 bytes of shared memory."""

comptime RUNS = DEPTH // RUN
"""Runs of a chunk."""


def conv_mma_gpu[
    dtype: DType, //, transposed: Bool
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    geometry: LayerGeometry,
    queue: Queue,
) raises:
    """Enqueues the computation of y from x, or of x from y; returns before it is there.

    Parameters:
        dtype: Element type of all arrays, float16 or bfloat16.
        transposed: False: the result is y. True: the result is x.

    Args:
        result: The array y, or x, on the device; every element is written.
        source: The array x, or y, on the device.
        w: Weights on the device, shape (O, C/G, K).
        epilogue: Bias and activation of the result.
        geometry: Sizes and shifts.
        queue: Where to enqueue it.

    Raises:
        If the launch is refused.
    """
    var walk = LayerWalk[transposed](geometry)
    if walk.rows() <= FEW_ROWS.rows:
        launch[FEW_ROWS, 1](result, source, w, epilogue, walk, queue)
    elif walk.rows() > MEDIUM.rows and count_blocks(LARGE, walk) >= ENOUGH_BLOCKS:
        launch[LARGE, 1](result, source, w, epilogue, walk, queue)
    elif count_blocks(MEDIUM, walk) < FEW_BLOCKS:
        launch[SMALL, SPLITS](result, source, w, epilogue, walk, queue)
    else:
        launch[MEDIUM, SPLITS // 2](result, source, w, epilogue, walk, queue)


def launch[
    dtype: DType, transposed: Bool, //, tile: Tile, splits: Int
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    walk: LayerWalk[transposed],
    queue: Queue,
) raises:
    """Enqueues the kernel for one tile.

    Parameters:
        dtype: Element type of all arrays.
        transposed: As for `conv_mma_gpu`.
        tile: What a block, and a warp, computes.
        splits: Parts of the block, each of which sums some of the terms.

    Args:
        result: As for `conv_mma_gpu`.
        source: As for `conv_mma_gpu`.
        w: As for `conv_mma_gpu`.
        epilogue: As for `conv_mma_gpu`.
        walk: The sum.
        queue: As for `conv_mma_gpu`.

    Raises:
        If the launch is refused.
    """
    var blocks = count_blocks(tile, walk)
    if blocks == 0:
        return  # a grid of no blocks is an error
    comptime kernel = compute_tile[dtype, transposed, tile, splits]
    queue.enqueue[kernel](
        result, source, w, epilogue, walk.geometry, grid_dim=blocks, block_dim=comptime (tile.threads() * WARP * splits)
    )


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(tile.threads() * WARP * splits)),
    `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS[tile, transposed]),
)
def compute_tile[
    dtype: DType, transposed: Bool, tile: Tile, splits: Int
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    geometry: LayerGeometry,
):
    """Kernel: one block computes one tile of one phase of the results of a group.

    Parameters:
        dtype: Element type of all arrays.
        transposed: As for `conv_mma_gpu`.
        tile: As for `launch`.
        splits: As for `launch`.

    Args:
        result: As for `conv_mma_gpu`.
        source: As for `conv_mma_gpu`.
        w: As for `conv_mma_gpu`.
        epilogue: As for `conv_mma_gpu`.
        geometry: As for `conv_mma_gpu`.

    Constraints:
        The tile divides into whole fragments; its sums fit into shared memory in pieces of 16 rows of a warp.
    """
    comptime THREADS = tile.threads() * WARP
    comptime WARP_COLUMNS = tile.columns // tile.thread_columns
    comptime ROW_PARTS = tile.rows // tile.thread_rows
    comptime ROW_FRAGMENTS = tile.thread_rows // 16
    comptime COLUMN_FRAGMENTS = tile.thread_columns // 8
    comptime WEIGHT_RUNS = ceildiv(tile.rows * RUNS, THREADS)
    comptime SAMPLE_RUNS = tile.columns * RUNS // THREADS
    comptime CHUNK = (tile.rows + tile.columns) * PITCH
    comptime PIECE = 16 * ROW_PARTS
    comptime assert tile.columns * RUNS % THREADS == 0 and THREADS % tile.columns == 0 and COLUMN_FRAGMENTS % 2 == 0
    comptime assert PIECE * tile.columns * 4 <= 2 * CHUNK * 2
    var shared = unsafe_stack_allocation[
        splits * 2 * CHUNK, Scalar[dtype], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()

    var walk = LayerWalk[transposed](geometry)
    var place = Place.of_block[tile](walk, Int(block_idx.x))
    var columns_left = walk.results(place.phase) - place.first_column
    if columns_left <= 0:
        return
    var taps = walk.phase_taps(place.phase)
    # Chunks go round the parts of the block; each has its own shared memory.
    var part = Int32(thread_idx.x) // Int32(THREADS)
    var thread = Int32(thread_idx.x) % Int32(THREADS)
    var own = shared.unsafe_offset(part * Int32(2 * CHUNK))
    var lane = thread % Int32(WARP)
    var warp = thread // Int32(WARP)
    var terms = Int32(walk.source_channels() * taps.taps)
    var tap_count = Int32(max(1, taps.taps))
    var channels = source.unsafe_offset(
        (place.signal * walk.geometry.groups + place.group) * walk.source_channels() * walk.source_length()
    )
    var group_weights = w.unsafe_offset(walk.group_weights(place.group))

    # A thread loads runs of terms: neighbouring threads those of one row's weights, or transposed those of neighbouring
    # rows, which lie side by side; and those of neighbouring columns.
    var rows_left = Int32(min(walk.rows() - place.first_row, tile.rows))
    var column = thread % Int32(tile.columns)
    var sample_run = thread // Int32(tile.columns)
    comptime COLUMN_THREADS = THREADS // tile.columns
    var first_sample = (
        place.first_column + min(Int(column), columns_left - 1)
    ) * walk.step() + taps.position  # columns behind the last repeat it
    # Forward, the terms of a row are neighbours in w.
    var are_aligned = not transposed and terms % Int32(RUN) == 0 and Int(w) % VECTOR_BYTES == 0
    var next_weights = Array[SIMD[dtype, RUN], WEIGHT_RUNS](fill=0)
    var next_samples = Array[SIMD[dtype, RUN], SAMPLE_RUNS](fill=0)

    @always_inline
    def weight_place(index: Int32) {imm} -> Tuple[Int32, Int32]:
        comptime if transposed:
            return index % Int32(tile.rows), index // Int32(tile.rows)
        return index // Int32(RUNS), index % Int32(RUNS)

    @always_inline
    def load_chunk(first_term: Int32) {mut}:
        comptime for run in range(WEIGHT_RUNS):
            var row, row_run = weight_place(thread + Int32(run * THREADS))
            var term = first_term + row_run * Int32(RUN)
            var weights = group_weights.unsafe_offset(walk.row_weights(place.first_row + Int(row)))
            next_weights[run] = 0
            if are_aligned:
                if row < rows_left and term < terms:
                    next_weights[run] = weights.unsafe_load[width=RUN, alignment=VECTOR_BYTES](Int(term))
            else:
                var cursor = Cursor.at(term, tap_count)
                comptime for each in range(RUN):
                    if row < rows_left and term + Int32(each) < terms:
                        next_weights[run][each] = weights[
                            unsafe_offset=Int(cursor.channel) * walk.channel_weights() + taps.tap(Int(cursor.t))
                        ]
                    cursor.advance(Cursor(0, 1), tap_count)
        comptime for run in range(SAMPLE_RUNS):
            var term = first_term + (sample_run + Int32(run * COLUMN_THREADS)) * Int32(RUN)
            var cursor = Cursor.at(term, tap_count)
            var at = first_sample + Int(cursor.t) * taps.shift
            var channel = channels.unsafe_offset(Int(cursor.channel) * walk.source_length())
            comptime for each in range(RUN):
                next_samples[run][each] = 0
                if term + Int32(each) < terms and at >= 0 and at < walk.source_length():
                    next_samples[run][each] = channel[unsafe_offset=at]
                at += taps.shift
                cursor.t += 1
                if cursor.t == tap_count:
                    cursor.t = 0
                    at = first_sample
                    channel = channel.unsafe_offset(walk.source_length())

    @always_inline
    def store_chunk(buffer: Int32) {mut}:
        var weights = own.unsafe_offset(buffer * Int32(CHUNK))
        var samples = weights.unsafe_offset(Int32(tile.rows * PITCH))
        comptime for run in range(WEIGHT_RUNS):
            var index = thread + Int32(run * THREADS)
            var row, row_run = weight_place(index)
            if tile.rows * RUNS % THREADS == 0 or index < Int32(tile.rows * RUNS):
                weights.unsafe_store[alignment=VECTOR_BYTES](
                    row * Int32(PITCH) + row_run * Int32(RUN), next_weights[run]
                )
        comptime for run in range(SAMPLE_RUNS):
            samples.unsafe_store[alignment=VECTOR_BYTES](
                column * Int32(PITCH) + (sample_run + Int32(run * COLUMN_THREADS)) * Int32(RUN), next_samples[run]
            )

    var warp_row = warp // Int32(WARP_COLUMNS) * Int32(tile.thread_rows)
    var warp_column = warp % Int32(WARP_COLUMNS) * Int32(tile.thread_columns)
    # The row of a fragment whose 16 bytes a lane fetches: of weights 8 rows, the 8 behind them, then the same for the
    # next 8 terms; of samples 8 columns, the same for the next 8 terms, then the 8 columns behind them.
    var row_place = (warp_row + lane % 16) * Int32(PITCH) + lane // 16 * 8
    var column_place = (warp_column + lane // 16 * 8 + lane % 8) * Int32(PITCH) + lane // 8 % 2 * 8
    var sums = Array[SIMD[DType.float32, 4], ROW_FRAGMENTS * COLUMN_FRAGMENTS](fill=0)
    var chunks = ceildiv(terms, Int32(splits * DEPTH))  # of a part; terms that do not exist are zeros
    if chunks > 0:
        load_chunk(part * Int32(DEPTH))
        store_chunk(0)
    barrier()
    for chunk in range(chunks):
        if chunk + 1 < chunks:
            load_chunk(((chunk + 1) * Int32(splits) + part) * Int32(DEPTH))
        var weights = own.unsafe_offset(chunk % 2 * Int32(CHUNK))
        var samples = weights.unsafe_offset(Int32(tile.rows * PITCH))
        comptime for step in range(DEPTH // 16):
            var columns = Array[SIMD[dtype, 8], COLUMN_FRAGMENTS // 2](fill=0)
            comptime for v in range(COLUMN_FRAGMENTS // 2):
                columns[v] = ld_matrix[8](samples.unsafe_offset(column_place + Int32(v * 16 * PITCH + step * 16)))
            comptime for u in range(ROW_FRAGMENTS):
                var rows = ld_matrix[8](weights.unsafe_offset(row_place + Int32(u * 16 * PITCH + step * 16)))
                comptime for v in range(COLUMN_FRAGMENTS):
                    comptime index = u * COLUMN_FRAGMENTS + v
                    mma(sums[index], rows, columns[v // 2].slice[4, offset=v % 2 * 4](), sums[index])
        if chunk + 1 < chunks:
            store_chunk((chunk + 1) % 2)
        barrier()

    # A piece: the same 16 rows of every warp. A lane has two neighbours in row lane // 4 and two in the row 8 below.
    comptime ACC = accum_dtype[dtype]()
    var staged = shared.unsafe_bitcast[Scalar[ACC]]()
    for piece in range(ROW_FRAGMENTS):
        for turn in range(splits):  # the parts add their sums one after another
            comptime for u in range(ROW_FRAGMENTS):
                if piece == u and Int(part) == turn:
                    comptime for v in range(COLUMN_FRAGMENTS):
                        var at = (warp // Int32(WARP_COLUMNS) * 16 + lane // 4) * Int32(tile.columns)
                        at += warp_column + Int32(v * 8) + lane % 4 * 2
                        comptime for half in range(2):
                            var two = sums[u * COLUMN_FRAGMENTS + v].slice[2, offset=2 * half]().cast[ACC]()
                            if turn > 0:
                                two += staged.unsafe_load[width=2, alignment=8](at)
                            staged.unsafe_store[alignment=8](at, two)
                            at += Int32(8 * tile.columns)
            barrier()
        for row_part in range(ROW_PARTS):
            finish_rows[16, tile.columns, THREADS * splits](
                result,
                channels,
                group_weights,
                staged.unsafe_offset(row_part * 16 * tile.columns),
                epilogue,
                walk,
                taps,
                place,
                place.first_row + row_part * tile.thread_rows + piece * 16,
            )
        barrier()
