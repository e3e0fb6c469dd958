"""Grouped 1-D convolution and transposed convolution of layers on CPU: an implicit matrix product in register blocks.

Computes:   y[n, o, i] = sum_{c, j} x[n, c, i*stride + j*dilation - pad_left] * w[o, c, j] + bias[o], then an
            activation, over the channels c of o's group; terms outside x are left out. `transposed`: x from y, the sum
            over the same terms for each sample of x.
Algorithm:  both are sums over source channels and taps of result rows that meet neighbouring source samples. A tile of
            the source is laid out in the L2 cache so that every tap meets a run of neighbours: conv_tile_cpu.mojo. Then
            BLOCK_ROWS result channels times BLOCK_VECTORS vectors stay in registers while all channels and taps run
            by: one load of samples serves BLOCK_ROWS multiply-adds, one broadcast weight BLOCK_VECTORS. A transposed
            sum goes by the phase of the result, (t + pad_left) mod stride, each phase with its own taps: no inserted
            zero is multiplied. Threads take tiles; the last ones are cut by result channels, so that all end together.
Cost:       2*N*O*L_out*C/G*K flop; bound by the FMA units from C/G*K ~ 20 on.
Layout:     x (N, C, L), w (O, C/G, K), y (N, O, L_out), contiguous, aligned to their own element only.
Accuracy:   sums in accumulate.accum_dtype on EVERY path; each result adds its terms one by one, channel by channel,
            taps in ascending order, then the bias: tiles, threads and SIMD width do not matter. Packed zeros stand
            outside the source: a sum that comes out as NaN there is done again without them (`mend_sums`).
Gate:       none: any sizes >= 1, outputs may be 0.
Tuning:     the constants below. Float32, one core of an AMD EPYC with AVX-512, whose FMA units do 115 GFLOP/s: 98 to 111
            for the layers of Whisper, wav2vec2, HuBERT and HiFi-GAN's residual blocks, 70 for 512 -> 256 channels of
            100 samples transposed, K = 16. Layers of benchmarks/layers.py, 2026-11-22. 1 -> 32 channels, K = 7, 24000
            samples, whose sums go from registers to the result: 91, 117 us (2026-11-23).
Tried:      a call for each block, where terms are few, and weights of a transposed sum sorted by phase while they are
            copied: slower, the latter twice.
Source:     register blocking as for a matrix product (Goto and van de Geijn, Anatomy of High-Performance Matrix
            Multiplication, 2008); phases as in Crochiere and Rabiner, Multirate Digital Signal Processing, 1983.
"""

from std.math import ceildiv
from std.sys.info import simd_width_of, size_of
from std.utils.numerics import isnan
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.epilogue import NONE, Epilogue, activate
from ..shared.layer_geometry import LayerGeometry
from ..shared.shares import Shares
from .conv_tile_cpu import (
    BLOCK_ROWS,
    BLOCK_VECTORS,
    LINE_BYTES,
    Walk,
    at_line,
    copy_weights,
    fetch_source,
    fetch_weights,
    pack_tile,
)

comptime SHARES_PER_WORKER = 8
"""Pieces of work per thread at least, if there are so many: threads then end together."""

comptime MULTIPLY_ADDS_PER_WORKER = 1 << 20
"""Work below which a further thread does not pay, as in direct_cpu.mojo."""


def conv_cpu[
    dtype: DType, //, transposed: Bool
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue,
    geometry: LayerGeometry,
    max_workers: Int,
):
    """Computes y from x, or x from y, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of result, source and weights.
        transposed: False: the result is y. True: the result is x.

    Args:
        result: The array y, or x; every element is written.
        source: The array x, or y.
        w: Weights, shape (O, C/G, K).
        epilogue: Bias and activation of the result.
        geometry: Sizes and shifts.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
    """
    var workers = geometry.multiply_adds() // MULTIPLY_ADDS_PER_WORKER
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)
    if max_workers == 1 or workers < 1:
        workers = 1
    var pieces = SHARES_PER_WORKER * workers if workers > 1 else 1
    var past_line = Int(result) % LINE_BYTES // size_of[dtype]()
    var walk = Walk[dtype, transposed](geometry, ceildiv(pieces, max(1, geometry.batch * geometry.groups)), past_line)
    var tiles = geometry.batch * geometry.groups * walk.tiles
    if tiles == 0:
        return
    # The last tiles are cut by result channels, too: threads end together, and pack few tiles twice.
    var whole = max(0, tiles // workers - 1) * workers if workers > 1 else tiles
    var parts = min(ceildiv(walk.result_channels, BLOCK_ROWS), ceildiv(pieces, max(1, tiles - whole)))
    var shares = Shares(whole + (tiles - whole) * parts)

    def compute_shares(worker: Int) {imm}:
        compute_tiles(result, source, w, epilogue, walk, shares, whole, parts, workers)

    if workers == 1:
        compute_shares(0)
    else:
        sync_parallelize(compute_shares, workers)


def compute_tiles[
    dtype: DType, transposed: Bool
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue,
    walk: Walk[dtype, transposed],
    shares: Shares,
    whole: Int,
    parts: Int,
    workers: Int,
):
    """Computes blocks of result channels in tiles on the calling thread until there are none left.

    Parameters:
        dtype: Element type of result, source and weights.
        transposed: As for `conv_cpu`.

    Args:
        result: All results.
        source: All sources.
        w: All weights.
        epilogue: Bias and activation.
        walk: How they lie to one another.
        shares: The tiles, counted over signals, groups and tiles; behind the first `whole` ones the parts of each.
        whole: How many tiles are not cut.
        parts: Into how many parts the result channels of the others are cut.
        workers: How many threads do so.
    """
    var scratch = Scratch(walk)
    var blocks = ceildiv(walk.result_channels, BLOCK_ROWS)
    var present = (0, 0)
    var packed_index = -1
    while True:
        var share = shares.take()
        if not share:
            break
        var index = share.value()
        var part = 0
        var of = 1
        if index >= whole:
            part = (index - whole) % parts
            of = parts
            index = whole + (index - whole) // parts
        var row = index // walk.tiles  # signal and group
        var channels = source.unsafe_offset(row * walk.source_channels * walk.source_length)
        var outputs = result.unsafe_offset(row * walk.result_channels * walk.result_length)
        if index != packed_index:
            present = pack_tile(at_line(scratch.packed), channels, walk, walk.first(index))
            packed_index = index
        # The source of the tile that this thread will probably take next comes closer meanwhile.
        var next = index + workers
        var next_channels = source.unsafe_offset(next // walk.tiles * walk.source_channels * walk.source_length)
        var last = (part + 1) * blocks // of
        for block in range(part * blocks // of, last):
            if next < whole:
                fetch_source(
                    next_channels,
                    walk,
                    walk.first(next),
                    block * walk.source_channels // blocks,
                    (block + 1) * walk.source_channels // blocks,
                )
            var place = Place(row % walk.geometry.groups, block, block + 1 < last, walk.first(index), walk.end(index))
            compute_block(outputs, channels, w, epilogue, walk, scratch, place, present)


struct Scratch[dtype: DType, transposed: Bool]:
    """What a thread lays out for its sums.

    Parameters:
        dtype: Element type of the arrays.
        transposed: As for `conv_cpu`.
    """

    comptime ACC = accum_dtype[Self.dtype]()
    """Type of sums."""
    comptime IS_COPIED = Self.transposed or Self.dtype != Self.ACC
    """Whether weights are laid out; those that lie as the sums need them are read where they are."""
    comptime LINE = LINE_BYTES // size_of[Self.ACC]()
    """Elements of a line of the caches."""

    var packed: List[Scalar[Self.ACC]]
    """The source of a tile."""
    var weights: List[Scalar[Self.ACC]]
    """Of a block of result channels, if they are laid out."""
    var sums: List[Scalar[Self.ACC]]
    """Of a block, phase by phase, unless they are stored as results."""
    var biases: List[Scalar[Self.ACC]]
    """What the result channels of a block add at last."""

    def __init__(out self, walk: Walk[Self.dtype, Self.transposed]):
        """Makes room, a line more of each for `at_line`.

        Args:
            walk: How source, taps and results lie to one another.
        """
        comptime BLOCK = BLOCK_VECTORS * simd_width_of[Self.ACC]()
        var weights = BLOCK_ROWS * walk.source_channels * walk.geometry.taps if Self.IS_COPIED else 0
        self.packed = List(length=walk.source_channels * walk.planes * walk.plane + Self.LINE, fill=Scalar[Self.ACC](0))
        self.weights = List(length=weights + Self.LINE, fill=Scalar[Self.ACC](0))
        self.sums = List(length=walk.result_step * BLOCK_ROWS * BLOCK + Self.LINE, fill=Scalar[Self.ACC](0))
        self.biases = List(length=BLOCK_ROWS + Self.LINE, fill=Scalar[Self.ACC](0))


@fieldwise_init
struct Place(TrivialRegisterPassable):
    """A block of result channels in a tile."""

    var group: Int
    """Which group."""
    var block: Int
    """Which block of its result channels."""
    var is_followed: Bool
    """Whether the thread takes the next one, too."""
    var first: Int
    """First result of the tile within each phase."""
    var end: Int
    """One past its last."""


def compute_block[
    dtype: DType, transposed: Bool
](
    outputs: Pointer[Scalar[dtype], MutAnyOrigin],
    channels: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue,
    walk: Walk[dtype, transposed],
    scratch: Scratch[dtype, transposed],
    place: Place,
    present: Tuple[Int, Int],
):
    """Computes a block of result channels in a tile.

    Parameters:
        dtype: Element type of result, source and weights.
        transposed: As for `conv_cpu`.

    Args:
        outputs: Results of the signal and group.
        channels: Their source.
        w: All weights.
        epilogue: Bias and activation.
        walk: How they lie to one another.
        scratch: What the tile's source is packed in.
        place: Which block, and tile.
        present: Where in the planes there is a source, as `pack_tile` told.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime BLOCK = BLOCK_VECTORS * simd_width_of[ACC]()
    var channel = place.block * BLOCK_ROWS
    var rows = min(BLOCK_ROWS, walk.result_channels - channel)
    var packed = at_line(scratch.packed)
    var weights = at_line(scratch.weights)
    var biases = at_line(scratch.biases)
    var all_sums = at_line(scratch.sums)
    comptime if scratch.IS_COPIED:
        copy_weights(weights, w, walk, place.group, channel, rows)
    else:
        weights = type_of(weights)(unsafe_from_address=Int(w.unsafe_offset(walk.weight(channel, 0, 0, place.group))))
    for each in range(rows):
        biases[unsafe_offset=each] = epilogue.offset[ACC](place.group * walk.result_channels + channel + each)
    # Sums that are results are stored as such from the registers.
    var is_final = dtype == ACC and walk.result_step == 1 and epilogue.activation == NONE
    var count = place.end - place.first
    var pieces = ceildiv(count, BLOCK) * walk.result_step
    var there = outputs.unsafe_offset(channel * walk.result_length + place.first)
    var lead = min(count, -walk.shift % scratch.LINE) if place.first == 0 else 0
    var at = 0
    while at < count:
        var wanted = lead if at < lead else min(BLOCK, count - at)
        var runs = (count - at) // BLOCK if is_final and at >= lead else 0
        comptime if transposed:
            runs = min(runs, 1)  # between them the weights that come next are fetched
        for phase in range(walk.result_step):
            comptime if transposed:
                if place.is_followed:
                    var piece = at // BLOCK * walk.result_step + phase
                    var begin = piece * walk.source_channels // pieces
                    var end = (piece + 1) * walk.source_channels // pieces
                    fetch_weights(w, walk, place.group, channel + BLOCK_ROWS, begin, end)
            var sums = all_sums.unsafe_offset(phase * BLOCK_ROWS * BLOCK)
            var sum_stride = BLOCK
            if runs > 0:
                sums = type_of(sums)(unsafe_from_address=Int(there.unsafe_offset(at)))
                sum_stride = walk.result_length
            sum_block[ACC](
                sums,
                biases,
                packed.unsafe_offset(at),
                weights,
                walk.offsets.unsafe_ptr().unsafe_offset(walk.begins[phase]),
                walk.taps.unsafe_ptr().unsafe_offset(walk.begins[phase]),
                walk.source_channels,
                walk.begins[phase + 1] - walk.begins[phase],
                walk.planes * walk.plane,
                walk.geometry.taps * (BLOCK_ROWS if transposed else 1),
                walk.geometry.taps * (1 if transposed else walk.source_channels),
                sum_stride,
                rows,
                wanted,
                max(1, runs),
            )
            for run in range(max(1, runs)):
                var begin = at + run * BLOCK
                if begin < present[0] or begin + BLOCK + walk.reach > present[1]:
                    var spoilt = sums.unsafe_offset(run * BLOCK)
                    var first = place.first + begin
                    mend_sums(spoilt, biases, channels, w, walk, place.group, channel, rows, phase, first, sum_stride)
        if runs == 0:
            store_sums(outputs, all_sums, epilogue.activation, walk, channel, rows, place.first + at, wanted)
        at += wanted if runs == 0 else runs * BLOCK


def sum_block[
    acc: DType
](
    sums: Pointer[mut=True, Scalar[acc], _],
    biases: Pointer[mut=False, Scalar[acc], _],
    packed: Pointer[mut=False, Scalar[acc], _],
    weights: Pointer[mut=False, Scalar[acc], _],
    offsets: Pointer[mut=False, Int, _],
    columns: Pointer[mut=False, Int, _],
    channels: Int,
    taps: Int,
    channel_stride: Int,
    weight_stride: Int,
    row_stride: Int,
    sum_stride: Int,
    rows: Int,
    count: Int,
    runs: Int,
):
    """Computes the sums of register blocks side by side, of one that is narrower if few results are wanted.

    Parameters:
        acc: Accumulation type.

    Args:
        sums: Receives up to BLOCK_VECTORS vectors of each row; those behind `count` are left as they were.
        biases: What each row adds at last.
        packed: Packed source from the block's first result on.
        weights: Weights of the block.
        offsets: Where in a packed channel each tap begins.
        columns: Where among the weights of a channel each tap is.
        channels: Source channels.
        taps: Taps.
        channel_stride: From a packed channel to the next.
        weight_stride: From the weights of a channel to those of the next.
        row_stride: From the weights of a row to those of the next.
        sum_stride: From the sums of a row to those of the next.
        rows: Result channels, at most BLOCK_ROWS.
        count: Results wanted of each in a block, at least 1.
        runs: How many blocks; one if it is narrower.
    """
    comptime WIDTH = simd_width_of[acc]()
    comptime for wanted in range(1, BLOCK_ROWS + 1):
        if rows == wanted:
            comptime for vectors in range(1, BLOCK_VECTORS + 1):
                if min(BLOCK_VECTORS, ceildiv(count, WIDTH)) == vectors:
                    sum_registers[wanted, vectors](
                        sums,
                        biases,
                        packed,
                        weights,
                        offsets,
                        columns,
                        channels,
                        taps,
                        channel_stride,
                        weight_stride,
                        row_stride,
                        sum_stride,
                        runs,
                    )


@no_inline
def sum_registers[
    acc: DType, //, rows: Int, vectors: Int
](
    sums: Pointer[mut=True, Scalar[acc], _],
    biases: Pointer[mut=False, Scalar[acc], _],
    packed: Pointer[mut=False, Scalar[acc], _],
    weights: Pointer[mut=False, Scalar[acc], _],
    offsets: Pointer[mut=False, Int, _],
    columns: Pointer[mut=False, Int, _],
    channels: Int,
    taps: Int,
    channel_stride: Int,
    weight_stride: Int,
    row_stride: Int,
    sum_stride: Int,
    runs: Int,
):
    """Runs all channels and taps past one block of sums in registers after another.

    Parameters:
        acc: Accumulation type.
        rows: Result channels.
        vectors: Vectors of each.

    Args:
        sums: Receives the vectors of each row.
        biases: What each row adds at last.
        packed: Packed source from the block's first result on.
        weights: Weights of the block.
        offsets: Where in a packed channel each tap begins.
        columns: Where among the weights of a channel each tap is.
        channels: Source channels.
        taps: Taps.
        channel_stride: From a packed channel to the next.
        weight_stride: From the weights of a channel to those of the next.
        row_stride: From the weights of a row to those of the next.
        sum_stride: From the sums of a row to those of the next.
        runs: How many blocks, one behind the other.
    """
    comptime WIDTH = simd_width_of[acc]()
    for run in range(runs):
        var first = run * vectors * WIDTH
        var block = Array[SIMD[acc, WIDTH], rows * vectors](fill=0)
        for channel in range(channels):
            var samples = packed.unsafe_offset(channel * channel_stride + first)
            var these = weights.unsafe_offset(channel * weight_stride)
            for tap in range(taps):
                var column_samples = samples.unsafe_offset(offsets[unsafe_offset=tap])
                var column_weights = these.unsafe_offset(columns[unsafe_offset=tap])
                var column = Array[SIMD[acc, WIDTH], vectors](fill=0)
                comptime for vector in range(vectors):
                    column[vector] = column_samples.unsafe_load[width=WIDTH](vector * WIDTH)
                comptime for row in range(rows):
                    var weight = SIMD[acc, WIDTH](column_weights[unsafe_offset=row * row_stride])
                    comptime for vector in range(vectors):
                        comptime at = row * vectors + vector
                        block[at] = multiply_add(column[vector], weight, block[at])
        comptime for row in range(rows):
            var bias = SIMD[acc, WIDTH](biases[unsafe_offset=row])
            comptime for vector in range(vectors):
                var at = row * sum_stride + first + vector * WIDTH
                sums.unsafe_store(at, block[row * vectors + vector] + bias)


@no_inline
def mend_sums[
    dtype: DType, transposed: Bool
](
    sums: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    biases: Pointer[mut=False, Scalar[accum_dtype[dtype]()], _],
    channels: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    walk: Walk[dtype, transposed],
    group: Int,
    channel: Int,
    rows: Int,
    phase: Int,
    first: Int,
    sum_stride: Int,
):
    """Does the sums of a block that are NaN again, term by term: an infinite weight may have met a zero of no source.

    Parameters:
        dtype: Element type of source and weights.
        transposed: As for `conv_cpu`.

    Args:
        sums: The block's sums.
        biases: What each row adds at last.
        channels: Source of the group.
        w: All weights.
        walk: How they lie to one another.
        group: Which group.
        channel: First result channel of the block, within its group.
        rows: Result channels of the block.
        phase: Which phase of the results.
        first: First result of the block within its phase.
        sum_stride: From the sums of a row to those of the next.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime BLOCK = BLOCK_VECTORS * WIDTH
    var is_spoilt = False
    for row in range(rows):
        for at in range(0, BLOCK, WIDTH):
            is_spoilt = is_spoilt or isnan(sums.unsafe_load[width=WIDTH](row * sum_stride + at)).reduce_or()
    if not is_spoilt:
        return
    var count = min(BLOCK, ceildiv(walk.result_length - phase, walk.result_step) - first)
    for row in range(rows):
        for at in range(count):
            var sum = sums[unsafe_offset=row * sum_stride + at]
            if not isnan(sum):
                continue
            sum = 0
            for source_channel in range(walk.source_channels):
                for tap in range(walk.begins[phase], walk.begins[phase + 1]):
                    var offset = walk.offsets[tap]
                    var place = (
                        walk.lowest + offset // walk.plane + (offset % walk.plane + first + at) * walk.source_step
                    )
                    if place >= 0 and place < walk.source_length:
                        var sample = channels[unsafe_offset=source_channel * walk.source_length + place].cast[ACC]()
                        var weight = w[unsafe_offset=walk.weight(channel + row, source_channel, walk.taps[tap], group)]
                        sum = multiply_add(sample, weight.cast[ACC](), sum)
            sums[unsafe_offset=row * sum_stride + at] = sum + biases[unsafe_offset=row]


def store_sums[
    dtype: DType, transposed: Bool
](
    outputs: Pointer[Scalar[dtype], MutAnyOrigin],
    sums: Pointer[mut=False, Scalar[accum_dtype[dtype]()], _],
    activation: Int,
    walk: Walk[dtype, transposed],
    channel: Int,
    rows: Int,
    first: Int,
    wanted: Int,
):
    """Finishes, rounds and stores the sums of a block, those of all phases.

    Parameters:
        dtype: Element type of the result.
        transposed: As for `conv_cpu`.

    Args:
        outputs: Results of the group.
        sums: The block's sums, (phases, BLOCK_ROWS, BLOCK_VECTORS vectors).
        activation: One of the constants of epilogue.mojo.
        walk: How the results lie.
        channel: First result channel of the block, within its group.
        rows: Result channels of the block.
        first: First result of the block within each phase.
        wanted: Results of each phase.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime BLOCK = BLOCK_VECTORS * WIDTH
    var step = walk.result_step
    var count = min(wanted * step, walk.result_length - first * step)  # of a channel, all phases
    for row in range(rows):
        var there = outputs.unsafe_offset((channel + row) * walk.result_length + first * step)

        @always_inline
        def finished(phase: Int, at: Int) {imm} -> SIMD[dtype, WIDTH]:
            var values = sums.unsafe_load[width=WIDTH]((phase * BLOCK_ROWS + row) * BLOCK + at)
            return activate(values, activation).cast[dtype]()

        var at = 0
        if step == 1:
            while at + WIDTH <= count:
                there.unsafe_store(at, finished(0, at))
                at += WIDTH
        elif step == 2:
            while 2 * (at + WIDTH) <= count:
                there.unsafe_store(2 * at, finished(0, at).interleave(finished(1, at)))
                at += WIDTH
        while at * step < count:
            for phase in range(step):
                var values = finished(phase, at)
                for lane in range(min(WIDTH, ceildiv(count - phase, step) - at)):
                    there[unsafe_offset=(at + lane) * step + phase] = values[lane]
            at += WIDTH
