"""Direct 1-D convolution on GPU: a tile of the signal with its halo in shared memory, outputs in registers.

Computes:   y[i] = sum_j x[i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x goes on beyond its ends as a
            `Border` says, or terms outside it are left out.
Algorithm:  one block per tile of outputs. The block stages the tile's samples, the halo from its neighbour's part of
            x, and up to CHUNK taps in shared memory; after a barrier each thread slides a register window over runs
            of neighbouring outputs. More taps than CHUNK take more passes over the same sums.
Cost:       2*L_out*K flop; reads (1 + K/TILE)*N, writes L_out elements; memory-bound below K ~ 48 for float32 on
            an H200 (51 TFLOP/s, 4.2 TB/s) if the adders were all busy; in fact below K ~ 16.
Layout:     x (rows, N), k (1 or rows, K), y (rows, L_out), contiguous. Reads are 16-byte vectors wherever x begins: samples before the
            first one that is needed are staged too, and the taps are staged behind as many unused places (`lead`).
Tile:       THREADS * group_count * run_length outputs, 1024 or 2048; shared memory holds TILE + CHUNK samples and
            CHUNK taps, at most 13 KB (float64).
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file, taps in rising j.
Gate:       none: any N, K, L_out >= 0 and any pad_left; N >= 1 with a border. Few taps go to direct_short_gpu.mojo.
Tuning:     DIRECT_* of shared/tuning_gpu.mojo.
Measured:   2.0 device copies at K = 64 (there the adders are half idle; benchmarks/mojo/bench_direct_gpu.mojo).
Tried:      64-bit indices and a test of every tap against the chunk's end, or one vector of taps per iteration, which
            moves `high` to `low` each time: slower.
Source:     the shared-memory tile with halo of the GPU puzzle that op "conv1d" comes from; thread coarsening with a
            register window as in Volkov, Better Performance at Lower Occupancy, 2010.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys.info import size_of
from max.gpu import block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES
from ..shared.border import OMIT, Border
from ..shared.geometry import Geometry
from ..shared.tuning_gpu import (
    DIRECT_CHUNK as CHUNK,
    DIRECT_MAX_OUTPUTS_PER_THREAD as MAX_OUTPUTS_PER_THREAD,
    DIRECT_THREADS as THREADS,
    DIRECT_VECTORS_PER_THREAD as VECTORS_PER_THREAD,
    MAX_GRID_ROWS,
)
from .direct_short_gpu import direct_short_gpu, is_short_direct


def run_length[dtype: DType]() -> Int:
    """Gives how many neighbouring outputs a thread computes in each group.

    Parameters:
        dtype: Element type of the arrays.

    Returns:
        One vector access full.
    """
    return VECTOR_BYTES // size_of[dtype]()


def direct_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
    border: Border[dtype] = Border[dtype](OMIT, 0),
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs on the device, shape (rows, L_out); every one is written.
        x: Signals on the device, shape (rows, N).
        k: Taps on the device, shape (tap_rows, K).
        geometry: Sizes and shifts.
        ctx: The device and its queue.
        border: How the signals go on beyond their ends.

    Raises:
        If the launch is refused.
    """
    if geometry.outputs == 0:
        return  # a grid of no blocks is an error
    comptime if dtype.is_floating_point():
        if is_short_direct[dtype](geometry):
            direct_short_gpu(y, x, k, geometry, ctx, border)
            return
    comptime TILE = THREADS * group_count[dtype]() * run_length[dtype]()
    comptime kernel = compute_tile[dtype]
    for first_row in range(0, geometry.rows, MAX_GRID_ROWS):
        ctx.enqueue_function[kernel](
            y.unsafe_offset(first_row * geometry.outputs),
            x.unsafe_offset(first_row * geometry.samples),
            k.unsafe_offset(geometry.taps_offset(first_row)),
            Int64(geometry.samples),
            Int64(geometry.taps),
            Int64(geometry.outputs),
            Int64(geometry.pad_left),
            Int64(1 if geometry.flip else 0),
            Int64(geometry.tap_rows),
            Int64(border.mode),
            border.value,
            grid_dim=(ceildiv(geometry.outputs, TILE), min(MAX_GRID_ROWS, geometry.rows - first_row)),
            block_dim=THREADS,
        )


