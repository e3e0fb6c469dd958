"""Grouped 1-D convolution and transposed convolution of layers on CPU: an implicit matrix product in register blocks.

Computes:   y[n, o, i] = sum_{c, j} x[n, c, i*stride + j*dilation - pad_left] * w[o, c, j] + bias[o], then an
            activation, over the channels c of o's group; terms outside x are left out. `transposed`: x from y, the sum
            over the same terms for each sample of x.
Algorithm:  both are sums over source channels and taps of result rows that meet neighbouring source samples. A tile of
            the source is laid out so that every tap meets a run of neighbours: strided windows by phase of the
            position, all in one scratch that stays in the L2 cache. Then BLOCK_ROWS result channels times
            BLOCK_VECTORS vectors stay in registers while all channels and taps run by: one load of samples serves
            BLOCK_ROWS multiply-adds, one broadcast weight BLOCK_VECTORS. A transposed sum goes by the phase of the
            result, (t + pad_left) mod stride, each phase with its own taps: no inserted zero is multiplied.
Cost:       2*N*O*L_out*C/G*K flop; bound by the FMA units from C/G*K ~ 20 on.
Layout:     x (N, C, L), w (O, C/G, K), y (N, O, L_out), contiguous, aligned to their own element only.
Accuracy:   sums in accumulate.accum_dtype on EVERY path; each result adds its terms one by one, channel by channel,
            taps in ascending order, then the bias: tiles, threads and SIMD width do not matter. Packed zeros stand
            outside the source: a sum that comes out as NaN there is done again without them (`mend_sums`).
Gate:       none: any sizes >= 1, outputs may be 0.
Tuning:     the constants below. Float32, one core of an AMD EPYC with AVX-512, whose FMA units do 115 GFLOP/s: 98 to 111
            for the layers of Whisper, wav2vec2, HuBERT and HiFi-GAN's residual blocks, 70 for 512 -> 256 channels of
            100 samples transposed, K = 16 (benchmarks/layers.py, 2026-11-22).
Tried:      weights of a transposed sum sorted by phase while they are copied: 25 to 43 GFLOP/s instead of 70.
Source:     register blocking as for a matrix product (Goto and van de Geijn, Anatomy of High-Performance Matrix
            Multiplication, 2008); phases as in Crochiere and Rabiner, Multirate Digital Signal Processing, 1983.
"""

from std.math import ceildiv
from std.sys.info import simd_width_of, size_of
from std.sys.intrinsics import PrefetchOptions, prefetch
from std.utils.numerics import isnan
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.epilogue import Epilogue, activate
from ..shared.layer_geometry import LayerGeometry
from ..shared.shares import Shares

comptime BLOCK_ROWS = 6
"""Result channels taken together: with 4 vectors each 24 sums, 4 samples and a weight fill 29 of AVX-512's 32
registers; with 2 vectors 15 of AVX2's 16."""

comptime BLOCK_VECTORS = 4 if simd_width_of[DType.float32]() >= 16 else 2
"""Vectors of each channel taken together."""

comptime TILE_BYTES = 192 << 10
"""Packed source of a tile: leaves most of a 512 KB L2 cache to the weights."""

comptime LINE_BYTES = 64
"""A line of the caches."""

comptime PREFETCHED_RUNS = 8
"""How many runs ahead the weights that are copied are fetched: each run lies in a page of its own (512 -> 256 channels,
K = 16, 100 samples: 6 ms instead of 7)."""

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
    var walk = Walk[dtype, transposed](geometry)
    var tiles = geometry.batch * geometry.groups * walk.tiles
    if tiles == 0:
        return
    # Few tiles are cut by result channels, too; each thread packs the source of a tile once.
    var parts = 1
    if workers > 1 and max_workers != 1:
        parts = min(ceildiv(walk.result_channels, BLOCK_ROWS), ceildiv(SHARES_PER_WORKER * workers, tiles))
    var shares = Shares(tiles * parts)

    def compute_shares(worker: Int) {imm}:
        compute_tiles(result, source, w, epilogue, walk, shares, parts)

    if workers <= 1 or max_workers == 1:
        compute_shares(0)
    else:
        sync_parallelize(compute_shares, workers)


