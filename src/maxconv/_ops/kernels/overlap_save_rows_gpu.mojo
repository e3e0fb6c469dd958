"""FFT convolution of whole rows on GPU, filter by filter: filters transformed, multiplied and rows stored in one kernel.

Computes:   y[b, c, i] = bias[c] + sum_j x[b, c, i + j - pad_left] * k[c, tap_index(j)], i in [0, L_out); terms beyond
            the ends of x are left out.
Algorithm:  a row is a block of overlap_save_gpu.mojo that overlaps with no other: its samples are the first half of a
            folded block (shared/block_pair.mojo), and its outputs come out there. So points are real before the
            transform, and only their real parts are wanted after it. A thread block transforms a filter, puts the
            spectrum down in memory that stays in the level-2 cache, where each thread reads what it wrote itself, and
            runs through the filter's rows.
Cost:       per complex point 6*log2(length) + 10 fp32 instructions and 15 others (counted in SASS for sm_90a, 8192
            points), and 80 bytes through load and store units; a filter two thirds of a row. 8 by 768 rows of 8192
            points are 187 us of issue (H200, 29.6e12 lanes/s), 159 of them fp32: three copies of bfloat16 take 150.
Layout:     x (B, C, N), y (B, C, L_out), k (C, K), bias (C), contiguous. Workspace, in accumulate.accum_dtype: the
            roots of unity of shared/fft_threads.mojo, then a spectrum for each thread block.
Tile:       a row.
Accuracy:   computed in accumulate.accum_dtype on EVERY path of this file; error below 10*eps*log2(2*length) of
            ||x||*||k||, checked by check_overlap_save_gpu. A NaN or Inf spoils its row, in a filter all rows.
Gate:       N and L_out up to LARGEST_SIZE, any K and pad_left; above 48 KB of shared memory only where the device
            grants it. Otherwise, or for short filters by the cost model of _plan.py, overlap_save_gpu. Rows that need not
            be as accurate go to overlap_save_mma_gpu, where it serves them.
Tuning:     registers as in shared/fft_points.mojo, but OVERLAP_SAVE_ROWS_SPARING.
Measured:   float32, 8 by 768 causal rows, filters as long, H200, 2026-11-23 (bench_overlap_save_gpu.mojo "layers"): 8192
            samples 265 us, 2.7 copies, where blocks of overlap_save_gpu take 329; 4096 samples 126 (145), 2048 62
            (129), 1024 35 (68), 512 19 (35). 8192 of bfloat16 287 us, 5.7 copies, by the build for Turing, which
            rounds by hand; not measured by that for Ampere.
Source:     as overlap_save_gpu.mojo.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import external_memory
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype
from ..shared.epilogue import Epilogue
from ..shared.fft_points import (
    LARGEST_SIZE,
    SMALLEST_SIZE,
    blocks_per_multiprocessor,
    log2_exact,
    points,
    shared_bytes,
    threads,
)
from ..shared.fft_threads import (
    fill_roots,
    multiply_by_spectrum,
    root_slots,
    roots_length,
    store_spectrum,
    transform_back,
    transform_forward,
)
from ..shared.fft_products import SPAN, tables_length
from ..shared.geometry import Geometry
from ..shared.level2 import LINE_BYTES, fetch_line
from ..shared.shared_memory import require_shared_memory, shared_memory_request
from ..shared.tuning_gpu import (
    MULTIPROCESSORS,
    OVERLAP_SAVE_MMA_BLOCKS,
    OVERLAP_SAVE_ROWS_SPARING,
    has_tensor_cores,
)
from .overlap_save_mma_gpu import LONGEST, overlap_save_mma_gpu, serves_rows


def row_length(samples: Int, outputs: Int) -> Int:
    """Gives the length of the transform that serves rows.

    Args:
        samples: N.
        outputs: L_out.

    Returns:
        The least of SIZES that is not shorter than either, or twice the last if there is none.
    """
    var length = SMALLEST_SIZE
    while length < max(samples, outputs) and length <= LARGEST_SIZE:
        length *= 2
    return length


def blocks_at_once[acc: DType](length: Int) -> Int:
    """Counts the thread blocks that a multiprocessor is asked to hold.

    Parameters:
        acc: Accumulation type.

    Args:
        length: Length of the transform.

    Returns:
        Blocks.
    """
    return blocks_per_multiprocessor(length, size_of[acc](), OVERLAP_SAVE_ROWS_SPARING[acc])


def workspace_length_rows_gpu[dtype: DType](geometry: Geometry) -> Int:
    """Gives the length of the workspace of a call.

    Parameters:
        dtype: Element type of the signals.

    Args:
        geometry: Sizes of the call.

    Returns:
        Elements of the accumulation type.
    """
    var length = row_length(geometry.samples, geometry.outputs)
    var turns = turns_per_filter(geometry, blocks_at_once[accum_dtype[dtype]()](length))
    return max(roots_length(length) + turns * geometry.tap_rows * 2 * length, tables_length(LONGEST // SPAN))


def turns_per_filter(geometry: Geometry, blocks: Int) -> Int:
    """Chooses among how many thread blocks the rows of a filter are divided.

    Args:
        geometry: Sizes of the call.
        blocks: Thread blocks that a multiprocessor holds.

    Returns:
        One block, or more where multiprocessors would have nothing to do: each transforms the filter anew, which is two
        thirds of the work of a row.
    """
    var places = MULTIPROCESSORS * blocks
    var rows = max(1, geometry.rows // geometry.tap_rows)
    var best = 1
    var turns = 1
    while turns < rows:
        turns = min(2 * turns, rows)
        if work(turns, rows, geometry.tap_rows, places) < work(best, rows, geometry.tap_rows, places):
            best = turns
    return ceildiv(rows, ceildiv(rows, best))  # none without a row


def work(turns: Int, rows: Int, filters: Int, places: Int) -> Int:
    """Estimates what one place of a multiprocessor has to do, one block after the other.

    Args:
        turns: Thread blocks of a filter.
        rows: Rows of a filter.
        filters: How many.
        places: Thread blocks that run at once.

    Returns:
        Thirds of a row, of the place that does the most.
    """
    return ceildiv(filters * turns, places) * (3 * ceildiv(rows, turns) + 2)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(length))),
    `nvvm.minctasm`=SIMDLength(blocks_at_once[accum_dtype[dtype]()](length)),
)
def convolve_rows[
    dtype: DType, length: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    samples: Int32,
    taps: Int32,
    outputs: Int32,
    pad_left: Int32,
    flip: Int32,
    filters: UInt32,
    rows_per_filter: UInt32,
    turns: UInt32,
):
    """Kernel: a thread block takes a filter and all of its rows, or some.

    Parameters:
        dtype: Element type of signal, taps and output.
        length: Length of the transform.

    Args:
        y: Outputs.
        x: Signals.
        k: Taps.
        epilogue: Bias.
        workspace: The roots of unity, and room for a spectrum for every thread block.
        samples: N.
        taps: K.
        outputs: L_out.
        pad_left: As in `Geometry`.
        flip: 1 for convolution, 0 for correlation.
        filters: How many; row r is convolved with filter r modulo their number.
        rows_per_filter: Rows that each filter serves.
        turns: Thread blocks that share them.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(length)
    comptime THREADS = threads(length)
    comptime LINE = LINE_BYTES // size_of[dtype]()
    var thread = Int32(thread_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var spectrum = workspace.unsafe_offset(roots_length(length) + Int(block_idx.x) * 2 * length)
    var filter = UInt32(block_idx.x) // turns
    var rows_per_turn = ceildiv(rows_per_filter, turns)
    var begin = (UInt32(block_idx.x) - filter * turns) * rows_per_turn
    var end = min(begin + rows_per_turn, rows_per_filter)
    var offset = epilogue.offset[ACC](Int(filter))
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    load_row_taps[length](re, im, k.unsafe_offset(Int(filter) * Int(taps)), thread, taps, pad_left, flip != 0)
    transform_forward[length, folded=True](re, im, shared, workspace, thread)
    store_spectrum[length](spectrum, re, im, thread)
    barrier()  # the next exchange writes where others may still read
    for row in range(begin, end):
        var x_row = x.unsafe_offset(Int(row * filters + filter) * Int(samples))
        comptime for e in range(COUNT):
            re[e] = 0
            if Int32(THREADS * e) < samples - thread:
                re[e] = x_row.unsafe_offset(thread).unsafe_load[invariant=True](THREADS * e).cast[ACC]()
        if row + 1 < end and thread < ceildiv(samples, Int32(LINE)):
            fetch_line(x_row.unsafe_offset(Int(filters) * Int(samples)).unsafe_offset(thread * Int32(LINE)))
        transform_forward[length, folded=True, is_real=True](re, im, shared, workspace, thread)
        multiply_by_spectrum[length, is_constant=False](re, im, spectrum, thread)
        transform_back[length, folded=True, is_real=True](re, im, shared, workspace, thread)
        var y_row = y.unsafe_offset(Int(row * filters + filter) * Int(outputs)).unsafe_offset(thread)
        comptime for e in range(COUNT):
            if Int32(THREADS * e) < outputs - thread:
                y_row[unsafe_offset=THREADS * e] = (re[e] + offset).cast[dtype]()


@always_inline
def load_row_taps[
    dtype: DType, acc: DType, count: Int, //, length: Int
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    thread: Int32,
    taps: Int32,
    pad_left: Int32,
    is_flipped: Bool,
):
    """Reads a thread's points of a filter, divided by the length of the transform.

    As in block_pair.mojo, with windows that begin `pad_left` before the row: the tap that reaches n samples back is
    real part of point n, one that reaches m ahead is, with the other sign, imaginary part of point length - m. Taps
    that reach further meet no sample.

    Parameters:
        dtype: Element type of the taps.
        acc: Type of the transform.
        count: Points of a thread.
        length: Length of the transform.

    Args:
        re: Where the real parts go.
        im: Where the imaginary parts go.
        k: Taps.
        thread: Index of the thread.
        taps: K.
        pad_left: As in `Geometry`.
        is_flipped: True for convolution, False for correlation.
    """
    comptime SCALE = (1 / Float64(length)).cast[acc]()
    comptime for e in range(count):
        var j = pad_left - thread - Int32(threads(length) * e)
        if UInt32(j) < UInt32(taps):  # negative positions are large ones then
            re[e] = k[unsafe_offset=taps - 1 - j if is_flipped else j].cast[acc]() * SCALE
    if pad_left >= taps - 1:
        return  # a causal filter, of which no tap reaches ahead
    comptime for e in range(count):
        var n = thread + Int32(threads(length) * e)
        var j = pad_left - n + Int32(length)
        if UInt32(j) < UInt32(taps) and n > 0:
            im[e] = -k[unsafe_offset=taps - 1 - j if is_flipped else j].cast[acc]() * SCALE


def overlap_save_rows_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue[dtype],
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
    is_fast: Bool = False,
) raises:
    """Enqueues the computation of all outputs of all rows, in two launches; returns before they are there.

    Parameters:
        dtype: Element type of signal, taps and output, floating-point.

    Args:
        y: Outputs on the device, shape (rows, L_out); every one is written. Must not overlap x.
        x: Signals on the device, shape (rows, N).
        k: Taps on the device, shape (tap_rows, K).
        epilogue: A bias for each filter, or none; its activation is not looked at.
        workspace: On the device, `workspace_length_rows_gpu` elements, aligned to 16 bytes.
        geometry: Sizes and shifts.
        ctx: The device and its queue.
        is_fast: Whether half precision may have the accuracy of overlap_save_mma_gpu.mojo.

    Raises:
        If rows are too long for one transform, for the device's shared memory too, or a launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    if geometry.rows == 0 or geometry.outputs == 0:
        return  # a grid of no blocks is an error
    var needed = row_length(geometry.samples, geometry.outputs)
    if needed > LARGEST_SIZE:
        raise Error(
            "overlap_save_rows_gpu: rows of ",
            geometry.samples,
            " samples and ",
            geometry.outputs,
            " outputs are too long; at most ",
            LARGEST_SIZE,
        )
    comptime if has_tensor_cores[dtype]():
        if is_fast and serves_rows(geometry):
            var tables = workspace.unsafe_bitcast[Float32]()  # which it is
            var turns = turns_per_filter(geometry, OVERLAP_SAVE_MMA_BLOCKS)
            overlap_save_mma_gpu(y, x, k, epilogue, tables, geometry, turns, ctx)
            return
    comptime for exponent in range(log2_exact(SMALLEST_SIZE), log2_exact(LARGEST_SIZE) + 1):
        comptime length = 1 << exponent
        if needed == length:
            comptime bytes = shared_bytes(length, size_of[ACC]())
            require_shared_memory(bytes, ctx)
            comptime roots = fill_roots[ACC, length, True]
            ctx.enqueue_function[roots](workspace, grid_dim=root_slots(length), block_dim=threads(length))
            var turns = turns_per_filter(geometry, blocks_at_once[ACC](length))
            comptime kernel = convolve_rows[dtype, length]
            ctx.enqueue_function[kernel](
                y,
                x,
                k,
                epilogue,
                workspace,
                Int32(geometry.samples),
                Int32(geometry.taps),
                Int32(geometry.outputs),
                Int32(geometry.pad_left),
                Int32(1 if geometry.flip else 0),
                UInt32(geometry.tap_rows),
                UInt32(geometry.rows // geometry.tap_rows),
                UInt32(turns),
                grid_dim=geometry.tap_rows * turns,
                block_dim=threads(length),
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )
