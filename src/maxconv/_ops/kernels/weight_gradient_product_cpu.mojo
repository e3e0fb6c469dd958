"""Weight gradient of a dense convolutional layer on CPU: a matrix product in register blocks.

Computes:   what conv_weight_gradient_cpu.mojo does: w[o, c, j] = sum_{n, i} y[n, o, i] * x[n, c, position(i, j)].
Algorithm:  y (O, N*L_out) times the transpose of the matrix that im2col would make of x, (C/G*K, N*L_out). A tile of
            outputs is laid out with its channels as neighbours, in panels of PANEL channels; a tile of x is copied as
            it lies, so that column (c, j) is a run of it. COLUMNS columns times a panel stay in registers while the
            outputs of the tile run by: one load of y serves COLUMNS multiply-adds, one broadcast sample a panel.
            Finished sums are transposed in registers, a square at a time, on their way to w.
Cost:       2*N*O*L_out*C/G*K flop.
Layout:     x (N, C, L), w (O, C/G, K), y (N, O, L_out), contiguous, aligned to their own element only.
Accuracy:   sums in accumulate.accum_dtype; each weight adds its terms one by one, output by output: tiles, threads and
            SIMD width do not matter. Packed zeros stand outside x: a weight that comes out as NaN is summed again
            without them.
Gate:       FEWEST_ROWS channels of y in a group and FEWEST_COLUMNS weights of each; otherwise, where laying out y costs
            more than it saves, conv_weight_gradient_cpu.
Tuning:     the constants below.
Tried:      sums stored one by one: as long as adding them, in layers of few outputs.
Source:     Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
"""

from std.bit import log2_floor
from std.math import ceildiv
from std.sys.info import simd_width_of, size_of
from std.utils.numerics import isnan
from max.algorithm import sync_parallelize

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.layer_geometry import LayerGeometry
from ..shared.shares import Shares

comptime FEWEST_ROWS = 16
"""Channels of y in a group: a vector of AVX-512."""

comptime FEWEST_COLUMNS = 48
"""Weights of each channel of y that pay for laying it out."""

comptime COLUMNS = 6
"""Weights of a channel of y taken together, as many as the rows of a block in conv_cpu.mojo."""

comptime VECTORS = 4 if simd_width_of[DType.float32]() >= 16 else 2
"""Vectors of channels of y taken together: with 6 weights each 24 sums fit into AVX-512's 32 registers, 12 into 16."""

comptime TILE = 112
"""Outputs taken together at most: a panel of them, 28 KB, stays in the L1 cache."""

comptime TILE_BYTES = 192 << 10
"""Copied x of a tile, in the L2 cache beside the panels."""

comptime SHARES_PER_WORKER = 2
"""Pieces of work per thread, if there are so many panels: each copies its own x."""

comptime LAID_OUT_ROWS = 4
"""Channels of y that are laid out together: 16 bytes a store instead of 4."""

comptime LINE_BYTES = 64
"""A line of the caches."""


def weight_gradient_product_cpu[
    dtype: DType
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    workers: Int,
):
    """Computes all weights.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        w: Weights, shape (O, C/G, K); every one is written.
        x: Signals, shape (N, C, L).
        y: Outputs, shape (N, O, L_out).
        geometry: Sizes and shifts.
        workers: How many threads, at least 1; 1 to stay on the calling thread.
    """
    comptime PANEL = VECTORS * simd_width_of[accum_dtype[dtype]()]()
    var panels = ceildiv(geometry.group_out(), PANEL)
    # Cut by panels first: to cut by channels of x is to lay out y as often.
    var stacks = min(panels, max(1, SHARES_PER_WORKER * workers // geometry.groups))
    var parts = min(geometry.group_in(), ceildiv(workers, geometry.groups * stacks))
    var shares = Shares(geometry.groups * stacks * parts)

    def compute_shares(worker: Int) {imm}:
        while True:
            var share = shares.take()
            if not share:
                return
            var part = share.value() % parts
            var stack = share.value() // parts % stacks
            compute_weights(
                w,
                x,
                y,
                geometry,
                share.value() // parts // stacks,
                stack * panels // stacks * PANEL,
                min(geometry.group_out(), (stack + 1) * panels // stacks * PANEL),
                part * geometry.group_in() // parts,
                (part + 1) * geometry.group_in() // parts,
            )

    if workers == 1:
        compute_shares(0)
    else:
        sync_parallelize(compute_shares, workers)


def compute_weights[
    dtype: DType
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
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
        group: Which group.
        begin_row: First channel of y, within the group.
        end_row: One past the last.
        begin_channel: First channel of x, within the group.
        end_channel: One past the last.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime PANEL = VECTORS * WIDTH
    comptime LINE = LINE_BYTES // size_of[ACC]()
    var panels = ceildiv(end_row - begin_row, PANEL)
    var columns = (end_channel - begin_channel) * geometry.taps
    var tile = max(1, ceildiv(geometry.outputs, max(1, ceildiv(geometry.outputs, TILE))))  # all about as long
    # Runs an odd number of lines apart do not drive one another out of the L1 cache.
    var span = (ceildiv((tile - 1) * geometry.stride + geometry.halo() + 1, LINE) | 1) * LINE
    var chunk = min(end_channel - begin_channel, max(1, TILE_BYTES // (size_of[ACC]() * span)))
    var sums = List[Scalar[ACC]](length=panels * columns * PANEL, fill=0)
    var outputs = List[Scalar[ACC]](length=panels * tile * PANEL + LINE, fill=0)
    var signals = List[Scalar[ACC]](length=chunk * span, fill=0)
    var starts = List[Int](capacity=chunk * geometry.taps)  # of each column's run
    for channel in range(chunk):
        for j in range(geometry.taps):
            starts.append(channel * span + j * geometry.dilation)
    var line = ceildiv(Int(outputs.unsafe_ptr()), LINE_BYTES) * LINE_BYTES
    var packed = Pointer[Scalar[ACC], MutUntrackedOrigin](unsafe_from_address=line)
    for n in range(geometry.batch):
        for first in range(0, geometry.outputs, tile):
            var count = min(tile, geometry.outputs - first)
            for panel in range(panels):
                var row = begin_row + panel * PANEL
                lay_out(
                    packed.unsafe_offset(panel * tile * PANEL),
                    y.unsafe_offset(geometry.output_offset(n, group * geometry.group_out() + row, first)),
                    min(PANEL, end_row - row),
                    geometry.outputs,
                    count,
                )
            for begin in range(begin_channel, end_channel, chunk):
                var end = min(end_channel, begin + chunk)
                for channel in range(begin, end):
                    var c = group * geometry.group_in() + channel
                    var there = signals.unsafe_ptr().unsafe_offset((channel - begin) * span)
                    var reach = (count - 1) * geometry.stride + geometry.halo() + 1
                    copy_signal(there, x.unsafe_offset(geometry.input_offset(n, c, 0)), geometry, first, reach)
                for panel in range(panels):
                    var vectors = min(VECTORS, ceildiv(end_row - begin_row - panel * PANEL, WIDTH))
                    var these = sums.unsafe_ptr().unsafe_offset(panel * columns * PANEL)
                    comptime for wanted in range(1, VECTORS + 1):
                        if vectors == wanted:
                            add_products[wanted](
                                these.unsafe_offset((begin - begin_channel) * geometry.taps * PANEL),
                                packed.unsafe_offset(panel * tile * PANEL),
                                signals.unsafe_ptr(),
                                starts,
                                (end - begin) * geometry.taps,
                                geometry.stride,
                                count,
                            )
    _ = outputs^
    store_weights(w, x, y, sums, geometry, group, begin_row, end_row, begin_channel, columns)


def lay_out[
    dtype: DType
](
    packed: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    outputs: Pointer[Scalar[dtype], MutAnyOrigin],
    rows: Int,
    row_stride: Int,
    count: Int,
):
    """Lays out a panel of y with its channels as neighbours.

    Parameters:
        dtype: Element type of y.

    Args:
        packed: Receives (count, PANEL); nothing is written for channels that are not there.
        outputs: First output of the first channel.
        rows: Channels, at most PANEL.
        row_stride: From one to the next.
        count: Outputs of each.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime PANEL = VECTORS * WIDTH
    var whole = count // WIDTH * WIDTH
    var row = 0
    while row + LAID_OUT_ROWS <= rows:
        var here = outputs.unsafe_offset(row * row_stride)
        for i in range(0, whole, WIDTH):
            var first = here.unsafe_load[width=WIDTH](i)
            var second = here.unsafe_load[width=WIDTH](row_stride + i)
            var third = here.unsafe_load[width=WIDTH](2 * row_stride + i)
            var fourth = here.unsafe_load[width=WIDTH](3 * row_stride + i)
            var fours = first.interleave(third).interleave(second.interleave(fourth)).cast[ACC]()
            comptime for lane in range(WIDTH):
                packed.unsafe_store((i + lane) * PANEL + row, fours.slice[4, offset=4 * lane]())
        for i in range(whole, count):
            comptime for at in range(LAID_OUT_ROWS):
                packed[unsafe_offset=i * PANEL + row + at] = here[unsafe_offset=at * row_stride + i].cast[ACC]()
        row += LAID_OUT_ROWS
    while row < rows:
        for i in range(count):
            packed[unsafe_offset=i * PANEL + row] = outputs[unsafe_offset=row * row_stride + i].cast[ACC]()
        row += 1


@always_inline
def copy_signal[
    dtype: DType
](
    there: Pointer[mut=True, Scalar[accum_dtype[dtype]()], _],
    signal: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    first: Int,
    count: Int,
):
    """Copies the samples of one channel that the outputs of a tile meet.

    Parameters:
        dtype: Element type of the signal.

    Args:
        there: Receives the samples; zeros where there is none.
        signal: The channel.
        geometry: Sizes and shifts.
        first: First output of the tile.
        count: How many.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var start = geometry.position(first, 0)
    var begin = min(count, max(0, -start))
    var end = max(begin, min(count, geometry.length - start))
    var here = signal.unsafe_offset(start)
    for e in range(begin):
        there[unsafe_offset=e] = 0
    var e = begin
    while e + WIDTH <= end:
        there.unsafe_store(e, here.unsafe_load[width=WIDTH](e).cast[ACC]())
        e += WIDTH
    while e < end:
        there[unsafe_offset=e] = here[unsafe_offset=e].cast[ACC]()
        e += 1
    for e in range(end, count):
        there[unsafe_offset=e] = 0


@no_inline
def add_products[
    acc: DType, //, vectors: Int
](
    sums: Pointer[mut=True, Scalar[acc], _],
    outputs: Pointer[mut=False, Scalar[acc], _],
    signals: Pointer[mut=False, Scalar[acc], _],
    starts: List[Int],
    columns: Int,
    step: Int,
    count: Int,
):
    """Adds a tile's products to the sums of a panel.

    Parameters:
        acc: Accumulation type.
        vectors: Vectors of the panel that hold channels.

    Args:
        sums: Sums, shape (columns, PANEL).
        outputs: The panel of y, shape (count, PANEL).
        signals: Copied x.
        starts: Where in it the run of each column begins.
        columns: How many, tap by tap of channel by channel.
        step: From the sample of an output to that of the next.
        count: Outputs of the tile.
    """
    comptime WIDTH = simd_width_of[acc]()
    comptime PANEL = VECTORS * WIDTH
    for column in range(0, columns, COLUMNS):
        var block = Array[SIMD[acc, WIDTH], COLUMNS * vectors](fill=0)
        var runs = Array[Int, COLUMNS](fill=0)
        comptime for at in range(COLUMNS):
            # Columns behind the last are computed again and dropped.
            var present = min(column + at, columns - 1)
            runs[at] = starts[present]
            comptime for vector in range(vectors):
                block[at * vectors + vector] = sums.unsafe_load[width=WIDTH](present * PANEL + vector * WIDTH)
        for i in range(count):
            var channels = Array[SIMD[acc, WIDTH], vectors](fill=0)
            comptime for vector in range(vectors):
                channels[vector] = outputs.unsafe_load[width=WIDTH](i * PANEL + vector * WIDTH)
            comptime for at in range(COLUMNS):
                var sample = SIMD[acc, WIDTH](signals[unsafe_offset=runs[at] + i * step])
                comptime for vector in range(vectors):
                    comptime sum = at * vectors + vector
                    block[sum] = multiply_add(channels[vector], sample, block[sum])
        comptime for at in range(COLUMNS):
            if column + at < columns:
                comptime for vector in range(vectors):
                    sums.unsafe_store((column + at) * PANEL + vector * WIDTH, block[at * vectors + vector])


def store_weights[
    dtype: DType
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    sums: List[Scalar[accum_dtype[dtype]()]],
    geometry: LayerGeometry,
    group: Int,
    begin_row: Int,
    end_row: Int,
    begin_channel: Int,
    columns: Int,
):
    """Rounds finished sums and stores them where they belong, in squares of a vector's width that are transposed.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        w: All weights.
        x: All signals.
        y: All outputs.
        sums: Sums, shape (panels, columns, PANEL).
        geometry: Sizes and shifts.
        group: Which group.
        begin_row: First channel of y, within the group.
        end_row: One past the last.
        begin_channel: First channel of x, within the group.
        columns: Weights of a channel of y.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    comptime PANEL = VECTORS * WIDTH
    var row_stride = geometry.weight_offset(1, 0, 0)
    for first_row in range(begin_row, end_row, WIDTH):
        var panel = (first_row - begin_row) // PANEL
        var square_sums = sums.unsafe_ptr().unsafe_offset(panel * columns * PANEL + (first_row - begin_row) % PANEL)
        var first_o = group * geometry.group_out() + first_row
        var square_weights = w.unsafe_offset(geometry.weight_offset(first_o, begin_channel, 0))
        for first_column in range(0, columns, WIDTH):
            if first_row + WIDTH <= end_row and first_column + WIDTH <= columns:
                var here = square_sums.unsafe_offset(first_column * PANEL)
                if store_square(square_weights.unsafe_offset(first_column), here, row_stride, PANEL):
                    continue
            for row in range(min(WIDTH, end_row - first_row)):
                var o = first_o + row
                var there = square_weights.unsafe_offset(row * row_stride)
                for column in range(first_column, min(columns, first_column + WIDTH)):
                    var sum = square_sums[unsafe_offset=column * PANEL + row]
                    if isnan(sum):
                        var c = begin_channel + column // geometry.taps
                        sum = sum_plainly(x, y, geometry, o, c, column % geometry.taps)
                    there[unsafe_offset=column] = sum.cast[dtype]()


@always_inline
def store_square[
    dtype: DType
](
    weights: Pointer[Scalar[dtype], MutAnyOrigin],
    sums: Pointer[mut=False, Scalar[accum_dtype[dtype]()], _],
    row_stride: Int,
    column_stride: Int,
) -> Bool:
    """Rounds, transposes and stores a square of sums, unless there may be a NaN among them.

    Parameters:
        dtype: Element type of the weights.

    Args:
        weights: Receives a row of the square per channel of y.
        sums: The first sum; the channels of y are neighbours.
        row_stride: From a channel of y to the next among the weights.
        column_stride: From a weight to the next among the sums.

    Returns:
        True if the square was stored.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = simd_width_of[ACC]()
    var square = Array[SIMD[ACC, WIDTH], WIDTH](fill=0)
    var total = SIMD[ACC, WIDTH](0)
    comptime for column in range(WIDTH):
        square[column] = sums.unsafe_load[width=WIDTH](column * column_stride)
        total += square[column]
    if isnan(total).reduce_or():
        return False
    # As often as the width has bits: the first half interleaved with the second.
    comptime for _ in range(log2_floor(WIDTH)):
        var shuffled = Array[SIMD[ACC, WIDTH], WIDTH](fill=0)
        comptime for at in range(WIDTH // 2):
            var pair = square[at].interleave(square[at + WIDTH // 2])
            shuffled[2 * at] = rebind[SIMD[ACC, WIDTH]](pair.slice[WIDTH]())
            shuffled[2 * at + 1] = rebind[SIMD[ACC, WIDTH]](pair.slice[WIDTH, offset=WIDTH]())
        square = shuffled^
    comptime for row in range(WIDTH):
        weights.unsafe_store(row * row_stride, square[row].cast[dtype]())
    return True


@no_inline
def sum_plainly[
    dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    o: Int,
    c: Int,
    j: Int,
) -> Scalar[accum_dtype[dtype]()]:
    """Sums one weight term by term: an infinite output may have met a zero outside x.

    Parameters:
        dtype: Element type of x and y.

    Args:
        x: All signals.
        y: All outputs.
        geometry: Sizes and shifts.
        o: Output channel.
        c: Input channel within its group.
        j: Tap.

    Returns:
        The sum, given up at the first NaN.
    """
    comptime ACC = accum_dtype[dtype]()
    var channel = o // geometry.group_out() * geometry.group_in() + c
    var sum = Scalar[ACC](0)
    for n in range(geometry.batch):
        for i in range(geometry.outputs):
            var place = geometry.position(i, j)
            if place >= 0 and place < geometry.length:
                var sample = x[unsafe_offset=geometry.input_offset(n, channel, place)].cast[ACC]()
                sum = multiply_add(sample, y[unsafe_offset=geometry.output_offset(n, o, i)].cast[ACC](), sum)
                if isnan(sum):
                    return sum
    return sum
