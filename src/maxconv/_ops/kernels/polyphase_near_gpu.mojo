"""Polyphase FIR on GPU where both rates are nearly the same, as 160/147: a tap that is read serves a whole warp.

Computes:   what polyphase_gpu.mojo does, terms outside x left out.
Algorithm:  as there, but all lanes of a warp take the same group of neighbouring outputs, each at periods of its own,
            and groups are larger: a sample that is read serves more outputs. A block stages the samples of the next tile
            while it adds. They stay in the order of the signal; periods begin an odd number of samples apart, one more
            than they have if that is even, so that lanes meet different banks. Outputs are turned in shared memory
            within a warp; those of an odd number in a period, which no vector fits, are put in order there and leave it
            as one row. Positions at which an output surely has no tap are left out.
Cost:       2*L_out*ceil(K/up) flop a row, and (N + L_out)*size bytes of device memory. With 20*max(up, down) + 1 taps
            22.7 multiply-adds an output for 20 (160/147), 25 for 21.8 (147/160). A position of a thread reads 2 samples
            and 20 taps for at most 40 multiply-adds: 12 passes through shared memory (a vector of taps takes 2) in the
            time of 10.
Layout:     as in polyphase_gpu.mojo.
Tile:       TILE periods of all their outputs, at most WARPS groups; twice the samples and once the taps must fit.
Accuracy:   sums in accumulate.accum_dtype, taps in rising q; an output that is NaN is summed again without zero taps.
Gate:       float32 (others were not tried); 7/8 <= up/down <= 8/7; up at most WARPS groups; taps that fit, at least
            16 for an output or so; outputs of a quarter of a tile.
Tuning:     POLYPHASE_NEAR_* of shared/tuning_gpu.mojo.
Measured:   on an H200 (2026-11-23), in copies of the bytes of a call at 20*max(up, down) + 1 taps, of 512 MB, and of 256
            MB; in brackets by polyphase_gpu.mojo: 160/147 1.35 1.43 (1.43 1.50), 147/160 1.52 1.60 (1.89 1.92). By the
            profiler warps then issue in 52 % of the cycles, shared memory is read in 61 %.
Tried:      four periods a thread, one block for a multiprocessor: 1.30 1.40 at 160/147, 1.79 1.86 at 147/160. Groups of
            16, three blocks, one window each: 1.45 1.52. Samples fetched into level 2 a tile before: 1.37 1.45. Sums not
            `settled`: 1 KB of spills for a thread, and 3 copies.
"""

from std.bit import count_trailing_zeros
from std.math import align_up, ceildiv
from std.sys._assembly import inlined_assembly
from std.sys.info import size_of
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_dim, block_idx, grid_dim, thread_idx
from max.gpu.host import DeviceAttribute, DeviceContext
from max.gpu.memory import external_memory
from max.gpu.sync import barrier, syncwarp

from ..shared.accumulate import accum_dtype, has_nan, multiply_add
from ..shared.aligned_row import VECTOR_BYTES, vector_width
from ..shared.polyphase_geometry import PolyphaseGeometry
from ..shared.polyphase_staging import TILE, pitch_of, skew_of, stage_taps, stage_tile
from ..shared.polyphase_sums import distance_of
from ..shared.shared_memory import await_copies, shared_memory_request
from ..shared.tuning_gpu import (
    IS_NVIDIA,
    MULTIPROCESSORS,
    POLYPHASE_NEAR_BLOCKS as BLOCKS,
    POLYPHASE_NEAR_GROUP as GROUP,
    POLYPHASE_NEAR_PERIODS as PERIODS,
    POLYPHASE_NEAR_WARPS as WARPS,
    WARP,
)
from .polyphase_outputs_gpu import sum_again


comptime MOST_TILES = 1 << 30
"""Tiles of a call at most: 32 bits count them, and every so many."""


