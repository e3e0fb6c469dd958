"""Direct 1-D convolution down columns on GPU: a run of output rows per thread in registers, nothing transposed.

Computes:   y[o, i, c] = sum_j x[o, i + j - pad_left, c] * k[tap_index(j)], or * k[tap_index(j), c] with a filter per
            column; i in [0, L_out). `Border` says what x is beyond its ends.
Algorithm:  a thread keeps `run_rows` neighbouring output rows of one vector of columns while the rows of x run by: row
            s meets tap s of the first, tap s - 1 of the second and so on, from a ring of taps in registers. A block is
            a tile of up to LANES vectors of columns by runs below one another, which share their halos in the
            level-1 cache. Where few columns fill a warp, it takes several runs at a time.
Cost:       2*outer*L_out*inner*K flop; reads (1 + (K-1)/run_rows) * N*inner samples from level 1, (1 + (K-1)/rows of
            the tile) from level 2, x about once from memory; writes y once.
Layout:     x (outer, N, inner), k (K) or (K, inner), y (outer, L_out, inner). 16-byte accesses if inner is a multiple
            of them and the arrays begin at one; else element by element.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file, taps in rising j, as direct_gpu.mojo. With OMIT,
            terms outside x are skipped, not multiplied by zero.
Gate:       none: any outer, N, inner, K, L_out >= 0 and any pad_left; a border other than OMIT needs N >= 1.
Tuning:     COLUMNS_* of shared/tuning_gpu.mojo; no other numbers were measured.
Measured:   by benchmarks/mojo/bench_columns_gpu.mojo on an H200 (2026-11-23), in copies of 256 MB: 1024 columns with 4,
            16 and 64 taps in float32 3.1, 4.0 and 6.4, in float64 3.3, 4.2 and 6.5, in bfloat16 3.4, 4.5 and 7.9; 16
            taps, a filter a column, 4.0, 4.2 and 5.2. float32, 16 taps: 1023 columns, element by element, 6.8; 2
            columns 4.7. Not memory-bound even at 4 taps: what binds has not been profiled.
Source:     thread coarsening with a register window as in Volkov, Better Performance at Lower Occupancy, 2010.
"""

from std.math import ceildiv
from std.sys.info import size_of
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES
from ..shared.border import Border
from ..shared.geometry import Geometry
from ..shared.tuning_gpu import (
    COLUMNS_LANES as LANES,
    COLUMNS_MAX_RUN_ROWS as MAX_RUN_ROWS,
    COLUMNS_MAX_SUMS as MAX_SUMS,
    COLUMNS_THREADS as THREADS,
    MAX_GRID_ROWS,
)
from .direct_gpu import run_length


