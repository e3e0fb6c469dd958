"""Direct 1-D convolution down columns on CPU: blocks of rows and vectors of columns in registers, nothing transposed.

Computes:   y[o, i, c] = sum_j x[o, i + j - pad_left, c] * k[tap_index(j)], or * k[tap_index(j), c] with a filter per
            column; i in [0, L_out). `Border` says what x is beyond its ends.
Algorithm:  wide rows: BLOCK_ROWS output rows by BLOCK_VECTORS vectors stay in registers while the rows of x run by.
            The vectors of row s serve tap s of the first output row, tap s - 1 of the second and so on.
            Rows narrower than that: seen flat, y[p] = sum_j x[p + (j - pad_left)*inner] * k[tap_index(j)], so vectors
            run across the ends of rows; those of a tile lie PAIR rows apart, so that 9 loads feed 16 multiply-adds, as
            in direct_cpu.mojo. Only with one filter; else narrow rows are masked.
Cost:       2*outer*L_out*inner*K flop; reads x and writes y once if K rows of a column block fit CACHE_BYTES.
Layout:     x (outer, N, inner), k (K) or (K, inner), y (outer, L_out, inner), aligned to their own element only.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file, taps in the order of `nth_tap`: the same bits as
            direct_cpu.mojo gives each column. With OMIT, terms outside x are skipped, not multiplied by zero.
Gate:       none: any outer, N, inner, K, L_out >= 0 and any pad_left; a border other than OMIT needs N >= 1.
Tuning:     BLOCK_ROWS, BLOCK_VECTORS, CACHE_BYTES below; float32, one core of an AMD EPYC with AVX-512, 2026-11-22.
            256 columns: 87 GFLOP/s at K = 31, 108 at K = 128; 1024 columns, whose rows meet in the same lines of the
            cache: 81 and 80. 2 columns: 55 at K = 31, 110 at K = 129.
Tried:      `Border.index` called for each row of samples in place of a table, other blocks, every output row served
            alone where the rows of the block are not all met, and flat tiles of neighbouring vectors, each tap alone:
            all slower, the last two by far.
Source:     register blocking as for a matrix product (Goto and van de Geijn, Anatomy of High-Performance Matrix
            Multiplication, 2008), the steps skewed by row as in a systolic array.
"""

from std.math import ceildiv, iota
from std.sys.info import simd_width_of, size_of
from std.sys.intrinsics import masked_load, masked_store
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.border import Border
from ..shared.fft_plan import Elements
from ..shared.geometry import Geometry
from .direct_cpu import MULTIPLY_ADDS_PER_WORKER, PAIR_BYTES, nth_tap
from ..shared.fft_block import untracked

comptime BLOCK_ROWS = 4
"""Output rows per block: each vector of samples that is read serves as many multiply-adds. 3 or 8 are slower."""

comptime BLOCK_VECTORS = 4
"""Vectors of columns per block: with 4 rows 16 sums, which hide the latency of two FMA units."""

comptime FLAT_VECTORS = 8
"""Vectors of a flat tile: 8 independent sums, as in direct_cpu.mojo."""

comptime CACHE_BYTES = 1 << 18
"""Bytes of x that a column block of K rows may take: a quarter of a core's level-2 cache of 1 MB."""

comptime RowTable = Pointer[Int, MutUntrackedOrigin]
"""Indices of rows; who allocated them keeps them alive."""


