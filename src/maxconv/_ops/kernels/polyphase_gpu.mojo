"""Polyphase FIR on GPU: upsample, filter and downsample; samples sorted by period, so that warps share their taps.

Computes:   y[i] = sum_q x[newest_sample(m) - q] * h[phase(m) + q*up], m = start + i, i in [0, L_out), for every row;
            terms outside x are left out, or met by the samples of an Extension. up = 1 is strided FIR, down = 1
            interpolation.
Algorithm:  outputs whole periods apart (`period` = up times some number) share their phase, and their samples lie
            `advance` = period*down/up apart. The lanes of a warp take 32 periods, so all read one tap; a thread takes
            GROUP neighbouring outputs, which meet nearly the same samples: one that is read serves all. Their taps are
            shifted against each other by whole samples; zeros stand where an output has no tap. Samples are staged
            with neighbouring periods side by side, outputs are turned back to their order in shared memory.
            Small rates have kernels of their own in polyphase_window_gpu.mojo; calls and outputs that none of this
            fits go the plain way of polyphase_outputs_gpu.mojo.
Cost:       2*L_out*ceil(K/up) flop a row, and (N + L_out)*size bytes of device memory. With 20*max(up, down) + 1 taps
            per output of float32, by calculation (up/down: bytes; multiply-adds, with those by zero taps):
            2/1: 6; 20.5, 25   1/2: 12; 41, 55   3/2: 6.7; 20.3, 26   160/147: 7.7; 20, 28   147/160: 8.4; 21.8, 30.
            Signals that go on beyond their ends: ceil(K/down) outputs at each end twice.
Layout:     x (rows, N), y (rows, L_out), rows `x_stride`, `y_stride` apart; h (K) in its natural order.
Tile:       32 or 64 periods of 32 or 64 neighbouring outputs; at most 48 KB of shared memory. Taps that do not fit
            are taken in chunks.
Accuracy:   sums in accumulate.accum_dtype on EVERY path of this file, taps in rising q. A zero tap would make NaN of an
            infinite sample: an output that is NaN is summed again, without them.
Gate:       none: any N, L_out, rows, start >= 0, any K, up, down >= 1.
Tuning:     the constants below.
Measured:   by benchmarks/mojo/bench_polyphase_gpu.mojo on an H200 (2026-11-23), in copies of those bytes: float32
            160/147 2.69, 147/160 3.25, 33/5 3.67, float64 2.36 and 2.46 of the first two. Reads of shared memory bound
            it: one of 16 bytes a lane takes 2 cycles if 8 neighbouring lanes share them, 4 if not.
Tried:      each thread 4 outputs of one phase, read from the signal's own order in shared memory: 1.25 reads for a
            multiply-add, and 190 registers a thread, too many for the blocks of 511 threads that up = 511 made.
Source:     phases as in Crochiere and Rabiner, Multirate Digital Signal Processing, 1983.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import external_memory
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.extension import Extension
from ..shared.polyphase_geometry import PolyphaseGeometry
from .polyphase_outputs_gpu import MAX_BLOCKS, THREADS, WARP, WARPS, WARP_TAPS, launch_outputs, sum_again
from .polyphase_window_gpu import launches_window

comptime GROUP = 8
"""Neighbouring outputs of a thread. 4 read 0.45 words a multiply-add instead of 0.35; 16 waste half on zero taps."""

comptime PANEL = WARPS * GROUP
"""Neighbouring outputs that a block computes at a time: as many as a warp stores side by side."""

comptime MAX_PANELS = 2
"""Panels that share their staged samples."""

comptime MAX_PERIODS = 2
"""Periods of a thread: a tap that is read serves all of them."""

comptime UNROLL = 2
"""Positions per iteration: their addresses differ by constants. 4 would spill."""

comptime LOADS = 8
"""Samples that a thread has under way while it stages."""

comptime SHARED_BYTES = 48 << 10
"""Shared memory that every device grants without being asked."""

comptime SMALLEST_CHUNK = 16
"""Fewest positions worth staging at a time, unless they are all; for each period of a thread."""

comptime MAX_RATE = 1 << 24
"""Rates and taps below it keep the arithmetic within a block in 32 bits; larger ones go the plain way."""


@fieldwise_init
struct Tiling(TrivialRegisterPassable):
    """How a call is cut into blocks; one value for all blocks."""

    var period: Int
    """Neighbouring outputs of which each has a phase of its own; a multiple of `up`."""
    var panels: Int
    """Panels of a block."""
    var positions: Int
    """Samples that a group meets, those of all its outputs together."""
    var chunk: Int
    """How many of them are staged at a time; as many as fit, perhaps 0."""
    var spread: Int
    """Samples from the newest of a block's first output to the newest of its last in the same period."""

    def blocks_per_period(self) -> Int:
        """Counts the blocks that share the outputs of a period.

        Returns:
            How many, the last of them perhaps with fewer outputs.
        """
        return ceildiv(self.period, self.panels * PANEL)

    def shared_bytes[dtype: DType](self, periods: Int) -> Int:
        """Counts the shared memory of a block.

        Parameters:
            dtype: Element type of the arrays.

        Args:
            periods: Periods of a thread.

        Returns:
            Taps, samples and outputs, in bytes.
        """
        var taps = self.panels * PANEL * self.chunk * size_of[accum_dtype[dtype]()]()
        return taps + (self.spread + self.chunk + PANEL) * (periods * WARP + 1) * size_of[dtype]()


def choose_tiling[dtype: DType](geometry: PolyphaseGeometry, periods: Int) -> Tiling:
    """Chooses how to cut a call into blocks.

    Parameters:
        dtype: Element type of the arrays.

    Args:
        geometry: Sizes, rates and shifts.
        periods: Periods of a thread.

    Returns:
        The tiling with the most panels of which all taps fit, else one panel with as many as do.
    """
    var tiling = Tiling(0, 0, 0, 0, 0)
    for panels in range(MAX_PANELS, 0, -1):
        var width = panels * PANEL
        var period = width // geometry.up * geometry.up
        if period * 8 < width * 7:  # more than an eighth of the threads would idle
            period = max(1, 4 * PANEL // geometry.up) * geometry.up
        tiling.period = period
        tiling.panels = panels
        tiling.positions = geometry.longest_phase() + ceildiv((GROUP - 1) * geometry.down, geometry.up)
        tiling.chunk = tiling.positions
        tiling.spread = ceildiv((width - 1) * geometry.down, geometry.up)
        if tiling.shared_bytes[dtype](periods) <= SHARED_BYTES:
            return tiling
    tiling.chunk = 1
    var one = tiling.shared_bytes[dtype](periods)
    tiling.chunk = 0
    var none = tiling.shared_bytes[dtype](periods)
    var chunk = (SHARED_BYTES - none) // (one - none) // UNROLL * UNROLL
    if chunk > 0:
        tiling.chunk = ceildiv(tiling.positions, ceildiv(tiling.positions, chunk))  # as few as possible, of one size
    return tiling


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
    if not launches_window(y, x, h, geometry, ctx) and not launches_panels(y, x, h, geometry, ctx):
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
    comptime for fallback in range(MAX_PERIODS):
        # Fewer periods a thread where not all taps fit beside more, or where rows end before most lanes have one.
        comptime periods = MAX_PERIODS - fallback
        var tiling = choose_tiling[dtype](geometry, periods)
        comptime fewest_positions = SMALLEST_CHUNK * periods
        var fits = tiling.chunk >= min(fewest_positions, tiling.positions)
        var fewest_periods = WARP // 4 if periods == 1 else periods * WARP
        if fits and geometry.outputs >= tiling.period * fewest_periods:
            launch_panels[periods=periods](y, x, h, geometry, tiling, ctx)
            return True
    return False


def blocks_per_multiprocessor(sum_bytes: Int) -> Int:
    """Chooses the register bound of `compute_panels`, as the blocks that shall fit a multiprocessor's 65536.

    Args:
        sum_bytes: Bytes of a thread's sums of one output of each period.

    Returns:
        6, which leaves 80 registers a thread, or 4, which leaves 128, where 80 would spill. Unbound it takes 150.
    """
    return 6 if sum_bytes <= 8 else 4


def launch_panels[
    dtype: DType, //, periods: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    tiling: Tiling,
    ctx: DeviceContext,
) raises:
    """Enqueues `compute_panels`.

    Parameters:
        dtype: Element type of all three arrays.
        periods: Periods of a thread.

    Args:
        y: Outputs on the device.
        x: Signals on the device.
        h: Taps on the device.
        geometry: Sizes, rates and shifts.
        tiling: How the call is cut into blocks.
        ctx: The device and its queue.

    Raises:
        If the launch is refused.
    """
    comptime kernel = compute_panels[dtype, periods]
    var tiles = ceildiv(geometry.outputs, tiling.period * periods * WARP)
    var parts = tiling.blocks_per_period()
    ctx.enqueue_function[kernel](
        y,
        x,
        h,
        Int64(geometry.samples),
        Int64(geometry.outputs),
        Int64(geometry.start),
        Int64(geometry.x_stride),
        Int64(geometry.y_stride),
        Int64(tiles),
        Int64(tiles * geometry.rows),
        Int32(geometry.taps),
        Int32(geometry.up),
        Int32(geometry.down),
        Int32(tiling.period),
        Int32(tiling.panels),
        Int32(tiling.positions),
        Int32(tiling.chunk),
        Int32(tiling.spread),
        grid_dim=parts * min(tiles * geometry.rows, max(1, MAX_BLOCKS // parts)),
        block_dim=THREADS,
        shared_mem_bytes=tiling.shared_bytes[dtype](periods),
    )


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.minctasm`=SIMDLength(blocks_per_multiprocessor(periods * size_of[accum_dtype[dtype]()]())),
)
def compute_panels[
    dtype: DType, periods: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int64,
    outputs: Int64,
    start: Int64,
    x_stride: Int64,
    y_stride: Int64,
    tiles: Int64,
    all_tiles: Int64,
    taps: Int32,
    up: Int32,
    down: Int32,
    period: Int32,
    panels: Int32,
    positions: Int32,
    chunk: Int32,
    spread: Int32,
):
    """Kernel: one block computes its part of the periods of one tile, and of every so many further tiles.

    Parameters:
        dtype: Element type of all three arrays.
        periods: Periods of a thread.

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
        panels: As in `Tiling`.
        positions: As in `Tiling`.
        chunk: As in `Tiling`.
        spread: As in `Tiling`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime TILE_PERIODS = periods * WARP
    comptime ROW = TILE_PERIODS + 1  # odd, so that neither rows nor columns meet in one bank
    var thread = Int32(thread_idx.x)
    var lane = thread % Int32(WARP)
    var warp_index = thread // Int32(WARP)
    var staged_taps = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=16]()
    var window = staged_taps.unsafe_offset(panels * Int32(PANEL) * chunk).unsafe_bitcast[Scalar[dtype]]()
    var turned = window.unsafe_offset((spread + chunk) * Int32(ROW))

    var parts = (period + panels * Int32(PANEL) - 1) // (panels * Int32(PANEL))
    var part = Int32(block_idx.x) % parts
    var first = part * panels * Int32(PANEL)  # the block's first output in each period
    var place = (Int(start) + Int(first)) * Int(down)  # on the upsampled grid
    var newest = place // Int(up)
    var phase = Int32(place - newest * Int(up))
    var advance = Int(period // up) * Int(down)
    var step = Int(grid_dim.x) // Int(parts)
    var tile = Int(block_idx.x) // Int(parts)
    while tile < Int(all_tiles):
        var row = tile // Int(tiles)
        var first_period = (tile - row * Int(tiles)) * TILE_PERIODS
        var x_row = x.unsafe_offset(row * Int(x_stride))
        var first_newest = newest + first_period * advance
        for panel in range(panels):
            var first_of_group = panel * Int32(PANEL) + warp_index * Int32(GROUP)
            var is_wanted = first + first_of_group < period
            # The sample, counted from `first_newest`, that the group's last output meets first; at most `spread`.
            var group_newest = (phase + (first_of_group + Int32(GROUP - 1)) * down) // up
            var sums = Array[SIMD[ACC, GROUP], periods](fill=0)
            var done = Int32(0)
            while done < positions:
                if panel == 0 or chunk < positions:
                    if done > 0:
                        barrier()  # slower warps still read the chunk before
                    stage_samples[TILE_PERIODS](
                        window, x_row, Int(samples), first_newest - Int(done + chunk) + 1, spread + chunk, advance
                    )
                    if chunk < positions or tile < step:
                        for staged in range(panel, panel + 1 if chunk < positions else panels):
                            var slot = 0 if chunk < positions else staged * Int32(PANEL) * chunk
                            stage_taps(
                                staged_taps.unsafe_offset(slot),
                                h,
                                taps,
                                phase + staged * Int32(PANEL) * down,
                                up,
                                down,
                                done,
                                chunk,
                            )
                    barrier()
                if is_wanted:
                    var slot = warp_index if chunk < positions else panel * Int32(WARPS) + warp_index
                    add_taps(
                        sums,
                        window.unsafe_offset((group_newest + chunk - 1) * Int32(ROW) + lane),
                        staged_taps.unsafe_offset(slot * chunk * Int32(GROUP)),
                        min(chunk, positions - done),
                    )
                done += chunk
            comptime for k in range(periods):
                comptime for output in range(GROUP):
                    var place = (warp_index * Int32(GROUP) + Int32(output)) * Int32(ROW) + Int32(k * WARP) + lane
                    turned[unsafe_offset=place] = sums[k][output].cast[dtype]()
            barrier()
            # Neighbouring lanes store neighbouring outputs.
            var entry = panel * Int32(PANEL) + lane
            if first + entry < period:
                var i = first_period * Int(period) + Int(first + entry)
                var at = warp_index
                while at < Int32(TILE_PERIODS):
                    var here = i + Int(at) * Int(period)
                    if here < Int(outputs):
                        var output = turned[unsafe_offset=lane * Int32(ROW) + at]
                        comptime if dtype.is_floating_point():
                            if output != output:
                                var m = Int(start) + here
                                output = sum_again(x_row, h, Int(samples), Int(taps), Int(up), Int(down), m)
                        y[unsafe_offset=row * Int(y_stride) + here] = output
                    at += Int32(WARPS)
            barrier()  # the next samples and outputs overwrite what slower warps still read
        tile += step


@always_inline
def stage_samples[
    dtype: DType, //, tile_periods: Int
](
    window: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    begin: Int,
    count: Int32,
    advance: Int,
):
    """Copies the samples that a tile meets to shared memory, those of neighbouring periods side by side.

    Parameters:
        dtype: Element type.
        tile_periods: Periods of a tile.

    Args:
        window: Room for `count` rows of `tile_periods` + 1 samples.
        x: The row's signal.
        samples: N.
        begin: The first period's first sample; outside of x zeros are staged.
        count: Samples of a period.
        advance: From one period to the next.
    """
    comptime ROW = tile_periods + 1
    var lane = Int32(thread_idx.x) % Int32(WARP)
    var first_period = Int32(thread_idx.x) // Int32(WARP)
    var at = lane
    if begin >= 0 and begin + (tile_periods - 1) * advance + Int(count) <= samples:
        while at < count:
            comptime for batch in range(tile_periods // WARPS // LOADS):
                var these = x.unsafe_offset(begin + (Int(first_period) + batch * LOADS * WARPS) * advance + Int(at))
                var values = Array[Scalar[dtype], LOADS](fill=0)
                comptime for k in range(LOADS):
                    values[k] = these[]
                    these = these.unsafe_offset(WARPS * advance)
                var places = window.unsafe_offset(at * Int32(ROW) + first_period + Int32(batch * LOADS * WARPS))
                comptime for k in range(LOADS):
                    places[unsafe_offset=k * WARPS] = values[k]
            at += Int32(WARP)
    else:
        while at < count:
            var period = first_period
            while period < Int32(tile_periods):
                var position = begin + Int(period) * advance + Int(at)
                var is_there = 0 <= position and position < samples
                window[unsafe_offset=at * Int32(ROW) + period] = x[unsafe_offset=position] if is_there else 0
                period += Int32(WARPS)
            at += Int32(WARP)


@always_inline
def stage_taps[
    dtype: DType, acc: DType
](
    staged: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int32,
    phase: Int32,
    up: Int32,
    down: Int32,
    done: Int32,
    chunk: Int32,
):
    """Copies the taps of one panel to shared memory: for each group and position those of its outputs side by side.

    Parameters:
        dtype: Element type of the taps.
        acc: Accumulation type.

    Args:
        staged: Room for `PANEL` times `chunk` taps.
        h: Taps.
        taps: K.
        phase: Phase of the panel's first output, perhaps with whole samples on top.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        done: First of these positions.
        chunk: How many positions.
    """
    var output = Int32(thread_idx.x) % Int32(PANEL)
    var place = phase + output * down
    var newest = place // up
    var last_of_group = output // Int32(GROUP) * Int32(GROUP) + Int32(GROUP - 1)
    # Positions before the output's own first: its group goes on to newer samples.
    var wait = (phase + last_of_group * down) // up - newest
    var to = output // Int32(GROUP) * chunk * Int32(GROUP) + output % Int32(GROUP)
    var position = Int32(thread_idx.x) // Int32(PANEL)
    while position < chunk:
        var q = done + position - wait
        var tap = place - newest * up + q * up
        var is_there = q >= 0 and tap < taps
        staged[unsafe_offset=to + position * Int32(GROUP)] = h[unsafe_offset=tap].cast[acc]() if is_there else 0
        position += Int32(THREADS // PANEL)


@always_inline
def add_taps[
    dtype: DType, acc: DType, periods: Int, //
](
    mut sums: Array[SIMD[acc, GROUP], periods],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    taps: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
    count: Int32,
):
    """Adds some positions to the sums of a thread, from the newest sample down.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        periods: Periods of a thread.

    Args:
        sums: For each period, the sums of the group's outputs.
        samples: The newest sample of the thread's first period.
        taps: The taps that it meets.
        count: How many positions.
    """
    comptime ROW = periods * WARP + 1
    var newest = samples
    var these = taps
    var left = count
    while left >= Int32(UNROLL):
        comptime for position in range(UNROLL):
            add_position(sums, newest.unsafe_offset(-position * ROW), these.unsafe_offset(position * GROUP))
        newest = newest.unsafe_offset(-UNROLL * ROW)
        these = these.unsafe_offset(UNROLL * GROUP)
        left -= Int32(UNROLL)
    while left > 0:
        add_position(sums, newest, these)
        newest = newest.unsafe_offset(-ROW)
        these = these.unsafe_offset(GROUP)
        left -= 1


@always_inline
def add_position[
    dtype: DType, acc: DType, periods: Int, //
](
    mut sums: Array[SIMD[acc, GROUP], periods],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    taps: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
):
    """Adds one sample of each period, times the taps of the group's outputs.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        periods: Periods of a thread.

    Args:
        sums: For each period, the sums of the group's outputs.
        samples: The sample of the thread's first period.
        taps: One tap for each output.
    """
    var these = taps.unsafe_load[width=GROUP, alignment=16](0)
    comptime for k in range(periods):
        var sample = samples[unsafe_offset=k * WARP].cast[acc]()
        sums[k] = multiply_add(SIMD[acc, GROUP](sample), these, sums[k])