def run_rows[width: Int, per_column: Bool]() -> Int:
    """Gives how many neighbouring output rows a thread computes.

    Parameters:
        width: Columns of a thread.
        per_column: Whether there is a filter for each column.

    Returns:
        Rows per run.
    """
    return min(MAX_RUN_ROWS, (MAX_SUMS // 2 if per_column else MAX_SUMS) // width)


def columns_gpu[
    dtype: DType, per_column: Bool
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    inner: Int,
    border: Border[dtype],
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of all three arrays.
        per_column: Whether there is a filter for each column.

    Args:
        y: Outputs on the device, shape (outer, L_out, inner); every one is written.
        x: Signals on the device, shape (outer, N, inner).
        k: Taps on the device, shape (K), or (K, inner) with a filter per column.
        geometry: Sizes and shifts; `rows` is outer, `tap_rows` is not used.
        inner: Columns.
        border: What lies beyond the ends of a column.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    comptime RUN = run_length[dtype]()
    var addresses = Int(y) | Int(x) | (Int(k) if per_column else 0)
    if inner % RUN == 0 and addresses % VECTOR_BYTES == 0:
        launch[dtype, per_column, RUN](y, x, k, geometry, inner, border, ctx)
    else:
        launch[dtype, per_column, 1](y, x, k, geometry, inner, border, ctx)


def launch[
    dtype: DType, per_column: Bool, width: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    inner: Int,
    border: Border[dtype],
    ctx: DeviceContext,
) raises:
    """Enqueues the kernel for one width of access.

    Parameters:
        dtype: Element type of all three arrays.
        per_column: Whether there is a filter for each column.
        width: Columns of a thread.

    Args:
        y: As for `columns_gpu`.
        x: As for `columns_gpu`.
        k: As for `columns_gpu`.
        geometry: As for `columns_gpu`.
        inner: As for `columns_gpu`.
        border: As for `columns_gpu`.
        ctx: As for `columns_gpu`.

    Raises:
        If the launch is refused.
    """
    if geometry.outputs * inner == 0:
        return  # a grid of no blocks is an error
    comptime kernel = compute_runs[dtype, per_column, width]
    var vectors = ceildiv(inner, width)
    var column_tiles = ceildiv(vectors, LANES)
    var lanes = ceildiv(vectors, column_tiles)  # tiles of equal width leave the fewest threads idle
    var tile_rows = THREADS // lanes * run_rows[width, per_column]()
    for first in range(0, geometry.rows, MAX_GRID_ROWS):
        ctx.enqueue_function[kernel](
            y.unsafe_offset(first * geometry.outputs * inner),
            x.unsafe_offset(first * geometry.samples * inner),
            k,
            Int64(geometry.samples),
            Int64(geometry.taps),
            Int64(geometry.outputs),
            Int64(geometry.pad_left),
            Int64(1 if geometry.flip else 0),
            Int64(inner),
            Int32(border.mode),
            border.value,
            Int32(lanes),
            Int32(column_tiles),
            grid_dim=(column_tiles * ceildiv(geometry.outputs, tile_rows), min(MAX_GRID_ROWS, geometry.rows - first)),
            block_dim=THREADS,
        )


def compute_runs[
    dtype: DType, per_column: Bool, width: Int
](
    y_arrays: Pointer[Scalar[dtype], MutAnyOrigin],
    x_arrays: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int64,
    taps: Int64,
    outputs: Int64,
    pad_left: Int64,
    flip: Int64,
    inner: Int64,
    border_mode: Int32,
    border_value: Scalar[dtype],
    lanes: Int32,
    column_tiles: Int32,
):
    """Kernel: one block computes one tile of outputs, one thread one run of rows of one vector of columns.

    Parameters:
        dtype: Element type of all three arrays.
        per_column: Whether there is a filter for each column.
        width: Columns of a thread.

    Args:
        y_arrays: Outputs.
        x_arrays: Signals.
        k: Taps.
        samples: N.
        taps: K.
        outputs: L_out.
        pad_left: As in `Geometry`.
        flip: 1 for convolution, 0 for correlation.
        inner: Columns.
        border_mode: As in `Border`.
        border_value: As in `Border`.
        lanes: Vectors of columns of a tile.
        column_tiles: Tiles beside one another.
    """
    comptime ROWS = run_rows[width, per_column]()
    comptime ALIGNMENT = width * size_of[dtype]()
    var geometry = Geometry(
        samples=Int(samples),
        taps=Int(taps),
        outputs=Int(outputs),
        pad_left=Int(pad_left),
        flip=flip != 0,
        rows=1,
        tap_rows=1,
    )
    var thread = Int32(thread_idx.x)
    var block = Int32(block_idx.x)
    var run = thread // lanes
    var runs = Int32(THREADS) // lanes
    var row_tile = block // column_tiles
    var column = Int((block - row_tile * column_tiles) * lanes + thread - run * lanes) * width
    var first = Int(row_tile) * Int(runs * Int32(ROWS)) + Int(run) * ROWS
    if run >= runs or column >= Int(inner) or first >= geometry.outputs:
        return
    var array = Int(block_idx.y)
    var y = y_arrays.unsafe_offset((array * geometry.outputs + first) * Int(inner) + column)
    var x = x_arrays.unsafe_offset(array * geometry.samples * Int(inner) + column)
    var sums = Array[SIMD[accum_dtype[dtype](), width], ROWS](fill=0)
    if geometry.is_interior(first, ROWS):
        add_taps[width=width, per_column=per_column, is_interior=True](
            sums, x, k, geometry, Int(inner), column, first, Border[dtype](0, 0)
        )
    else:
        add_taps[width=width, per_column=per_column, is_interior=False](
            sums, x, k, geometry, Int(inner), column, first, Border[dtype](Int(border_mode), border_value)
        )
    comptime for row in range(ROWS):
        if first + row < geometry.outputs:
            y.unsafe_store[alignment=ALIGNMENT](row * Int(inner), sums[row].cast[dtype]())


@always_inline
def add_taps[
    dtype: DType, acc: DType, rows: Int, //, width: Int, per_column: Bool, is_interior: Bool
](
    mut sums: Array[SIMD[acc, width], rows],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    inner: Int,
    column: Int,
    first: Int,
    border: Border[dtype],
):
    """Adds every tap to every sum of a thread, `rows` rows of samples at a time.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        rows: Output rows of the thread.
        width: Columns of the thread.
        per_column: Whether there is a filter for each column.
        is_interior: Whether all rows of samples exist.

    Args:
        sums: The thread's sums.
        x: The signal, from the thread's first column on.
        k: Taps.
        geometry: Sizes and shifts.
        inner: Columns of the signal.
        column: The thread's first column.
        first: Its first output row.
        border: What lies beyond the ends of a column.
    """
    comptime TAP_WIDTH = width if per_column else 1
    var ring = Array[SIMD[acc, TAP_WIDTH], rows](fill=0)
    # Only rows that exist: a signal shorter than the taps then costs N*L_out, not K*L_out. Whole turns of the ring.
    var begin = 0
    var end = geometry.taps + rows - 1
    comptime if not is_interior:
        if border.omits():
            begin = max(0, geometry.first_tap(first + rows - 1)) // rows * rows
            end = min(end, geometry.end_tap(first))
    for turn in range(begin, end, rows):
        if turn > begin and turn + rows <= min(end, geometry.taps):
            comptime for step in range(rows):
                add_row[step=step, is_whole=True, is_interior=is_interior, per_column=per_column](
                    sums, ring, x, k, geometry, inner, column, first, border, turn
                )
        else:
            comptime for step in range(rows):
                if turn + step < end:
                    add_row[step=step, is_whole=False, is_interior=is_interior, per_column=per_column](
                        sums, ring, x, k, geometry, inner, column, first, border, turn
                    )


@always_inline
def add_row[
    dtype: DType,
    acc: DType,
    width: Int,
    tap_width: Int,
    rows: Int,
    //,
    step: Int,
    is_whole: Bool,
    is_interior: Bool,
    per_column: Bool,
](
    mut sums: Array[SIMD[acc, width], rows],
    mut ring: Array[SIMD[acc, tap_width], rows],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    inner: Int,
    column: Int,
    first: Int,
    border: Border[dtype],
    turn: Int,
):
    """Adds one row of samples to every sum of a thread whose window it is in.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        width: Columns of the thread.
        tap_width: Of the taps: `width` with a filter per column, else 1.
        rows: Output rows of the thread.
        step: Which step of the turn of the ring.
        is_whole: Whether the row is in the window of all output rows.
        is_interior: Whether the row exists for sure.
        per_column: Whether there is a filter for each column.

    Args:
        sums: The thread's sums.
        ring: The last `rows` taps, tap t at t mod `rows`.
        x: The signal, from the thread's first column on.
        k: Taps.
        geometry: Sizes and shifts.
        inner: Columns of the signal.
        column: The thread's first column.
        first: Its first output row.
        border: What lies beyond the ends of a column.
        turn: The tap that the first output row has at step 0, a multiple of `rows`.
    """
    comptime ALIGNMENT = width * size_of[dtype]()
    var newest = turn + step
    if is_whole or newest < geometry.taps:
        var at = geometry.tap_index(newest)
        comptime if per_column:
            ring[step] = k.unsafe_load[width=tap_width, alignment=ALIGNMENT, invariant=True](at * inner + column).cast[
                acc
            ]()
        else:
            ring[step] = k.unsafe_load[width=tap_width, invariant=True](at).cast[acc]()
    var position = geometry.input_index(first, newest)
    comptime if not is_interior:
        position = border.index(position, geometry.samples)
        if position < 0 and border.omits():
            return
    var samples = SIMD[acc, width](border.value.cast[acc]())
    if is_interior or position >= 0:
        samples = x.unsafe_load[width=width, alignment=ALIGNMENT, invariant=True](position * inner).cast[acc]()
    comptime for row in range(rows):
        var tap: SIMD[acc, width]
        comptime if per_column:
            tap = rebind[SIMD[acc, width]](ring[(step - row) % rows])
        else:
            tap = SIMD[acc, width](ring[(step - row) % rows][0])
        if is_whole or (row <= newest and newest - row < geometry.taps):
            sums[row] = multiply_add(samples, tap, sums[row])
