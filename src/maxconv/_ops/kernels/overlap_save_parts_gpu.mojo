"""Overlap-save on GPU for thousands of taps: a block fills a whole multiprocessor, in 24 parts of a warp each.

Computes:   y[r, i] = sum_j x[r, i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x beyond its ends as `Border` says.
Algorithm:  a thread block takes one folded block of PARTS_BLOCK samples (shared/block_pair.mojo). Its threads split 24
            points at a time into the parts (shared/fft_parts.mojo); each warp takes a part through transform, product
            and inverse transform, then another; the threads join 24 points at a time and write what is good of them.
            Meanwhile the samples of a block to come are fetched into the level-2 cache: nothing else hides their way.
Cost:       PARTS_BLOCK / (2*hop) points an output; of each point 85 bytes through load and store units, and more
            instructions than of a block of overlap_save_gpu.mojo: two small transforms besides.
Layout:     x (rows, N), y (rows, L_out), k (a divisor of rows, K), contiguous. Plan: the roots of unity of
            shared/fft_parts.mojo, then for each filter its spectrum divided by the transform's length.
Tile:       hop = PARTS_BLOCK - K + 1, less up to 31.
Accuracy:   computed in float32 on EVERY path of this file; error below 10*eps*log2(PARTS_BLOCK) of ||x||*||k||,
            checked by check_overlap_save_gpu. A NaN or Inf spoils every thread block that loads it.
Gate:       1 <= K <= PARTS_BLOCK; element types that are summed in float32; 198 KB of shared memory must be granted.
Tuning:     OVERLAP_SAVE_PARTS_* and FFT_PARTS_* of shared/tuning_gpu.mojo; K from which it is taken by the cost model of
            _plan.py.
Measured:   2^26 float32, H200, 2026-11-23, in device copies: K = 16384 2.79, 2.97 as 1024 signals; K = 8192 2.52, as
            in blocks of 16384.
Tried:      no `fetch`, and parts of 4096 points, 16 a thread: slower, too; 64 a thread in two passes: far slower, for
            140 KB of instructions.
Source:     overlap-save: Oppenheim and Schafer, Discrete-Time Signal Processing, chapter 8.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceAttribute, DeviceContext
from max.gpu.memory import external_memory
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype
from ..shared.block_pair import hop_length, load_existing, load_folded_taps
from ..shared.border import CONSTANT, Border
from ..shared.fft_parts import (
    HELD,
    PART,
    PARTS,
    PARTS_BLOCK,
    PITCH,
    fill_part_roots,
    join_points,
    load_part_root,
    part_roots_length,
    split_points,
    turn_back,
)
from ..shared.fft_points import exchange, padded_place, points, read_points, write_points
from ..shared.fft_threads import forward_pass, inverse_pass, multiply_by_spectrum, store_spectrum
from ..shared.geometry import Geometry
from ..shared.level2 import LINE_BYTES, fetch_line
from ..shared.shared_memory import require_shared_memory, shared_memory_request
from ..shared.tuning_gpu import OVERLAP_SAVE_PARTS_LEAST_BLOCKS as LEAST_BLOCKS, OVERLAP_SAVE_PARTS_WARPS as WARPS, WARP

comptime THREADS = WARPS * WARP
"""Threads of a block."""

comptime BYTES = PARTS * PITCH * 4
"""Shared memory of a block."""


def plan_length_parts_gpu(tap_rows: Int) -> Int:
    """Gives the length of a plan.

    Args:
        tap_rows: Number of filters.

    Returns:
        Elements of the accumulation type.
    """
    return part_roots_length() + tap_rows * PARTS_BLOCK


@fieldwise_init
struct Place(TrivialRegisterPassable):
    """Where a thread block is at work."""

    var filter: Int
    """Which filter."""
    var row: Int
    """Which row."""
    var begin: Int
    """Its first output."""

    @staticmethod
    @always_inline
    def of(block: UInt32, blocks_per_row: UInt32, filters: UInt32, rows_per_filter: UInt32, hop: Int32) -> Self:
        """Finds the place of a block: rows of the same filter come one after the other.

        Args:
            block: Index of the thread block.
            blocks_per_row: Thread blocks for each row.
            filters: How many; row r is convolved with filter r modulo their number.
            rows_per_filter: Rows that each filter serves.
            hop: Outputs of one block.

        Returns:
            The place.
        """
        var turn = block // blocks_per_row
        var filter = turn // rows_per_filter
        var row = (turn - filter * rows_per_filter) * filters + filter
        return Self(Int(filter), Int(row), Int(block - turn * blocks_per_row) * Int(hop))


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)), `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS)
)
def transform_taps_by_parts[
    dtype: DType
](
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int64,
    flip: Int64,
    parts: Int32,
):
    """Kernel: one block computes the spectrum of one filter into the plan.

    Parameters:
        dtype: Element type of the taps.

    Args:
        plan: The plan; its roots of unity are filled in.
        k: Taps.
        taps: K.
        flip: 1 for convolution, 0 for correlation.
        parts: PARTS.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(PART, HELD)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var filter = Int(block_idx.x)
    for n in range(Int32(thread_idx.x), Int32(PART), Int32(THREADS)):
        var re = Array[Scalar[ACC], PARTS](fill=0)
        var im = Array[Scalar[ACC], PARTS](fill=0)
        var mine = k.unsafe_offset(filter * Int(taps))
        load_folded_taps(re, im, mine, Int(n), PART, PARTS * PART, Int(taps), flip != 0)
        write_parts(re, im, shared, n)
    barrier()
    var thread = Int32(thread_idx.x) % Int32(WARP)
    for part in range(Int32(thread_idx.x) // Int32(WARP), parts, Int32(WARPS)):
        var re = Array[Scalar[ACC], COUNT](fill=0)
        var im = Array[Scalar[ACC], COUNT](fill=0)
        transform_part(re, im, shared.unsafe_offset(part * Int32(PITCH)), plan, part, thread)
        var spectrum = plan.unsafe_offset(part_roots_length() + (filter * PARTS + Int(part)) * 2 * PART)
        store_spectrum[PART, HELD](spectrum, re, im, thread)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)), `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS)
)
def convolve_by_parts[
    dtype: DType
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
    blocks_ahead: UInt32,
    parts: Int32,
):
    """Kernel: one thread block computes a folded block of outputs of one row.

    Parameters:
        dtype: Element type of signal and output.

    Args:
        y: Outputs.
        x: Signals.
        plan: The plan.
        samples: N.
        outputs: L_out.
        pad_left: As in `Geometry`.
        filters: As for `Place.of`.
        rows_per_filter: As for `Place.of`.
        border_mode: As in `Border`.
        border_value: As in `Border`.
        hop: Outputs of one block.
        blocks_per_row: Thread blocks for each row.
        blocks_ahead: How many blocks later the one comes whose samples are fetched: as many as run at a time.
        parts: PARTS; if the compiler knew, it would write out the loop, longer than the cache of instructions.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime COUNT = points(PART, HELD)
    var index = Int32(thread_idx.x)
    var shared = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var place = Place.of(UInt32(block_idx.x), blocks_per_row, filters, rows_per_filter, hop)
    var first = place.begin - Int(pad_left)
    var x_row = x.unsafe_offset(place.row * Int(samples))
    var border = Border[dtype](Int(border_mode), border_value)
    for n in range(index, Int32(PART), Int32(THREADS)):
        var re = Array[Scalar[ACC], PARTS](fill=0)
        var im = Array[Scalar[ACC], PARTS](fill=0)
        load_points(re, im, x_row, first + Int(n), Int(samples), border, first, shared, n)
        write_parts(re, im, shared, n)
    if UInt32(block_idx.x) + blocks_ahead < UInt32(grid_dim.x):
        var later = Place.of(UInt32(block_idx.x) + blocks_ahead, blocks_per_row, filters, rows_per_filter, hop)
        fetch(x.unsafe_offset(later.row * Int(samples)), later.begin - Int(pad_left), Int(samples), Int(index))
    barrier()

    var thread = index % Int32(WARP)
    for part in range(index // Int32(WARP), parts, Int32(WARPS)):
        var re = Array[Scalar[ACC], COUNT](fill=0)
        var im = Array[Scalar[ACC], COUNT](fill=0)
        var mine = shared.unsafe_offset(part * Int32(PITCH))
        transform_part(re, im, mine, plan, part, thread)
        var spectrum = plan.unsafe_offset(part_roots_length() + (place.filter * PARTS + Int(part)) * 2 * PART)
        multiply_by_spectrum[PART, HELD](re, im, spectrum, thread)
        inverse_pass[PART, 1, HELD](re, im, 0)
        exchange[PART, 1, 0, 1, HELD](re, im, mine, thread)
        inverse_pass[PART, 0, HELD](re, im, load_part_root[2](plan, part, thread))
        turn_back(re, im, plan, part, thread)
        write_points[PART, 0, 1, HELD](re, im, mine, thread)
    barrier()

    for n in range(index, Int32(PART), Int32(THREADS)):
        var re = Array[Scalar[ACC], PARTS](fill=0)
        var im = Array[Scalar[ACC], PARTS](fill=0)
        read_parts(re, im, shared, n)
        join_points(re, im)
        var y_here = y.unsafe_offset(place.row * Int(outputs) + place.begin + Int(n))
        var end = Int32(min(Int(outputs) - place.begin, Int(hop))) - n
        comptime for s in range(PARTS):
            if Int32(s * PART) < end:
                y_here[unsafe_offset=s * PART] = re[s].cast[dtype]()
            if Int32((s + PARTS) * PART) < end:
                y_here[unsafe_offset=(s + PARTS) * PART] = im[s].cast[dtype]()


@always_inline
def transform_part[
    acc: DType, count: Int
](
    mut re: Array[Scalar[acc], count],
    mut im: Array[Scalar[acc], count],
    mine: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    plan: Pointer[Scalar[acc], MutAnyOrigin],
    part: Int32,
    thread: Int32,
):
    """Reads a part from shared memory and transforms it.

    Parameters:
        acc: Accumulation type.
        count: Points of a thread.

    Args:
        re: Where the real parts go.
        im: Where the imaginary parts go.
        mine: Where the part begins.
        plan: The plan.
        part: Which part.
        thread: Index of the thread within the part.
    """
    read_points[PART, 0, 1, HELD](re, im, mine, thread)
    forward_pass[PART, 0, folded=False, turned=True, held=HELD](re, im, load_part_root[0](plan, part, thread))
    exchange[PART, 0, 1, 1, HELD](re, im, mine, thread)
    forward_pass[PART, 1, folded=False, held=HELD](re, im, load_part_root[1](plan, part, thread))


@always_inline
def write_parts[
    acc: DType
](
    mut re: Array[Scalar[acc], PARTS],
    mut im: Array[Scalar[acc], PARTS],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    n: Int32,
):
    """Splits points n, n + PART, ... and writes point n of every part to shared memory.

    Parameters:
        acc: Accumulation type.

    Args:
        re: Real parts.
        im: Imaginary parts.
        shared: The parts, one behind the other.
        n: Index of the point, below PART.
    """
    split_points(re, im)
    var place = shared.unsafe_offset(2 * padded_place[PART, 1, HELD](n))
    comptime for r in range(PARTS):
        place.unsafe_store[alignment=2 * size_of[acc]()](r * PITCH, SIMD[acc, 2](re[r], im[r]))


@always_inline
def read_parts[
    acc: DType
](
    mut re: Array[Scalar[acc], PARTS],
    mut im: Array[Scalar[acc], PARTS],
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    n: Int32,
):
    """Reads point n of every part from shared memory.

    Parameters:
        acc: Accumulation type.

    Args:
        re: Where the real parts go.
        im: Where the imaginary parts go.
        shared: The parts, one behind the other.
        n: Index of the point, below PART.
    """
    var place = shared.unsafe_offset(2 * padded_place[PART, 1, HELD](n))
    comptime for r in range(PARTS):
        var point = place.unsafe_load[width=2, alignment=2 * size_of[acc]()](r * PITCH)
        re[r] = point[0]
        im[r] = point[1]


@always_inline
def load_points[
    dtype: DType, acc: DType
](
    mut re: Array[Scalar[acc], PARTS],
    mut im: Array[Scalar[acc], PARTS],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    first: Int,
    samples: Int,
    border: Border[dtype],
    block_first: Int,
    shared: Pointer[Scalar[acc], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    n: Int32,
):
    """Reads samples n, n + PART, ... of a block, the second half as imaginary parts.

    Parameters:
        dtype: Element type of the signal.
        acc: Type of the transform.

    Args:
        re: Where the real parts go.
        im: Where the imaginary parts go.
        x: The row of the signal.
        first: Position of sample n in the row; may lie outside.
        samples: N.
        border: What lies beyond the ends; to OMIT terms its value must be 0.
        block_first: Position of the block's first sample.
        shared: The parts, of whose places n the thread makes use.
        n: Index of the sample.
    """
    if block_first >= 0 and block_first + PARTS_BLOCK <= samples:
        var here = x.unsafe_offset(first)
        comptime for s in range(PARTS):
            re[s] = here.unsafe_load[invariant=True](s * PART).cast[acc]()
            im[s] = here.unsafe_load[invariant=True]((s + PARTS) * PART).cast[acc]()
    elif border.mode <= CONSTANT:
        load_existing(re, x, first, PART, samples, border.value)
        load_existing(im, x, first + PARTS * PART, PART, samples, border.value)
    else:
        # By way of shared memory, in a loop that is not unrolled: the arithmetic of borders is long.
        var place = shared.unsafe_offset(2 * padded_place[PART, 1, HELD](n))
        for s in range(PARTS):
            var point = SIMD[acc, 2](
                border.sample(x, first + s * PART, samples).cast[acc](),
                border.sample(x, first + (s + PARTS) * PART, samples).cast[acc](),
            )
            place.unsafe_store[alignment=2 * size_of[acc]()](s * PITCH, point)
        read_parts(re, im, shared, n)


@always_inline
def fetch[dtype: DType](x: Pointer[Scalar[dtype], MutAnyOrigin], first: Int, samples: Int, thread: Int):
    """Asks for the samples of a block to be brought into the level-2 cache.

    Parameters:
        dtype: Element type.

    Args:
        x: The row of the signal.
        first: Position of the block's first sample.
        samples: N.
        thread: Index of the thread.
    """
    comptime LINE = LINE_BYTES // size_of[dtype]()
    for line in range(thread, PARTS_BLOCK // LINE, THREADS):
        var position = first + line * LINE
        if 0 <= position and position < samples:
            fetch_line(x.unsafe_offset(position))


def require_parts_size[dtype: DType](taps: Int, ctx: DeviceContext) raises:
    """Refuses what this file cannot do.

    Parameters:
        dtype: Element type.

    Args:
        taps: K.
        ctx: The device.

    Raises:
        If there are too many taps, or the device has too little shared memory.
    """
    comptime assert accum_dtype[dtype]() == DType.float32
    if taps < 1 or taps > PARTS_BLOCK:
        raise Error("overlap_save_parts_gpu: ", taps, " taps do not fit a block of ", PARTS_BLOCK, " samples")
    require_shared_memory(BYTES, ctx)


def prepare_plan_parts_gpu[
    dtype: DType
](
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of a plan: two small kernels; it serves any number of calls with the same taps.

    Parameters:
        dtype: Element type of the taps, one that is summed in float32.

    Args:
        plan: On the device, plan_length_parts_gpu(tap_rows) elements, aligned to 16 bytes; all are written.
        k: Taps on the device, shape (tap_rows, K).
        geometry: Number and length of the filters, and the direction; the rest is not looked at.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or a launch is refused.
    """
    require_parts_size[dtype](geometry.taps, ctx)
    comptime roots = fill_part_roots[accum_dtype[dtype]()]
    ctx.enqueue_function[roots](plan, grid_dim=PARTS, block_dim=WARP)
    comptime kernel = transform_taps_by_parts[dtype]
    ctx.enqueue_function[kernel](
        plan,
        k,
        Int64(geometry.taps),
        Int64(1 if geometry.flip else 0),
        Int32(PARTS),
        grid_dim=geometry.tap_rows,
        block_dim=THREADS,
        shared_mem_bytes=BYTES,
        func_attribute=shared_memory_request(BYTES),
    )


def overlap_save_parts_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    plan: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    geometry: Geometry,
    border: Border[dtype],
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs of all rows, in one launch; returns before they are there.

    Parameters:
        dtype: Element type of signal and output, one that is summed in float32.

    Args:
        y: Outputs on the device, shape (rows, L_out); every one is written. Must not overlap x.
        x: Signals on the device, shape (rows, N).
        plan: The plan that `prepare_plan_parts_gpu` made of the taps.
        geometry: Sizes and shifts; `flip` is not looked at, the plan knows.
        border: What lies beyond the ends; to OMIT terms its value must be 0.
        ctx: The device and its queue.

    Raises:
        If the size does not fit or the launch is refused.
    """
    require_parts_size[dtype](geometry.taps, ctx)
    if geometry.rows == 0 or geometry.outputs == 0:
        return  # a grid of no blocks is an error
    var hop = hop_length(PARTS_BLOCK, geometry.taps)
    var blocks_per_row = ceildiv(geometry.outputs, hop)
    if geometry.rows * blocks_per_row >= 1 << 31:
        raise Error("overlap_save_parts_gpu: ", geometry.rows, " rows of ", blocks_per_row, " blocks exceed 2^31 - 1")
    comptime kernel = convolve_by_parts[dtype]
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
        UInt32(ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT)),
        Int32(PARTS),
        grid_dim=geometry.rows * blocks_per_row,
        block_dim=THREADS,
        shared_mem_bytes=BYTES,
        func_attribute=shared_memory_request(BYTES),
    )
