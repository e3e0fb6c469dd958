"""Grouped 1-D convolution and transposed convolution of layers on GPU: an implicit matrix product in register tiles.

Computes:   y[n, o, i] = sum_{c, j} x[n, c, i*stride + j*dilation - pad_left] * w[o, c, j] + bias[o], then an
            activation, over the channels c of o's group; terms outside x are left out. `transposed`: x from y, the sum
            over the same terms for each sample of x.
Algorithm:  weights (rows, C/G*K) times the matrix that im2col would make of the source, which is gathered DEPTH of its
            rows at a time into shared memory and never stored. While a thread multiplies one such chunk, its share of
            the next is on the way to its registers. A transposed sum is one product for all phases of the result, or
            one for each (layer_walk.mojo). Finished sums pass through shared memory, so that stores are coalesced and
            the activation is in the program once.
Cost:       2*N*O*L_out*C/G*K flop; each tile reads its weights, and its samples up to K times, from the L2 cache.
Layout:     x (N, C, L), w (O, C/G, K), y (N, O, L_out), contiguous, aligned to their own element only.
Tile:       row_tile result channels by column_tile results; two chunks of both operands in shared memory, for each
            split, 36 KB at most.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file; each result adds its terms one by one, channel
            by channel, taps in ascending order, then the bias: the bits of conv_cpu.mojo; in small tiles it is the
            sum of SPLITS such sums, over chunks in turn. A sum that comes out as NaN at an edge is done again without
            the zeros that stand outside the source.
Gate:       any sizes >= 1, batch and outputs may be 0; strides below 2^22. Half precision goes to conv_mma_gpu.mojo
            where the target has its tensor cores.
Tuning:     ConvTiles and CONV_* of shared/tuning_gpu.mojo.
Source:     register and shared-memory tiles of a matrix product as in Volkov and Demmel, Benchmarking GPUs to Tune
            Dense Linear Algebra, 2008; im2col as addresses as in Chetlur et al., cuDNN, 2014.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys.info import size_of
from std.utils.numerics import isnan
from max.gpu import block_idx, thread_idx
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES
from ..shared.epilogue import Epilogue
from ..shared.layer_geometry import LayerGeometry
from ..shared.layer_walk import LayerWalk, PhaseTaps, sum_existing
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    CONV_DEPTH as DEPTH,
    CONV_ENOUGH_BLOCKS as ENOUGH_BLOCKS,
    CONV_FEW_BLOCKS as FEW_BLOCKS,
    WARP,
    ConvTiles,
    Tile,
)


def count_blocks[transposed: Bool](tile: Tile, walk: LayerWalk[transposed]) -> Int:
    """Counts the blocks of a sum.

    Parameters:
        transposed: As for `LayerWalk`.

    Args:
        tile: Result channels and results that a block computes.
        walk: The sum.

    Returns:
        The size of the grid.
    """
    var tiles = ceildiv(walk.rows(), tile.rows) * ceildiv(walk.results(0), tile.columns)
    return walk.geometry.batch * walk.geometry.groups * walk.phases() * tiles


def conv_gpu[
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
        dtype: Element type of all arrays.
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
    comptime TILES = ConvTiles[dtype]
    var walk = LayerWalk[transposed](geometry)
    if walk.rows() <= TILES.VERY_FEW_ROWS.rows:
        launch[TILES.VERY_FEW_ROWS, 1](result, source, w, epilogue, walk, queue)
    elif count_blocks(TILES.MEDIUM, walk) < FEW_BLOCKS:
        launch[TILES.SMALL, TILES.SMALL_SPLITS](result, source, w, epilogue, walk, queue)
    elif walk.rows() <= TILES.FEW_ROWS.rows:
        launch[TILES.FEW_ROWS, 1](result, source, w, epilogue, walk, queue)
    elif walk.rows() > TILES.MEDIUM.rows and count_blocks(TILES.LARGE, walk) >= ENOUGH_BLOCKS:
        launch[TILES.LARGE, 1](result, source, w, epilogue, walk, queue)
    else:
        launch[TILES.MEDIUM, 1](result, source, w, epilogue, walk, queue)


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
        transposed: As for `conv_gpu`.
        tile: What a block computes.
        splits: Parts of the block, each of which sums some of the terms.

    Args:
        result: As for `conv_gpu`.
        source: As for `conv_gpu`.
        w: As for `conv_gpu`.
        epilogue: As for `conv_gpu`.
        walk: The sum.
        queue: As for `conv_gpu`.

    Raises:
        If the launch is refused.
    """
    var blocks = count_blocks(tile, walk)
    if blocks == 0:
        return  # a grid of no blocks is an error
    comptime kernel = compute_tile[dtype, transposed, tile, splits]
    queue.enqueue[kernel](
        result, source, w, epilogue, walk.geometry, grid_dim=blocks, block_dim=comptime (tile.threads() * splits)
    )