def group_count[dtype: DType]() -> Int:
    """Gives how many runs of neighbouring outputs a thread computes.

    Parameters:
        dtype: Element type of the arrays.

    Returns:
        Runs per thread; they lie a whole block apart, so that every access stays coalesced.
    """
    return min(VECTORS_PER_THREAD, MAX_OUTPUTS_PER_THREAD // run_length[dtype]())


@always_inline
def first_of_run[dtype: DType](group: Int, thread: Int32) -> Int32:
    """Finds the first output of one of a thread's runs.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        group: Which of the thread's runs.
        thread: Index of the thread in its block.

    Returns:
        Index within the tile.
    """
    return (Int32(group * THREADS) + thread) * Int32(run_length[dtype]())


def compute_tile[
    dtype: DType
](
    y_rows: Pointer[Scalar[dtype], MutAnyOrigin],
    x_rows: Pointer[Scalar[dtype], MutAnyOrigin],
    k_rows: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int64,
    taps: Int64,
    outputs: Int64,
    pad_left: Int64,
    flip: Int64,
    tap_rows: Int64,
    border_mode: Int64,
    border_value: Scalar[dtype],
):
    """Kernel: one block computes one tile of outputs of one row.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y_rows: Outputs.
        x_rows: Signals.
        k_rows: Taps.
        samples: N.
        taps: K.
        outputs: L_out.
        pad_left: As in `Geometry`.
        flip: 1 for convolution, 0 for correlation.
        tap_rows: As in `Geometry`.
        border_mode: As in `Border`.
        border_value: As in `Border`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime RUN = run_length[dtype]()
    comptime GROUPS = group_count[dtype]()
    comptime TILE = THREADS * GROUPS * RUN
    var window = unsafe_stack_allocation[
        TILE + CHUNK + 2 * RUN, Scalar[dtype], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var tap_window = unsafe_stack_allocation[
        CHUNK + 2 * RUN, Scalar[dtype], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var geometry = Geometry(
        samples=Int(samples),
        taps=Int(taps),
        outputs=Int(outputs),
        pad_left=Int(pad_left),
        flip=flip != 0,
        rows=Int(grid_dim.y),
        tap_rows=Int(tap_rows),
    )
    var border = Border[dtype](Int(border_mode), border_value)
    var row = Int(block_idx.y)
    var y = y_rows.unsafe_offset(row * geometry.outputs)
    var x = x_rows.unsafe_offset(row * geometry.samples)
    var k = k_rows.unsafe_offset(geometry.taps_offset(row))
    var tile_begin = Int(block_idx.x) * TILE
    var thread = Int32(thread_idx.x)
    var sums = Array[SIMD[ACC, RUN], GROUPS](fill=0)

    var begin = 0
    var end = geometry.taps
    if border.omits():
        # Only taps that meet a sample: a signal shorter than the taps then costs N*L_out, not K*L_out.
        begin = max(0, geometry.first_tap(tile_begin + TILE - 1))
        end = min(geometry.taps, geometry.end_tap(tile_begin))
    for chunk_begin in range(begin, end, CHUNK):
        var chunk = Int32(min(CHUNK, end - chunk_begin))
        var window_begin = geometry.input_index(tile_begin, chunk_begin)
        # Elements between the last 16-byte boundary and the first sample; RUN is a power of two.
        var lead = Int32((Int(x) // size_of[dtype]() + window_begin) & (RUN - 1))
        var staged = (lead + Int32(TILE + RUN - 2) + chunk) & ~Int32(RUN - 1)
        var staged_begin = window_begin - Int(lead)
        var is_interior = staged_begin >= 0 and staged_begin + Int(staged) <= geometry.samples
        var at = thread
        if is_interior:
            at *= Int32(RUN)
            while at < staged:
                var samples_there = x.unsafe_offset(staged_begin + Int(at))
                window.unsafe_store[alignment=VECTOR_BYTES](
                    at, samples_there.unsafe_load[width=RUN, alignment=VECTOR_BYTES, invariant=True]()
                )
                at += Int32(THREADS * RUN)
        else:
            while at < staged:
                window[unsafe_offset=at] = border.sample(x, staged_begin + Int(at), geometry.samples)
                at += Int32(THREADS)
        var j = thread
        while j < chunk:
            tap_window[unsafe_offset=lead + j] = k[unsafe_offset=geometry.tap_index(chunk_begin + Int(j))]
            j += Int32(THREADS)
        barrier()

        # Tap j of the chunk is at lead + j, and meets output o of the tile at sample lead + j + o of the window.
        if is_interior or not border.omits():
            add_taps(sums, window, tap_window, lead, lead + chunk, thread)
        else:
            add_taps_at_edge(sums, window, tap_window, lead, lead + chunk, thread, staged_begin, geometry.samples)
        barrier()  # the next chunk overwrites what slower threads still read

    comptime for group in range(GROUPS):
        var first = tile_begin + Int(first_of_run[dtype](group, thread))
        var values = sums[group].cast[dtype]()
        if first + RUN <= geometry.outputs and Int(y) % VECTOR_BYTES == 0:
            y.unsafe_store[alignment=VECTOR_BYTES](first, values)
        else:
            comptime for output in range(RUN):
                if first + output < geometry.outputs:
                    y[unsafe_offset=first + output] = values[output]


@always_inline
def add_taps[
    dtype: DType, acc: DType, run: Int, groups: Int
](
    mut sums: Array[SIMD[acc, run], groups],
    window: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    tap_window: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    start: Int32,
    stop: Int32,
    thread: Int32,
):
    """Adds the taps [start, stop) of the window to every sum of a thread: vectors of taps against sliding vectors.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        run: Outputs per group.
        groups: Groups per thread.

    Args:
        sums: The thread's sums.
        window: Staged samples.
        tap_window: Staged taps.
        start: First position that holds a tap, less than `run`.
        stop: One past the last.
        thread: Index of the thread in its block.
    """
    var low = load_runs[acc, run, groups](window, 0, thread)
    var j = Int32(0)
    if start > 0:
        var high = load_runs[acc, run, groups](window, Int32(run), thread)
        add_some_taps(sums, low, high, load_vector[acc, run](tap_window, 0), start, stop)
        low = high^
        j = Int32(run)
    while j + Int32(2 * run) <= stop:  # two vectors at a time: `low` and `high` change roles instead of places
        var taps = load_vector[acc, run](tap_window, j)
        var high = load_runs[acc, run, groups](window, j + Int32(run), thread)
        comptime for step in range(run):
            add_tap[step=step](sums, low, high, taps)
        taps = load_vector[acc, run](tap_window, j + Int32(run))
        low = load_runs[acc, run, groups](window, j + Int32(2 * run), thread)
        comptime for step in range(run):
            add_tap[step=step](sums, high, low, taps)
        j += Int32(2 * run)
    if j + Int32(run) <= stop:
        var taps = load_vector[acc, run](tap_window, j)
        var high = load_runs[acc, run, groups](window, j + Int32(run), thread)
        comptime for step in range(run):
            add_tap[step=step](sums, low, high, taps)
        low = high^
        j += Int32(run)
    if j < stop:
        # Behind the last tap this reads staged memory that no sum uses.
        var high = load_runs[acc, run, groups](window, j + Int32(run), thread)
        add_some_taps(sums, low, high, load_vector[acc, run](tap_window, j), 0, stop - j)


@always_inline
def add_some_taps[
    acc: DType, run: Int, groups: Int
](
    mut sums: Array[SIMD[acc, run], groups],
    low: Array[SIMD[acc, run], groups],
    high: Array[SIMD[acc, run], groups],
    taps: SIMD[acc, run],
    start: Int32,
    stop: Int32,
):
    """Adds those of a vector's taps that exist.

    Parameters:
        acc: Accumulation type.
        run: Outputs per group.
        groups: Groups per thread.

    Args:
        sums: The thread's sums.
        low: For each group, the samples that meet tap 0.
        high: The samples that follow them.
        taps: A vector of taps, some of them undefined.
        start: The first that exists.
        stop: One past the last.
    """
    comptime for step in range(run):
        if start <= Int32(step) and Int32(step) < stop:
            add_tap[step=step](sums, low, high, taps)


@always_inline
def add_tap[
    acc: DType, run: Int, groups: Int, //, step: Int
](
    mut sums: Array[SIMD[acc, run], groups],
    low: Array[SIMD[acc, run], groups],
    high: Array[SIMD[acc, run], groups],
    taps: SIMD[acc, run],
):
    """Adds one tap to every sum of a thread.

    Parameters:
        acc: Accumulation type.
        run: Outputs per group.
        groups: Groups per thread.
        step: Which tap of the vector.

    Args:
        sums: The thread's sums.
        low: For each group, the samples that meet tap 0.
        high: The samples that follow them.
        taps: A vector of taps.
    """
    comptime for group in range(groups):
        comptime for output in range(run):
            comptime slid = output + step
            var sample = low[group][slid % run]
            comptime if slid >= run:
                sample = high[group][slid % run]
            sums[group][output] = multiply_add(sample, taps[step], sums[group][output])


@always_inline
def load_runs[
    acc: DType, run: Int, groups: Int, dtype: DType
](
    window: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED], offset: Int32, thread: Int32
) -> Array[SIMD[acc, run], groups]:
    """Reads one vector of samples for each of a thread's runs.

    Parameters:
        acc: Accumulation type.
        run: Outputs per group.
        groups: Groups per thread.
        dtype: Element type.

    Args:
        window: Staged samples.
        offset: How far behind the run's own place to read, a multiple of `run`.
        thread: Index of the thread in its block.

    Returns:
        The vectors, widened.
    """
    var vectors = Array[SIMD[acc, run], groups](fill=0)
    comptime for group in range(groups):
        vectors[group] = load_vector[acc, run](window, first_of_run[dtype](group, thread) + offset)
    return vectors^


@always_inline
def load_vector[
    acc: DType, run: Int, dtype: DType
](staged: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED], at: Int32) -> SIMD[acc, run]:
    """Reads one 16-byte vector from shared memory.

    Parameters:
        acc: Accumulation type.
        run: Elements of a vector.
        dtype: Element type.

    Args:
        staged: Staged samples or taps.
        at: First element, a multiple of `run`.

    Returns:
        The vector, widened.
    """
    return staged.unsafe_load[width=run, alignment=VECTOR_BYTES](at).cast[acc]()


@always_inline
def add_taps_at_edge[
    dtype: DType, acc: DType, run: Int, groups: Int
](
    mut sums: Array[SIMD[acc, run], groups],
    window: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    tap_window: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    start: Int32,
    stop: Int32,
    thread: Int32,
    window_begin: Int,
    samples: Int,
):
    """Does what `add_taps` does where the window reaches outside x, one tap and one output at a time.

    A term outside x is skipped, not multiplied by zero: a tap may be infinite.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        run: Outputs per group.
        groups: Groups per thread.

    Args:
        sums: The thread's sums.
        window: Staged samples; undefined outside x.
        tap_window: Staged taps.
        start: First position that holds a tap.
        stop: One past the last.
        thread: Index of the thread in its block.
        window_begin: Index in x of the window's first element.
        samples: N.
    """
    comptime for group in range(groups):
        var at = first_of_run[dtype](group, thread)
        var j = start
        while j < stop:
            var tap = tap_window[unsafe_offset=j].cast[acc]()
            comptime for output in range(run):
                var index = window_begin + Int(at + Int32(output) + j)
                if 0 <= index and index < samples:
                    var sample = window[unsafe_offset=at + Int32(output) + j].cast[acc]()
                    sums[group][output] = multiply_add(sample, tap, sums[group][output])
            j += 1
