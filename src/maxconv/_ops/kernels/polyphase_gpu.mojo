"""Polyphase FIR on GPU: upsample, filter and downsample; samples sorted by period, so that warps share their taps.

Computes:   y[i] = sum_q x[newest_sample(m) - q] * h[phase(m) + q*up], m = start + i, i in [0, L_out), for every row;
            terms outside x are left out, or met by the samples of an Extension. up = 1 is strided FIR, down = 1
            interpolation.
Algorithm:  outputs whole periods apart (`period` = up times some number) share their phase, and their samples lie
            `advance` = period*down/up apart. The lanes of a warp take 32 periods, so all read one tap; a thread takes
            GROUP neighbouring outputs, which meet nearly the same samples: one that is read serves all. Their taps are
            shifted against each other by whole samples; zeros stand where an output has no tap, and are left out where
            rates are within 7/8 of each other. Samples are staged
            with neighbouring periods side by side, outputs are turned back to their order in shared memory.
            Small rates have kernels of their own in polyphase_window_gpu.mojo, nearly equal ones of float32 in
            polyphase_near_gpu.mojo; calls and outputs that none of this fits go the plain way of
            polyphase_outputs_gpu.mojo.
Cost:       2*L_out*ceil(K/up) flop a row, and (N + L_out)*size bytes of device memory. With 20*max(up, down) + 1 taps
            per output of float32, by calculation (up/down: bytes; multiply-adds, with those by zero taps):
            2/1: 6; 20.5, 25   1/2: 12; 41, 55   3/2: 6.7; 20.3, 26   160/147: 7.7; 20, 28   147/160: 8.4; 21.8, 30.
            For each of the latter 1.25 instructions and 0.25 passes through shared memory, 3 to 6 passes an output to
            stage samples and outputs. Signals that go on beyond their ends: ceil(K/down) outputs at each end twice.
Layout:     x (rows, N), y (rows, L_out), rows `x_stride`, `y_stride` apart; h (K) in its natural order.
Tile:       TILE_PERIODS periods of MAX_PANELS*PANEL neighbouring outputs; at most SHARED_BYTES. Taps that do not fit
            are taken in chunks.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file, taps in rising q. A zero tap would make NaN of an
            infinite sample: an output that is NaN is summed again, without them.
Gate:       none: any N, L_out, rows, start >= 0, any K, up, down >= 1.
Tuning:     POLYPHASE_* of shared/tuning_gpu.mojo.
Measured:   on an H200 (2026-11-23), in copies of those bytes: float32 160/147 1.43, 147/160 1.89 without the kernel of
            near rates; float64 1.55 and 1.78. Before a tile's samples were prefetched while the last one is computed:
            1.79 at 160/147, 33/5 2.86,
            1000/999 2.01; by the profiler warps then issue in 48 % of the cycles, shared memory is read in 65 %, and
            they wait most for samples from afar.
Tried:      the next tile staged while one is computed: 1.70 at 160/147, 2.18 at 147/160, as fewer blocks have room.
            Samples by plain vectors, as GPUs before Ampere need them: 2.14.
            Each thread 4 outputs of one phase, read from the signal's own order in shared memory: 1.25 reads for a
            multiply-add, and 190 registers a thread, too many for the blocks of 511 threads that up = 511 made.
Source:     phases as in Crochiere and Rabiner, Multirate Digital Signal Processing, 1983.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils.static_tuple import StaticTuple
from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    block_dim,
    block_idx,
    grid_dim,
    thread_idx,
)
from max.gpu.host import DeviceAttribute, DeviceContext
from max.gpu.memory import external_memory
from max.gpu.sync import barrier, syncwarp

from ..shared.accumulate import accum_dtype, has_nan
from ..shared.aligned_row import VECTOR_BYTES, vector_width
from ..shared.extension import Extension
from ..shared.level2 import LINE_BYTES, fetch_line
from ..shared.polyphase_geometry import PolyphaseGeometry
from ..shared.polyphase_sums import add_all_taps, add_taps, distance_of
from ..shared.polyphase_tiling import (
    PANEL,
    SETS,
    TILE_PERIODS,
    choose_tiling,
    output_pitch,
    sample_pitch,
)
from ..shared.shared_memory import STATIC_SHARED_BYTES, await_copies, begin_copy, shared_memory_request
from ..shared.tuning_gpu import (
    POLYPHASE_GROUP as GROUP,
    POLYPHASE_LEAST_BLOCKS as LEAST_BLOCKS,
    POLYPHASE_LOADS as LOADS,
    POLYPHASE_MAX_PANELS as MAX_PANELS,
    POLYPHASE_MOST_BLOCKS as MOST_BLOCKS,
    POLYPHASE_OUTPUTS_WARP_TAPS as WARP_TAPS,
    POLYPHASE_PERIODS as PERIODS,
    POLYPHASE_SHARED_BYTES as SHARED_BYTES,
    POLYPHASE_SMALLEST_CHUNK as SMALLEST_CHUNK,
    WARP,
)
from .polyphase_outputs_gpu import launch_outputs, sum_again
from .polyphase_near_gpu import launches_near
from .polyphase_window_gpu import launches_window

comptime FEWEST_PERIODS = TILE_PERIODS // 4
"""Periods that rows must have, so that not too many threads are without."""

comptime MOST_TILES = 1 << 30
"""Tiles of a call at most: 32 bits count them, and every so many."""

comptime MAX_RATE = 1 << 22
"""Rates and taps below it keep the arithmetic within a block in 32 bits; larger ones go the plain way."""


def polyphase_gpu[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    extension: Extension[dtype],
    ctx: DeviceContext,
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs on the device, `geometry.rows` times `geometry.outputs`; every one is written.
        x: Signals on the device, `geometry.rows` times `geometry.samples`.
        h: Taps on the device in their natural order, `geometry.taps` elements.
        geometry: Sizes, rates and shifts.
        extension: What stands beyond the ends of each signal.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    if geometry.outputs == 0 or geometry.rows == 0:
        return  # a grid of no blocks is an error
    # Outputs before and from which on some terms lie outside x.
    var head = 0
    var tail = geometry.outputs
    var is_launched = launches_window(y, x, h, geometry, ctx) or launches_near(y, x, h, geometry, ctx)
    if not is_launched and not launches_panels(y, x, h, geometry, ctx):
        tail = 0
    elif extension.omits():
        return
    else:
        head = ceildiv((geometry.longest_phase() - 1) * geometry.up, geometry.down) - geometry.start
        head = max(0, min(head, geometry.outputs))
        tail = ceildiv(geometry.samples * geometry.up, geometry.down) - geometry.start
        tail = max(head, min(tail, geometry.outputs))
    if geometry.longest_phase() < WARP_TAPS:
        launch_outputs[lanes=1](y, x, h, geometry, extension, head, tail, ctx)
    else:
        launch_outputs[lanes=WARP](y, x, h, geometry, extension, head, tail, ctx)


def launches_panels[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    ctx: DeviceContext,
) raises -> Bool:
    """Enqueues `compute_panels` if a tiling suits the call; terms outside x are left out.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs on the device.
        x: Signals on the device.
        h: Taps on the device.
        geometry: Sizes, rates and shifts.
        ctx: The device and its queue.

    Returns:
        False if nothing was done.

    Raises:
        If the launch is refused.
    """
    if max(geometry.taps, geometry.up, geometry.down) >= MAX_RATE:
        return False
    var tiling = choose_tiling[dtype](geometry, SHARED_BYTES)
    if tiling.shared_bytes[dtype]() > STATIC_SHARED_BYTES:
        var most = Int(ctx.get_attribute(DeviceAttribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN))
        if most < SHARED_BYTES:
            tiling = choose_tiling[dtype](geometry, most)
    # What is staged again with each chunk must not be most of it.
    var fewest = min(max(SMALLEST_CHUNK, tiling.spread // 2), tiling.positions)
    if tiling.chunk < fewest or geometry.outputs < tiling.period * FEWEST_PERIODS:
        return False
    comptime kernel = compute_panels[dtype]
    var tiles = ceildiv(geometry.outputs, tiling.period * TILE_PERIODS)
    var parts = tiling.blocks_per_period()
    if tiles * geometry.rows >= MOST_TILES:
        return False
    ctx.enqueue_function[kernel](
        y,
        x,
        h,
        Int64(geometry.samples),
        Int64(geometry.outputs),
        Int64(geometry.start),
        Int64(geometry.x_stride),
        Int64(geometry.y_stride),
        UInt32(tiles),
        UInt32(tiles * geometry.rows),
        Int32(geometry.taps),
        Int32(geometry.up),
        Int32(geometry.down),
        Int32(tiling.period),
        Int32(tiling.positions),
        Int32(tiling.chunk),
        Int32(tiling.spread),
        grid_dim=parts * min(tiles * geometry.rows, max(1, MOST_BLOCKS[dtype] // parts)),
        block_dim=tiling.panels * WARP,
        shared_mem_bytes=tiling.shared_bytes[dtype](),
        func_attribute=shared_memory_request(tiling.shared_bytes[dtype]()),
    )
    return True


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(MAX_PANELS * WARP)),
    `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS[dtype]),
)
def compute_panels[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int64,
    outputs: Int64,
    start: Int64,
    x_stride: Int64,
    y_stride: Int64,
    tiles: UInt32,
    all_tiles: UInt32,
    taps: Int32,
    up: Int32,
    down: Int32,
    period: Int32,
    positions: Int32,
    chunk: Int32,
    spread: Int32,
):
    """Kernel: one block computes its part of the periods of one tile, and of every so many further tiles.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs.
        x: Signals.
        h: Taps.
        samples: N.
        outputs: L_out.
        start: First output on the output grid.
        x_stride: From one signal to the next.
        y_stride: From one row of outputs to the next.
        tiles: Tiles of a row.
        all_tiles: Tiles of all rows.
        taps: K.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        period: As in `Tiling`.
        positions: As in `Tiling`.
        chunk: As in `Tiling`.
        spread: As in `Tiling`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime ROW = sample_pitch[dtype]()
    comptime OUTPUT_ROW = output_pitch[dtype]()
    var lane = Int32(thread_idx.x) % Int32(WARP)
    var panel = Int32(thread_idx.x) // Int32(WARP)
    var width = Int32(block_dim.x)  # as many outputs as threads
    var group = panel * Int32(PANEL) + lane // Int32(SETS) * Int32(GROUP)
    var set = lane % Int32(SETS)
    var staged_taps = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES]()
    var taps_of_panel = staged_taps.unsafe_offset(panel * Int32(PANEL) * chunk)
    var window = staged_taps.unsafe_offset(width * chunk).unsafe_bitcast[Scalar[dtype]]()
    var turned = window.unsafe_offset(panel * Int32(TILE_PERIODS * OUTPUT_ROW))

    var parts = (period + width - 1) // width
    var part = Int32(block_idx.x) % parts
    var first = part * width  # the block's first output in each period
    var place = (Int(start) + Int(first)) * Int(down)  # on the upsampled grid
    var newest = place // Int(up)
    var phase = Int32(place - newest * Int(up))
    # The sample, counted from the block's newest, that the group's last output meets first; at most `spread`.
    var group_newest = (phase + (group + Int32(GROUP - 1)) * down) // up
    var advance = Int(period // up) * Int(down)
    var step = UInt32(grid_dim.x) // UInt32(parts)
    var first_tile = UInt32(block_idx.x) // UInt32(parts)
    var is_near = 8 * min(up, down) >= 7 * max(up, down)
    var is_even = is_near and chunk == positions and positions >= Int32(2 * distance_of(GROUP))
    var wanted = period - first - panel * Int32(PANEL)
    for tile in range(first_tile, all_tiles, step):
        var row = tile // tiles
        var first_period = Int(tile - row * tiles) * TILE_PERIODS
        var x_row = x.unsafe_offset(Int(row) * Int(x_stride))
        var sums = Array[SIMD[ACC, PERIODS], GROUP](fill=0)
        for done in range(Int32(0), positions, chunk):
            if done > 0 or tile > first_tile:
                barrier()  # slower warps still read what was staged before
            var begin = newest + first_period * advance - Int(done + chunk) + 1
            stage_samples(window, x_row, Int(samples), begin, spread + chunk, advance)
            if tile == first_tile or chunk < positions:
                stage_taps(
                    taps_of_panel,
                    h,
                    taps,
                    phase,
                    panel * Int32(PANEL) + lane,
                    up,
                    down,
                    done,
                    chunk,
                )
            await_copies()
            barrier()
            if done == 0 and all_tiles - tile > step:
                prefetch_tile(
                    x, samples, x_stride, tiles, tile + step, newest - Int(chunk) + 1, spread + chunk, advance
                )
            var samples_of_group = window.unsafe_offset((group_newest + chunk - 1) * Int32(ROW) + set * Int32(PERIODS))
            var taps_of_group = taps_of_panel.unsafe_offset(group % Int32(PANEL))
            if is_even:
                add_all_taps(sums, samples_of_group, taps_of_group, positions)
            else:
                add_taps(sums, samples_of_group, taps_of_group, min(chunk, positions - done))
        barrier()  # outputs take the place of samples
        var i = first_period * Int(period) + Int(first + panel * Int32(PANEL))
        comptime for k in range(PERIODS):
            var to = (Int32(k * SETS) + set) * Int32(OUTPUT_ROW) + group % Int32(PANEL)
            var is_spoilt = False
            comptime for vector in range(GROUP // WIDTH):
                var values = SIMD[dtype, WIDTH](0)
                comptime for each in range(WIDTH):
                    values[each] = sums[vector * WIDTH + each][k].cast[dtype]()
                comptime if dtype.is_floating_point():
                    is_spoilt = is_spoilt or has_nan(values)
                turned.unsafe_store[alignment=VECTOR_BYTES](to + Int32(vector * WIDTH), values)
            if is_spoilt:
                var at = (set * Int32(PERIODS) + Int32(k)) * period + group % Int32(PANEL)
                for each in range(GROUP):
                    var m = Int(start) + i + Int(at) + each
                    turned[unsafe_offset=to + Int32(each)] = sum_again(
                        x_row, h, Int(samples), Int(taps), Int(up), Int(down), m
                    )
        syncwarp()
        # Neighbouring lanes store neighbouring outputs.
        var y_here = y.unsafe_offset(Int(row) * Int(y_stride) + i)
        var left = Int(outputs) - i
        var is_aligned = (Int(y_here) | Int(period) * size_of[dtype]()) & (VECTOR_BYTES - 1) == 0
        if is_aligned and wanted >= Int32(PANEL) and left >= (TILE_PERIODS - 1) * Int(period) + PANEL:
            comptime LANES = PANEL // WIDTH
            for turn in range(lane // Int32(LANES), Int32(TILE_PERIODS), Int32(WARP // LANES)):
                var output = lane % Int32(LANES) * Int32(WIDTH)
                var values = turned.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](turn * Int32(OUTPUT_ROW) + output)
                y_here.unsafe_store[alignment=VECTOR_BYTES](period_at(turn) * period + output, values)
        elif lane < wanted:
            for turn in range(Int32(TILE_PERIODS)):
                var at = period_at(turn) * period + lane
                if Int(at) < left:
                    y_here[unsafe_offset=at] = turned[unsafe_offset=turn * Int32(OUTPUT_ROW) + lane]


@always_inline
def prefetch_tile[
    dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int64,
    x_stride: Int64,
    tiles: UInt32,
    tile: UInt32,
    begin: Int,
    count: Int32,
    advance: Int,
):
    """Has the level-2 cache fetch the samples of a tile, which is staged once this one's outputs are there.

    Parameters:
        dtype: Element type.

    Args:
        x: Signals.
        samples: N.
        x_stride: From one signal to the next.
        tiles: Tiles of a row.
        tile: The tile.
        begin: The first sample of a row's first tile.
        count: Samples of a period.
        advance: From one period to the next.
    """
    # One line for each thread of a block is about what a tile has.
    comptime LINE = LINE_BYTES // size_of[dtype]()
    var row = tile // tiles
    var ahead = Int(thread_idx.x) * LINE
    var position = begin + Int(tile - row * tiles) * TILE_PERIODS * advance + ahead
    if ahead < (TILE_PERIODS - 1) * advance + Int(count) and 0 <= position and position < Int(samples):
        fetch_line(x.unsafe_offset(Int(row) * Int(x_stride) + position))


@always_inline
def period_at(place: Int32) -> Int32:
    """Finds the period whose outputs stand at a place after they were turned: those of one turn of all sets together.

    Args:
        place: The place.

    Returns:
        The period within a tile.
    """
    return place % Int32(SETS) * Int32(PERIODS) + place // Int32(SETS)


@always_inline
def stage_samples[
    dtype: DType, //
](
    window: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    begin: Int,
    count: Int32,
    advance: Int,
):
    """Begins to copy the samples that a tile meets to shared memory, those of neighbouring periods side by side.

    Parameters:
        dtype: Element type.

    Args:
        window: Room for `count` rows of samples.
        x: The row's signal.
        samples: N.
        begin: The first period's first sample; outside of x zeros are staged.
        count: Samples of a period.
        advance: From one period to the next.
    """
    comptime ROW = sample_pitch[dtype]()
    comptime is_wide = size_of[dtype]() >= 4  # what the hardware copies without registers
    var is_inside = begin >= 0 and begin + (TILE_PERIODS - 1) * advance + Int(count) <= samples
    for at in range(Int32(thread_idx.x), count, Int32(block_dim.x)):
        var position = begin + Int(at)
        var target = window.unsafe_offset(at * Int32(ROW))
        if is_wide and is_inside:
            var source = x.unsafe_offset(position)
            comptime for period in range(TILE_PERIODS):
                begin_copy[1](target.unsafe_offset(period), source)
                source = source.unsafe_offset(advance)
        else:
            for period in range(TILE_PERIODS):
                var is_there = 0 <= position and position < samples
                if is_there:  # not waited for one by one: the last tile would end 17 us later
                    begin_copy[1](target.unsafe_offset(period), x.unsafe_offset(position))
                else:
                    target[unsafe_offset=period] = 0
                position += advance


@always_inline
def stage_taps[
    dtype: DType, acc: DType
](
    staged: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int32,
    phase: Int32,
    output: Int32,
    up: Int32,
    down: Int32,
    done: Int32,
    chunk: Int32,
):
    """Copies the taps of one output to shared memory, beside those of the other outputs of its panel.

    Parameters:
        dtype: Element type of the taps.
        acc: Accumulation type.

    Args:
        staged: Room for the taps of a panel, those of each position side by side.
        h: Taps.
        taps: K.
        phase: Phase of the block's first output.
        output: The output, counted from there; one lane's of a warp.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        done: First of these positions.
        chunk: How many positions.
    """
    var place = phase + output * down
    var newest = place // up
    var last_of_group = output // Int32(GROUP) * Int32(GROUP) + Int32(GROUP - 1)
    # Positions before the output's own first: its group goes on to newer samples.
    var wait = (phase + last_of_group * down) // up - newest
    var first_tap = place - newest * up
    var to = staged.unsafe_offset(output % Int32(PANEL))
    for begin in range(Int32(0), chunk, Int32(LOADS)):
        var values = Array[Scalar[dtype], LOADS](fill=0)
        comptime for k in range(LOADS):
            var q = done + begin + Int32(k) - wait
            var tap = first_tap + q * up
            if q >= 0 and tap < taps:
                values[k] = h[unsafe_offset=tap]
        comptime for k in range(LOADS):
            if begin + Int32(k) < chunk:
                to[unsafe_offset=(begin + Int32(k)) * Int32(PANEL)] = values[k].cast[acc]()