@fieldwise_init
struct Place(TrivialRegisterPassable):
    """Where a block's tile lies: the tiles of one source follow one another, all rows of a column first."""

    var signal: Int
    """Index n."""
    var group: Int
    """Which group."""
    var phase: Int
    """Which phase of the result."""
    var first_row: Int
    """First result channel, within its group."""
    var first_column: Int
    """First result, within its phase."""

    @staticmethod
    @always_inline
    def of_block[tile: Tile, transposed: Bool](walk: LayerWalk[transposed], block: Int) -> Place:
        """Finds the place of a block.

        Parameters:
            tile: What a block computes.
            transposed: As for `LayerWalk`.

        Args:
            walk: The sum.
            block: Index of the block.

        Returns:
            The place.
        """
        var row_tiles = ceildiv(walk.rows(), tile.rows)
        var column_tiles = ceildiv(walk.results(0), tile.columns)
        var rest = block // row_tiles
        var phases = rest // column_tiles
        var groups = phases // walk.phases()
        return Place(
            signal=groups // walk.geometry.groups,
            group=groups % walk.geometry.groups,
            phase=phases % walk.phases(),
            first_row=block % row_tiles * tile.rows,
            first_column=rest % column_tiles * tile.columns,
        )


@fieldwise_init
struct Cursor(TrivialRegisterPassable):
    """A place in the order of terms: channel by channel, taps ascending."""

    var channel: Int32
    """Source channel within its group."""
    var t: Int32
    """Tap of the phase."""

    @staticmethod
    @always_inline
    def at(term: Int32, taps: Int32) -> Cursor:
        """Finds a term.

        Args:
            term: Its index.
            taps: Taps of the phase, at least 1.

        Returns:
            Its place.
        """
        return Cursor(term // taps, term % taps)

    @always_inline
    def advance(mut self, by: Cursor, taps: Int32):
        """Moves on.

        Args:
            by: The place of the term as many terms behind the first.
            taps: Taps of the phase, at least 1.
        """
        self.channel += by.channel
        self.t += by.t
        if self.t >= taps:
            self.t -= taps
            self.channel += 1


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
        transposed: As for `conv_gpu`.
        tile: What a block computes.
        splits: As for `launch`.

    Args:
        result: As for `conv_gpu`.
        source: As for `conv_gpu`.
        w: As for `conv_gpu`.
        epilogue: As for `conv_gpu`.
        geometry: As for `conv_gpu`.

    Constraints:
        The tile divides into whole warps and vectors; its sums fit into shared memory in pieces.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime THREADS = tile.threads()
    comptime VECTOR = VECTOR_BYTES // size_of[ACC]()
    comptime WARPS = THREADS // WARP
    comptime ROW_VECTORS = tile.thread_rows // VECTOR
    comptime COLUMN_VECTORS = tile.thread_columns // VECTOR
    comptime THREAD_COLUMNS = tile.columns // tile.thread_columns
    comptime LOADED_WEIGHTS = tile.rows * DEPTH // THREADS
    # What threads load at once: forward, the terms of a row are neighbours in w; transposed, the rows of a term are.
    comptime WEIGHT_ROWS = tile.rows if transposed else THREADS // DEPTH
    comptime WEIGHT_TERMS = THREADS // WEIGHT_ROWS
    comptime LOADED_ROWS = DEPTH // WARPS
    comptime LOADED_COLUMNS = tile.columns // WARP
    comptime WEIGHTS_PITCH = tile.rows + VECTOR  # spreads the rows that a warp stores over the banks
    comptime CHUNK = DEPTH * (WEIGHTS_PITCH + tile.columns)
    comptime PIECE = tile.rows // ROW_VECTORS
    comptime assert THREADS % WARP == 0 and DEPTH % WARPS == 0 and tile.rows * DEPTH % THREADS == 0
    comptime assert THREADS % WEIGHT_ROWS == 0 and DEPTH % WEIGHT_TERMS == 0
    comptime assert PIECE * tile.columns <= 2 * CHUNK
    var shared = unsafe_stack_allocation[
        splits * 2 * CHUNK, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
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
    var lane = thread % WARP
    var warp = thread // WARP
    var terms = Int32(walk.source_channels() * taps.taps)
    var tap_count = Int32(max(1, taps.taps))
    var channels = source.unsafe_offset(
        (place.signal * walk.geometry.groups + place.group) * walk.source_channels() * walk.source_length()
    )
    var group_weights = w.unsafe_offset(walk.group_weights(place.group))

    var own = shared.unsafe_offset(part * Int32(2 * CHUNK))

    # A thread loads the weights of one term for some rows, or of one row for some; whole warps the samples of one term.
    var weight_row = thread % Int32(WEIGHT_ROWS) if transposed else thread // DEPTH
    var weight_column = thread // Int32(WEIGHT_ROWS) if transposed else thread % DEPTH
    var rows_left = Int32(min(walk.rows() - place.first_row, tile.rows)) - weight_row
    var row_weights = group_weights.unsafe_offset(walk.row_weights(place.first_row + Int(weight_row)))
    var weight_term = part * DEPTH + weight_column
    var weight_cursor = Cursor.at(weight_term, tap_count)
    var weight_step = Cursor.at(Int32(WEIGHT_TERMS), tap_count)
    var sample_term = part * DEPTH + warp
    var sample_cursor = Cursor.at(sample_term, tap_count)
    var warp_step = Cursor.at(Int32(WARPS), tap_count)
    var chunk_step = Cursor.at(Int32(splits * DEPTH), tap_count)
    var first_sample = place.first_column * walk.step() + taps.position
    var last_column = Int32(min(columns_left, tile.columns) - 1)

    var next_weights = Array[Scalar[dtype], LOADED_WEIGHTS](fill=0)
    var next_samples = Array[Scalar[dtype], LOADED_ROWS * LOADED_COLUMNS](fill=0)

    @always_inline
    def load_chunk() {mut}:
        var cursor = weight_cursor
        var weights_end = rows_left if weight_term < terms else Int32(0)
        comptime for i in range(LOADED_WEIGHTS):
            next_weights[i] = 0
            var at = Int(cursor.channel) * walk.channel_weights() + taps.tap(Int(cursor.t))
            comptime if transposed:
                if rows_left > 0 and weight_term + Int32(i * WEIGHT_TERMS) < terms:
                    next_weights[i] = row_weights[unsafe_offset=at]
                cursor.advance(weight_step, tap_count)
            else:
                if Int32(i * WEIGHT_ROWS) < weights_end:
                    next_weights[i] = row_weights[unsafe_offset=at + walk.row_weights(i * WEIGHT_ROWS)]
        weight_term += Int32(splits * DEPTH)
        weight_cursor.advance(chunk_step, tap_count)
        var row_cursor = sample_cursor
        comptime for row in range(LOADED_ROWS):
            var first = first_sample + Int(row_cursor.t) * taps.shift
            var here = channels.unsafe_offset(Int(row_cursor.channel) * walk.source_length() + first)
            # Places of the source relative to the first column's; clipped, so that 32 bits hold them.
            var begin = Int32(max(-first, 0) if first > -(1 << 30) else 1 << 30)
            var end = Int32(min(max(walk.source_length() - first, 0), 1 << 30))
            if sample_term + Int32(row * WARPS) >= terms:
                end = 0
            comptime for column in range(LOADED_COLUMNS):
                var at = min(lane + Int32(column * WARP), last_column) * Int32(walk.step())
                next_samples[row * LOADED_COLUMNS + column] = 0
                if begin <= at and at < end:
                    next_samples[row * LOADED_COLUMNS + column] = here[unsafe_offset=at]
            row_cursor.advance(warp_step, tap_count)
        sample_term += Int32(splits * DEPTH)
        sample_cursor.advance(chunk_step, tap_count)

    @always_inline
    def store_chunk(buffer: Int32) {mut}:
        var weights = own.unsafe_offset(buffer * Int32(CHUNK))
        var samples = weights.unsafe_offset(DEPTH * WEIGHTS_PITCH)
        comptime for i in range(LOADED_WEIGHTS):
            comptime next_term = i * WEIGHT_TERMS if transposed else 0
            comptime next_row = 0 if transposed else i * WEIGHT_ROWS
            var at = (weight_column + Int32(next_term)) * Int32(WEIGHTS_PITCH) + weight_row + Int32(next_row)
            weights[unsafe_offset=at] = next_weights[i].cast[ACC]()
        comptime for row in range(LOADED_ROWS):
            comptime for column in range(LOADED_COLUMNS):
                var at = (warp + Int32(row * WARPS)) * Int32(tile.columns) + lane + Int32(column * WARP)
                samples[unsafe_offset=at] = next_samples[row * LOADED_COLUMNS + column].cast[ACC]()

    # Vectors of rows and columns of a thread lie a part of the tile apart: a warp reads neighbouring vectors.
    var row_place = thread // Int32(THREAD_COLUMNS) * Int32(VECTOR)
    var column_place = thread % Int32(THREAD_COLUMNS) * Int32(VECTOR)
    comptime COLUMN_PART = THREAD_COLUMNS * VECTOR
    var sums = Array[SIMD[ACC, VECTOR], tile.thread_rows * COLUMN_VECTORS](fill=0)
    var chunks = ceildiv(terms, Int32(splits * DEPTH))  # of a part; terms that do not exist are zeros
    if chunks > 0:
        load_chunk()
        store_chunk(0)
    barrier()
    for chunk in range(chunks):
        if chunk + 1 < chunks:
            load_chunk()
        var weights = own.unsafe_offset(chunk % 2 * Int32(CHUNK))
        var samples = weights.unsafe_offset(DEPTH * WEIGHTS_PITCH)
        comptime for term in range(DEPTH):
            var columns = Array[SIMD[ACC, VECTOR], COLUMN_VECTORS](fill=0)
            comptime for v in range(COLUMN_VECTORS):
                columns[v] = samples.unsafe_load[width=VECTOR, alignment=VECTOR_BYTES](
                    Int32(term * tile.columns + v * COLUMN_PART) + column_place
                )
            comptime for u in range(ROW_VECTORS):
                var rows = weights.unsafe_load[width=VECTOR, alignment=VECTOR_BYTES](
                    Int32(term * WEIGHTS_PITCH + u * PIECE) + row_place
                )
                comptime for r in range(VECTOR):
                    comptime for v in range(COLUMN_VECTORS):
                        comptime index = (u * VECTOR + r) * COLUMN_VECTORS + v
                        sums[index] = multiply_add(columns[v], SIMD[ACC, VECTOR](rows[r]), sums[index])
        if chunk + 1 < chunks:
            store_chunk((chunk + 1) % 2)
        barrier()

    for piece in range(ROW_VECTORS):
        for turn in range(splits):  # the parts add their sums one after another
            comptime for u in range(ROW_VECTORS):
                if piece == u and Int(part) == turn:
                    comptime for r in range(VECTOR):
                        comptime for v in range(COLUMN_VECTORS):
                            var at = (row_place + Int32(r)) * Int32(tile.columns)
                            at += Int32(v * COLUMN_PART) + column_place
                            var values = sums[(u * VECTOR + r) * COLUMN_VECTORS + v]
                            if turn > 0:
                                values += shared.unsafe_load[width=VECTOR, alignment=VECTOR_BYTES](at)
                            shared.unsafe_store[alignment=VECTOR_BYTES](at, values)
            barrier()
        finish_rows[PIECE, tile.columns, THREADS * splits](
            result, channels, group_weights, shared, epilogue, walk, taps, place, place.first_row + piece * PIECE
        )
        barrier()


@always_inline
def finish_rows[
    dtype: DType, transposed: Bool, //, rows: Int, columns: Int, threads: Int
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    channels: Pointer[Scalar[dtype], MutAnyOrigin],
    group_weights: Pointer[Scalar[dtype], MutAnyOrigin],
    staged: Pointer[Scalar[accum_dtype[dtype]()], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    epilogue: Epilogue[dtype],
    walk: LayerWalk[transposed],
    taps: PhaseTaps,
    place: Place,
    first_row: Int,
):
    """Adds the bias to staged sums, activates, rounds and stores them.

    Parameters:
        dtype: Element type of all arrays.
        transposed: As for `conv_gpu`.
        rows: Staged result channels.
        columns: Results of each.
        threads: Threads of the block, which all call this.

    Args:
        result: The whole result.
        channels: The source channels of the group.
        group_weights: The weights of the group.
        staged: The sums, shape (rows, columns).
        epilogue: Bias and activation.
        walk: The sum.
        taps: The taps of the phase.
        place: Where the block's tile lies.
        first_row: The result channel of the first staged row, within its group.
    """
    var at = Int32(thread_idx.x)
    while at < Int32(rows * columns):
        var row = first_row + Int(at // Int32(columns))
        var m = place.first_column + Int(at % Int32(columns))
        var here = walk.place(row, m, place.phase)
        if row < walk.rows() and 0 <= here and here < walk.result_length():
            var sum = staged[unsafe_offset=at]
            if isnan(sum):
                var first = m * walk.step() + taps.position
                var last = first + (taps.taps - 1) * taps.shift
                if min(first, last) < 0 or max(first, last) >= walk.source_length():
                    var weights = group_weights.unsafe_offset(walk.row_weights(row))
                    sum = sum_existing(channels, weights, walk, taps, m)
            var channel = place.group * walk.channels() + walk.channel(row)
            var target = (place.signal * walk.geometry.groups * walk.channels() + channel) * walk.result_length()
            result[unsafe_offset=target + here] = epilogue.apply(channel, sum).cast[dtype]()
        at += Int32(threads)