@fieldwise_init
struct Columns[dtype: DType, per_column: Bool](TrivialRegisterPassable):
    """Signals and filters of a call, or of one of its outer indices.

    Parameters:
        dtype: Element type of all arrays.
        per_column: True: k (K, inner), a filter for each column. False: k (K).
    """

    var y: Elements[Self.dtype]
    """Outputs."""
    var x: Elements[Self.dtype]
    """Samples."""
    var k: Elements[Self.dtype]
    """Taps."""
    var geometry: Geometry
    """Sizes and shifts down the columns."""
    var inner: Int
    """Columns, that is elements of a row."""
    var border: Border[Self.dtype]
    """What lies above the first row and below the last."""

    @always_inline
    def outer(self, index: Int) -> Self:
        """Goes to one of several arrays (N, inner) that lie one behind the other.

        Args:
            index: Which one.

        Returns:
            The same call for it alone.
        """
        var moved = self
        moved.y = self.y.unsafe_offset(index * self.geometry.outputs * self.inner)
        moved.x = self.x.unsafe_offset(index * self.geometry.samples * self.inner)
        return moved

    @always_inline
    def tap[acc: DType, width: Int](self, j: Int, column: Int) -> SIMD[acc, width]:
        """Reads one tap for neighbouring columns.

        Parameters:
            acc: Accumulation type.
            width: How many columns; those behind the last are not read.

        Args:
            j: Position in the window.
            column: First column.

        Returns:
            The taps, widened.
        """
        var at = self.geometry.tap_index(j)
        comptime if not Self.per_column:
            return SIMD[acc, width](self.k[unsafe_offset=at].cast[acc]())
        else:
            return load_columns[width](self.k.unsafe_offset(at * self.inner), column, self.inner).cast[acc]()

    def first_step(self, first: Int, count: Int) -> Int:
        """Finds where to begin in the order of `nth_tap`, so that little is spent on rows that do not exist.

        Args:
            first: First output row.
            count: How many.

        Returns:
            The first tap of a whole block of the order; all before it meet no row.
        """
        comptime BLOCK = 2 * PAIR_BYTES // size_of[accum_dtype[Self.dtype]()]()
        if not self.border.omits():
            return 0
        return min(self.geometry.taps, max(0, self.geometry.first_tap(first + count - 1)) // BLOCK * BLOCK)

    def end_step(self, first: Int) -> Int:
        """Finds where to stop in the order of `nth_tap`.

        Args:
            first: First output row.

        Returns:
            One past the last tap of a whole block of the order, or K; all behind it meet no row.
        """
        comptime BLOCK = 2 * PAIR_BYTES // size_of[accum_dtype[Self.dtype]()]()
        if not self.border.omits():
            return self.geometry.taps
        return max(0, min(self.geometry.taps, ceildiv(self.geometry.end_tap(first), BLOCK) * BLOCK))


def columns_cpu[
    dtype: DType, per_column: Bool
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    inner: Int,
    border: Border[dtype],
    max_workers: Int,
):
    """Computes all outputs, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of all three arrays.
        per_column: Whether there is a filter for each column.

    Args:
        y: Outputs, shape (outer, L_out, inner); every one is written.
        x: Signals, shape (outer, N, inner).
        k: Taps, shape (K), or (K, inner) with a filter per column.
        geometry: Sizes and shifts; `rows` is outer, `tap_rows` is not used.
        inner: Columns.
        border: What lies beyond the ends of a column.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
    """
    comptime WIDTH = simd_width_of[accum_dtype[dtype]()]()
    comptime TILE = BLOCK_VECTORS * WIDTH
    comptime PAIR = PAIR_BYTES // size_of[accum_dtype[dtype]()]()
    var columns = Columns[dtype, per_column](untracked(y), untracked(x), untracked(k), geometry, inner, border)
    var is_flat = not per_column and inner < TILE
    # A unit of work is a flat tile, or BLOCK_ROWS rows of a column block, which come down one after the other.
    var fitting = CACHE_BYTES // (size_of[dtype]() * (geometry.taps + BLOCK_ROWS)) // TILE * TILE
    var block_columns = max(TILE, min(fitting, inner))
    var blocks = ceildiv(inner, block_columns)
    var row_blocks = ceildiv(geometry.outputs, BLOCK_ROWS)
    var units = blocks * row_blocks  # of one outer index
    var flat_tiles = PAIR // WIDTH * inner  # of FLAT_VECTORS * PAIR rows
    if is_flat:
        units = ceildiv(geometry.outputs, FLAT_VECTORS * PAIR) * flat_tiles
    var all_units = units * geometry.rows

    def compute_units(begin: Int, end: Int) {imm}:
        for unit in range(begin, end):
            var outer = unit // units
            var within = unit - outer * units
            comptime if not per_column:
                if is_flat:
                    var above = within // flat_tiles * FLAT_VECTORS * PAIR * inner
                    compute_flat_tile(columns.outer(outer), above + within % flat_tiles * WIDTH)
                    continue
            var block = within // row_blocks
            compute_rows(
                columns.outer(outer),
                (within - block * row_blocks) * BLOCK_ROWS,
                block * block_columns,
                min(inner, (block + 1) * block_columns),
            )

    var workers = min(geometry.multiply_adds() * inner // MULTIPLY_ADDS_PER_WORKER, all_units)
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)
    if workers <= 1 or max_workers == 1:
        compute_units(0, all_units)
        return

    def compute_share(worker: Int) {imm}:
        compute_units(worker * all_units // workers, (worker + 1) * all_units // workers)

    sync_parallelize(compute_share, workers)


def compute_rows[dtype: DType, per_column: Bool](columns: Columns[dtype, per_column], first: Int, begin: Int, end: Int):
    """Computes BLOCK_ROWS output rows of some columns on the calling thread.

    Parameters:
        dtype: Element type of all arrays.
        per_column: As in `Columns`.

    Args:
        columns: What is convolved.
        first: First output row; rows behind the last are not written.
        begin: First column.
        end: One past the last column.
    """
    comptime WIDTH = simd_width_of[accum_dtype[dtype]()]()
    comptime TILE = BLOCK_VECTORS * WIDTH
    var is_interior = columns.geometry.is_interior(first, BLOCK_ROWS)
    var first_tap = columns.first_step(first, BLOCK_ROWS)
    var rows = List[Int]()
    if not is_interior:
        for tap in range(first_tap, columns.end_step(first) + BLOCK_ROWS - 1):
            rows.append(columns.border.index(columns.geometry.input_index(first, tap), columns.geometry.samples))
    var table = RowTable(unsafe_from_address=Int(rows.unsafe_ptr())).unsafe_offset(-first_tap)
    var column = begin
    while column + TILE <= end:
        compute_block[vectors=BLOCK_VECTORS](columns, table, is_interior, first, column)
        column += TILE
    while column < end:
        compute_block[vectors=1](columns, table, is_interior, first, column)
        column += WIDTH
    _ = rows^


@no_inline
def compute_block[
    dtype: DType, per_column: Bool, //, vectors: Int
](columns: Columns[dtype, per_column], table: RowTable, is_interior: Bool, first: Int, column: Int):
    """Computes BLOCK_ROWS rows by some vectors of outputs.

    Parameters:
        dtype: Element type of all arrays.
        per_column: As in `Columns`.
        vectors: How many vectors; a single one may reach beyond the last column, more may not.

    Args:
        columns: What is convolved.
        table: For each tap of the first output row, the row of samples that it meets; -1 where there is none.
        is_interior: True: each is in its place, and there is no table.
        first: First output row; rows behind the last are not written.
        column: First column.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime PAIR = PAIR_BYTES // size_of[ACC]()
    var sums = Array[SIMD[ACC, WIDTH], BLOCK_ROWS * vectors](fill=0)
    var taps = columns.geometry.taps
    var begin = columns.first_step(first, BLOCK_ROWS)
    var end = columns.end_step(first)
    var paired = taps - taps % (2 * PAIR)
    for block in range(begin, end, 2 * PAIR):
        var distance = PAIR if block < paired else 0
        add_taps[vectors=vectors](
            sums, columns, table, is_interior, first, column, block, block + PAIR if block < paired else taps, distance
        )

    comptime for row in range(BLOCK_ROWS):
        if first + row < columns.geometry.outputs:
            var y = columns.y.unsafe_offset((first + row) * columns.inner + column)
            comptime if vectors > 1:
                comptime for vector in range(vectors):
                    y.unsafe_store(vector * WIDTH, sums[row * vectors + vector].cast[dtype]())
            else:
                var wanted = iota[DType.int, WIDTH]().lt(columns.inner - column)
                masked_store[WIDTH](sums[row].cast[dtype](), y, wanted)


@always_inline
def add_taps[
    dtype: DType, per_column: Bool, acc: DType, width: SIMDLength, count: Int, //, vectors: Int
](
    mut sums: Array[SIMD[acc, width], count],
    columns: Columns[dtype, per_column],
    table: RowTable,
    is_interior: Bool,
    first: Int,
    column: Int,
    begin: Int,
    end: Int,
    distance: Int,
):
    """Adds the taps [begin, end) to a block, each followed by the one `distance` behind it.

    Row s of the taps' rows meets tap `s` of the first output row, tap `s - 1` of the second and so on: the first
    BLOCK_ROWS - 1 steps serve only the upper output rows, the last ones only the lower.

    Parameters:
        dtype: Element type of all arrays.
        per_column: As in `Columns`.
        acc: Accumulation type.
        width: Lanes of a vector.
        count: BLOCK_ROWS * vectors.
        vectors: Vectors of a row.

    Args:
        sums: The block's sums, row by row.
        columns: What is convolved.
        table: For each tap of the first output row, the row of samples that it meets; -1 where there is none.
        is_interior: True: each is in its place, and there is no table.
        first: First output row.
        column: First column.
        begin: First tap.
        end: One past the last.
        distance: Between two taps that are added in turn; 0 to add each tap alone.
    """
    comptime LEAD = BLOCK_ROWS - 1

    @always_inline
    def step[from_row: Int, to_row: Int](tap: Int) {mut sums, imm}:
        for each in range(tap, tap + distance + 1, max(1, distance)):  # a loop, because it halves the code
            add_row[vectors=vectors, from_row=from_row, to_row=to_row](
                sums, columns, table, is_interior, first, column, each
            )

    if end - begin < LEAD:
        comptime for row in range(BLOCK_ROWS):
            for tap in range(begin, end):
                step[row, row + 1](tap + row)
        return
    comptime for late in range(LEAD):
        step[0, late + 1](begin + late)
    for tap in range(begin + LEAD, end):
        step[0, BLOCK_ROWS](tap)
    comptime for late in range(LEAD):
        step[late + 1, BLOCK_ROWS](end + late)


@always_inline
def add_row[
    dtype: DType,
    per_column: Bool,
    acc: DType,
    width: SIMDLength,
    count: Int,
    //,
    vectors: Int,
    from_row: Int,
    to_row: Int,
](
    mut sums: Array[SIMD[acc, width], count],
    columns: Columns[dtype, per_column],
    table: RowTable,
    is_interior: Bool,
    first: Int,
    column: Int,
    tap: Int,
):
    """Adds one row of samples to the sums of some output rows, if there is such a row.

    Parameters:
        dtype: Element type of all arrays.
        per_column: As in `Columns`.
        acc: Accumulation type.
        width: Lanes of a vector.
        count: BLOCK_ROWS * vectors.
        vectors: Vectors of a row.
        from_row: First output row of the block that is added to.
        to_row: One past the last.

    Args:
        sums: The block's sums, row by row.
        columns: What is convolved.
        table: For each tap of the first output row, the row of samples that it meets; -1 where there is none.
        is_interior: True: each is in its place, and there is no table.
        first: First output row of the block.
        column: First column.
        tap: The tap that the block's first output row has, or would have, for this row.
    """
    comptime WIDTH = Int(width)
    var position = columns.geometry.input_index(first, tap) if is_interior else table[unsafe_offset=tap]
    var samples = Array[SIMD[acc, width], vectors](uninitialized=True)
    if position < 0 and columns.border.omits():
        return
    if position < 0:
        comptime for vector in range(vectors):
            samples[vector] = columns.border.value.cast[acc]()
    else:
        var row = columns.x.unsafe_offset(position * columns.inner)
        comptime for vector in range(vectors):
            comptime if vectors > 1:
                samples[vector] = row.unsafe_load[width=WIDTH](column + vector * WIDTH).cast[acc]()
            else:
                samples[vector] = load_columns[WIDTH](row, column, columns.inner).cast[acc]()
    comptime for row in range(from_row, to_row):
        comptime if per_column:
            comptime for vector in range(vectors):
                var factor = columns.tap[acc, WIDTH](tap - row, column + vector * WIDTH)
                sums[row * vectors + vector] = multiply_add(samples[vector], factor, sums[row * vectors + vector])
        else:
            var factor = columns.tap[acc, WIDTH](tap - row, column)
            comptime for vector in range(vectors):
                sums[row * vectors + vector] = multiply_add(samples[vector], factor, sums[row * vectors + vector])


@always_inline
def load_columns[dtype: DType, //, width: Int](row: Elements[dtype], column: Int, inner: Int) -> SIMD[dtype, width]:
    """Reads neighbouring elements of a row.

    Parameters:
        dtype: Element type.
        width: How many.

    Args:
        row: The row.
        column: First element.
        inner: Elements of the row.

    Returns:
        The elements; zeros behind the last.
    """
    if column + width <= inner:
        return row.unsafe_load[width=width](column)
    var inside = iota[DType.int, width]().lt(inner - column)
    return masked_load[width](row.unsafe_offset(column), inside, SIMD[dtype, width](0))


def compute_flat_tile[dtype: DType, per_column: Bool](columns: Columns[dtype, per_column], first: Int):
    """Computes one vector of outputs, counted through all rows, and FLAT_VECTORS - 1 others PAIR rows apart.

    Parameters:
        dtype: Element type of all arrays.
        per_column: False.

    Args:
        columns: What is convolved.
        first: First output; outputs behind the last are not written.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime PAIR = PAIR_BYTES // size_of[ACC]()
    var inner = columns.inner
    var distance = PAIR * inner
    var span = (FLAT_VECTORS - 1) * distance + WIDTH
    var outputs = columns.geometry.outputs * inner
    var start = first + columns.geometry.input_index(0, 0) * inner
    var stop = start + span + (columns.geometry.taps - 1) * inner
    if first + span > outputs or start < 0 or stop > columns.geometry.samples * inner:
        compute_flat_edge_tile(columns, first)
        return
    var sums = Array[SIMD[ACC, WIDTH], FLAT_VECTORS](fill=0)

    @always_inline
    def samples_at(j: Int, vector: Int) {imm} -> SIMD[ACC, WIDTH]:
        return columns.x.unsafe_load[width=WIDTH](start + j * inner + vector * distance).cast[ACC]()

    var paired = columns.geometry.taps - columns.geometry.taps % (2 * PAIR)
    for block in range(0, paired, 2 * PAIR):
        for j in range(block, block + PAIR):
            var near = columns.tap[ACC, WIDTH](j, 0)
            var far = columns.tap[ACC, WIDTH](j + PAIR, 0)
            comptime for vector in range(FLAT_VECTORS + 1):
                var samples = samples_at(j, vector)
                comptime if vector < FLAT_VECTORS:
                    sums[vector] = multiply_add(samples, near, sums[vector])
                comptime if vector > 0:
                    sums[vector - 1] = multiply_add(samples, far, sums[vector - 1])
    for j in range(paired, columns.geometry.taps):
        var tap = columns.tap[ACC, WIDTH](j, 0)
        comptime for vector in range(FLAT_VECTORS):
            sums[vector] = multiply_add(samples_at(j, vector), tap, sums[vector])

    comptime for vector in range(FLAT_VECTORS):
        columns.y.unsafe_store(first + vector * distance, sums[vector].cast[dtype]())


@no_inline
def compute_flat_edge_tile[dtype: DType, per_column: Bool](columns: Columns[dtype, per_column], first: Int):
    """Computes a flat tile that is cut short or whose windows reach outside x: the same sums, vector by vector.

    Parameters:
        dtype: Element type of all arrays.
        per_column: False.

    Args:
        columns: What is convolved.
        first: First output; outputs behind the last are not written.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime PAIR = PAIR_BYTES // size_of[ACC]()
    var inner = columns.inner
    var samples = columns.geometry.samples * inner
    var outputs = columns.geometry.outputs * inner
    var lanes = iota[DType.int, WIDTH]()
    for vector in range(FLAT_VECTORS):
        var begin = first + vector * PAIR * inner
        if begin >= outputs:
            return
        var row = begin // inner
        var sum = SIMD[ACC, WIDTH](0)
        for step in range(columns.first_step(row, ceildiv(WIDTH, inner) + 1), columns.end_step(row)):
            var j = nth_tap[dtype](step, columns.geometry.taps)
            var offset = begin + columns.geometry.input_index(0, j) * inner
            var tap = columns.tap[ACC, WIDTH](j, 0)
            if offset >= 0 and offset + WIDTH <= samples:
                sum = multiply_add(columns.x.unsafe_load[width=WIDTH](offset).cast[ACC](), tap, sum)
                continue
            var inside = lanes.ge(-offset) & lanes.lt(samples - offset)
            var there = masked_load[WIDTH](columns.x.unsafe_offset(offset), inside, SIMD[dtype, WIDTH](0))
            if not columns.border.omits():
                fill_beyond(there, columns, offset)
                inside = SIMD[DType.bool, WIDTH](fill=True)
            sum = inside.select(multiply_add(there.cast[ACC](), tap, sum), sum)
        masked_store[WIDTH](sum.cast[dtype](), columns.y.unsafe_offset(begin), lanes.lt(outputs - begin))


@no_inline
def fill_beyond[
    dtype: DType, per_column: Bool, width: SIMDLength, //
](mut there: SIMD[dtype, width], columns: Columns[dtype, per_column], offset: Int):
    """Puts the samples of an extended signal where a vector reaches beyond the ends.

    Parameters:
        dtype: Element type of all arrays.
        per_column: As in `Columns`.
        width: Lanes of the vector.

    Args:
        there: The vector; lanes that hold samples stay as they are.
        columns: What is convolved.
        offset: Position of its first lane, counted through all rows.
    """
    for lane in range(Int(width)):
        var row = (offset + lane) // columns.inner
        if not (0 <= row and row < columns.geometry.samples):
            var column = offset + lane - row * columns.inner
            var at = columns.border.index(row, columns.geometry.samples)
            there[lane] = columns.border.value if at < 0 else columns.x[unsafe_offset=at * columns.inner + column]