struct Walk[dtype: DType, transposed: Bool](Movable):
    """How source, taps and result of a sum lie to one another.

    Result m of phase q, element m * result_step + q of a channel, meets with each tap of the phase one element of the
    packed source: the tap's offset + m. Element e of plane p of a packed channel is the source's element
    first(m of the tile) + p + e * source_step.

    Parameters:
        dtype: Element type of the arrays.
        transposed: As for `conv_cpu`.
    """

    var geometry: LayerGeometry
    """Sizes and shifts."""
    var source_channels: Int
    """Of a group."""
    var result_channels: Int
    """Of a group."""
    var source_length: Int
    """Elements of a source channel."""
    var result_length: Int
    """Elements of a result channel."""
    var source_step: Int
    """From an element of a plane to the next in the source."""
    var result_step: Int
    """How many phases the result has."""
    var planes: Int
    """Phases of the source that any tap meets."""
    var plane: Int
    """Length of a plane, whole lines."""
    var reach: Int
    """How many elements of a plane its results need beyond one each."""
    var lowest: Int
    """The source element at the beginning of plane 0 of the first tile."""
    var tile: Int
    """Results of a phase per tile, whole register blocks."""
    var tiles: Int
    """Tiles per signal and group."""
    var taps: List[Int]
    """The taps, phase by phase, in ascending order within each."""
    var offsets: List[Int]
    """Where in a packed channel each of these taps meets result 0 of the tile."""
    var begins: List[Int]
    """Where the taps of each phase begin, and where the last one's end."""

    def __init__(out self, geometry: LayerGeometry):
        """Lays out the taps.

        Args:
            geometry: Sizes and shifts.
        """
        comptime ACC = accum_dtype[Self.dtype]()
        comptime BLOCK = BLOCK_VECTORS * simd_width_of[ACC]()
        comptime LINE = LINE_BYTES // size_of[ACC]()
        self.geometry = geometry
        comptime if Self.transposed:
            self.source_channels = geometry.group_out()
            self.result_channels = geometry.group_in()
            self.source_length = geometry.outputs
            self.result_length = geometry.length
            self.source_step = 1
            self.result_step = geometry.stride
            self.planes = 1
            self.lowest = (geometry.pad_left - geometry.halo()) // geometry.stride  # rounds down
            self.reach = (geometry.pad_left + geometry.stride - 1) // geometry.stride - self.lowest
        else:
            self.source_channels = geometry.group_in()
            self.result_channels = geometry.group_out()
            self.source_length = geometry.length
            self.result_length = geometry.outputs
            self.source_step = geometry.stride
            self.result_step = 1
            self.planes = min(geometry.stride, geometry.halo() + 1)
            self.lowest = -geometry.pad_left
            self.reach = geometry.halo() // geometry.stride
        var results = ceildiv(self.result_length, self.result_step)
        var room = TILE_BYTES // (size_of[ACC]() * self.source_channels * self.planes) - self.reach
        var blocks = ceildiv(results, BLOCK)
        var fewest = ceildiv(blocks, max(1, room // BLOCK))
        self.tile = ceildiv(blocks, max(1, fewest)) * BLOCK  # tiles of about the same length
        self.tiles = ceildiv(results, max(1, self.tile))
        self.plane = ceildiv(self.tile + self.reach, LINE) * LINE
        self.taps = List[Int](capacity=geometry.taps)
        self.offsets = List[Int](capacity=geometry.taps)
        self.begins = List[Int](capacity=self.result_step + 1)
        self.begins.append(0)
        for phase in range(self.result_step):
            for j in range(geometry.taps):
                comptime if Self.transposed:
                    var shift = phase + geometry.pad_left - j * geometry.dilation
                    if shift % geometry.stride != 0:
                        continue
                    self.offsets.append(shift // geometry.stride - self.lowest)
                else:
                    var shift = j * geometry.dilation
                    self.offsets.append(shift % geometry.stride * self.plane + shift // geometry.stride)
                self.taps.append(j)
            self.begins.append(len(self.taps))

    @always_inline
    def weight(self, result_channel: Int, source_channel: Int, j: Int, group: Int) -> Int:
        """Finds an element of w.

        Args:
            result_channel: Within its group.
            source_channel: Within its group.
            j: Tap.
            group: Which group.

        Returns:
            Index into w.
        """
        comptime if Self.transposed:
            return self.geometry.weight_offset(group * self.source_channels + source_channel, result_channel, j)
        return self.geometry.weight_offset(group * self.result_channels + result_channel, source_channel, j)


def compute_tiles[
    dtype: DType, transposed: Bool
](
    result: Pointer[Scalar[dtype], MutAnyOrigin],
    source: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    epilogue: Epilogue,
    walk: Walk[dtype, transposed],
    shares: Shares,
    parts: Int,
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
        shares: The parts of all tiles, counted over signals, groups, tiles and parts.
        parts: Into how many parts the result channels of a tile are cut.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime BLOCK = BLOCK_VECTORS * simd_width_of[ACC]()
    # Weights that lie as the sums need them are read where they are.
    comptime IS_COPIED = transposed or dtype != ACC
    comptime LINE = LINE_BYTES // size_of[ACC]()
    var terms = walk.source_channels * walk.geometry.taps  # of a result
    var source_scratch = List[Scalar[ACC]](length=walk.source_channels * walk.planes * walk.plane + LINE, fill=0)
    var weight_scratch = List[Scalar[ACC]](length=BLOCK_ROWS * terms + LINE if IS_COPIED else LINE, fill=0)
    var sum_scratch = List[Scalar[ACC]](length=walk.result_step * BLOCK_ROWS * BLOCK + LINE, fill=0)
    var packed = at_line(source_scratch)
    var weights = at_line(weight_scratch)
    var sums = at_line(sum_scratch)
    var blocks = ceildiv(walk.result_channels, BLOCK_ROWS)
    var present = (0, 0)
    var packed_index = -1
    while True:
        var share = shares.take()
        if not share:
            break
        var index = share.value() // parts
        var part = share.value() % parts
        var row = index // walk.tiles  # signal and group
        var group = row % walk.geometry.groups
        var first = index % walk.tiles * walk.tile
        var channels = source.unsafe_offset(row * walk.source_channels * walk.source_length)
        var outputs = result.unsafe_offset(row * walk.result_channels * walk.result_length)
        if index != packed_index:
            present = pack_tile(packed, channels, walk, first)
            packed_index = index
        for block in range(part * blocks // parts, (part + 1) * blocks // parts):
            var channel = block * BLOCK_ROWS
            var rows = min(BLOCK_ROWS, walk.result_channels - channel)
            var these = weights
            comptime if IS_COPIED:
                copy_weights(weights, w, walk, group, channel, rows)
            else:
                these = type_of(these)(unsafe_from_address=Int(w.unsafe_offset(walk.weight(channel, 0, 0, group))))
            var count = min(walk.tile, ceildiv(walk.result_length, walk.result_step) - first)
            for at in range(0, count, BLOCK):
                for phase in range(walk.result_step):
                    var block_sums = sums.unsafe_offset(phase * BLOCK_ROWS * BLOCK)
                    sum_block[ACC](
                        block_sums,
                        packed.unsafe_offset(at),
                        these,
                        walk.offsets.unsafe_ptr().unsafe_offset(walk.begins[phase]),
                        walk.taps.unsafe_ptr().unsafe_offset(walk.begins[phase]),
                        walk.source_channels,
                        walk.begins[phase + 1] - walk.begins[phase],
                        walk.planes * walk.plane,
                        walk.geometry.taps * (BLOCK_ROWS if transposed else 1),
                        walk.geometry.taps * (1 if transposed else walk.source_channels),
                        rows,
                        count - at,
                    )
                    if at < present[0] or at + BLOCK + walk.reach > present[1]:
                        mend_sums(block_sums, channels, w, walk, group, channel, rows, phase, first + at)
                store_sums(outputs, sums, epilogue, walk, group, channel, rows, first + at)
    _ = source_scratch^
    _ = weight_scratch^
    _ = sum_scratch^


@always_inline
def at_line[dtype: DType](scratch: List[Scalar[dtype]]) -> Pointer[Scalar[dtype], MutUntrackedOrigin]:
    """Finds the first element of some scratch at the beginning of a line: no vector of it then lies in two.

    Parameters:
        dtype: Element type.

    Args:
        scratch: A line longer than needed; must outlive the pointer.

    Returns:
        The element's address.
    """
    var line = ceildiv(Int(scratch.unsafe_ptr()), LINE_BYTES) * LINE_BYTES
    return Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=line)


def pack_tile[
    dtype: DType, transposed: Bool
](
    packed: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    channels: Pointer[Scalar[dtype], MutAnyOrigin],
    walk: Walk[dtype, transposed],
    first: Int,
) -> Tuple[Int, Int]:
    """Lays out the source of a tile.

    Parameters:
        dtype: Element type of the source.
        transposed: As for `conv_cpu`.

    Args:
        packed: Receives (source channels, planes, plane); zeros where there is no source.
        channels: Source of the group.
        walk: How the source is read.
        first: First result of the tile within its phase.

    Returns:
        Where in every plane the source begins and ends; zeros stand before and behind.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var step = walk.source_step
    var latest_begin = 0
    var earliest_end = walk.plane
    for plane in range(walk.planes):
        var start = walk.lowest + first * step + plane
        var begin = min(walk.plane, ceildiv(max(0, -start), step))
        var end = max(begin, min(walk.plane, ceildiv(walk.source_length - start, step)))
        latest_begin = max(latest_begin, begin)
        earliest_end = min(earliest_end, end)
        for channel in range(walk.source_channels):
            var there = packed.unsafe_offset((channel * walk.planes + plane) * walk.plane)
            var here = channels.unsafe_offset(channel * walk.source_length + start)
            for e in range(begin):
                there[unsafe_offset=e] = 0
            var e = begin
            if step == 1:
                while e + WIDTH <= end:
                    there.unsafe_store(e, here.unsafe_load[width=WIDTH](e).cast[ACC]())
                    e += WIDTH
            elif step == 2:
                while e + WIDTH < end:  # of the last pair there may be one element only
                    var pairs = here.unsafe_load[width=2 * WIDTH](2 * e).deinterleave()
                    there.unsafe_store(e, pairs[0].cast[ACC]())
                    e += WIDTH
            while e < end:
                there[unsafe_offset=e] = here[unsafe_offset=e * step].cast[ACC]()
                e += 1
            for e in range(end, walk.plane):
                there[unsafe_offset=e] = 0
    return latest_begin, earliest_end


def copy_weights[
    dtype: DType, transposed: Bool
](
    weights: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    walk: Walk[dtype, transposed],
    group: Int,
    channel: Int,
    rows: Int,
):
    """Copies the weights of a block to where they lie together and in the type of the sums.

    A transposed sum's weights lie far apart, a run for each source channel; runs at a distance of some power of two
    would drive one another out of the caches while all phases read them.

    Parameters:
        dtype: Element type of the weights.
        transposed: As for `conv_cpu`.

    Args:
        weights: Receives (rows, source channels, K), transposed (source channels, BLOCK_ROWS, K).
        w: All weights.
        walk: How the weights are read.
        group: Which group.
        channel: First result channel of the block, within its group.
        rows: Result channels of the block.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var runs = walk.source_channels if transposed else rows
    var length = walk.geometry.taps * (rows if transposed else walk.source_channels)
    var distance = walk.geometry.taps * (BLOCK_ROWS if transposed else walk.source_channels)
    for run in range(runs):
        var here: Pointer[Scalar[dtype], MutAnyOrigin]
        comptime if transposed:
            here = w.unsafe_offset(walk.weight(channel, run, 0, group))
        else:
            here = w.unsafe_offset(walk.weight(channel + run, 0, 0, group))
        var there = weights.unsafe_offset(run * distance)
        comptime if transposed:
            if run + PREFETCHED_RUNS < runs:
                var ahead = w.unsafe_offset(walk.weight(channel, run + PREFETCHED_RUNS, 0, group))
                for line in range(0, length, LINE_BYTES // size_of[dtype]()):
                    prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](ahead.unsafe_offset(line))
        var at = 0
        while at + WIDTH <= length:
            there.unsafe_store(at, here.unsafe_load[width=WIDTH](at).cast[ACC]())
            at += WIDTH
        while at < length:
            there[unsafe_offset=at] = here[unsafe_offset=at].cast[ACC]()
            at += 1


def sum_block[
    acc: DType
](
    sums: Pointer[mut=True, Scalar[acc], _],
    packed: Pointer[mut=False, Scalar[acc], _],
    weights: Pointer[mut=False, Scalar[acc], _],
    offsets: Pointer[mut=False, Int, _],
    columns: Pointer[mut=False, Int, _],
    channels: Int,
    taps: Int,
    channel_stride: Int,
    weight_stride: Int,
    row_stride: Int,
    rows: Int,
    count: Int,
):
    """Computes the sums of one register block, narrower if few results are wanted.

    Parameters:
        acc: Accumulation type.

    Args:
        sums: Receives (rows, BLOCK_VECTORS vectors); vectors behind `count` are left as they were.
        packed: Packed source from the block's first result on.
        weights: Weights of the block.
        offsets: Where in a packed channel each tap begins.
        columns: Where among the weights of a channel each tap is.
        channels: Source channels.
        taps: Taps.
        channel_stride: From a packed channel to the next.
        weight_stride: From the weights of a channel to those of the next.
        row_stride: From the weights of a row to those of the next.
        rows: Result channels, at most BLOCK_ROWS.
        count: Results wanted of each, at least 1.
    """
    comptime WIDTH = simd_width_of[acc]()
    comptime for wanted in range(1, BLOCK_ROWS + 1):
        if rows == wanted:
            comptime for vectors in range(1, BLOCK_VECTORS + 1):
                if min(BLOCK_VECTORS, ceildiv(count, WIDTH)) == vectors:
                    sum_registers[wanted, vectors](
                        sums,
                        packed,
                        weights,
                        offsets,
                        columns,
                        channels,
                        taps,
                        channel_stride,
                        weight_stride,
                        row_stride,
                    )


@no_inline
def sum_registers[
    acc: DType, //, rows: Int, vectors: Int
](
    sums: Pointer[mut=True, Scalar[acc], _],
    packed: Pointer[mut=False, Scalar[acc], _],
    weights: Pointer[mut=False, Scalar[acc], _],
    offsets: Pointer[mut=False, Int, _],
    columns: Pointer[mut=False, Int, _],
    channels: Int,
    taps: Int,
    channel_stride: Int,
    weight_stride: Int,
    row_stride: Int,
):
    """Runs all channels and taps past one block of sums in registers.

    Parameters:
        acc: Accumulation type.
        rows: Result channels.
        vectors: Vectors of each.

    Args:
        sums: Receives (rows, BLOCK_VECTORS vectors).
        packed: Packed source from the block's first result on.
        weights: Weights of the block.
        offsets: Where in a packed channel each tap begins.
        columns: Where among the weights of a channel each tap is.
        channels: Source channels.
        taps: Taps.
        channel_stride: From a packed channel to the next.
        weight_stride: From the weights of a channel to those of the next.
        row_stride: From the weights of a row to those of the next.
    """
    comptime WIDTH = simd_width_of[acc]()
    var block = Array[SIMD[acc, WIDTH], rows * vectors](fill=0)
    for channel in range(channels):
        var samples = packed.unsafe_offset(channel * channel_stride)
        var these = weights.unsafe_offset(channel * weight_stride)
        for tap in range(taps):
            var run = samples.unsafe_offset(offsets[unsafe_offset=tap])
            var column_weights = these.unsafe_offset(columns[unsafe_offset=tap])
            var column = Array[SIMD[acc, WIDTH], vectors](fill=0)
            comptime for vector in range(vectors):
                column[vector] = run.unsafe_load[width=WIDTH](vector * WIDTH)
            comptime for row in range(rows):
                var weight = SIMD[acc, WIDTH](column_weights[unsafe_offset=row * row_stride])
                comptime for vector in range(vectors):
                    comptime at = row * vectors + vector
                    block[at] = multiply_add(column[vector], weight, block[at])
    comptime for row in range(rows):
        comptime for vector in range(vectors):
            sums.unsafe_store((row * BLOCK_VECTORS + vector) * WIDTH, block[row * vectors + vector])


@no_inline
def mend_sums[
    dtype: DType, transposed: Bool
](
    sums: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    channels: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    walk: Walk[dtype, transposed],
    group: Int,
    channel: Int,
    rows: Int,
    phase: Int,
    first: Int,
):
    """Does the sums of a block that are NaN again, term by term: an infinite weight may have met a zero of no source.

    Parameters:
        dtype: Element type of source and weights.
        transposed: As for `conv_cpu`.

    Args:
        sums: The block's sums.
        channels: Source of the group.
        w: All weights.
        walk: How they lie to one another.
        group: Which group.
        channel: First result channel of the block, within its group.
        rows: Result channels of the block.
        phase: Which phase of the results.
        first: First result of the block within its phase.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime BLOCK = BLOCK_VECTORS * WIDTH
    var is_spoilt = False
    for at in range(0, rows * BLOCK, WIDTH):
        is_spoilt = is_spoilt or isnan(sums.unsafe_load[width=WIDTH](at)).reduce_or()
    if not is_spoilt:
        return
    var count = min(BLOCK, ceildiv(walk.result_length - phase, walk.result_step) - first)
    for row in range(rows):
        for at in range(count):
            var sum = sums[unsafe_offset=row * BLOCK + at]
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
            sums[unsafe_offset=row * BLOCK + at] = sum


def store_sums[
    dtype: DType, transposed: Bool
](
    outputs: Pointer[Scalar[dtype], MutAnyOrigin],
    sums: Pointer[mut=False, Scalar[accum_dtype[dtype]()], _],
    epilogue: Epilogue,
    walk: Walk[dtype, transposed],
    group: Int,
    channel: Int,
    rows: Int,
    first: Int,
):
    """Finishes, rounds and stores the sums of a block, those of all phases.

    Parameters:
        dtype: Element type of the result.
        transposed: As for `conv_cpu`.

    Args:
        outputs: Results of the group.
        sums: The block's sums, (phases, BLOCK_ROWS, BLOCK_VECTORS vectors).
        epilogue: Bias and activation.
        walk: How the results lie.
        group: Which group.
        channel: First result channel of the block, within its group.
        rows: Result channels of the block.
        first: First result of the block within each phase.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime BLOCK = BLOCK_VECTORS * WIDTH
    var step = walk.result_step
    var count = min(BLOCK * step, walk.result_length - first * step)  # of a channel, all phases
    for row in range(rows):
        var there = outputs.unsafe_offset((channel + row) * walk.result_length + first * step)
        var offset = SIMD[ACC, WIDTH](epilogue.offset[ACC](group * walk.result_channels + channel + row))

        @always_inline
        def finished(phase: Int, at: Int) {imm} -> SIMD[dtype, WIDTH]:
            var values = sums.unsafe_load[width=WIDTH]((phase * BLOCK_ROWS + row) * BLOCK + at)
            return activate(values + offset, epilogue.activation).cast[dtype]()

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
