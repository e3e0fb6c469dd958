"""Direct 1-D convolution on GPU: a tile of the signal with its halo in shared memory, outputs in registers.

Computes:   y[i] = sum_j x[i + j - pad_left] * k[tap_index(j)], i in [0, L_out); terms outside x are left out.
Algorithm:  one block per tile of outputs. The block stages the tile's samples, the halo from its neighbours' part
            of x, and up to CHUNK taps in shared memory; after a barrier each thread slides a register window over
            neighbouring outputs. More taps than CHUNK take more passes over the same sums.
Cost:       2*L_out*K flop; reads (1 + K/TILE)*N, writes L_out elements; memory-bound below K ~ 50 for float32 on
            an H200 (51 TFLOP/s over 4.2 TB/s).
Layout:     x (N), k (K), y (L_out), contiguous. 16-byte accesses where the addresses allow, else one by one.
Tile:       THREADS * GROUPS * outputs_per_thread outputs; shared memory holds TILE + CHUNK samples and CHUNK taps,
            at most 19 KB (float64), under the 48 KB that every GPU gives without asking.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file, taps in rising j.
Gate:       none: any N, K, L_out >= 0 and any pad_left.
Tuning:     THREADS, GROUPS, CHUNK below.
Source:     the shared-memory tile with halo of the GPU puzzle that op "conv1d" comes from; thread coarsening with a
            register window as in Volkov, Better Performance at Lower Occupancy, 2010.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys.info import size_of
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.geometry import Geometry

comptime THREADS = 256
"""Threads of a block: eight blocks fill an SM's 2048 threads, so some load while others add."""

comptime GROUPS = 2
"""Groups of neighbouring outputs per thread, a whole block apart: two independent loads in flight per thread while
every access stays coalesced."""

comptime CHUNK = 256
"""Taps staged at a time."""


