"""Overlap-save FFT convolution on GPU: load, transform, multiply, transform back and store in one kernel.

Computes:   y[r, i] = sum_j x[r, i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x beyond its ends as `Border` says.
Algorithm:  a thread block takes two neighbouring blocks of the signal as real and imaginary part of one complex
            transform; the taps are real, so both parts come out convolved. Forward: decimation with natural input and
            bit-reversed spectrum (shared/fft_threads.mojo); the plan holds the spectrum of the taps in the same
            order, so nothing is reordered.
Cost:       per complex point 6*log2(nfft) + 4 fp32 instructions and 19 others (counted in SASS for sm_90a), 86 bytes
            through load and store units; nfft/(2*hop) points an output. For K = 1024, nfft = 4096, 2^26 float32 on
            an H200 (29.6e12 lanes/s issue, 29.6 TB/s L1): 144 us of issue, 130 us of L1, 128 us of device memory.
Layout:     x (rows, N), y (rows, L_out), k (1 or rows, K), contiguous. Plan, in accumulate.accum_dtype: the roots of
            unity of shared/fft_threads.mojo, then for each filter its spectrum (nfft points) / nfft.
Tile:       2*hop outputs, hop = nfft - K + 1, rounded down to a multiple of 32 where that costs little.
Accuracy:   computed in accumulate.accum_dtype on EVERY path of this file; error below 10*eps*log2(nfft) of
            ||x||*||k||, checked by check_overlap_save_gpu. A NaN or Inf spoils every thread block that loads it.
Gate:       1 <= K <= nfft, nfft in SIZES; above 48 KB of shared memory only where the device grants it.
Tuning:     nfft by the cost model of _plan.py; the registers of shared/fft_threads.mojo.
Measured:   2^26 float32, H200, 2026-11-22, in device copies: 1.18 at K = 64, 1.35 at 256, 1.55 at 1024, 2.5 at 4096.
Source:     overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 8.
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
from ..shared.fft_points import (
    LARGEST_SIZE,
    SIZES,
    SMALLEST_SIZE,
    blocks_per_multiprocessor,
    points,
    shared_bytes,
    threads,
)
from ..shared.fft_threads import (
    fill_roots,
    multiply_by_spectrum,
    roots_length,
    store_spectrum,
    transform_back,
    transform_forward,
)
from ..shared.geometry import Geometry
from ..shared.shared_memory import require_shared_memory, shared_memory_request


def plan_length_gpu(nfft: Int, tap_rows: Int) -> Int:
    """Gives the length of a plan.

    Args:
        nfft: Length of the transform.
        tap_rows: Number of filters.

    Returns:
        Elements of the accumulation type.
    """
    return roots_length(nfft) + tap_rows * 2 * nfft


@__llvm_metadata(MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(nfft))))
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
    comptime COUNT = points(nfft)
    var thread = Int32(thread_idx.x)
    var filter = Int(block_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    load_taps(re, k.unsafe_offset(filter * Int(taps)), Int(thread), threads(nfft), nfft, Int(taps), flip != 0)
    transform_forward[nfft](re, im, shared, plans, thread)
    store_spectrum[nfft](plans.unsafe_offset(roots_length(nfft) + filter * 2 * nfft), re, im, thread)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads(nfft))),
    `nvvm.minctasm`=SIMDLength(blocks_per_multiprocessor(nfft, size_of[accum_dtype[dtype]()]())),
)
def convolve_two_blocks[
    dtype: DType, nfft: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    samples: Int64,
    outputs: Int64,
    pad_left: Int64,
    has_own_filters: Int64,
    border_mode: Int64,
    border_value: Scalar[dtype],
    hop: Int32,
    blocks_per_row: UInt32,
):
    """Kernel: one thread block computes two neighbouring blocks of outputs of one row.

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
        has_own_filters: 1: each row has its spectrum; 0: one serves all.
        border_mode: As in `Border`.
        border_value: As in `Border`.
        hop: Outputs of one block.
        blocks_per_row: Thread blocks for each row.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(nfft)
    var thread = Int32(thread_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var re = Array[Scalar[ACC], COUNT](fill=0)
    var im = Array[Scalar[ACC], COUNT](fill=0)
    var row = UInt32(block_idx.x) // blocks_per_row
    var begin = Int(UInt32(block_idx.x) - row * blocks_per_row) * 2 * Int(hop)
    var first = begin - Int(pad_left)

    load_pair[nfft](
        re,
        im,
        x.unsafe_offset(Int(row) * Int(samples)),
        first + Int(thread),
        threads(nfft),
        Int(hop),
        Int(samples),
        Border[dtype](Int(border_mode), border_value),
        first >= 0 and first + Int(hop) + nfft <= Int(samples),
        shared,
        thread,
    )
    transform_forward[nfft](re, im, shared, plan, thread)
    var spectrum = plan.unsafe_offset(roots_length(nfft) + Int(row) * Int(has_own_filters) * 2 * nfft)
    multiply_by_spectrum[nfft](re, im, spectrum, thread)
    transform_back[nfft](re, im, shared, plan, thread)
    store_pair(y.unsafe_offset(Int(row) * Int(outputs)), re, im, begin, thread, threads(nfft), hop, Int(outputs))


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
    if nfft < SMALLEST_SIZE or nfft > LARGEST_SIZE or nfft & (nfft - 1) != 0:
        raise Error("overlap_save_gpu: no transform of length ", nfft, "; there are 512, 1024, 2048, 4096 and 8192")
    if taps < 1 or taps > nfft:
        raise Error("overlap_save_gpu: ", taps, " taps do not fit a transform of ", nfft, " points")
    require_shared_memory(shared_bytes(nfft, size_of[accum_dtype[dtype]()]()), ctx)


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
    comptime for size in materialize[SIZES]():
        if nfft == size:
            comptime bytes = shared_bytes(size, size_of[ACC]())
            comptime roots = fill_roots[ACC, size]
            ctx.enqueue_function[roots](plan, grid_dim=1, block_dim=threads(size))
            comptime kernel = transform_taps[dtype, size]
            ctx.enqueue_function[kernel](
                plan,
                k,
                Int64(geometry.taps),
                Int64(1 if geometry.flip else 0),
                grid_dim=geometry.tap_rows,
                block_dim=threads(size),
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
    var blocks_per_row = ceildiv(geometry.outputs, 2 * hop)
    if geometry.rows * blocks_per_row >= 1 << 31:
        raise Error("overlap_save_gpu: ", geometry.rows, " rows of ", blocks_per_row, " blocks exceed 2^31 - 1 blocks")
    comptime for size in materialize[SIZES]():
        if nfft == size:
            comptime bytes = shared_bytes(size, size_of[ACC]())
            comptime kernel = convolve_two_blocks[dtype, size]
            ctx.enqueue_function[kernel](
                y,
                x,
                plan,
                Int64(geometry.samples),
                Int64(geometry.outputs),
                Int64(geometry.pad_left),
                Int64(1 if geometry.tap_rows > 1 else 0),
                Int64(border.mode),
                border.value,
                Int32(hop),
                UInt32(blocks_per_row),
                grid_dim=geometry.rows * blocks_per_row,
                block_dim=threads(size),
                shared_mem_bytes=bytes,
                func_attribute=shared_memory_request(bytes),
            )