def launches_near[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    ctx: DeviceContext,
) raises -> Bool:
    """Enqueues the kernel if a call's rates suit it; terms outside x are left out.

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
    comptime if dtype == DType.float32:
        var up = geometry.up
        var down = geometry.down
        if 8 * min(up, down) < 7 * max(up, down):
            return False
        # As many of the shortest periods as there are threads for.
        for times in range(WARPS * GROUP // up, 0, -1):
            var period = times * up
            # Whole vectors of outputs; or an odd number, put in order, of an even number of samples.
            var is_ordered = period % 2 == 1
            var is_served = down % 2 == 0 if is_ordered else period % vector_width[dtype]() == 0
            if is_served and period <= WARPS * group_of(is_ordered):
                return launches_periods(y, x, h, geometry, times, ctx)
    return False


def launches_periods[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    times: Int,
    ctx: DeviceContext,
) raises -> Bool:
    """Enqueues the kernel of the call's kind of periods if the samples fit.

    Parameters:
        dtype: Element type of all three arrays.

    Args:
        y: Outputs on the device.
        x: Signals on the device.
        h: Taps on the device.
        geometry: Sizes, rates and shifts.
        times: Shortest periods of a period.
        ctx: The device and its queue.

    Returns:
        False if nothing was done.

    Raises:
        If the launch is refused.
    """
    var up = geometry.up
    var down = geometry.down
    var period = times * up
    var advance = times * down
    var tiles = ceildiv(geometry.outputs, period * TILE)
    if geometry.outputs < period * TILE // 4 or tiles * geometry.rows >= MOST_TILES:
        return False
    comptime for is_padded in [False, True]:
        comptime for is_ordered in [False, True]:
            comptime for is_faster in [False, True]:
                comptime G = group_of(is_ordered)
                comptime SLOPE = 32 if is_faster else 28
                comptime if is_padded or not is_ordered:
                    if (
                        is_padded == (advance % 2 == 0)
                        and is_ordered == (period % 2 == 1)
                        and is_faster == (down >= up)
                    ):
                        var groups = ceildiv(period, G)
                        var positions = geometry.longest_phase() + ceildiv((G - 1) * down, up)
                        var spread = ceildiv((groups * G - 1) * down, up)
                        var count = (TILE - 1) * advance + spread + positions
                        var room = ceildiv(count, advance) * (advance + Int(is_padded)) + 2 * vector_width[dtype]()
                        room = align_up(max(room, TILE * period), vector_width[dtype]())
                        var taps_bytes = groups * pitch_of[dtype](G) * positions * size_of[accum_dtype[dtype]()]()
                        var bytes = taps_bytes + 2 * room * size_of[dtype]()
                        if positions < 2 * distance_of[SLOPE](G - 1) or bytes > Int(
                            ctx.get_attribute(DeviceAttribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
                        ):
                            return False
                        comptime kernel = compute_near[dtype, is_padded, is_ordered, SLOPE]
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
                            Int32(up),
                            Int32(down),
                            Int32(period),
                            Int32(positions),
                            Int32(count),
                            Int32(room),
                            grid_dim=min(tiles * geometry.rows, MULTIPROCESSORS * BLOCKS),
                            block_dim=groups * WARP,
                            shared_mem_bytes=bytes,
                            func_attribute=shared_memory_request(bytes),
                        )
                        return True
    return False


def group_of(is_ordered: Bool) -> Int:
    """Chooses the outputs of a group.

    Args:
        is_ordered: Whether a period has an odd number of outputs, as the 147 of 147/160: 8 groups of 19.

    Returns:
        How many; whole vectors unless outputs are put in order.
    """
    return GROUP - Int(is_ordered)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(WARPS * WARP)),
    `nvvm.minctasm`=SIMDLength(BLOCKS),
)
def compute_near[
    dtype: DType, is_padded: Bool, is_ordered: Bool, slope: Int
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
    count: Int32,
    room: Int32,
):
    """Kernel: one block computes the periods of one tile, and of every so many further tiles.

    Parameters:
        dtype: Element type of all three arrays.
        is_padded: Whether periods have an even number of samples.
        is_ordered: Whether they have an odd number of outputs.
        slope: As in `distance_of`.

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
        period: Outputs of a period, a multiple of `up`.
        positions: Samples that a group meets.
        count: Samples that a tile meets.
        room: Room for them in shared memory.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime G = group_of(is_ordered)
    comptime TAPS_PITCH = pitch_of[accum_dtype[dtype]()](G)
    comptime VECTORS = ceildiv(G, WIDTH)
    comptime PITCH = (VECTORS + 1 - VECTORS % 2) * WIDTH
    comptime END = distance_of[slope](G - 1)
    var lane = Int32(thread_idx.x) % Int32(WARP)
    var panel = Int32(thread_idx.x) // Int32(WARP)
    var width = Int32(block_dim.x)
    var staged_taps = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES]()
    var window = staged_taps.unsafe_offset(width // Int32(WARP) * positions * Int32(TAPS_PITCH)).unsafe_bitcast[
        Scalar[dtype]
    ]()
    var next = window.unsafe_offset(room)
    var taps_of_group = staged_taps.unsafe_offset(panel * positions * Int32(TAPS_PITCH))

    var place = Int(start) * Int(down)  # on the upsampled grid
    var newest = place // Int(up)
    var phase = Int32(place - newest * Int(up))
    var group = panel * Int32(G)
    var group_newest = (phase + (group + Int32(G - 1)) * down) // up
    # The oldest sample, counted from the window's first, that the first period's group meets, and the newest.
    var last = group_newest + positions - 1
    var advance = period // up * down
    var pitch = advance + Int32(is_padded)
    var oldest = newest - Int(positions) + 1
    var step = UInt32(grid_dim.x)
    stage_tile[is_padded](window, x, Int(samples), Int(x_stride), tiles, UInt32(block_idx.x), oldest, count, advance)
    stage_taps[G](taps_of_group, h, taps, phase, group, up, down, positions, lane)
    for tile in range(UInt32(block_idx.x), all_tiles, step):
        await_copies()
        barrier()
        if all_tiles - tile > step:
            stage_tile[is_padded](next, x, Int(samples), Int(x_stride), tiles, tile + step, oldest, count, advance)
        var row = tile // tiles
        var first_period = Int(tile - row * tiles) * TILE
        var x_row = x.unsafe_offset(Int(row) * Int(x_stride))
        var skew = Int32(0)
        comptime if not is_padded:
            skew = skew_of(x_row, oldest + first_period * Int(advance))
        var sums = Array[Scalar[ACC], G * PERIODS](fill=0)
        var places = Array[Int32, PERIODS](fill=0)
        # So many positions lie in the next period, where the samples of each are set apart.
        var ahead = last - advance + 1
        comptime for k in range(PERIODS):
            places[k] = (Int32(k * WARP) + lane) * pitch + last + skew
            comptime if is_padded:
                places[k] += Int32(ahead >= 0)
        comptime for position in range(END):  # newest samples: not yet for the first outputs
            comptime for output in range(G):
                comptime if distance_of[slope](G - 1 - output) == position and distance_of[slope](
                    G - output
                ) > position:
                    comptime if is_padded:
                        if Int32(position) == ahead:
                            step_back[1](places)
                    add_outputs[output, G, -position](
                        sums, window, places, taps_of_group.unsafe_offset(position * TAPS_PITCH)
                    )
        step_back[END](places)
        var these = taps_of_group.unsafe_offset(END * TAPS_PITCH)
        for position in range(Int32(END), positions - Int32(END)):
            comptime if is_padded:
                if position == ahead:
                    step_back[1](places)
            add_outputs[0, G, 0](sums, window, places, these)
            step_back[1](places)
            these = these.unsafe_offset(TAPS_PITCH)
        comptime for k in range(END):
            comptime position = END - 1 - k
            comptime for output in range(G):  # oldest samples: no more for the last outputs
                comptime if distance_of[slope](output) == position and distance_of[slope](output + 1) > position:
                    comptime if is_padded:
                        if positions - Int32(END) + Int32(k) == ahead:
                            step_back[1](places)
                    add_outputs[0, output + 1, -k](sums, window, places, these.unsafe_offset(k * TAPS_PITCH))
        comptime for place in range(G * PERIODS):
            sums[place] = settled(sums[place])
        barrier()  # outputs take the place of samples
        var i = first_period * Int(period)
        var y_tile = y.unsafe_offset(Int(row) * Int(y_stride) + i)
        var left = Int32(min(Int(outputs) - i, TILE * Int(period)))
        var wanted = period - group
        var is_aligned = (Int(y_tile) | Int(period) * size_of[dtype]()) & (VECTOR_BYTES - 1) == 0
        var spoilt = UInt32(0)
        comptime for k in range(PERIODS):
            var is_spoilt = False
            var turned = window.unsafe_offset(panel * Int32(WARP * PITCH))
            comptime for output in range(0, G, 2):
                comptime other = min(output + 1, G - 1)
                is_spoilt = is_spoilt or has_nan(SIMD[ACC, 2](sums[output * PERIODS + k], sums[other * PERIODS + k]))
            comptime if is_ordered:
                var to = window.unsafe_offset((Int32(k * WARP) + lane) * period + group)
                if wanted >= Int32(G):
                    comptime for each in range(G):
                        to[unsafe_offset=each] = sums[each * PERIODS + k].cast[dtype]()
                else:
                    comptime for each in range(G):
                        if Int32(each) < wanted:
                            to[unsafe_offset=each] = sums[each * PERIODS + k].cast[dtype]()
            else:
                comptime for vector in range(VECTORS):
                    var values = SIMD[dtype, WIDTH](0)
                    comptime for each in range(WIDTH):
                        values[each] = sums[(vector * WIDTH + each) * PERIODS + k].cast[dtype]()
                    turned.unsafe_store[alignment=VECTOR_BYTES](lane * Int32(PITCH) + Int32(vector * WIDTH), values)
                syncwarp()
                var y_here = y_tile.unsafe_offset(Int32(k * WARP) * period + group)
                if is_aligned and wanted >= Int32(G) and left == Int32(TILE) * period:
                    comptime for turn in range(VECTORS):
                        var vector = UInt32(turn * WARP) + UInt32(lane)
                        var of_period = vector // UInt32(VECTORS)
                        var output = vector % UInt32(VECTORS) * UInt32(WIDTH)
                        var values = turned.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](
                            of_period * UInt32(PITCH) + output
                        )
                        y_here.unsafe_store[alignment=VECTOR_BYTES](of_period * UInt32(period) + output, values)
                else:
                    for each in range(lane, Int32(WARP * G), Int32(WARP)):
                        var of_period = each // Int32(G)
                        var output = each % Int32(G)
                        var at = of_period * period + output
                        if output < wanted and Int32(k * WARP) * period + group + at < left:
                            y_here[unsafe_offset=at] = turned[unsafe_offset=of_period * Int32(PITCH) + output]
                syncwarp()
            spoilt |= UInt32(is_spoilt) << UInt32(k)
        while spoilt != 0:
            var of_period = (Int32(count_trailing_zeros(spoilt)) * Int32(WARP) + lane) * period
            spoilt &= spoilt - 1
            for at in range(of_period + group, of_period + min(group + Int32(G), period)):
                if at < left:
                    var value = sum_again(
                        x_row, h, Int(samples), Int(taps), Int(up), Int(down), Int(start) + i + Int(at)
                    )
                    comptime if is_ordered:
                        window[unsafe_offset=at] = value
                    else:
                        y_tile[unsafe_offset=at] = value
        comptime if is_ordered:
            barrier()
            var done = Int32(0)
            if Int(y_tile) & (VECTOR_BYTES - 1) == 0:
                done = left & ~Int32(WIDTH - 1)
                for at in range(Int32(thread_idx.x) * Int32(WIDTH), done, width * Int32(WIDTH)):
                    var values = window.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](at)
                    y_tile.unsafe_store[alignment=VECTOR_BYTES](at, values)
            for at in range(done + Int32(thread_idx.x), left, width):
                y_tile[unsafe_offset=at] = window[unsafe_offset=at]
        var other = window
        window = next
        next = other


