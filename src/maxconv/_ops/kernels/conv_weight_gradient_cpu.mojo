"""Weight gradient of a convolutional layer on CPU: every weight is a dot product of an output and an input channel.

Computes:   w[o, c, j] = sum_{n, i} y[n, o, i] * x[n, c, i*stride + j*dilation - pad_left] for the channels c of o's
            group; terms outside x are left out. With y the gradient of the outputs it is the weight gradient of
            conv1d; with x the gradient of the outputs and y the inputs, that of conv_transpose1d.
Algorithm:  tiles of x and y are laid out in scratch, x by phase of the position as in conv_cpu.mojo, so that every
            weight is a dot product of two runs. BLOCK_ROWS channels of y times BLOCK_COLUMNS weights of each keep a
            vector of partial sums in registers: a load of either serves several multiply-adds.
Cost:       2*N*O*L_out*C/G*K flop.
Layout:     x (N, C, L), w (O, C/G, K), y (N, O, L_out), contiguous, aligned to their own element only.
Accuracy:   partial sums, one per SIMD lane, in accumulate.accum_dtype; they are added up tile by tile. The order
            depends on the geometry and the SIMD width, not on threads. Packed zeros stand outside x: a weight that
            comes out as NaN is summed again without them (`sum_plainly`).
Gate:       any sizes >= 1, batch and outputs may be 0; dense layers go to weight_gradient_product_cpu.mojo.
Tuning:     the constants below. Float32, one core of an AMD EPYC with AVX-512: 30 to 60 GFLOP/s of 115, bound by y, which
            is read again for each part of the input channels (2026-11-22).
Source:     register blocking as in conv_cpu.mojo.
"""

from std.math import ceildiv
from std.sys.info import simd_width_of, size_of
from std.utils.numerics import isnan
from max.algorithm import sync_parallelize
from max.runtime.asyncrt import parallelism_level

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.layer_geometry import LayerGeometry
from ..shared.shares import Shares
from .weight_gradient_product_cpu import FEWEST_COLUMNS, FEWEST_ROWS, sum_plainly, weight_gradient_product_cpu

comptime BLOCK_ROWS = 4
"""Channels of y taken together."""

comptime BLOCK_COLUMNS = 4 if simd_width_of[DType.float32]() >= 16 else 2
"""Weights of each taken together: 16 sums in AVX-512's 32 registers, 8 in AVX2's 16."""

comptime TILE = 1024
"""Outputs taken together: the lanes of a sum are added up once a tile."""

comptime TILE_BYTES = 384 << 10
"""Packed x of a tile: it stays in the L2 cache, and y is read again for each further part of the channels."""

comptime LINE_BYTES = 64
"""A line of the caches."""

comptime MULTIPLY_ADDS_PER_WORKER = 1 << 20
"""Work below which a further thread does not pay, as in direct_cpu.mojo."""


