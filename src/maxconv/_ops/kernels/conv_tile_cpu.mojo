"""Tiles of `conv_cpu`: which terms its sums have, and how source and weights are laid out for them.

Algorithm:  a tile holds the source of some neighbouring results of all channels of a group, so that every tap meets a
            run of neighbours: windows with a stride by phase of the position. Source and weights that lie so already
            are copied all the same where types differ.
Cost:       reads every source sample once per tile and part of the result channels, and half a halo twice.
Layout:     source (channels, L) and weights (O, C/G, K) of conv_cpu.mojo; packed source (channels, planes, plane).
Accuracy:   copies; half types become accumulate.accum_dtype here.
Gate:       as conv_cpu.mojo.
Tuning:     the constants below.
"""

from std.math import ceildiv
from std.sys.info import simd_width_of, size_of
from std.sys.intrinsics import PrefetchOptions, prefetch

from ..shared.accumulate import accum_dtype
from ..shared.layer_geometry import LayerGeometry

comptime BLOCK_ROWS = 6
"""Result channels taken together: with 4 vectors each 24 sums, 4 samples and a weight fill 29 of AVX-512's 32
registers; with 2 vectors 15 of AVX2's 16."""

comptime BLOCK_VECTORS = 4 if simd_width_of[DType.float32]() >= 16 else 2
"""Vectors of each channel taken together."""

comptime TILE_BYTES = (320 if simd_width_of[DType.float32]() >= 16 else 192) << 10
"""Packed source of a tile: a third of an L2 cache, of 1 MB or more where there is AVX-512, 512 KB elsewhere; what is
fetched for the next tile, and weights, take the rest."""

comptime SHORTEST_TILE = 16
"""Blocks of a tile that is shorter than it may be, for the threads' sake: its weights are read again for each."""

comptime LINE_BYTES = 64
"""A line of the caches."""

comptime MOST_LINED_TERMS = 64
"""Terms of a result up to which tiles begin with a line of it: a vector in two lines takes the time of a sixteenth of
them. 1 -> 32 channels, K = 7, 24000 samples from 16 bytes past a line on: 118 us instead of 122."""