@always_inline
def settled[dtype: DType, //](value: Scalar[dtype]) -> Scalar[dtype]:
    """Has a sum computed here. The compiler would add where outputs are stored, and spill samples and taps until then.

    Parameters:
        dtype: Accumulation type.

    Args:
        value: The sum.

    Returns:
        The same.
    """
    comptime if IS_NVIDIA and dtype == DType.float32:
        return inlined_assembly["mov.b32 $0, $1;", Scalar[dtype], constraints="=f,f", has_side_effect=True](value)
    return value


@always_inline
def step_back[by: Int](mut places: Array[Int32, PERIODS]):
    """Goes on to older samples.

    Parameters:
        by: How many.

    Args:
        places: A place in the window for each period.
    """
    comptime for k in range(PERIODS):
        places[k] -= Int32(by)


@always_inline
def add_outputs[
    dtype: DType, acc: DType, outputs: Int, //, first: Int, end: Int, offset: Int
](
    mut sums: Array[Scalar[acc], outputs],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    places: Array[Int32, PERIODS],
    taps: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
):
    """Adds one sample of each period, times the taps of some of the group's outputs.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        outputs: Outputs of a thread.
        first: The first of these outputs.
        end: The output behind the last.
        offset: From `places` to the samples.

    Args:
        sums: For each output of the group, the sums of its periods.
        samples: The window.
        places: A place in it for each period.
        taps: One tap for each output.
    """
    comptime WIDTH = vector_width[acc]()
    var some = Array[Scalar[acc], PERIODS](fill=0)
    comptime for k in range(PERIODS):
        some[k] = samples.unsafe_offset(places[k]).unsafe_offset(offset)[].cast[acc]()
    comptime for vector in range(first // WIDTH, (end + WIDTH - 1) // WIDTH):
        var these = taps.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](vector * WIDTH)
        comptime for each in range(WIDTH):
            comptime output = vector * WIDTH + each
            comptime if first <= output and output < end:
                comptime for k in range(PERIODS):
                    comptime place = output * PERIODS + k
                    sums[place] = multiply_add(some[k], these[each], sums[place])