def conv_weight_gradient_cpu[
    dtype: DType
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    max_workers: Int,
):
    """Computes all weights, on as many threads as the work is worth.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        w: Weights, shape (O, C/G, K); every one is written.
        x: Signals, shape (N, C, L).
        y: Outputs, shape (N, O, L_out).
        geometry: Sizes and shifts.
        max_workers: Upper bound of threads; 0 for one per core, 1 to stay on the calling thread.
    """
    comptime ACC = accum_dtype[dtype]()
    var workers = geometry.multiply_adds() // MULTIPLY_ADDS_PER_WORKER
    if workers > 1 and max_workers != 1:
        workers = min(workers, parallelism_level(None) if max_workers == 0 else max_workers)
    workers = 1 if max_workers == 1 else max(1, workers)
    if geometry.group_out() >= FEWEST_ROWS and geometry.group_in() * geometry.taps >= FEWEST_COLUMNS:
        weight_gradient_product_cpu(w, x, y, geometry, workers)
        return
    var layout = TileLayout(geometry, LINE_BYTES // size_of[ACC]())
    var room = max(1, TILE_BYTES // (size_of[ACC]() * layout.channel))
    if workers > 1:
        room = max(1, min(room, geometry.in_channels // (2 * workers)))
    var chunk = min(geometry.group_in(), room)  # input channels taken together
    var chunks = ceildiv(geometry.group_in(), chunk)
    # Few input channels, many filters: threads share the filters, and each packs x for its own.
    var blocks = ceildiv(geometry.group_out(), BLOCK_ROWS)
    var parts = min(blocks, ceildiv(workers, geometry.groups * chunks))
    var shares = Shares(geometry.groups * chunks * parts)

    def compute_tasks(worker: Int) {imm}:
        while True:
            var share = shares.take()
            if not share:
                return
            var part = share.value() % parts
            var task = share.value() // parts
            var first = task % chunks * chunk
            compute_weights(
                w,
                x,
                y,
                geometry,
                layout,
                task // chunks,
                part * blocks // parts * BLOCK_ROWS,
                min(geometry.group_out(), (part + 1) * blocks // parts * BLOCK_ROWS),
                first,
                min(geometry.group_in(), first + chunk),
            )

    if workers == 1:
        compute_tasks(0)
    else:
        sync_parallelize(compute_tasks, workers)


struct TileLayout(TrivialRegisterPassable):
    """How x and y lie in the scratch of a tile."""

    var tile: Int
    """Outputs of a channel of y."""
    var row: Int
    """From one channel of y to the next."""
    var planes: Int
    """Phases of positions that any tap meets."""
    var plane: Int
    """Positions of each."""
    var channel: Int
    """From one channel of x to the next."""

    def __init__(out self, geometry: LayerGeometry, line: Int):
        """Sizes the scratch.

        Channels are an odd number of lines apart: those that are read together do not share a set of the L1 cache, as
        they would at a distance of 4 KB, which costs most of the speed.

        Args:
            geometry: Sizes and shifts.
            line: Elements of a line of the caches.
        """
        self.tile = min(TILE, ceildiv(geometry.outputs, line) * line)
        self.row = (self.tile // line | 1) * line
        self.planes = min(geometry.stride, geometry.halo() + 1)
        self.plane = self.tile + geometry.halo() // geometry.stride
        self.channel = (ceildiv(self.planes * self.plane, line) | 1) * line


def compute_weights[
    dtype: DType
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    layout: TileLayout,
    group: Int,
    begin_row: Int,
    end_row: Int,
    begin_channel: Int,
    end_channel: Int,
):
    """Computes the weights of some channels of y and of x on the calling thread.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        w: All weights.
        x: All signals.
        y: All outputs.
        geometry: Sizes and shifts.
        layout: How a tile lies in scratch.
        group: Which group.
        begin_row: First channel of y, within the group.
        end_row: One past the last.
        begin_channel: First input channel, within the group.
        end_channel: One past the last.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var rows = end_row - begin_row
    var first_o = group * geometry.group_out() + begin_row
    var columns = (end_channel - begin_channel) * geometry.taps
    var sums = List[Scalar[ACC]](length=rows * columns, fill=0)
    var signals = List[Scalar[ACC]](length=(end_channel - begin_channel) * layout.channel, fill=0)
    var outputs = List[Scalar[ACC]](length=BLOCK_ROWS * layout.row, fill=0)
    var starts = List[Int](capacity=columns)  # of each weight's run in the packed signals
    for channel in range(end_channel - begin_channel):
        for j in range(geometry.taps):
            var shift = j * geometry.dilation
            var phase = shift % geometry.stride
            starts.append(channel * layout.channel + phase * layout.plane + shift // geometry.stride)
    for n in range(geometry.batch):
        for first in range(0, geometry.outputs, layout.tile):
            var count = min(layout.tile, geometry.outputs - first)
            var vectors = ceildiv(count, WIDTH)
            for channel in range(end_channel - begin_channel):
                var c = group * geometry.group_in() + begin_channel + channel
                var there = signals.unsafe_ptr().unsafe_offset(channel * layout.channel)
                pack_signal(there, x.unsafe_offset(geometry.input_offset(n, c, 0)), geometry, layout, first)
            for row in range(0, rows, BLOCK_ROWS):
                var present = min(BLOCK_ROWS, rows - row)
                for at in range(present):
                    var here = y.unsafe_offset(geometry.output_offset(n, first_o + row + at, first))
                    var there = outputs.unsafe_ptr().unsafe_offset(at * layout.row)
                    var whole = count // WIDTH * WIDTH
                    for i in range(0, whole, WIDTH):
                        there.unsafe_store(i, here.unsafe_load[width=WIDTH](i).cast[ACC]())
                    for i in range(whole, count):
                        there[unsafe_offset=i] = here[unsafe_offset=i].cast[ACC]()
                    for i in range(count, vectors * WIDTH):
                        there[unsafe_offset=i] = 0
                var these = sums.unsafe_ptr().unsafe_offset(row * columns)
                for column in range(0, columns, BLOCK_COLUMNS):
                    if present == 1:
                        add_products[1](
                            these, outputs.unsafe_ptr(), signals.unsafe_ptr(), starts, column, 1, layout.row, vectors
                        )
                    else:
                        add_products[BLOCK_ROWS](
                            these,
                            outputs.unsafe_ptr(),
                            signals.unsafe_ptr(),
                            starts,
                            column,
                            present,
                            layout.row,
                            vectors,
                        )
    for row in range(rows):
        for column in range(columns):
            var o = first_o + row
            var c = begin_channel + column // geometry.taps
            var sum = sums[row * columns + column]
            if isnan(sum):
                sum = sum_plainly(x, y, geometry, o, c, column % geometry.taps)
            w[unsafe_offset=geometry.weight_offset(o, c, column % geometry.taps)] = sum.cast[dtype]()


def pack_signal[
    dtype: DType
](
    packed: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    signal: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    layout: TileLayout,
    first: Int,
):
    """Lays out the samples of one channel that the outputs of a tile meet.

    Parameters:
        dtype: Element type of the signal.

    Args:
        packed: Receives (planes, plane); zeros where there is no sample.
        signal: The channel.
        geometry: Sizes and shifts.
        layout: How a tile lies in scratch.
        first: First output of the tile.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var step = geometry.stride
    for phase in range(layout.planes):
        var there = packed.unsafe_offset(phase * layout.plane)
        var start = geometry.position(first, 0) + phase
        var begin = min(layout.plane, ceildiv(max(0, -start), step))
        var end = max(begin, min(layout.plane, ceildiv(geometry.length - start, step)))
        var here = signal.unsafe_offset(start)
        for e in range(begin):
            there[unsafe_offset=e] = 0
        var e = begin
        if step == 1:
            while e + WIDTH <= end:
                there.unsafe_store(e, here.unsafe_load[width=WIDTH](e).cast[ACC]())
                e += WIDTH
        while e < end:
            there[unsafe_offset=e] = here[unsafe_offset=e * step].cast[ACC]()
            e += 1
        for e in range(end, layout.plane):
            there[unsafe_offset=e] = 0


@no_inline
def add_products[
    acc: DType, //, rows: Int
](
    sums: Pointer[mut=True, Scalar[acc], _],
    outputs: Pointer[mut=False, Scalar[acc], _],
    signals: Pointer[mut=False, Scalar[acc], _],
    starts: List[Int],
    column: Int,
    present: Int,
    row_stride: Int,
    vectors: Int,
):
    """Adds a tile's dot products to a block of sums.

    Parameters:
        acc: Accumulation type.
        rows: Channels of y in the block.

    Args:
        sums: Sums of the block's rows, all columns of each.
        outputs: Packed channels of y.
        signals: Packed channels of x.
        starts: Where the run of each column begins in them.
        column: First column of the block; those past the last are computed again and dropped.
        present: Channels of y that there are; those past the last likewise.
        row_stride: From a channel of y to the next.
        vectors: Length of the runs in vectors.
    """
    comptime WIDTH = simd_width_of[acc]()
    var block = Array[SIMD[acc, WIDTH], rows * BLOCK_COLUMNS](fill=0)
    var columns = len(starts)
    var runs = Array[Int, BLOCK_COLUMNS](fill=0)
    comptime for at in range(BLOCK_COLUMNS):
        runs[at] = starts[min(column + at, columns - 1)]
    var channels = Array[Int, rows](fill=0)
    comptime for row in range(rows):
        channels[row] = min(row, present - 1) * row_stride
    for vector in range(vectors):
        var place = vector * WIDTH
        var values = Array[SIMD[acc, WIDTH], rows](fill=0)
        comptime for row in range(rows):
            values[row] = outputs.unsafe_load[width=WIDTH](channels[row] + place)
        comptime for at in range(BLOCK_COLUMNS):
            var samples = signals.unsafe_load[width=WIDTH](runs[at] + place)
            comptime for row in range(rows):
                comptime sum = row * BLOCK_COLUMNS + at
                block[sum] = multiply_add(samples, values[row], block[sum])
    comptime for row in range(rows):
        comptime for at in range(BLOCK_COLUMNS):
            if row < present and column + at < columns:
                sums[unsafe_offset=row * columns + column + at] += block[row * BLOCK_COLUMNS + at].reduce_add()
