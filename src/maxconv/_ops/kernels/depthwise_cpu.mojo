"""Depthwise 1-D convolution of layers on CPU, causal ones with a state and with packed sequences included.

Computes:   y[n, o, i] = sum_j x[n, o // M, i*stride + j*dilation - pad_left] * w[o, j] + bias[o], then an activation,
            with M = O/C filters a channel; terms outside x are left out, or taken from a state where there is one.
            With sequence numbers only terms whose sample has the output's number count.
Algorithm:  row by row, ROW_TILE outputs at a time, BLOCK_VECTORS vectors of them in registers while the taps run by.
            Samples that do not lie as the taps need them (edges, a state, strides, half precision) are first laid
            out in a small scratch, strided windows by phase of the position.
Cost:       2*N*O*L_out*K flop; reads N*C*L and writes N*O*L_out elements; memory-bound below K ~ 16.
Layout:     x (N, C, L), w (O, K) in the accumulation type, y (N, O, L_out), state (N, C, K - 1), numbers (N, L).
Accuracy:   sums in accumulate.accum_dtype on EVERY path; each output adds its terms in ascending order of taps, then
            the bias: a signal taken in pieces, each with the state of the one before, gives the same bits. Packed
            zeros stand outside the signal: a sum that comes out as NaN there is done again without them.
Gate:       groups == in_channels. A state needs stride == dilation == 1 and pad_left == K - 1; so do numbers.
Tuning:     ROW_TILE, BLOCK_VECTORS below. Float32, one core of an AMD EPYC with AVX-512: 46 GFLOP/s at K = 31, 512
            channels of 1000 samples; 54 at K = 128 (benchmarks/layers.py, 2026-11-22).
Source:     the meaning of state and numbers is that of Dao-AILab/causal-conv1d.
"""

from std.math import ceildiv
from std.sys.info import simd_width_of
from std.utils.numerics import isnan
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.epilogue import Epilogue, activate
from ..shared.history import History
from ..shared.layer_geometry import LayerGeometry

comptime ROW_TILE = 1024
"""Outputs taken together: their scratch stays in the L1 cache at strides up to 4 and short windows."""

comptime BLOCK_VECTORS = 8
"""Vectors of outputs per register block, as in direct_cpu.mojo."""

comptime MULTIPLY_ADDS_PER_WORKER = 1 << 19
"""Work below which a further thread does not pay: half of that in direct_cpu.mojo, as few taps are bound by memory."""

comptime NO_SEQUENCE = Int32(-(1 << 31))
"""The number of positions outside the signal, which no output has."""


