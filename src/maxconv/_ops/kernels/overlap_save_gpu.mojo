"""Overlap-save FFT convolution on GPU: load, transform, multiply, transform back and store in one kernel.

Computes:   y[r, i] = sum_j x[r, i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x beyond its ends as `Border` says.
Algorithm:  a thread block takes two neighbouring blocks of the signal as real and imaginary part of one complex
            transform, or above LONGEST_PAIRED the halves of one block (shared/block_pair.mojo). Forward: decimation
            with natural input and bit-reversed spectrum (shared/fft_threads.mojo); the plan holds the spectrum of the
            taps in the same order, so nothing is reordered.
Cost:       per complex point 6*log2(nfft) + 4 fp32 instructions and 19 others (counted in SASS for sm_90a), 86 bytes
            through load and store units, folded 9 instructions more; nfft/(2*hop) points an output, folded too. For
            K = 1024, nfft = 4096, 2^26 float32 on an H200 (29.6e12 lanes/s issue, 29.6 TB/s L1): 144 us of issue, 130
            us of L1, 128 us of device memory.
Layout:     x (rows, N), y (rows, L_out), k (a divisor of rows, K), contiguous. Plan, in accumulate.accum_dtype: the
            roots of unity of shared/fft_threads.mojo, then for each filter its spectrum divided by the transform's
            length.
Tile:       2*hop outputs, folded one hop; hop = nfft - K + 1, less up to 31 where that costs little.
Accuracy:   computed in accumulate.accum_dtype on EVERY path of this file; error below 10*eps*log2(nfft) of
            ||x||*||k||, checked by check_overlap_save_gpu. A NaN or Inf spoils every thread block that loads it.
Gate:       1 <= K <= nfft, nfft from SMALLEST_SIZE to LONGEST_BLOCK; above 48 KB of shared memory only where the
            device grants it.
Tuning:     nfft by the cost model of _plan.py; BLOCK_PAIR_* and fft_* of shared/tuning_gpu.mojo.
Measured:   2^26 float32, H200, 2026-11-23, in device copies (gpu.json): 1.16 at K = 64, 1.32 at 256, 1.42 at 1024,
            1.82 at 4096; 1024 signals 1.18, 1.37, 1.51, 2.12. Two blocks of 8192 instead of a folded one of 16384
            (BLOCK_PAIR_LONGEST_PAIRED): 2.44 at 4096.
Source:     overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 8.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import external_memory

from ..shared.accumulate import accum_dtype
from ..shared.block_pair import (
    hop_length,
    is_folded,
    load_folded_taps,
    load_pair,
    load_taps,
    reach,
    store_pair,
    transform_length,
)
from ..shared.border import Border
from ..shared.fft_points import (
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
from ..shared.geometry import Geometry
from ..shared.shared_memory import require_shared_memory, shared_memory_request
from ..shared.tuning_gpu import BLOCK_PAIR_LONGEST_BLOCK as LONGEST_BLOCK


def plan_length_gpu(nfft: Int, tap_rows: Int) -> Int:
    """Gives the length of a plan.

    Args:
        nfft: Length of a block.
        tap_rows: Number of filters.

    Returns:
        Elements of the accumulation type.
    """
    var length = transform_length(nfft)
    return roots_length(length) + tap_rows * 2 * length


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(transform_length(nfft)))))
def transform_taps[
    dtype: DType, nfft: Int
](
    plans: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int64,
    flip: Int64,
):
    """Kernel: one block computes the spectrum of one filter into its plan.

    Parameters:
        dtype: Element type of the taps.
        nfft: Length of the transform.

    Args:
        plans: The plans; the roots of unity of the first are filled in.
        k: Taps.
        taps: K.
        flip: 1 for convolution, 0 for correlation.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime LENGTH = transform_length(nfft)
    comptime COUNT = points(LENGTH)
    var thread = Int32(thread_idx.x)
    var filter = Int(block_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    var mine = k.unsafe_offset(filter * Int(taps))
    comptime if is_folded(nfft):
        load_folded_taps(re, im, mine, Int(thread), threads(LENGTH), LENGTH, Int(taps), flip != 0)
    else:
        load_taps(re, mine, Int(thread), threads(LENGTH), LENGTH, Int(taps), flip != 0)
    transform_forward[LENGTH, folded=is_folded(nfft)](re, im, shared, plans, thread)
    store_spectrum[LENGTH](plans.unsafe_offset(roots_length(LENGTH) + filter * 2 * LENGTH), re, im, thread)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(transform_length(nfft)))),
    `nvvm.minctasm`=SIMDLength(blocks_per_multiprocessor(transform_length(nfft), size_of[accum_dtype[dtype]()]())),
)
def convolve_blocks[
    dtype: DType, nfft: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    samples: Int64,
    outputs: Int64,
    pad_left: Int64,
    filters: UInt32,
    rows_per_filter: UInt32,
    border_mode: Int64,
    border_value: Scalar[dtype],
    hop: Int32,
    blocks_per_row: UInt32,
):
    """Kernel: one thread block computes two neighbouring blocks of outputs of one row, or a folded one.

    Parameters:
        dtype: Element type of signal and output.
        nfft: Length of the transform.

    Args:
        y: Outputs.
        x: Signals.
        plan: The plan.
        samples: N.
        outputs: L_out.
        pad_left: As in `Geometry`.
        filters: How many; row r is convolved with filter r modulo their number.
        rows_per_filter: Rows that each filter serves.
        border_mode: As in `Border`.
        border_value: As in `Border`.
        hop: Outputs of one block.
        blocks_per_row: Thread blocks for each row.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime LENGTH = transform_length(nfft)
    comptime COUNT = points(LENGTH)
    var thread = Int32(thread_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    # Rows of the same filter one after the other, so that its spectrum is read from memory once.
    var turn = UInt32(block_idx.x) // blocks_per_row
    var filter = UInt32(0)
    var row = turn
    if filters > 1:  # a division is 2 % of a block's time
        filter = turn // rows_per_filter
        row = (turn - filter * rows_per_filter) * filters + filter
    var good = reach(nfft, Int(hop))
    var begin = Int(UInt32(block_idx.x) - turn * blocks_per_row) * good
    var first = begin - Int(pad_left)
    var distance = LENGTH if is_folded(nfft) else Int(hop)

    load_pair[LENGTH](
        re,
        im,
        x.unsafe_offset(Int(row) * Int(samples)),
        first + Int(thread),
        threads(LENGTH),
        distance,
        Int(samples),
        Border[dtype](Int(border_mode), border_value),
        first >= 0 and first + distance + LENGTH <= Int(samples),
        shared,
        thread,
    )
    transform_forward[LENGTH, folded=is_folded(nfft)](re, im, shared, plan, thread)
    var spectrum = plan.unsafe_offset(roots_length(LENGTH) + Int(filter) * 2 * LENGTH)
    multiply_by_spectrum[LENGTH](re, im, spectrum, thread)
    transform_back[LENGTH, folded=is_folded(nfft)](re, im, shared, plan, thread)
    var y_row = y.unsafe_offset(Int(row) * Int(outputs))
    store_pair(y_row, re, im, begin, thread, threads(LENGTH), Int32(distance), Int32(good), Int(outputs))


def require_size[dtype: DType](nfft: Int, taps: Int, ctx: DeviceContext) raises:
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
    if nfft < SMALLEST_SIZE or nfft > LONGEST_BLOCK or nfft & (nfft - 1) != 0:
        raise Error("overlap_save_gpu: no blocks of length ", nfft, "; there are 512 to ", LONGEST_BLOCK)
    if taps < 1 or taps > nfft:
        raise Error("overlap_save_gpu: ", taps, " taps do not fit a block of ", nfft, " samples")
    require_shared_memory(shared_bytes(transform_length(nfft), size_of[accum_dtype[dtype]()]()), ctx)


def prepare_plan_gpu[
    dtype: DType
](
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    nfft: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of a plan: two small kernels; it serves any number of calls with the same taps.

    Parameters:
        dtype: Element type of the taps.

    Args:
        plan: On the device, plan_length_gpu(nfft, tap_rows) elements, aligned to 16 bytes; all are written.
        k: Taps on the device, shape (tap_rows, K).
        geometry: Number and length of the filters, and the direction; the rest is not looked at.
        nfft: Length of the transform, one of SIZES.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or a launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    require_size[dtype](nfft, geometry.taps, ctx)
    comptime for exponent in range(log2_exact(SMALLEST_SIZE), log2_exact(LONGEST_BLOCK) + 1):
        comptime size = 1 << exponent
        if nfft == size:
            comptime length = transform_length(size)
            comptime bytes = shared_bytes(length, size_of[ACC]())
            comptime roots = fill_roots[ACC, length, is_folded(size)]
            ctx.enqueue_function[roots](plan, grid_dim=root_slots(length), block_dim=threads(length))
            comptime kernel = transform_taps[dtype, size]
            ctx.enqueue_function[kernel](
                plan,
                k,
                Int64(geometry.taps),
                Int64(1 if geometry.flip else 0),
                grid_dim=geometry.tap_rows,
                block_dim=threads(length),
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )


def overlap_save_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    geometry: Geometry,
    border: Border[dtype],
    nfft: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs of all rows, in one launch; returns before they are there.

    Parameters:
        dtype: Element type of signal and output, floating-point.

    Args:
        y: Outputs on the device, shape (rows, L_out); every one is written. Must not overlap x.
        x: Signals on the device, shape (rows, N).
        plan: The plan that `prepare_plan_gpu` made of the taps for the same `nfft`.
        geometry: Sizes and shifts; `flip` is not looked at, the plan knows.
        border: What lies beyond the ends; to OMIT terms its value must be 0.
        nfft: Length of the transform, one of SIZES, at least K.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or the launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    require_size[dtype](nfft, geometry.taps, ctx)
    if geometry.rows == 0 or geometry.outputs == 0:
        return  # a grid of no blocks is an error
    var hop = hop_length(nfft, geometry.taps)
    var blocks_per_row = ceildiv(geometry.outputs, reach(nfft, hop))
    if geometry.rows * blocks_per_row >= 1 << 31:
        raise Error("overlap_save_gpu: ", geometry.rows, " rows of ", blocks_per_row, " blocks exceed 2^31 - 1 blocks")
    comptime for exponent in range(log2_exact(SMALLEST_SIZE), log2_exact(LONGEST_BLOCK) + 1):
        comptime size = 1 << exponent
        if nfft == size:
            comptime length = transform_length(size)
            comptime bytes = shared_bytes(length, size_of[ACC]())
            comptime kernel = convolve_blocks[dtype, size]
            ctx.enqueue_function[kernel](
                y,
                x,
                plan,
                Int64(geometry.samples),
                Int64(geometry.outputs),
                Int64(geometry.pad_left),
                UInt32(geometry.tap_rows),
                UInt32(geometry.rows // geometry.tap_rows),
                Int64(border.mode),
                border.value,
                Int32(hop),
                UInt32(blocks_per_row),
                grid_dim=geometry.rows * blocks_per_row,
                block_dim=threads(length),
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )
