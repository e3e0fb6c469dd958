"""Direct 1-D convolution on GPU with few taps: from memory to registers and back, by whole vectors.

Computes:   what direct_gpu.mojo says.
Algorithm:  a block computes neighbouring outputs of a row, a thread some vectors of them. All vectors that its
            windows touch are loaded first, the halo a second time through the level-1 cache; then each is widened and
            multiplied in registers. Where in a vector windows begin is the same for a whole row: a branch, once a block,
            leads to code that knows it, so that no sample is moved. Filters stand at the end of `places`, behind zeros.
Cost:       2*L_out*K flop; reads N and writes L_out elements: memory-bound. 2^26 samples in device copies (H200,
            2026-11-23, windows that begin with a vector): float32 1.03 at K = 4, 1.05 at 8, 1.11 at 16; bfloat16 1.06,
            1.23, 1.56 by an earlier version.
Layout:     as in direct_gpu.mojo; rows may begin anywhere.
Accuracy:   the bits of direct_gpu.mojo: taps in rising j. Outputs whose window leaves x, and those of a thread that has
            made NaN where zeros stand before a filter, are summed from the terms that exist.
Gate:       `is_short_direct`; otherwise direct_gpu.mojo.
Tried:      taps read by every thread from memory: 1.25 at K = 16. Whole vectors of zeros beyond the ends: 1.13 instead
            of 1.17 of 1024 signals, but 1.16 of one.
Tuning:     DIRECT_SHORT_* of shared/tuning_gpu.mojo.
"""

from std.bit import count_trailing_zeros
from std.math import ceildiv
from std.memory import bitcast, unsafe_stack_allocation
from std.sys.info import size_of
from std.utils.numerics import isnan
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import LONGEST_ROW, VECTOR_BYTES, AlignedRow, vector_width, widen
from ..shared.border import Border
from ..shared.geometry import Geometry
from ..shared.tuning_gpu import (
    DIRECT_SHORT_LEAST_BLOCKS as LEAST_BLOCKS,
    DIRECT_SHORT_MOST_TAPS as MOST_TAPS,
    DIRECT_SHORT_PLACES as PLACES,
    DIRECT_SHORT_THREADS as THREADS,
    DIRECT_SHORT_VECTORS as VECTORS,
    MAX_GRID_ROWS,
)


def is_short_direct[dtype: DType](geometry: Geometry) -> Bool:
    """Tells whether `direct_short_gpu` can compute a call.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        geometry: Sizes and shifts.

    Returns:
        True for few taps and floating-point rows of some vectors.
    """
    comptime if not dtype.is_floating_point():
        return False
    comptime WIDTH = vector_width[dtype]()
    # A window of MOST_TAPS that begins at the end of a vector, and one vector more.
    comptime WINDOW = ceildiv(2 * WIDTH + MOST_TAPS - 2, WIDTH) + 1
    var are_vectors = geometry.samples >= WINDOW * WIDTH and geometry.outputs >= 2 * WIDTH
    var are_countable = max(geometry.samples, geometry.outputs, abs(geometry.pad_left)) <= LONGEST_ROW
    return 1 <= geometry.taps and geometry.taps <= MOST_TAPS and are_vectors and are_countable


def direct_short_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
    border: Border[dtype],
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs on the device, shape (rows, L_out); every one is written.
        x: Signals on the device, shape (rows, N).
        k: Taps on the device, shape (tap_rows, K).
        geometry: Sizes and shifts, of which `is_short_direct` is true.
        ctx: The device and its queue.
        border: How the signals go on beyond their ends.

    Raises:
        If the launch is refused.
    """
    var fewest = 0
    comptime for places in PLACES:
        if fewest < geometry.taps and geometry.taps <= places:
            launch_rows[dtype, places, VECTORS[dtype, places], THREADS, LEAST_BLOCKS[dtype, places]](
                y, x, k, geometry, ctx, border
            )
        fewest = places


def launch_rows[
    dtype: DType, places: Int, vectors: Int, threads: Int, blocks: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
    border: Border[dtype],
) raises:
    """Enqueues the kernel, as often as CUDA counts rows.

    Parameters:
        dtype: As for `direct_short_gpu`.
        places: Places for taps, at least K.
        vectors: Vectors of a thread.
        threads: Threads of a block.
        blocks: Blocks of a multiprocessor that registers must be enough for.

    Args:
        y: As for `direct_short_gpu`.
        x: As for `direct_short_gpu`.
        k: As for `direct_short_gpu`.
        geometry: As for `direct_short_gpu`.
        ctx: As for `direct_short_gpu`.
        border: As for `direct_short_gpu`.

    Raises:
        If the launch is refused.
    """
    comptime WIDTH = vector_width[dtype]()
    # Where rows of y begin between vectors, they take one more.
    var row_bytes = geometry.outputs * size_of[dtype]() if geometry.rows > 1 else 0
    var skew = WIDTH - 1 if (Int(y) | row_bytes) & (VECTOR_BYTES - 1) != 0 else 0
    comptime kernel = compute_vectors[dtype, places, vectors, threads, blocks]
    for first_row in range(0, geometry.rows, MAX_GRID_ROWS):
        ctx.enqueue_function[kernel](
            y.unsafe_offset(first_row * geometry.outputs),
            x.unsafe_offset(first_row * geometry.samples),
            k.unsafe_offset(geometry.taps_offset(first_row)),
            Int32(geometry.samples),
            Int32(geometry.taps),
            Int32(geometry.outputs),
            Int32(geometry.pad_left),
            Int32(1 if geometry.flip else 0),
            Int32(geometry.tap_rows),
            Int32(border.mode),
            border.value,
            grid_dim=(
                ceildiv(geometry.outputs + skew, WIDTH * vectors * threads),
                min(MAX_GRID_ROWS, geometry.rows - first_row),
            ),
            block_dim=threads,
        )


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads)),
    `nvvm.minctasm`=SIMDLength(blocks),
)
def compute_vectors[
    dtype: DType, places: Int, vectors: Int, threads: Int, blocks: Int
](
    y_rows: Pointer[Scalar[dtype], MutAnyOrigin],
    x_rows: Pointer[Scalar[dtype], MutAnyOrigin],
    k_rows: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int32,
    taps: Int32,
    outputs: Int32,
    pad_left: Int32,
    flip: Int32,
    tap_rows: Int32,
    border_mode: Int32,
    border_value: Scalar[dtype],
):
    """Kernel: each thread computes some vectors of outputs of a row.

    Parameters:
        dtype: As for `direct_short_gpu`.
        places: As for `launch_rows`.
        vectors: As for `launch_rows`.
        threads: As for `launch_rows`.
        blocks: As for `launch_rows`.

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
    comptime WIDTH = vector_width[dtype]()
    var geometry = Geometry(
        samples=Int(samples),
        taps=Int(taps),
        outputs=Int(outputs),
        pad_left=Int(pad_left),
        flip=flip != 0,
        rows=Int(grid_dim.y),
        tap_rows=Int(tap_rows),
    )
    var row = Int(block_idx.y)
    var signal = AlignedRow[dtype].of[True](x_rows.unsafe_offset(row * geometry.samples), geometry.samples)
    var result = AlignedRow[dtype].of[True](y_rows.unsafe_offset(row * geometry.outputs), geometry.outputs)
    var k = k_rows.unsafe_offset(geometry.taps_offset(row))
    var border = Border[dtype](Int(border_mode), border_value)
    # The sample that meets the first place, less the index of the output.
    var shift = taps - Int32(places) - pad_left
    var first = (Int32(block_idx.x) * Int32(vectors * threads) + Int32(thread_idx.x)) * Int32(WIDTH) - result.skew
    var lead = signal.before(shift - result.skew)
    comptime for known in range(WIDTH):
        if lead == Int32(known):
            compute_known[places, known, vectors, threads](result, signal, k, geometry, border, first, shift)


@always_inline
def compute_known[
    dtype: DType, //, places: Int, lead: Int, vectors: Int, threads: Int
](
    result: AlignedRow[dtype],
    signal: AlignedRow[dtype],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    border: Border[dtype],
    first: Int32,
    shift: Int32,
):
    """Computes a thread's vectors where windows begin at a known element of a vector.

    Parameters:
        dtype: Element type.
        places: As for `launch_rows`.
        lead: That element.
        vectors: As for `launch_rows`.
        threads: As for `launch_rows`.

    Args:
        result: The outputs of the row.
        signal: The samples of the row.
        k: The taps of the row.
        geometry: Sizes and shifts.
        border: How the signal goes on beyond its ends.
        first: The thread's first output; it may lie before the row.
        shift: From an output to the sample that meets the first place.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime TOUCHED = places - 1 + WIDTH
    comptime LOADS = ceildiv(lead + TOUCHED, WIDTH)
    comptime PITCH = Int32(threads * WIDTH)
    # Taps go by way of shared memory, each read once a block; the samples are under way meanwhile.
    var staged = unsafe_stack_allocation[
        places, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var thread = Int32(thread_idx.x)
    var tap = Scalar[ACC](0)
    var j = geometry.taps - places + Int(thread)
    if j >= 0 and thread < Int32(places):
        tap = k[unsafe_offset=geometry.tap_index(j)].cast[ACC]()
    var begin = first + shift - Int32(lead)
    var windows = Array[Array[SIMD[dtype, WIDTH], LOADS], vectors](fill=Array[SIMD[dtype, WIDTH], LOADS](fill=0))
    comptime for vector in range(vectors):
        windows[vector] = signal.load_window[LOADS](begin + Int32(vector) * PITCH)
    if thread < Int32(places):
        staged[unsafe_offset=thread] = tap
    barrier()
    var filter = Array[Scalar[ACC], places](fill=0)
    comptime QUAD = VECTOR_BYTES // size_of[ACC]()
    comptime for quad in range(places // QUAD):
        var some = staged.unsafe_load[width=QUAD, alignment=VECTOR_BYTES](quad * QUAD)
        comptime for each in range(QUAD):
            filter[quad * QUAD + each] = some[each]
    var left = Int32(0)
    comptime for vector in range(vectors):
        var at = first + Int32(vector) * PITCH
        var elements = widen[TOUCHED, lead](windows[vector], Int32(lead))
        var sums = SIMD[ACC, WIDTH](0)
        comptime for place in range(places):
            comptime for output in range(WIDTH):
                sums[output] = multiply_add(elements[output + place], filter[place], sums[output])
        var is_whole = signal.has(begin + Int32(vector) * PITCH, Int32(LOADS * WIDTH))
        if is_whole and result.has(at, Int32(WIDTH)) and not isnan(sums.reduce_add()):
            result.samples.unsafe_store[alignment=VECTOR_BYTES](Int(at), narrow[dtype](sums))
        else:
            left |= Int32(1 << vector)
    # Behind all stores, where no registers are kept over a call.
    while left != 0:
        var vector = count_trailing_zeros(left)
        compute_existing(result, signal, k, geometry, border, first + vector * PITCH)
        left &= left - 1


@always_inline
def narrow[dtype: DType, acc: DType, width: SIMDLength](sums: SIMD[acc, width]) -> SIMD[dtype, width]:
    """Rounds sums to the type of the output.

    Code for devices before sm_80, which all devices run, has no instruction for bfloat16; a cast there asks for NaN
    element by element and takes twice as many.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        width: Number of sums.

    Args:
        sums: The sums, none of them NaN.

    Returns:
        The nearest elements, ties to even.
    """
    comptime if dtype == DType.bfloat16:
        var bits = bitcast[DType.uint32](sums)
        return bitcast[dtype](((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).cast[DType.uint16]())
    else:
        return sums.cast[dtype]()


@no_inline
def compute_existing[
    dtype: DType, //
](
    result: AlignedRow[dtype],
    signal: AlignedRow[dtype],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    border: Border[dtype],
    first: Int32,
):
    """Computes a vector of outputs one by one, from the terms that exist.

    Parameters:
        dtype: Element type.

    Args:
        result: The outputs of the row.
        signal: The samples of the row.
        k: The taps of the row.
        geometry: Sizes and shifts.
        border: How the signal goes on beyond its ends.
        first: The first output; it may lie before the row, and the last behind it.
    """
    comptime ACC = accum_dtype[dtype]()
    var x = signal.samples.unsafe_origin_cast[MutAnyOrigin]()
    for i in range(max(Int(first), 0), min(Int(first) + vector_width[dtype](), geometry.outputs)):
        var sum = Scalar[ACC](0)
        for j in range(geometry.taps):
            var position = geometry.input_index(i, j)
            if not border.omits() or (0 <= position and position < geometry.samples):
                var sample = border.sample(x, position, geometry.samples).cast[ACC]()
                sum = multiply_add(sample, k[unsafe_offset=geometry.tap_index(j)].cast[ACC](), sum)
        result.samples[unsafe_offset=i] = sum.cast[dtype]()