comptime PREFETCHED_RUNS = 8
"""How many runs ahead what is copied is fetched: each run lies in a page of its own (weights of 512 -> 256 channels,
K = 16, 100 samples: 6 ms instead of 7)."""


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
    var shift: Int
    """How many results the first tile lacks, so that all others begin with a line of the caches; 0 where that is not
    worth it."""
    var taps: List[Int]
    """The taps, phase by phase, in ascending order within each."""
    var offsets: List[Int]
    """Where in a packed channel each of these taps meets result 0 of the tile."""
    var begins: List[Int]
    """Where the taps of each phase begin, and where the last one's end."""

    def __init__(out self, geometry: LayerGeometry, pieces: Int, past_line: Int):
        """Lays out the taps.

        Args:
            geometry: Sizes and shifts.
            pieces: How many tiles per signal and group are wanted.
            past_line: Elements of a line of the caches before result 0.
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
        var is_lined = Self.dtype == ACC and self.result_step == 1 and results > 0 and results % LINE == 0
        self.shift = past_line if is_lined and self.source_channels * geometry.taps <= MOST_LINED_TERMS else 0
        var blocks = ceildiv(results + self.shift, BLOCK)
        var fewest = ceildiv(blocks, max(1, room // BLOCK))
        fewest = max(fewest, min(pieces, results // max(SHORTEST_TILE * BLOCK, self.reach)))
        self.tile = ceildiv(blocks, max(1, fewest)) * BLOCK  # tiles of about the same length
        self.tiles = ceildiv(results + self.shift, max(1, self.tile))
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
    def first(self, index: Int) -> Int:
        """Finds where a tile begins.

        Args:
            index: Of the tile, counted over signals, groups and tiles.

        Returns:
            Its first result, within its phase.
        """
        return max(0, index % self.tiles * self.tile - self.shift)

    @always_inline
    def end(self, index: Int) -> Int:
        """Finds where a tile ends.

        Args:
            index: As for `first`.

        Returns:
            One past its last result, within its phase.
        """
        var end = (index % self.tiles + 1) * self.tile - self.shift
        return min(ceildiv(self.result_length, self.result_step), end)

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
    var start = walk.lowest + first * step
    # Every plane has the positions [begin, end) of the source.
    var begin = min(walk.plane, ceildiv(max(0, -start), step))
    var end = max(begin, min(walk.plane, (walk.source_length - start - walk.planes) // step + 1))
    for channel in range(walk.source_channels):
        var there = packed.unsafe_offset(channel * walk.planes * walk.plane)
        var here = channels.unsafe_offset(channel * walk.source_length + start)
        if channel + PREFETCHED_RUNS < walk.source_channels and end > begin:
            var ahead = here.unsafe_offset(PREFETCHED_RUNS * walk.source_length)
            for line in range(begin * step, end * step, LINE_BYTES // size_of[dtype]()):
                prefetch[PrefetchOptions().for_read().high_locality().to_data_cache()](ahead.unsafe_offset(line))
        var e = begin
        if step == 1:
            while e + WIDTH <= end:
                there.unsafe_store(e, here.unsafe_load[width=WIDTH](e).cast[ACC]())
                e += WIDTH
        elif walk.planes == 2 and step == 2:
            while e + WIDTH <= end:
                var pairs = here.unsafe_load[width=2 * WIDTH](2 * e).deinterleave()
                there.unsafe_store(e, pairs[0].cast[ACC]())
                there.unsafe_store(walk.plane + e, pairs[1].cast[ACC]())
                e += WIDTH
        for plane in range(walk.planes):
            var of_plane = there.unsafe_offset(plane * walk.plane)
            for at in range(begin):
                of_plane[unsafe_offset=at] = 0
            for at in range(e, end):
                of_plane[unsafe_offset=at] = here[unsafe_offset=at * step + plane].cast[ACC]()
            for at in range(end, walk.plane):
                of_plane[unsafe_offset=at] = 0
            # Beside them lies one position on either side that some planes may have.
            for at in range(begin - 1, end + 1, end + 1 - begin):
                var place = start + at * step + plane
                if 0 <= at and at < walk.plane and 0 <= place and place < walk.source_length:
                    of_plane[unsafe_offset=at] = here[unsafe_offset=at * step + plane].cast[ACC]()
    return begin, end


def fetch_source[
    dtype: DType, transposed: Bool
](channels: Pointer[Scalar[dtype], MutAnyOrigin], walk: Walk[dtype, transposed], first: Int, begin: Int, end: Int,):
    """Asks for the source of a tile that will be laid out later, to come to the L2 cache.

    Parameters:
        dtype: Element type of the source.
        transposed: As for `conv_cpu`.

    Args:
        channels: Source of the group.
        walk: How the source is read.
        first: First result of the tile within its phase.
        begin: First channel to fetch.
        end: One past the last one.
    """
    comptime LINE = LINE_BYTES // size_of[dtype]()
    var start = walk.lowest + first * walk.source_step
    var stop = min(walk.source_length, start + walk.plane * walk.source_step)
    for channel in range(begin, end):
        var here = channels.unsafe_offset(channel * walk.source_length)
        for at in range(max(0, start), stop, LINE):
            prefetch[PrefetchOptions().for_read().medium_locality().to_data_cache()](here.unsafe_offset(at))


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


def fetch_weights[
    dtype: DType, transposed: Bool
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    walk: Walk[dtype, transposed],
    group: Int,
    channel: Int,
    begin: Int,
    end: Int,
):
    """Asks for weights of a block of a transposed sum that will be copied later, to come to the L2 cache.

    Parameters:
        dtype: Element type of the weights.
        transposed: As for `conv_cpu`.

    Args:
        w: All weights.
        walk: How the weights are read.
        group: Which group.
        channel: First result channel of the block, within its group.
        begin: First source channel whose weights are fetched.
        end: One past the last one.
    """
    var length = walk.geometry.taps * min(BLOCK_ROWS, walk.result_channels - channel)
    for run in range(begin, end):
        var here = w.unsafe_offset(walk.weight(channel, run, 0, group))
        for at in range(0, length, LINE_BYTES // size_of[dtype]()):
            prefetch[PrefetchOptions().for_read().medium_locality().to_data_cache()](here.unsafe_offset(at))