def outputs_per_thread[dtype: DType]() -> Int:
    """Gives how many neighbouring outputs a thread computes in each group.

    Parameters:
        dtype: Element type of the arrays.

    Returns:
        16 bytes' worth, one vector access; at least 4, so that a loaded sample is used four times.
    """
    return max(16 // size_of[dtype](), 4)


def direct_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Output on the device, `geometry.outputs` elements; every one is written.
        x: Signal on the device, `geometry.samples` elements.
        k: Taps on the device, `geometry.taps` elements.
        geometry: Sizes and shifts.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    if geometry.outputs == 0:
        return  # a grid of no blocks is an error
    comptime TILE = THREADS * GROUPS * outputs_per_thread[dtype]()
    comptime kernel = compute_tile[dtype]
    ctx.enqueue_function[kernel](
        y,
        x,
        k,
        Int64(geometry.samples),
        Int64(geometry.taps),
        Int64(geometry.outputs),
        Int64(geometry.pad_left),
        Int64(1 if geometry.flip else 0),
        grid_dim=ceildiv(geometry.outputs, TILE),
        block_dim=THREADS,
    )


def compute_tile[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int64,
    taps: Int64,
    outputs: Int64,
    pad_left: Int64,
    flip: Int64,
):
    """Kernel: one block computes one tile of outputs.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Output.
        x: Signal.
        k: Taps.
        samples: N.
        taps: K.
        outputs: L_out.
        pad_left: As in `Geometry`.
        flip: 1 for convolution, 0 for correlation.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime RUN = outputs_per_thread[dtype]()
    comptime TILE = THREADS * GROUPS * RUN
    var window = unsafe_stack_allocation[
        TILE + CHUNK + RUN, Scalar[dtype], address_space=AddressSpace.SHARED, alignment=16
    ]()
    var tap_chunk = unsafe_stack_allocation[CHUNK, Scalar[dtype], address_space=AddressSpace.SHARED, alignment=16]()
    var geometry = Geometry(Int(samples), Int(taps), Int(outputs), Int(pad_left), flip != 0)
    var tile_begin = Int(block_idx.x) * TILE
    var thread = Int(thread_idx.x)
    var sums = Array[SIMD[ACC, RUN], GROUPS](fill=0)

    # Only taps that meet a sample: a signal shorter than the taps then costs N*L_out, not K*L_out.
    var begin = max(0, geometry.first_tap(tile_begin + TILE - 1))
    var end = min(geometry.taps, geometry.end_tap(tile_begin))
    for chunk_begin in range(begin, end, CHUNK):
        var chunk = min(CHUNK, end - chunk_begin)
        var window_begin = geometry.input_index(tile_begin, chunk_begin)
        stage_window(window, x, window_begin, TILE + chunk - 1, geometry.samples)
        for j in range(thread, chunk, THREADS):
            tap_chunk[unsafe_offset=j] = k[unsafe_offset=geometry.tap_index(chunk_begin + j)]
        barrier()
        if window_begin >= 0 and window_begin + TILE + chunk - 1 <= geometry.samples:
            comptime for group in range(GROUPS):
                var at = (group * THREADS + thread) * RUN
                var low = window.unsafe_load[width=RUN, alignment=16](at).cast[ACC]()
                for j in range(0, chunk, RUN):
                    # Past the last chunk's end this reads staged memory that no sum uses.
                    var high = window.unsafe_load[width=RUN, alignment=16](at + j + RUN).cast[ACC]()
                    var some_taps = tap_chunk.unsafe_load[width=RUN, alignment=16](j).cast[ACC]()
                    comptime for step in range(RUN):
                        if j + step < chunk:
                            var tap = some_taps[step]
                            comptime for output in range(RUN):
                                comptime slid = output + step
                                var sample = low[slid % RUN]
                                comptime if slid >= RUN:
                                    sample = high[slid % RUN]
                                sums[group][output] = multiply_add(sample, tap, sums[group][output])
                    low = high
        else:
            comptime for group in range(GROUPS):
                var at = (group * THREADS + thread) * RUN
                for j in range(chunk):
                    var tap = tap_chunk[unsafe_offset=j].cast[ACC]()
                    comptime for output in range(RUN):
                        # A term outside x is skipped, not multiplied by zero: a tap may be infinite.
                        var index = window_begin + at + output + j
                        if 0 <= index and index < geometry.samples:
                            var sample = window[unsafe_offset=at + output + j].cast[ACC]()
                            sums[group][output] = multiply_add(sample, tap, sums[group][output])
        barrier()  # the next chunk overwrites what slower threads still read

    comptime for group in range(GROUPS):
        var first = tile_begin + (group * THREADS + thread) * RUN
        var values = sums[group].cast[dtype]()
        if first + RUN <= geometry.outputs and Int(y) % 16 == 0:
            y.unsafe_store[alignment=16](first, values)
        else:
            comptime for output in range(RUN):
                if first + output < geometry.outputs:
                    y[unsafe_offset=first + output] = values[output]


@always_inline
def stage_window[
    dtype: DType
](
    window: Pointer[Scalar[dtype], MutUntrackedOrigin, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    begin: Int,
    count: Int,
    samples: Int,
):
    """Copies x[begin, begin + count) to shared memory, by all threads together; zeros outside x.

    Reads whole aligned 16-byte vectors, so the first one may start before `begin`.

    Parameters:
        dtype: Element type.

    Args:
        window: Destination, at least `count` elements.
        x: Signal.
        begin: Index of the first sample, possibly negative.
        count: How many samples.
        samples: N.
    """
    comptime VECTOR = 16 // size_of[dtype]()
    var thread = Int(thread_idx.x)
    if Int(x) % 16 != 0:
        for at in range(thread, count, THREADS):
            var index = begin + at
            window[unsafe_offset=at] = x[unsafe_offset=index] if 0 <= index and index < samples else Scalar[dtype](0)
        return
    var lead = begin % VECTOR  # Mojo's % has the sign of the divisor: 0 <= lead
    for at in range(thread * VECTOR - lead, count, THREADS * VECTOR):
        var index = begin + at
        if 0 <= index and index + VECTOR <= samples:
            var vector = x.unsafe_load[width=VECTOR, alignment=16, invariant=True](index)
            if lead == 0 and at + VECTOR <= count:
                window.unsafe_store[alignment=16](at, vector)
            else:
                comptime for lane in range(VECTOR):
                    if 0 <= at + lane and at + lane < count:
                        window[unsafe_offset=at + lane] = vector[lane]
        else:
            comptime for lane in range(VECTOR):
                if 0 <= at + lane and at + lane < count:
                    var inside = 0 <= index + lane and index + lane < samples
                    window[unsafe_offset=at + lane] = x[unsafe_offset=index + lane] if inside else Scalar[dtype](0)
