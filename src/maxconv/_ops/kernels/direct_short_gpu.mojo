"""Direct 1-D convolution on GPU with few taps: whole vectors in, whole vectors out, memory never idle.

Computes:   what direct_gpu.mojo says.
Algorithm:  a block computes neighbouring tiles of a row, a thread some vectors of each. The samples of the next tiles are
            copied to shared memory while one is computed; a thread reads all vectors that a window touches, widens and
            multiplies them in registers. Where in a vector windows begin is the same for a whole row: a branch, once a
            block, leads to code that knows it, so that no sample is moved. Filters stand at the end of `places`, behind
            zeros.
Cost:       2*L_out*K flop; reads N and writes L_out elements: memory-bound. 256 MB in device copies (H200, 2026-11-23,
            benchmarks/mojo/bench_direct_gpu.mojo; wherever windows begin, and as 1024 signals): float32 1.03 at K = 4,
            1.01 at 8, 1.01 to 1.02 at 16; float64 1.02 to 1.03, at 16 1.05 to 1.09; float16 1.02 to 1.03, at 16 1.08
            to 1.10; bfloat16 1.02 to 1.04, at 16 1.09 to 1.17.
Layout:     as in direct_gpu.mojo; rows may begin anywhere.
Tile:       THREADS * VECTORS vectors; shared memory holds STAGES tiles with their halos, at most 19 KB.
Accuracy:   the bits of direct_gpu.mojo: taps in rising j. Outputs whose window leaves x, and those of a thread that has
            made NaN where zeros stand before a filter, are summed from the terms that exist.
Gate:       `is_short_direct`; otherwise direct_gpu.mojo.
Tried:      windows loaded from memory to registers, no tile ahead; ends of rows summed in a loop that waits for each
            sample; copies that begin within a sector; tiles of a block that lie 3 MB apart instead of side by side;
            neighbouring vectors in a thread: all slower, the last two by most.
Tuning:     DIRECT_SHORT_* and `DirectShort` of shared/tuning_gpu.mojo.
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
from ..shared.level2 import SECTOR_BYTES
from ..shared.shared_memory import await_copy_groups, begin_copy, end_copy_group
from ..shared.tuning_gpu import (
    DIRECT_SHORT_ENOUGH_BLOCKS,
    DIRECT_SHORT_MOST_TAPS as MOST_TAPS,
    DIRECT_SHORT_PLACES as PLACES,
    MAX_GRID_ROWS,
    DirectShort,
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
            comptime Numbers = DirectShort[dtype, places]
            launch_rows[dtype, places, Numbers.VECTORS, Numbers.THREADS, Numbers.STAGES, Numbers.LEAST_BLOCKS](
                y, x, k, geometry, ctx, border, Numbers.MOST_TILES
            )
        fewest = places


def launch_rows[
    dtype: DType, places: Int, vectors: Int, threads: Int, stages: Int, blocks: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    ctx: DeviceContext,
    border: Border[dtype],
    most_tiles: Int,
) raises:
    """Enqueues the kernel, as often as CUDA counts rows.

    Parameters:
        dtype: As for `direct_short_gpu`.
        places: Places for taps, at least K.
        vectors: Vectors of a thread.
        threads: Threads of a block.
        stages: Tiles that a block has in shared memory.
        blocks: Blocks of a multiprocessor that registers must be enough for.

    Args:
        y: As for `direct_short_gpu`.
        x: As for `direct_short_gpu`.
        k: As for `direct_short_gpu`.
        geometry: As for `direct_short_gpu`.
        ctx: As for `direct_short_gpu`.
        border: As for `direct_short_gpu`.
        most_tiles: Tiles of a block where there are many.

    Raises:
        If the launch is refused.
    """
    comptime WIDTH = vector_width[dtype]()
    # Where rows of y begin within a sector, they take some more outputs.
    var row_bytes = geometry.outputs * size_of[dtype]() if geometry.rows > 1 else 0
    var skew = (SECTOR_BYTES // size_of[dtype]()) - 1 if (Int(y) | row_bytes) & (SECTOR_BYTES - 1) != 0 else 0
    var row_tiles = ceildiv(geometry.outputs + skew, WIDTH * vectors * threads)
    var tiles = max(1, min(most_tiles, geometry.rows * row_tiles // DIRECT_SHORT_ENOUGH_BLOCKS))
    comptime kernel = compute_tiles[dtype, places, vectors, threads, stages, blocks]
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
            Int32(tiles),
            grid_dim=(ceildiv(row_tiles, tiles), min(MAX_GRID_ROWS, geometry.rows - first_row)),
            block_dim=threads,
        )


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads)),
    `nvvm.minctasm`=SIMDLength(blocks),
)
def compute_tiles[
    dtype: DType, places: Int, vectors: Int, threads: Int, stages: Int, blocks: Int
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
    tiles: Int32,
):
    """Kernel: a block computes neighbouring tiles of a row, a thread some vectors of each.

    Parameters:
        dtype: As for `direct_short_gpu`.
        places: As for `launch_rows`.
        vectors: As for `launch_rows`.
        threads: As for `launch_rows`.
        stages: As for `launch_rows`.
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
        tiles: Tiles of a block, of which a thread has at most 32 vectors.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime PITCH = threads * WIDTH
    comptime TILE = vectors * PITCH
    comptime TOUCHED = places - 1 + WIDTH
    comptime STAGE = TILE + ceildiv(TOUCHED + WIDTH - 1, WIDTH) * WIDTH
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
    # The sample that meets the first place, less the index of the output.
    var shift = taps - Int32(places) - pad_left
    var lead = signal.before(shift - result.skew)
    # Tiles of both rows begin with a sector: a warp that shares one with the next takes it from level 2 once more.
    var thread = Int32(thread_idx.x)
    var tile_first = Int32(block_idx.x) * tiles * Int32(TILE) - behind_sector(result, 0)
    var tile_begin = tile_first + shift - lead
    var early = behind_sector(signal, tile_begin)
    # Vectors that are fetched beside the tile's own: those that its last windows touch, and none more.
    var halo = (lead + Int32(TOUCHED - 1) + early) // Int32(WIDTH)
    var count = min(tiles, (outputs - tile_first + Int32(TILE - 1)) // Int32(TILE))
    var first = tile_first + thread * Int32(WIDTH)
    var fetched = tile_begin - early + thread * Int32(WIDTH)
    var stored = unsafe_stack_allocation[
        stages * STAGE, Scalar[dtype], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var ring = stored.unsafe_offset(thread * Int32(WIDTH))
    # Taps go by way of shared memory, each read once a block; the first tiles are under way meanwhile.
    comptime for tile in range(stages - 1):
        if Int32(tile) < count:
            begin_tile[vectors, threads](ring.unsafe_offset(tile * STAGE), signal, fetched + Int32(tile * TILE), halo)
        end_copy_group()
    var filter_stored = unsafe_stack_allocation[
        places, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    if thread < Int32(places):
        var tap = Scalar[ACC](0)
        var j = geometry.taps - places + Int(thread)
        if j >= 0:
            tap = k_rows[unsafe_offset=geometry.taps_offset(row) + geometry.tap_index(j)].cast[ACC]()
        filter_stored[unsafe_offset=thread] = tap
    barrier()
    var filter = Array[Scalar[ACC], places](fill=0)
    comptime QUAD = VECTOR_BYTES // size_of[ACC]()
    comptime for quad in range(places // QUAD):
        var some = filter_stored.unsafe_load[width=QUAD, alignment=VECTOR_BYTES](quad * QUAD)
        comptime for each in range(QUAD):
            filter[quad * QUAD + each] = some[each]
    var left = Int32(0)
    comptime for known in range(WIDTH):
        if lead == Int32(known):
            var stage = Int32(0)
            var free = Int32((stages - 1) * STAGE)
            for tile in range(count):
                await_copy_groups[stages - 2]()
                # Now the tile is there for all threads, and the one before it is done with.
                barrier()
                if tile + Int32(stages - 1) < count:
                    begin_tile[vectors, threads](
                        ring.unsafe_offset(free), signal, fetched + (tile + Int32(stages - 1)) * Int32(TILE), halo
                    )
                end_copy_group()
                var at = first + tile * Int32(TILE)
                var missing = compute_tile[places, known, vectors, PITCH](
                    result, signal, ring.unsafe_offset(stage + early), filter, at, at + shift - Int32(known)
                )
                left |= missing << (tile * Int32(vectors))
                free = stage
                stage = stage + Int32(STAGE) if stage < Int32((stages - 1) * STAGE) else 0
    while left != 0:
        var bit = count_trailing_zeros(left)
        var at = first + bit // Int32(vectors) * Int32(TILE) + bit % Int32(vectors) * Int32(PITCH)
        if -Int32(WIDTH) < at and at < outputs:
            var border = Border[dtype](Int(border_mode), border_value)
            compute_existing(result, signal, filter, Int32(places) - taps, border, at, at + shift)
        left &= left - 1


@always_inline
def behind_sector[dtype: DType, //](row: AlignedRow[dtype], position: Int32) -> Int32:
    """Measures how far behind the boundary of a sector an element lies.

    Parameters:
        dtype: Element type.

    Args:
        row: The row.
        position: Any index.

    Returns:
        Elements, fewer than a sector has.
    """
    comptime SIZE = size_of[dtype]()
    return (Int32(Int(row.samples) & (SECTOR_BYTES - 1)) // Int32(SIZE) + position) & Int32(SECTOR_BYTES // SIZE - 1)


@always_inline
def begin_tile[
    dtype: DType, //, vectors: Int, threads: Int
](
    target: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    signal: AlignedRow[dtype],
    position: Int32,
    halo: Int32,
):
    """Begins to copy the samples of a tile to shared memory.

    Parameters:
        dtype: Element type.
        vectors: As for `launch_rows`.
        threads: As for `launch_rows`.

    Args:
        target: Where the thread's first vector goes.
        signal: The samples of the row.
        position: Index of that vector's first element; vectors that are not in the row become others.
        halo: Vectors that are copied beside the tile's own, fewer than threads.
    """
    comptime WIDTH = vector_width[dtype]()
    comptime PITCH = threads * WIDTH
    comptime for vector in range(vectors):
        begin_copy[WIDTH](target.unsafe_offset(vector * PITCH), signal.nearest(position + Int32(vector * PITCH)))
    if Int32(thread_idx.x) < halo:
        begin_copy[WIDTH](target.unsafe_offset(vectors * PITCH), signal.nearest(position + Int32(vectors * PITCH)))


@always_inline
def compute_tile[
    dtype: DType, //, places: Int, lead: Int, vectors: Int, pitch: Int
](
    result: AlignedRow[dtype],
    signal: AlignedRow[dtype],
    samples: Pointer[Scalar[dtype], _, address_space=AddressSpace.SHARED],
    filter: Array[Scalar[accum_dtype[dtype]()], places],
    first: Int32,
    begin: Int32,
) -> Int32:
    """Computes a thread's vectors of a tile where windows begin at a known element of a vector.

    Parameters:
        dtype: Element type.
        places: As for `launch_rows`.
        lead: That element.
        vectors: As for `launch_rows`.
        pitch: Elements from a vector to the next.

    Args:
        result: The outputs of the row.
        signal: The samples of the row.
        samples: Those of the first vector's window, in shared memory.
        filter: The taps of the row, behind zeros.
        first: The thread's first output; it may lie before the row.
        begin: The first sample of its window.

    Returns:
        Which vectors are yet to be computed, a bit each.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime TOUCHED = places - 1 + WIDTH
    comptime LOADS = ceildiv(lead + TOUCHED, WIDTH)
    var left = Int32(0)
    comptime for vector in range(vectors):
        comptime AWAY = vector * pitch
        var window = Array[SIMD[dtype, WIDTH], LOADS](fill=0)
        comptime for load in range(LOADS):
            window[load] = samples.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](AWAY + load * WIDTH)
        var elements = widen[TOUCHED, lead](window, Int32(lead))
        var sums = SIMD[ACC, WIDTH](0)
        comptime for place in range(places):
            comptime for output in range(WIDTH):
                sums[output] = multiply_add(elements[output + place], filter[place], sums[output])
        var is_whole = signal.has(begin + Int32(AWAY), Int32(LOADS * WIDTH))
        is_whole = is_whole and result.has(first + Int32(AWAY), Int32(WIDTH))
        if is_whole and not isnan(sums.reduce_add()):
            result.samples.unsafe_store[alignment=VECTOR_BYTES](Int(first + Int32(AWAY)), narrow[dtype](sums))
        else:
            left |= Int32(1 << vector)
    return left


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


@always_inline
def compute_existing[
    dtype: DType, places: Int, //
](
    result: AlignedRow[dtype],
    signal: AlignedRow[dtype],
    filter: Array[Scalar[accum_dtype[dtype]()], places],
    zeros: Int32,
    border: Border[dtype],
    first: Int32,
    begin: Int32,
):
    """Computes a vector of outputs from the terms that exist.

    Parameters:
        dtype: Element type.
        places: As for `launch_rows`.

    Args:
        result: The outputs of the row.
        signal: The samples of the row.
        filter: The taps of the row, behind zeros.
        zeros: How many zeros.
        border: How the signal goes on beyond its ends.
        first: The first output; it may lie before the row, and the last behind it.
        begin: The sample that meets its first place.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime TOUCHED = places - 1 + WIDTH
    # All samples are asked for before the first is there: the end of a row is the end of its block.
    var elements = Array[Scalar[ACC], TOUCHED](fill=0)
    var existing = UInt32(0)
    comptime for each in range(TOUCHED):
        var at = begin + Int32(each)
        if UInt32(at) >= UInt32(signal.length):
            at = locate_beyond(border, at, signal.length)
        var sample = signal.samples[unsafe_offset=Int(max(at, 0))]
        if at < 0:
            sample = border.value
        elements[each] = sample.cast[ACC]()
        if at >= 0 or not border.omits():
            existing |= UInt32(1 << each)
    comptime for output in range(WIDTH):
        var terms = (existing >> UInt32(output)) & (UInt32.MAX << UInt32(zeros))
        var sum = Scalar[ACC](0)
        comptime for place in range(places):
            if terms & UInt32(1 << place) != 0:
                sum = multiply_add(elements[output + place], filter[place], sum)
        if result.has(first + Int32(output), 1):
            result.samples[unsafe_offset=first + Int32(output)] = sum.cast[dtype]()


@no_inline
def locate_beyond[dtype: DType, //](border: Border[dtype], position: Int32, length: Int32) -> Int32:
    """Finds the sample that stands beyond the ends of a signal: seldom needed, and long.

    Parameters:
        dtype: Element type.

    Args:
        border: How the signal goes on there.
        position: An index that is none of the signal.
        length: N.

    Returns:
        What `Border.index` returns.
    """
    return Int32(border.index(Int(position), Int(length)))
