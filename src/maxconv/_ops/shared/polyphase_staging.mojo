"""How the taps of groups and the samples of neighbouring periods come to shared memory for polyphase_near_gpu.mojo."""

from std.math import align_up
from std.sys.info import size_of
from max.gpu import block_dim, thread_idx

from .aligned_row import vector_width
from .shared_memory import begin_copy
from .tuning_gpu import POLYPHASE_NEAR_PERIODS, WARP

comptime TILE = WARP * POLYPHASE_NEAR_PERIODS
"""Periods of a block."""


def pitch_of[dtype: DType](group: Int) -> Int:
    """Chooses how far apart the taps of neighbouring positions are.

    Parameters:
        dtype: Type of the taps.

    Args:
        group: Outputs of a thread.

    Returns:
        Whole vectors.
    """
    return align_up(group, vector_width[dtype]())


@always_inline
def stage_taps[
    dtype: DType, acc: DType, //, group: Int
](
    staged: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    taps: Int32,
    phase: Int32,
    first: Int32,
    up: Int32,
    down: Int32,
    positions: Int32,
    lane: Int32,
):
    """Begins to copy the taps of a warp's group to shared memory, those of each position side by side.

    Parameters:
        dtype: Element type of the taps.
        acc: Accumulation type, of the same size.
        group: Outputs of the group.

    Args:
        staged: Room for them.
        h: Taps.
        taps: K.
        phase: Phase of the block's first output.
        first: The group's first output.
        up: Rate of the inserted zeros.
        down: Rate of the outputs.
        positions: Samples that the group meets.
        lane: The thread's place in its warp.
    """
    comptime PITCH = pitch_of[acc](group)
    if lane >= Int32(PITCH):
        return
    var place = phase + (first + lane) * down
    var own_newest = place // up
    # Positions before the output's own first: its group goes on to newer samples.
    var wait = (phase + (first + Int32(group - 1)) * down) // up - own_newest
    var tap = place - (own_newest + wait) * up
    var to = staged.unsafe_bitcast[Scalar[dtype]]().unsafe_offset(lane)
    for position in range(positions):
        if position >= wait and tap < taps:
            begin_copy[1](to, h.unsafe_offset(tap))
        else:
            to[] = 0
        tap += up
        to = to.unsafe_offset(PITCH)


@always_inline
def stage_whole[
    dtype: DType, //
](
    window: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    begin: Int,
    count: Int32,
    skew: Int32,
):
    """Begins to copy neighbouring samples to shared memory by vectors.

    Parameters:
        dtype: Element type.

    Args:
        window: Room for the samples.
        x: The row's signal.
        samples: N.
        begin: The first sample; outside of x zeros are staged.
        count: How many.
        skew: As `skew_of` says.
    """
    comptime WIDTH = vector_width[dtype]()
    var width = Int32(block_dim.x)
    var first = begin - Int(skew)
    var end = count + skew
    if first >= 0 and first + Int(end) + WIDTH <= samples:
        comptime UNROLL = 4
        var at = Int32(thread_idx.x) * Int32(WIDTH)
        var step = width * Int32(WIDTH)
        var source = x.unsafe_offset(first + Int(at))
        var to = window.unsafe_offset(at)
        while at < end - Int32(UNROLL - 1) * step:
            comptime for k in range(UNROLL):
                begin_copy[WIDTH](to.unsafe_offset(Int32(k) * step), source.unsafe_offset(Int32(k) * step))
            at += Int32(UNROLL) * step
            to = to.unsafe_offset(Int32(UNROLL) * step)
            source = source.unsafe_offset(Int32(UNROLL) * step)
        while at < end:
            begin_copy[WIDTH](to, source)
            at += step
            to = to.unsafe_offset(step)
            source = source.unsafe_offset(step)
    else:
        for at in range(Int32(thread_idx.x), end, width):
            var position = first + Int(at)
            if 0 <= position and position < samples:
                begin_copy[1](window.unsafe_offset(at), x.unsafe_offset(position))
            else:
                window[unsafe_offset=at] = 0


@always_inline
def stage_rows[
    dtype: DType, //
](
    window: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    begin: Int,
    count: Int32,
    advance: Int32,
):
    """Begins to copy neighbouring samples to shared memory, where a place stays free behind those of each period.

    Parameters:
        dtype: Element type.

    Args:
        window: Room for the samples.
        x: The row's signal.
        samples: N.
        begin: The first sample; outside of x zeros are staged.
        count: How many.
        advance: Samples of a period, an even number.
    """
    comptime UNROLL = 5
    var lane = Int32(thread_idx.x) % Int32(WARP)
    var warp = Int32(thread_idx.x) // Int32(WARP)
    var warps = Int32(block_dim.x) // Int32(WARP)
    var is_inside = begin >= 0 and begin + Int(count) <= samples
    for row in range(warp, (count + advance - 1) // advance, warps):
        var end = min(advance, count - row * advance)
        var first = begin + Int(row * advance)
        var to = window.unsafe_offset(row * (advance + 1))
        var at = lane
        if is_inside:
            var to_lane = to.unsafe_offset(lane)
            var source = x.unsafe_offset(first + Int(lane))
            while at < end - Int32((UNROLL - 1) * WARP):
                comptime for k in range(UNROLL):
                    begin_copy[1](to_lane.unsafe_offset(k * WARP), source.unsafe_offset(k * WARP))
                at += Int32(UNROLL * WARP)
                to_lane = to_lane.unsafe_offset(UNROLL * WARP)
                source = source.unsafe_offset(UNROLL * WARP)
        while at < end:
            var position = first + Int(at)
            if 0 <= position and position < samples:
                begin_copy[1](to.unsafe_offset(at), x.unsafe_offset(position))
            else:
                to[unsafe_offset=at] = 0
            at += Int32(WARP)


@always_inline
def skew_of[dtype: DType, //](x: Pointer[Scalar[dtype], MutAnyOrigin], begin: Int) -> Int32:
    """Measures how far behind the boundary of a vector a sample lies, in device and then in shared memory.

    Parameters:
        dtype: Element type.

    Args:
        x: A signal.
        begin: Index of the sample; any integer.

    Returns:
        Elements, fewer than a vector has.
    """
    return Int32(Int(x) // size_of[dtype]() + begin) & Int32(vector_width[dtype]() - 1)


@always_inline
def stage_tile[
    dtype: DType, //, is_padded: Bool
](
    window: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    x_stride: Int,
    tiles: UInt32,
    tile: UInt32,
    oldest: Int,
    count: Int32,
    advance: Int32,
):
    """Begins to copy the samples of a tile to shared memory; `await_copies` waits for them.

    Parameters:
        dtype: Element type.
        is_padded: As in `compute_near`.

    Args:
        window: Room for the samples.
        x: Signals.
        samples: N.
        x_stride: From one signal to the next.
        tiles: Tiles of a row.
        tile: The tile.
        oldest: The first sample of a row's first tile.
        count: Samples that a tile meets.
        advance: Samples of a period.
    """
    var row = tile // tiles
    var begin = oldest + Int(tile - row * tiles) * TILE * Int(advance)
    var x_row = x.unsafe_offset(Int(row) * x_stride)
    comptime if is_padded:
        stage_rows(window, x_row, samples, begin, count, advance)
    else:
        stage_whole(window, x_row, samples, begin, count, skew_of(x_row, begin))
