"""Direct 1-D convolution on CPU: tiles of outputs in registers, pairs of taps sharing every load.

Computes:   y[i] = sum_j x[i + j - pad_left] * k[tap_index(j)], i in [0, L_out); x goes on beyond its ends as a
            `Border` says, or terms outside it are left out.
Algorithm:  a tile of 8 SIMD vectors of outputs stays in registers while the taps run by. Taps j and j + PAIR are
            taken together: the vector at x[i + j + PAIR] serves tap j for one output vector and tap j + PAIR for
            an earlier one, so 9 loads feed 16 multiply-adds instead of 16. Where windows reach beyond the ends, the
            stretch of the extended signal that they need is written out, zeros where terms are left out, and the same
            tile code reads it from there.
Cost:       2*L_out*K flop; reads N and writes L_out elements once; memory-bound below K ~ 16 for float32
            that leaves the cache (10^7 samples: 5.4 ms at K = 4, 6.6 ms at 16, 9.7 ms at 48, 2 cores).
Layout:     x (rows, N), k (1 or rows, K), y (rows, L_out), contiguous, aligned to their own element only.
            Work space: 2*K + TILE samples per worker.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file. Every output adds its taps in the order
            of `nth_tap`, whatever tile, edge, thread or SIMD width computes it: results do not depend on them.
Gate:       none: any N, K, L_out >= 0 and any pad_left; N >= 1 with a border.
Tuning:     TILE_VECTORS, PAIR_BYTES, MULTIPLY_ADDS_PER_WORKER below, each with the measurement that chose it.
Tried:      one tap at a time: slower than pairs, which reach the rate of the FMA units (`poe bench`); 4 taps at a
            time: no faster than 2.
Source:     register blocking as for a matrix product (Goto and van de Geijn, Anatomy of High-Performance Matrix
            Multiplication, 2008), applied to the Toeplitz matrix of the signal.
"""

from std.math import align_up, ceildiv, clamp
from std.memory import unsafe_stack_allocation
from std.sys.info import simd_width_of, size_of
from std.utils.numerics import isnan
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.border import OMIT, Border
from ..shared.geometry import Geometry

comptime TILE_VECTORS = 8
"""Output vectors per tile: 8 independent sums hide the 4-cycle latency of two FMA units; with 2 taps and 1 sample
vector they fit the 16 registers of AVX2."""

comptime PAIR_BYTES = 64
"""Distance of paired taps, in bytes of the accumulation type: one AVX-512 vector. The same number on every CPU, so
that narrower SIMD adds the taps in the same order."""

comptime MULTIPLY_ADDS_PER_WORKER = 1 << 22
"""Work below which a further thread does not pay: 2^22 multiply-adds take about 80 us on one core. A parallel region
costs 20 to 40 us on an idle machine, but up to 1 ms where other programs keep the cores busy: with 2^20, 10^5 samples
and 32 taps took 60 us there on one thread, 650 us on two (AMD EPYC, 2026-11-22)."""

comptime MULTIPLY_ADDS_OF_AN_OUTPUT = 8
"""What moving a sample in and an output out counts for: 10^6 of them are worth two threads with any taps."""


def direct_cpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    max_workers: Int,
    border: Border[dtype] = Border[dtype](OMIT, 0),
):
    """Computes all outputs, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs, shape (rows, L_out); every one is written.
        x: Signals, shape (rows, N).
        k: Taps, shape (tap_rows, K).
        geometry: Sizes and shifts.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
        border: How the signals go on beyond their ends.
    """
    comptime TILE = TILE_VECTORS * simd_width_of[accum_dtype[dtype]()]()
    var tiles = ceildiv(geometry.outputs, TILE)  # of one row
    var all_tiles = tiles * geometry.rows
    var work = geometry.multiply_adds() + geometry.rows * geometry.outputs * MULTIPLY_ADDS_OF_AN_OUTPUT
    var workers = min(work // MULTIPLY_ADDS_PER_WORKER, all_tiles)
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)

    def compute_tiles(begin: Int, end: Int) {imm}:
        var tile = begin
        while tile < end:
            var row = tile // tiles
            var row_end = min(end, (row + 1) * tiles)
            compute_span(
                y.unsafe_offset(row * geometry.outputs),
                x.unsafe_offset(row * geometry.samples),
                k.unsafe_offset(geometry.taps_offset(row)),
                geometry,
                (tile - row * tiles) * TILE,
                min((row_end - row * tiles) * TILE, geometry.outputs),
                border,
            )
            tile = row_end

    if workers <= 1 or max_workers == 1:
        compute_tiles(0, all_tiles)
        return

    def compute_share(worker: Int) {imm}:
        compute_tiles(worker * all_tiles // workers, (worker + 1) * all_tiles // workers)

    sync_parallelize(compute_share, workers)


def compute_span[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    begin: Int,
    end: Int,
    border: Border[dtype] = Border[dtype](OMIT, 0),
):
    """Computes the outputs [begin, end) of one row on the calling thread.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Output.
        x: Signal.
        k: Taps.
        geometry: Sizes and shifts.
        begin: First output.
        end: One past the last output.
        border: How the signal goes on beyond its ends.
    """
    comptime TILE = TILE_VECTORS * simd_width_of[accum_dtype[dtype]()]()
    # As many outputs as there are taps share one stretch of a signal that goes on: it is then of length O(K), and each
    # of its samples serves O(K) outputs. Where nothing lies beyond the ends, a tile meets few of the taps.
    var stretch = TILE if border.omits() else align_up(geometry.taps, TILE)
    var first = begin
    while first < end:
        var count = min(TILE, end - first)
        if count == TILE and geometry.is_interior(first, TILE):
            compute_interior_tile(y, x, k, geometry, first)
        else:
            count = min(stretch, end - first)
            compute_extended_stretch(y, x, k, geometry, border, first, count)
        first += count


@always_inline
def nth_tap[dtype: DType](step: Int, taps: Int) -> Int:
    """Gives the one order in which every output adds its taps.

    Full blocks of 2*PAIR taps are taken as 0, PAIR, 1, PAIR + 1, ...; the taps that are left over follow one by one.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        step: 0 <= step < K.
        taps: K.

    Returns:
        The window position that is added at this step.
    """
    comptime PAIR = PAIR_BYTES // size_of[accum_dtype[dtype]()]()
    if step >= taps - taps % (2 * PAIR):
        return step
    var within = step % (2 * PAIR)
    return step - within + within // 2 + (within % 2) * PAIR


@always_inline
def compute_interior_tile[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    first: Int,
):
    """Computes one full tile whose windows lie inside x.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Output.
        x: Signal.
        k: Taps.
        geometry: Sizes and shifts.
        first: First output of the tile.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime PAIR = PAIR_BYTES // size_of[ACC]()
    comptime PAIR_VECTORS = PAIR // WIDTH
    var sums = Array[SIMD[ACC, WIDTH], TILE_VECTORS](fill=0)

    @always_inline
    def samples_at(j: Int, vector: Int) {imm} -> SIMD[ACC, WIDTH]:
        return x.unsafe_load[width=WIDTH](geometry.input_index(first, j) + vector * WIDTH).cast[ACC]()

    @always_inline
    def tap_at(j: Int) {imm} -> SIMD[ACC, WIDTH]:
        return SIMD[ACC, WIDTH](k[unsafe_offset=geometry.tap_index(j)].cast[ACC]())

    var paired = geometry.taps - geometry.taps % (2 * PAIR)
    for block in range(0, paired, 2 * PAIR):
        for j in range(block, block + PAIR):
            var near = tap_at(j)
            var far = tap_at(j + PAIR)
            comptime for vector in range(TILE_VECTORS + PAIR_VECTORS):
                var samples = samples_at(j, vector)
                comptime if vector < TILE_VECTORS:
                    sums[vector] = multiply_add(samples, near, sums[vector])
                comptime if vector >= PAIR_VECTORS:
                    sums[vector - PAIR_VECTORS] = multiply_add(samples, far, sums[vector - PAIR_VECTORS])
    for j in range(paired, geometry.taps):
        var tap = tap_at(j)
        comptime for vector in range(TILE_VECTORS):
            sums[vector] = multiply_add(samples_at(j, vector), tap, sums[vector])

    comptime for vector in range(TILE_VECTORS):
        y.unsafe_store(first + vector * WIDTH, sums[vector].cast[dtype]())


@no_inline
def compute_extended_stretch[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    k: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: Geometry,
    border: Border[dtype],
    first: Int,
    count: Int,
):
    """Computes neighbouring outputs from a copy of the samples that their windows need, those beyond the ends included.

    Where nothing lies beyond the ends, zeros stand there, and a sum that comes out as NaN is done again without them:
    an infinite tap must not turn them into NaN. Masks instead of zeros take far longer.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Output.
        x: Signal.
        k: Taps.
        geometry: Sizes and shifts.
        border: How the signal goes on beyond its ends.
        first: First output of the stretch.
        count: Outputs to compute.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime TILE = TILE_VECTORS * simd_width_of[ACC]()
    # Only taps that meet a sample, in whole blocks, because `nth_tap` permutes within blocks: a signal shorter than
    # the taps then costs N*L_out, not K*L_out.
    comptime BLOCK = 2 * PAIR_BYTES // size_of[ACC]()
    var begin, end = 0, geometry.taps
    if border.omits():
        begin = clamp(geometry.first_tap(first + count - 1), 0, end) // BLOCK * BLOCK
        end = clamp(align_up(geometry.end_tap(first), BLOCK), begin, end)
    var window = geometry
    window.taps = end - begin
    window.pad_left = 0
    var taps = k.unsafe_offset(geometry.taps - end if geometry.flip else begin)

    var needed = count + max(0, window.taps - 1)
    # The last tile is computed in full, from whatever stands behind the samples that are needed.
    var room_needed = align_up(count, TILE) + window.taps
    comptime SMALL = 4 * TILE
    var small = unsafe_stack_allocation[SMALL, Scalar[dtype]]()
    var large = List[Scalar[dtype]](unsafe_uninit_length=0 if room_needed <= SMALL else room_needed)
    var address = Int(small) if room_needed <= SMALL else Int(large.unsafe_ptr())
    var extended = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=address)
    var start = geometry.input_index(first, begin)
    var before = clamp(-start, 0, needed)
    var inside = clamp(geometry.samples - start, before, needed)
    if border.omits():
        for at in range(before):
            extended[unsafe_offset=at] = 0
        for at in range(inside, needed):
            extended[unsafe_offset=at] = 0
    else:
        for at in range(before):
            extended[unsafe_offset=at] = border.sample(x, start + at, geometry.samples)
        for at in range(inside, needed):
            extended[unsafe_offset=at] = border.sample(x, start + at, geometry.samples)
    for at in range(before, inside):
        extended[unsafe_offset=at] = x[unsafe_offset=start + at]

    var has_nan = False
    for tile in range(0, count - count % TILE, TILE):
        compute_interior_tile(y.unsafe_offset(first), extended, taps, window, tile)
        has_nan |= holds_nan(y.unsafe_offset(first + tile))
    if count % TILE != 0:
        var tile = count - count % TILE
        var room = unsafe_stack_allocation[TILE, Scalar[dtype]]()
        var outputs = Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(room))
        window.pad_left = -tile
        compute_interior_tile(outputs, extended, taps, window, 0)
        has_nan |= holds_nan(outputs)
        for output in range(count % TILE):
            y[unsafe_offset=first + tile + output] = outputs[unsafe_offset=output]
    _ = large^
    if has_nan and border.omits():
        for i in range(first, first + count):
            if isnan(y[unsafe_offset=i]):
                y[unsafe_offset=i] = sum_terms(x, k, geometry, i)


@always_inline
def holds_nan[dtype: DType](tile: Pointer[Scalar[dtype], MutAnyOrigin]) -> Bool:
    """Tells whether one of the outputs of a full tile is NaN.

    Parameters:
        dtype: Element type of the outputs.

    Args:
        tile: The first output.

    Returns:
        False for integers.
    """
    comptime if not dtype.is_floating_point():
        return False
    comptime WIDTH = simd_width_of[accum_dtype[dtype]()]()
    var found = SIMD[DType.bool, WIDTH](fill=False)
    comptime for vector in range(TILE_VECTORS):
        found |= isnan(tile.unsafe_load[width=WIDTH](vector * WIDTH))
    return found.reduce_or()


def sum_terms[
    dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin], k: Pointer[Scalar[dtype], MutAnyOrigin], geometry: Geometry, i: Int
) -> Scalar[dtype]:
    """Does one sum over the terms that exist, in the order of `nth_tap`.

    Parameters:
        dtype: Element type of both arrays.

    Args:
        x: Signal.
        k: Taps.
        geometry: Sizes and shifts.
        i: Which output.

    Returns:
        The sum.
    """
    comptime ACC = accum_dtype[dtype]()
    var sum = Scalar[ACC](0)
    for step in range(geometry.taps):
        var j = nth_tap[dtype](step, geometry.taps)
        var at = geometry.input_index(i, j)
        if 0 <= at and at < geometry.samples:
            var tap = k[unsafe_offset=geometry.tap_index(j)].cast[ACC]()
            sum = multiply_add(x[unsafe_offset=at].cast[ACC](), tap, sum)
    return sum.cast[dtype]()