def depthwise_cpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    epilogue: Epilogue,
    geometry: LayerGeometry,
    history: History[dtype],
    max_workers: Int,
):
    """Computes all outputs, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of x and y.

    Args:
        y: Outputs, shape (N, O, L_out); every one is written.
        x: Signals, shape (N, C, L).
        w: Weights, shape (O, K).
        epilogue: Bias and activation.
        geometry: Sizes and shifts.
        history: State and sequence numbers.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
    """
    var rows = geometry.batch * geometry.out_channels
    var workers = min(geometry.multiply_adds() // MULTIPLY_ADDS_PER_WORKER, rows)
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)
    if workers <= 1 or max_workers == 1:
        compute_rows(y, x, w, epilogue, geometry, history, 0, rows)
        return
    var chunks = min(rows, 4 * workers)  # a thread that is held up leaves the rest to others

    def compute_share(chunk: Int) {imm}:
        compute_rows(y, x, w, epilogue, geometry, history, chunk * rows // chunks, (chunk + 1) * rows // chunks)

    sync_parallelize(compute_share, chunks)


def compute_rows[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    epilogue: Epilogue,
    geometry: LayerGeometry,
    history: History[dtype],
    begin: Int,
    end: Int,
):
    """Computes some rows on the calling thread.

    Parameters:
        dtype: Element type of x and y.

    Args:
        y: All outputs.
        x: All signals.
        w: All weights.
        epilogue: Bias and activation.
        geometry: Sizes and shifts.
        history: State and sequence numbers.
        begin: First row of y, counted over signals and channels.
        end: One past the last row.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime BLOCK = BLOCK_VECTORS * WIDTH
    var tile = min(ROW_TILE, ceildiv(geometry.outputs, BLOCK) * BLOCK)
    var reach = geometry.halo() // geometry.stride
    var plane = tile + reach
    var planes = min(geometry.stride, geometry.halo() + 1)
    var packed = List[Scalar[ACC]](length=planes * plane, fill=0)
    var numbers = List[Int32](length=plane if history.has_numbers else 0, fill=0)
    var offsets = List[Int](capacity=geometry.taps)  # where each tap meets output 0 of a tile
    for j in range(geometry.taps):
        var shift = j * geometry.dilation
        offsets.append(shift % geometry.stride * plane + shift // geometry.stride)
    var filters = geometry.group_out()
    var n = begin // geometry.out_channels
    var o = begin % geometry.out_channels - 1
    for _ in range(begin, end):
        # Counted, not divided: a division takes as long as the whole row of a single step.
        o += 1
        if o == geometry.out_channels:
            o = 0
            n += 1
        var c = o if filters == 1 else o // filters
        var signal = x.unsafe_offset(geometry.input_offset(n, c, 0))
        var weights = w.unsafe_offset(o * geometry.taps)
        var outputs = y.unsafe_offset(geometry.output_offset(n, o, 0))
        var offset = SIMD[ACC, WIDTH](epilogue.offset[ACC](o))
        var state = history.state.unsafe_offset((n * geometry.in_channels + c) * (geometry.taps - 1))
        for first in range(0, geometry.outputs, tile):
            var count = min(tile, geometry.outputs - first)
            var needed = count + reach
            # Whole blocks of outputs are computed: their windows, too, must lie in x to be read where they are.
            var is_interior = geometry.is_interior(first, ceildiv(count, BLOCK) * BLOCK)
            var samples = packed.unsafe_ptr()
            var is_in_place = False
            comptime if dtype == ACC:
                is_in_place = is_interior and geometry.stride == 1
                if is_in_place:
                    samples = type_of(samples)(
                        unsafe_from_address=Int(signal.unsafe_offset(geometry.position(first, 0)))
                    )
            if not is_in_place:
                pack_row(samples, signal, state, history.has_state, geometry, first, planes, plane, needed)
            if history.has_numbers:
                pack_numbers(
                    numbers.unsafe_ptr(), history.numbers.unsafe_offset(n * geometry.length), geometry, first, needed
                )
            for at in range(0, count, BLOCK):
                var sums: Array[SIMD[ACC, WIDTH], BLOCK_VECTORS]
                if history.has_numbers:
                    sums = sum_numbered(
                        samples.unsafe_offset(at), numbers.unsafe_ptr().unsafe_offset(at), weights, geometry, count - at
                    )
                else:
                    sums = sum_taps(samples.unsafe_offset(at), offsets.unsafe_ptr(), weights, geometry.taps)
                var reaches_out = not geometry.is_interior(first + at, min(BLOCK, count - at))
                for vector in range(min(BLOCK_VECTORS, ceildiv(count - at, WIDTH))):
                    var place = at + vector * WIDTH
                    if reaches_out and not history.has_numbers:
                        mend_sums(sums[vector], signal, weights, geometry, first + place, history, state)
                    var values = activate(sums[vector] + offset, epilogue.activation)
                    if history.has_numbers:
                        var belongs = numbers.unsafe_ptr().unsafe_load[width=WIDTH](place + geometry.halo()).ge(0)
                        values = belongs.select(values, 0)
                    var rounded = values.cast[dtype]()
                    if place + WIDTH <= count:
                        outputs.unsafe_store(first + place, rounded)
                    else:
                        for lane in range(count - place):
                            outputs[unsafe_offset=first + place + lane] = rounded[lane]


@always_inline
def sum_taps[
    acc: DType
](
    samples: Pointer[mut=False, Scalar[acc], _],
    offsets: Pointer[mut=False, Int, _],
    weights: Pointer[mut=False, Scalar[acc], _],
    taps: Int,
) -> Array[SIMD[acc, simd_width_of[acc]()], BLOCK_VECTORS]:
    """Sums all taps of a block of outputs in registers.

    Parameters:
        acc: Accumulation type.

    Args:
        samples: Samples from the block's first output on.
        offsets: Where each tap begins in them.
        weights: Weights of the row.
        taps: K.

    Returns:
        The sums.
    """
    comptime WIDTH = simd_width_of[acc]()
    var sums = Array[SIMD[acc, WIDTH], BLOCK_VECTORS](fill=0)
    for j in range(taps):
        var run = samples.unsafe_offset(offsets[unsafe_offset=j])
        var weight = SIMD[acc, WIDTH](weights[unsafe_offset=j])
        comptime for vector in range(BLOCK_VECTORS):
            var there = run.unsafe_load[width=WIDTH](vector * WIDTH)
            sums[vector] = multiply_add(there, weight, sums[vector])
    return sums^


@no_inline
def sum_numbered[
    acc: DType
](
    samples: Pointer[mut=False, Scalar[acc], _],
    numbers: Pointer[mut=False, Int32, _],
    weights: Pointer[mut=False, Scalar[acc], _],
    geometry: LayerGeometry,
    count: Int,
) -> Array[SIMD[acc, simd_width_of[acc]()], BLOCK_VECTORS]:
    """Sums the terms of a block of outputs whose samples have the outputs' numbers.

    Parameters:
        acc: Accumulation type.

    Args:
        samples: Samples from the first of the block's first window on.
        numbers: Their numbers, of as many positions.
        weights: Weights of the row.
        geometry: Sizes and shifts; stride and dilation are 1.
        count: Outputs wanted, at least 1.

    Returns:
        The sums; vectors behind `count` are zero.
    """
    comptime WIDTH = simd_width_of[acc]()
    var sums = Array[SIMD[acc, WIDTH], BLOCK_VECTORS](fill=0)
    for vector in range(min(BLOCK_VECTORS, ceildiv(count, WIDTH))):
        var at = vector * WIDTH
        var wanted = numbers.unsafe_load[width=WIDTH](at + geometry.halo())
        var sum = SIMD[acc, WIDTH](0)
        for j in range(geometry.taps):
            var counts = numbers.unsafe_load[width=WIDTH](at + j).eq(wanted)
            var weight = SIMD[acc, WIDTH](weights[unsafe_offset=j])
            sum = counts.select(multiply_add(samples.unsafe_load[width=WIDTH](at + j), weight, sum), sum)
        sums[vector] = sum
    return sums^


def pack_row[
    dtype: DType
](
    packed: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    signal: Pointer[Scalar[dtype], MutAnyOrigin],
    state: Pointer[mut=False, Scalar[dtype], _],
    has_state: Bool,
    geometry: LayerGeometry,
    first: Int,
    planes: Int,
    plane: Int,
    needed: Int,
):
    """Lays out the samples of a tile.

    Parameters:
        dtype: Element type of the signal.

    Args:
        packed: Receives `needed` elements of each of (planes, plane); zeros where there is no sample.
        signal: One channel.
        state: The K - 1 samples before it.
        has_state: Whether there are any.
        geometry: Sizes and shifts.
        first: First output of the tile.
        planes: Phases of positions that any tap meets.
        plane: From one plane to the next.
        needed: Positions of each that the wanted outputs meet; what follows is of no account.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var step = geometry.stride
    for phase in range(planes):
        var there = packed.unsafe_offset(phase * plane)
        var start = geometry.position(first, 0) + phase
        var before = max(0, -start)
        var length = geometry.length - start
        if step > 1:
            before = ceildiv(before, step)
            length = ceildiv(length, step)
        var begin = min(needed, before)
        var end = max(begin, min(needed, length))
        for e in range(begin):
            # Where there is a state, start + e is at least -(K - 1).
            there[unsafe_offset=e] = state[unsafe_offset=geometry.taps - 1 + start + e].cast[ACC]() if has_state else 0
        var here = signal.unsafe_offset(start)
        var e = begin
        if step == 1:
            while e + WIDTH <= end:
                there.unsafe_store(e, here.unsafe_load[width=WIDTH](e).cast[ACC]())
                e += WIDTH
        while e < end:
            there[unsafe_offset=e] = here[unsafe_offset=e * step].cast[ACC]()
            e += 1
        for e in range(end, needed):
            there[unsafe_offset=e] = 0


def pack_numbers(
    packed: Pointer[mut=True, Int32, _],
    numbers: Pointer[mut=False, Int32, _],
    geometry: LayerGeometry,
    first: Int,
    needed: Int,
):
    """Lays out the sequence numbers of a tile's samples as `pack_row` does the samples.

    Args:
        packed: Receives `needed` elements; `NO_SEQUENCE` where there is no sample.
        numbers: Numbers of the signal's samples.
        geometry: Sizes and shifts; stride and dilation are 1.
        first: First output of the tile.
        needed: Positions that the wanted outputs meet.
    """
    var start = geometry.position(first, 0)
    for e in range(needed):
        var exists = start + e >= 0 and start + e < geometry.length
        packed[unsafe_offset=e] = numbers[unsafe_offset=start + e] if exists else NO_SEQUENCE


@no_inline
def mend_sums[
    dtype: DType, acc: DType, width: SIMDLength
](
    mut sums: SIMD[acc, width],
    signal: Pointer[Scalar[dtype], MutAnyOrigin],
    weights: Pointer[mut=False, Scalar[acc], _],
    geometry: LayerGeometry,
    first: Int,
    history: History[dtype],
    state: Pointer[mut=False, Scalar[dtype], _],
):
    """Does the sums that are NaN again, term by term: an infinite weight may have met a zero outside the signal.

    Parameters:
        dtype: Element type of the signal.
        acc: Accumulation type.
        width: Number of sums.

    Args:
        sums: Sums of neighbouring outputs.
        signal: One channel.
        weights: Weights of the row.
        geometry: Sizes and shifts.
        first: The first of these outputs.
        history: Whether there is a state.
        state: The K - 1 samples before the signal.
    """
    if not isnan(sums).reduce_or():
        return
    for lane in range(Int(width)):
        if isnan(sums[lane]) and first + lane < geometry.outputs:
            var sum = Scalar[acc](0)
            var begin = 0 if history.has_state else geometry.first_tap(first + lane)
            for j in range(begin, geometry.end_tap(first + lane)):
                var place = geometry.position(first + lane, j)
                var sample = (
                    state[unsafe_offset=geometry.taps - 1 + place] if place < 0 else signal[unsafe_offset=place]
                )
                sum = multiply_add(sample.cast[acc](), weights[unsafe_offset=j], sum)
            sums[lane] = sum
