"""Overlap-save on GPU with transforms longer than a block's shared memory, as columns, rows and columns again.

Computes:   y[r, i] = sum_j x[r, i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x beyond its ends as `Border` says.
Algorithm:  the nfft points of two neighbouring blocks of the signal (shared/block_pair.mojo) are a matrix of COLUMN
            rows and nfft / COLUMN columns. Kernel 1 transforms its columns and turns each value by its twiddle
            factor; kernel 2 transforms the rows, multiplies by the spectrum of the taps and transforms them back;
            kernel 3 turns back, transforms the columns back and writes the outputs. The order of the spectrum is
            whatever falls out: the taps take the same way.
Cost:       6*nfft*log2(nfft) + 24*nfft instructions for 2*hop outputs, hop = nfft - K + 1. An output moves 4 bytes in
            and 4 out and 16 more through the workspace (float32): 3 device copies where that is larger than the
            cache, nearer to one where it is not.
Layout:     x (rows, N), y (rows, L_out), k (1 or rows, K), contiguous. Workspace: matrices of nfft complex numbers.
            Plan: roots of unity of a column, twiddle factors, roots of unity of a row, a spectrum for each filter.
Tile:       `lanes` neighbouring columns in 64 KB of shared memory, 128 bytes of each row of the workspace; one row.
Accuracy:   computed in accumulate.accum_dtype on EVERY path of this file; error below 10*eps*log2(nfft) of
            ||x||*||k||, checked by check_overlap_save_gpu. A NaN or Inf spoils the two blocks that hold it.
Gate:       1 <= K <= nfft, nfft from SHORTEST to LONGEST; 64 KB of shared memory must be granted, 136 KB for rows of
            8192 points in float64.
Tuning:     FFT_COLUMNS_COLUMN and OVERLAP_SAVE_LONG_LEAST_BLOCKS of shared/tuning_gpu.mojo.
Source:     Bailey, FFTs in external or hierarchical memory, 1990 (the four-step transform); overlap-save: Oppenheim
            and Schafer, Discrete-Time Signal Processing, chapter 8.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import external_memory

from ..shared.accumulate import accum_dtype
from ..shared.block_pair import hop_length, load_pair, load_taps, store_pair
from ..shared.border import Border
from ..shared.fft_columns import (
    COLUMN,
    LONGEST,
    SHORTEST,
    fill_twiddles,
    lanes,
    move_column,
    row_roots_offset,
    spectra_offset,
    turn,
)
from ..shared.fft_points import SIZES, blocks_per_multiprocessor, points, shared_bytes, threads
from ..shared.fft_threads import (
    fill_roots,
    multiply_by_spectrum,
    root_slots,
    roots_length,
    store_spectrum,
    transform_back,
    transform_forward,
)
from ..shared.geometry import Geometry
from ..shared.shared_memory import require_shared_memory, shared_memory_request
from ..shared.tuning_gpu import OVERLAP_SAVE_LONG_LEAST_BLOCKS as LEAST_BLOCKS


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](
        Int32(threads(COLUMN) * lanes(size_of[accum_dtype[dtype]()]()))
    ),
    `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS),
)
def transform_columns[
    dtype: DType, is_taps: Bool
](
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    samples: Int64,
    pad_left: Int64,
    border_mode: Int64,
    border_value: Scalar[dtype],
    hop: Int64,
    pairs_per_row: Int32,
    first_pair: Int64,
    columns: Int32,
):
    """Kernel 1: one block transforms some neighbouring columns of one pair of blocks, or of one filter.

    Parameters:
        dtype: Element type of the signal or the taps.
        is_taps: True: x are the filters.

    Args:
        workspace: A matrix for each pair or filter.
        x: Signals (rows, N), or filters (tap_rows, K).
        plan: The plan.
        samples: N, or K.
        pad_left: As in `Geometry`; for filters, 1 for convolution, 0 for correlation.
        border_mode: As in `Border`.
        border_value: As in `Border`.
        hop: Outputs of one block.
        pairs_per_row: Pairs of blocks for each row.
        first_pair: Which pair, over all rows, is the first here; or which filter.
        columns: Number of columns of a matrix.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(COLUMN)
    comptime LANES = lanes(size_of[ACC]())
    var lane = Int32(thread_idx.x) % Int32(LANES)
    var thread = Int32(thread_idx.x) // Int32(LANES)
    var column = Int(block_idx.x) * LANES + Int(lane)
    var pair = Int(first_pair) + Int(block_idx.y)
    var width = Int(columns)
    var first = column + width * Int(thread)
    comptime SPACING = threads(COLUMN)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]().unsafe_offset(2 * lane)
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    comptime if is_taps:
        load_taps(
            re,
            x.unsafe_offset(pair * Int(samples)),
            first,
            SPACING * width,
            COLUMN * width,
            Int(samples),
            pad_left != 0,
        )
    else:
        var row = pair // Int(pairs_per_row)
        var begin = (pair - row * Int(pairs_per_row)) * 2 * Int(hop) - Int(pad_left)
        load_pair[COLUMN, LANES](
            re,
            im,
            x.unsafe_offset(row * Int(samples)),
            begin + first,
            SPACING * width,
            Int(hop),
            Int(samples),
            Border[dtype](Int(border_mode), border_value),
            begin >= 0 and begin + Int(hop) + COLUMN * width <= Int(samples),
            shared,
            thread,
        )
    transform_forward[COLUMN, LANES](re, im, shared, plan, thread)
    turn[is_back=False](re, im, plan.unsafe_offset(roots_length(COLUMN)), width, column, thread)
    var matrix = workspace.unsafe_offset(2 * Int(block_idx.y) * COLUMN * width)
    move_column[is_store=True](re, im, matrix, width, column, thread)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(length))),
    `nvvm.minctasm`=SIMDLength(blocks_per_multiprocessor(length, size_of[acc]())),
)
def convolve_rows[
    acc: DType, length: Int, is_taps: Bool
](
    workspace: Pointer[Scalar[acc], MutAnyOrigin],
    plan: Pointer[Scalar[acc], MutAnyOrigin],
    pairs_per_filter: Int64,
    first_pair: Int64,
):
    """Kernel 2: one block transforms a row, multiplies it by the filter's spectrum and transforms it back, in place.

    Parameters:
        acc: Accumulation type.
        length: Points of a row.
        is_taps: True: the row's transform is the spectrum, and goes to the plan.

    Args:
        workspace: A matrix for each pair or filter.
        plan: The plan.
        pairs_per_filter: How many pairs each filter serves.
        first_pair: Which pair, over all rows of the signal, or which filter the first matrix is of.
    """
    comptime COUNT = points(length)
    comptime NFFT = COLUMN * length
    var thread = Int32(thread_idx.x)
    var row = Int(block_idx.x)
    var matrix = workspace.unsafe_offset(2 * (Int(block_idx.y) * NFFT + row * length))
    var filter = (Int(first_pair) + Int(block_idx.y)) // Int(pairs_per_filter)
    var roots = plan.unsafe_offset(row_roots_offset(NFFT))
    var spectrum = plan.unsafe_offset(spectra_offset(NFFT) + 2 * (filter * NFFT + row * length))
    var shared = external_memory[Scalar[acc], address_space=AddressSpace.SHARED, alignment=16]()
    var re = Array[Scalar[acc], COUNT](fill=0)
    var im = Array[Scalar[acc], COUNT](fill=0)
    var mine = matrix.unsafe_offset(2 * thread)
    comptime for e in range(COUNT):
        var point = mine.unsafe_load[width=2, alignment=2 * size_of[acc]()](2 * threads(length) * e)
        re[e] = point[0]
        im[e] = point[1]
    transform_forward[length](re, im, shared, roots, thread)
    comptime if is_taps:
        store_spectrum[length](spectrum, re, im, thread)
    else:
        multiply_by_spectrum[length](re, im, spectrum, thread)
        transform_back[length](re, im, shared, roots, thread)
        comptime for e in range(COUNT):
            mine.unsafe_store[alignment=2 * size_of[acc]()](2 * threads(length) * e, SIMD[acc, 2](re[e], im[e]))


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](
        Int32(threads(COLUMN) * lanes(size_of[accum_dtype[dtype]()]()))
    ),
    `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS),
)
def transform_columns_back[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    outputs: Int64,
    hop: Int64,
    pairs_per_row: Int32,
    first_pair: Int64,
    columns: Int32,
):
    """Kernel 3: one block transforms some neighbouring columns of one pair of blocks back, and writes their outputs.

    Parameters:
        dtype: Element type of the output.

    Args:
        y: Outputs (rows, L_out).
        workspace: A matrix for each pair.
        plan: The plan.
        outputs: L_out.
        hop: Outputs of one block.
        pairs_per_row: Pairs of blocks for each row.
        first_pair: Which pair, over all rows, is the first here.
        columns: Number of columns of a matrix.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(COLUMN)
    comptime LANES = lanes(size_of[ACC]())
    var lane = Int32(thread_idx.x) % Int32(LANES)
    var thread = Int32(thread_idx.x) // Int32(LANES)
    var column = Int(block_idx.x) * LANES + Int(lane)
    var pair = Int(first_pair) + Int(block_idx.y)
    var width = Int(columns)
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    var matrix = workspace.unsafe_offset(2 * Int(block_idx.y) * COLUMN * width)
    move_column[is_store=False](re, im, matrix, width, column, thread)
    turn[is_back=True](re, im, plan.unsafe_offset(roots_length(COLUMN)), width, column, thread)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    transform_back[COLUMN, LANES](re, im, shared.unsafe_offset(2 * lane), plan, thread)
    var row = pair // Int(pairs_per_row)
    store_pair(
        y.unsafe_offset(row * Int(outputs)),
        re,
        im,
        (pair - row * Int(pairs_per_row)) * 2 * Int(hop),
        Int32(column + width * Int(thread)),
        threads(COLUMN) * width,
        Int32(hop),
        2 * Int32(hop),
        Int(outputs),
    )


def require_long_size[dtype: DType](nfft: Int, taps: Int, ctx: DeviceContext) raises:
    """Refuses what this file cannot do.

    Parameters:
        dtype: Element type.

    Args:
        nfft: Length of the transform.
        taps: K.
        ctx: The device.

    Raises:
        If the transform is of no compiled length, too short for the taps, or too large for the device.
    """
    if nfft < SHORTEST or nfft > LONGEST or nfft & (nfft - 1) != 0:
        raise Error("overlap_save_long_gpu: no transform of length ", nfft, "; there are 2^18 to 2^22")
    if taps < 1 or taps > nfft:
        raise Error("overlap_save_long_gpu: ", taps, " taps do not fit a transform of ", nfft, " points")
    comptime BYTES = size_of[accum_dtype[dtype]()]()
    require_shared_memory(max(shared_bytes(COLUMN, BYTES, lanes(BYTES)), shared_bytes(nfft // COLUMN, BYTES)), ctx)


def enqueue_rows[
    acc: DType, is_taps: Bool
](
    workspace: Pointer[Scalar[acc], MutAnyOrigin],
    plan: Pointer[Scalar[acc], MutAnyOrigin],
    nfft: Int,
    matrices: Int,
    pairs_per_filter: Int,
    first_pair: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues kernel 2 for the length of row that is wanted.

    Parameters:
        acc: Accumulation type.
        is_taps: As in `convolve_rows`.

    Args:
        workspace: A matrix for each pair or filter.
        plan: The plan.
        nfft: Length of the transform.
        matrices: How many matrices.
        pairs_per_filter: How many pairs each filter serves.
        first_pair: Which pair or filter the first matrix is of.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    comptime for length in materialize[SIZES]():
        if nfft == COLUMN * length:
            comptime bytes = shared_bytes(length, size_of[acc]())
            comptime kernel = convolve_rows[acc, length, is_taps]
            ctx.enqueue_function[kernel](
                workspace,
                plan,
                Int64(pairs_per_filter),
                Int64(first_pair),
                grid_dim=(COLUMN, matrices),
                block_dim=threads(length),
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )


def prepare_plan_long_gpu[
    dtype: DType
](
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    nfft: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of a plan; it serves any number of calls with the same taps.

    Parameters:
        dtype: Element type of the taps.

    Args:
        plan: On the device, plan_length_long_gpu(nfft, tap_rows) elements, aligned to 16 bytes; all are written.
        workspace: On the device, 2*nfft elements, aligned to 16 bytes; overwritten.
        k: Taps on the device, shape (tap_rows, K).
        geometry: Number and length of the filters, and the direction; the rest is not looked at.
        nfft: Length of the transform.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or a launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime LANES = lanes(size_of[ACC]())
    comptime bytes = shared_bytes(COLUMN, size_of[ACC](), LANES)
    require_long_size[dtype](nfft, geometry.taps, ctx)
    var columns = nfft // COLUMN
    comptime column_roots = fill_roots[ACC, COLUMN]
    ctx.enqueue_function[column_roots](plan, grid_dim=root_slots(COLUMN), block_dim=threads(COLUMN))
    comptime for length in materialize[SIZES]():
        if columns == length:
            comptime row_roots = fill_roots[ACC, length]
            var there = plan.unsafe_offset(row_roots_offset(nfft))
            ctx.enqueue_function[row_roots](there, grid_dim=root_slots(length), block_dim=threads(length))
    comptime factors = fill_twiddles[ACC]
    ctx.enqueue_function[factors](
        plan.unsafe_offset(roots_length(COLUMN)),
        Int64(columns),
        grid_dim=(columns // threads(COLUMN), threads(COLUMN) + 1),
        block_dim=threads(COLUMN),
    )
    comptime kernel = transform_columns[dtype, True]
    for filter in range(geometry.tap_rows):
        ctx.enqueue_function[kernel](
            workspace,
            k,
            plan,
            Int64(geometry.taps),
            Int64(1 if geometry.flip else 0),
            Int64(0),
            Scalar[dtype](0),
            Int64(0),
            Int32(1),
            Int64(filter),
            Int32(columns),
            grid_dim=(columns // LANES, 1),
            block_dim=threads(COLUMN) * LANES,
            shared_mem_bytes=bytes,
            func_attribute=shared_memory_request(bytes),
        )
        enqueue_rows[ACC, True](workspace, plan, nfft, 1, 1, filter, ctx)


def overlap_save_long_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    matrices: Int,
    geometry: Geometry,
    border: Border[dtype],
    nfft: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs of all rows; returns before they are there.

    Parameters:
        dtype: Element type of signal and output, floating-point.

    Args:
        y: Outputs on the device, shape (rows, L_out); every one is written. Must not overlap x.
        x: Signals on the device, shape (rows, N).
        plan: The plan that `prepare_plan_long_gpu` made of the taps for the same `nfft`.
        workspace: On the device, matrices*2*nfft elements, aligned to 16 bytes; overwritten.
        matrices: Pairs of blocks that are under way at a time, at most 65535.
        geometry: Sizes and shifts; `flip` is not looked at, the plan knows.
        border: What lies beyond the ends; to OMIT terms its value must be 0.
        nfft: Length of the transform, at least K.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or a launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime LANES = lanes(size_of[ACC]())
    comptime bytes = shared_bytes(COLUMN, size_of[ACC](), LANES)
    require_long_size[dtype](nfft, geometry.taps, ctx)
    var hop = hop_length(nfft, geometry.taps)
    var pairs_per_row = ceildiv(geometry.outputs, 2 * hop)
    var pairs = geometry.rows * pairs_per_row
    var columns = nfft // COLUMN
    comptime there = transform_columns[dtype, False]
    comptime back = transform_columns_back[dtype]
    for first_pair in range(0, pairs, matrices):
        var count = min(matrices, pairs - first_pair)
        ctx.enqueue_function[there](
            workspace,
            x,
            plan,
            Int64(geometry.samples),
            Int64(geometry.pad_left),
            Int64(border.mode),
            border.value,
            Int64(hop),
            Int32(pairs_per_row),
            Int64(first_pair),
            Int32(columns),
            grid_dim=(columns // LANES, count),
            block_dim=threads(COLUMN) * LANES,
            shared_mem_bytes=bytes,
            func_attribute=shared_memory_request(bytes),
        )
        var pairs_per_filter = pairs_per_row if geometry.tap_rows > 1 else pairs
        enqueue_rows[ACC, False](workspace, plan, nfft, count, pairs_per_filter, first_pair, ctx)
        ctx.enqueue_function[back](
            y,
            workspace,
            plan,
            Int64(geometry.outputs),
            Int64(hop),
            Int32(pairs_per_row),
            Int64(first_pair),
            Int32(columns),
            grid_dim=(columns // LANES, count),
            block_dim=threads(COLUMN) * LANES,
            shared_mem_bytes=bytes,
            func_attribute=shared_memory_request(bytes),
        )
