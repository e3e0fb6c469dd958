"""Polyphase FIR on GPU at small rates, known when compiled: samples and sums in registers, each read serves several.

Computes:   what polyphase_gpu.mojo does, terms outside x left out.
Algorithm:  a period of `up` outputs meets the samples of the period before, `down` further on. A thread has `periods`
            neighbouring periods and holds the samples of two runs, its own and the one before: a tap that is read
            serves all its periods, and a sample all outputs that meet it. Then the run before that takes the place of
            the newer one, until the taps end. Taps stand in shared memory in the order of use, behind zeros where an
            output meets a sample later than its neighbours, and as many more as let the samples begin with a vector.
            Outputs leave by vectors, turned in shared memory within a warp.
            Where a window is small, each warp has its own and is streamed: it takes every so many tiles, and the samples
            of the next one come while it adds. Else a block stages one tile, whose samples then need not fit twice.
            At 1/8 two threads share their outputs, each with half of every 8 samples: reads serve twice as many.
Cost:       2*L_out*ceil(K/up) flop a row, and (N + L_out)*size bytes of device memory. Zero taps fill whole parts of
            runs: at 20*max(up, down) + 1 taps 24 multiply-adds for 20.5 (2/1), 48 for 41 (1/2), 24 for 20.3 (3/2). A
            turn reads `periods`*(up + down) words for periods^2*up*down multiply-adds.
Layout:     as in polyphase_gpu.mojo.
Tile:       a run for each thread of a warp, or block, and as many before them as the taps span; at most
            SHARED_BYTES.
Accuracy:   sums in accumulate.accum_dtype, taps in rising q, those of threads that share outputs added at the end;
            outputs that are NaN are summed again without the zeros.
Gate:       up and down in RATES, relatively prime; taps that fit.
Tuning:     POLYPHASE_WINDOW_* of shared/tuning_gpu.mojo.
Measured:   variants of RATES on an H200 (2026-11-23), in copies of the bytes of a call at 20*max(up, down) + 1 taps, of
            512 MB, and of 256 MB: float32 2/1 1.14 1.15, 3/1 1.15 1.17, 4/1 1.18 1.19, 8/1 1.30 1.32, 1/2 1.26 1.29,
            1/3 1.36 1.40, 1/4 1.24 1.24, 3/2 1.15 1.18, 2/3 1.18 1.22, 4/3 1.23 1.24, 3/4 1.20 1.25. Not streamed: 2/1
            1.29, 4/1 1.48, 1/2 1.42, 1/3 1.51, 3/2 1.24, 2/3 1.35, 4/3 1.44, 3/4 1.33; 1/8 1.37 1.41 (of 512 MB
            1.49 where no threads share outputs). float64, 512 MB, 2/1 1.09, 1/2 1.10, 3/2 1.12, 4/1 1.04, 1/4
            1.27, 8/1 1.14, 1/8 1.42. By the profiler, of what is not streamed: at 4/1 warps issue in 60 % of the
            cycles; at 1/8, no outputs shared, shared memory is read in 91 %.
Tried:      samples by plain vectors, as GPUs before Ampere need them: 4 to 9 % slower, not streamed (built for sm_75).
            float64 with 16 periods a thread: 2.66 at 2/1, its registers spill; streamed: 1.17 at 2/1. A warp for a
            tile, not streamed, and neighbouring tiles for a warp, of which the last samples are kept for the next:
            slower, or as fast.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceAttribute, DeviceContext
from max.gpu.memory import external_memory
from max.gpu.primitives import warp
from max.gpu.sync import barrier, syncwarp

from ..shared.accumulate import accum_dtype, has_nan, multiply_add
from ..shared.aligned_row import VECTOR_BYTES, vector_width
from ..shared.polyphase_geometry import PolyphaseGeometry
from ..shared.shared_memory import STATIC_SHARED_BYTES, await_copies, begin_copy, shared_memory_request
from ..shared.tuning_gpu import (
    MULTIPROCESSORS,
    POLYPHASE_WINDOW_RATES as RATES,
    POLYPHASE_WINDOW_SHARED_BYTES as SHARED_BYTES,
    POLYPHASE_WINDOW_THREADS as THREADS,
    WARP,
    PolyphaseRate as Rate,
)
from .polyphase_outputs_gpu import sum_again

comptime MOST_TAPS = 1 << 24
"""Taps that 32 bits count within a block."""

comptime MOST_BLOCKS = 1 << 30
"""Blocks of a launch."""


def pitch_of[dtype: DType](count: Int, split: Int = 1) -> Int:
    """Chooses how far apart the runs of neighbouring threads are, so that their vectors share no bank.

    Parameters:
        dtype: Element type.

    Args:
        count: Elements of a run, whole vectors.
        split: Neighbouring threads that share a run, 1 or 2.

    Returns:
        An odd multiple of `split` vectors.
    """
    comptime WIDTH = vector_width[dtype]()
    var vectors = ceildiv(count // WIDTH, split)
    return (vectors + 1 - vectors % 2) * split * WIDTH


def launches_window[
    dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    ctx: DeviceContext,
) raises -> Bool:
    """Enqueues the kernel of a call's rates if there is one; terms outside x are left out.

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
    if geometry.taps >= MOST_TAPS:
        return False
    comptime if size_of[dtype]() >= 4:  # narrower copies to shared memory would need registers
        comptime for rates in RATES:
            comptime rate = rates[1] if size_of[dtype]() > 4 else rates[0]
            if geometry.up == rate.up and geometry.down == rate.down:
                comptime if rate.is_streamed:
                    if launches_rate[rate](y, x, h, geometry, ctx):
                        return True
                return launches_rate[rate.once()](y, x, h, geometry, ctx)
    return False


def launches_rate[
    dtype: DType, //, rate: Rate
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: PolyphaseGeometry,
    ctx: DeviceContext,
) raises -> Bool:
    """Enqueues the kernel of one rate if the taps fit.

    Parameters:
        dtype: Element type of all three arrays.
        rate: The rates of the call.

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
    comptime WIDTH = vector_width[dtype]()
    comptime PARTS = rate.parts
    comptime RUN = rate.periods * rate.down
    comptime OUTPUTS = rate.periods * rate.up
    comptime TEAMS = THREADS // rate.team()
    comptime RUNS = rate.team() // rate.split
    comptime WINDOWS = TEAMS * (2 if rate.is_streamed else 1)
    # The period of the first output: the sample from which its last output goes back.
    var newest = geometry.newest_sample(geometry.start + rate.up - 1)
    var end = newest + 1 - rate.down
    var skew = step_of[dtype](rate) - 1
    if geometry.rows == 1 or geometry.x_stride % WIDTH == 0:
        skew = skew_of[step_of[dtype](rate)](x, end)
    var wait = newest - geometry.newest_sample(geometry.start)
    var parts = ceildiv(geometry.longest_phase() + wait + skew, RUN // PARTS)
    var turns = ceildiv(parts, PARTS)
    var tiles = ceildiv(geometry.outputs, RUNS * OUTPUTS)
    var blocks = ceildiv(tiles, TEAMS)
    comptime if rate.is_streamed:
        blocks = min(blocks, ceildiv(rate.waves * rate.blocks * MULTIPROCESSORS, geometry.rows))
    var bytes = turns * RUN * rate.up * size_of[accum_dtype[dtype]()]()
    bytes += WINDOWS * (turns + RUNS) * comptime (pitch_of[dtype](RUN, rate.split) * size_of[dtype]())
    bytes += TEAMS * RUNS * comptime (pitch_of[dtype](OUTPUTS) * size_of[dtype]())
    if bytes > SHARED_BYTES or blocks * geometry.rows > MOST_BLOCKS:
        return False
    if bytes > STATIC_SHARED_BYTES and bytes > Int(
        ctx.get_attribute(DeviceAttribute.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)
    ):
        return False
    comptime kernel = compute_window[dtype, rate]
    ctx.enqueue_function[kernel](
        y,
        x,
        h,
        Int64(geometry.samples),
        Int64(geometry.outputs),
        Int64(geometry.start),
        Int64(end),
        Int64(geometry.x_stride),
        Int64(geometry.y_stride),
        UInt32(blocks),
        UInt32(tiles),
        Int32(geometry.taps),
        Int32(parts),
        grid_dim=blocks * geometry.rows,
        block_dim=THREADS,
        shared_mem_bytes=bytes,
        func_attribute=shared_memory_request(bytes),
    )
    return True


def step_of[dtype: DType](rate: Rate) -> Int:
    """Chooses how many samples are staged at a time.

    Parameters:
        dtype: Element type.

    Args:
        rate: The rates.

    Returns:
        A vector; 1 where samples are so few that this costs less than the zero taps before an aligned vector.
    """
    return 1 if rate.is_streamed and rate.up > rate.down else vector_width[dtype]()


@always_inline
def skew_of[dtype: DType, //, step: Int](x: Pointer[Scalar[dtype], MutAnyOrigin], end: Int) -> Int:
    """Measures how many samples lie before the next boundary of a vector.

    Parameters:
        dtype: Element type.
        step: Elements of a vector.

    Args:
        x: A signal.
        end: Index of a sample; any integer.

    Returns:
        Samples, fewer than a vector has.
    """
    return -(Int(x) // size_of[dtype]() + end) & (step - 1)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.minctasm`=SIMDLength(rate.blocks),
)
def compute_window[
    dtype: DType, rate: Rate
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    h: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int64,
    outputs: Int64,
    start: Int64,
    end: Int64,
    x_stride: Int64,
    y_stride: Int64,
    blocks: UInt32,
    tiles: UInt32,
    taps: Int32,
    parts: Int32,
):
    """Kernel: each thread computes the outputs of neighbouring periods.

    Parameters:
        dtype: Element type of all three arrays.
        rate: The rates, and how many periods.

    Args:
        y: Outputs.
        x: Signals.
        h: Taps.
        samples: N.
        outputs: L_out.
        start: First output on the output grid.
        end: The sample behind those that only the first period before the first of y meets.
        x_stride: From one signal to the next.
        y_stride: From one row of outputs to the next.
        blocks: Blocks of a row.
        tiles: Tiles of a row.
        taps: K.
        parts: Parts of runs that the taps of an output span.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime UP = rate.up
    comptime DOWN = rate.down
    comptime RUN = rate.periods * DOWN
    comptime RUN_PITCH = pitch_of[dtype](RUN, rate.split)
    comptime OUTPUTS = rate.periods * UP
    comptime OUTPUTS_PITCH = pitch_of[dtype](OUTPUTS)
    comptime WIDTH = vector_width[dtype]()
    comptime PARTS = rate.parts
    comptime TEAM = rate.team()
    comptime TEAMS = THREADS // TEAM
    comptime SPLIT = rate.split
    comptime RUNS = TEAM // SPLIT
    comptime WARP_OUTPUTS = WARP // SPLIT * OUTPUTS
    comptime STEP = step_of[dtype](rate)
    comptime WINDOWS = 2 if rate.is_streamed else 1
    var turns = (parts + Int32(PARTS - 1)) // Int32(PARTS)
    var thread = Int32(thread_idx.x)
    var lane = thread % Int32(WARP)
    var team = thread // Int32(TEAM)
    var member = thread % Int32(TEAM)
    var row = UInt32(block_idx.x) // blocks
    var tile = (UInt32(block_idx.x) - row * blocks) * UInt32(TEAMS) + UInt32(team)
    var step = blocks * UInt32(TEAMS)
    var x_row = x.unsafe_offset(Int(row) * Int(x_stride))
    var staged_taps = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES]()
    var windows = staged_taps.unsafe_offset(turns * Int32(RUN * UP)).unsafe_bitcast[Scalar[dtype]]()
    var room = (turns + Int32(RUNS)) * Int32(RUN_PITCH)
    var window = windows.unsafe_offset(team * Int32(WINDOWS) * room)
    var next = window.unsafe_offset(room)
    var turned = windows.unsafe_offset(Int32(TEAMS * WINDOWS) * room)

    var skew = skew_of[STEP](x_row, Int(end))
    var begin = Int(end) + skew + Int(tile) * RUNS * RUN
    if tile < tiles:
        stage_runs[rate](window, x_row, Int(samples), begin - Int(turns) * RUN, turns + Int32(RUNS))
    var rest = Int32(start % Int64(UP))  # the first phase of the first period is this times DOWN
    var newest = (rest + Int32(UP - 1)) * Int32(DOWN) // Int32(UP)
    for place in range(thread, turns * Int32(RUN * UP), Int32(THREADS)):
        var output = rest + place % Int32(UP)
        var own_newest = output * Int32(DOWN) // Int32(UP)
        var q = place // Int32(UP) - Int32(skew) - (newest - own_newest)
        var tap = output * Int32(DOWN) - own_newest * Int32(UP) + q * Int32(UP)
        var is_there = q >= 0 and tap < taps
        staged_taps[unsafe_offset=place] = h[unsafe_offset=tap].cast[ACC]() if is_there else 0
    await_copies()
    barrier()

    var is_first = True
    while tile < tiles:
        comptime if rate.is_streamed:
            if not is_first:
                await_copies()
                syncwarp()
            is_first = False
            if tiles - tile > step:
                begin += Int(step) * (RUNS * RUN)
                stage_runs[rate](next, x_row, Int(samples), begin - Int(turns) * RUN, turns + Int32(RUNS))
        var first = (Int(tile) * RUNS + Int(member - lane) // SPLIT) * OUTPUTS
        var wanted = Int32(min(Int(outputs) - first, WARP_OUTPUTS))
        if wanted <= 0:
            return
        var sums = Array[Scalar[ACC], OUTPUTS](fill=0)
        var known = Array[Scalar[ACC], 2 * RUN // SPLIT](fill=0)
        var run = window.unsafe_offset((member // Int32(SPLIT) + turns) * Int32(RUN_PITCH))
        var these = staged_taps
        comptime if SPLIT > 1:
            run = run.unsafe_offset(member % Int32(SPLIT) * Int32(DOWN // SPLIT))
            these = these.unsafe_offset((Int32(SPLIT - 1) - member % Int32(SPLIT)) * Int32(DOWN // SPLIT * UP))
        load_run[rate](known, run)
        var left = parts
        while left > 0:
            comptime for place in range(RUN // SPLIT):
                known[RUN // SPLIT + place] = known[place]
            run = run.unsafe_offset(-RUN_PITCH)
            load_run[rate](known, run)
            add_part[rate, 0](sums, known, these)
            comptime for part in range(1, PARTS):
                if left > Int32(part):
                    add_part[rate, part](sums, known, these)
            these = these.unsafe_offset(RUN * UP)
            left -= Int32(PARTS)

        comptime if SPLIT > 1:
            comptime for place in range(OUTPUTS):
                sums[place] += warp.shuffle_xor(sums[place], UInt32(1))
        var mine = turned.unsafe_offset(thread // Int32(SPLIT) * Int32(OUTPUTS_PITCH))
        var is_spoilt = False
        comptime for vector in range(OUTPUTS // WIDTH):
            var values = SIMD[dtype, WIDTH](0)
            comptime for each in range(WIDTH):
                values[each] = sums[vector * WIDTH + each].cast[dtype]()
            comptime if dtype.is_floating_point():
                is_spoilt = is_spoilt or has_nan(values)
            if lane % Int32(SPLIT) == 0:
                mine.unsafe_store[alignment=VECTOR_BYTES](vector * WIDTH, values)
        if is_spoilt and lane % Int32(SPLIT) == 0:
            for place in range(OUTPUTS):
                var m = Int(start) + first + Int(lane) // SPLIT * OUTPUTS + place
                mine[unsafe_offset=place] = sum_again(x_row, h, Int(samples), Int(taps), UP, DOWN, m)
        syncwarp()
        # Neighbouring lanes store neighbouring outputs.
        var of_warp = turned.unsafe_offset((thread - lane) // Int32(SPLIT) * Int32(OUTPUTS_PITCH))
        var y_here = y.unsafe_offset(Int(row) * Int(y_stride) + first)
        if wanted == Int32(WARP_OUTPUTS) and Int(y_here) & (VECTOR_BYTES - 1) == 0:
            var y_mine = y_here.unsafe_offset(lane * Int32(WIDTH))
            var begins = UInt32(lane) * UInt32(WIDTH)
            comptime for vector in range(WARP_OUTPUTS // (WARP * WIDTH)):
                var place = begins + UInt32(vector * WARP * WIDTH)
                var there = place // UInt32(OUTPUTS) * UInt32(OUTPUTS_PITCH) + place % UInt32(OUTPUTS)
                comptime if WARP * WIDTH % OUTPUTS == 0:  # all vectors of a lane have the same place in their runs
                    there = begins // UInt32(OUTPUTS) * UInt32(OUTPUTS_PITCH) + begins % UInt32(OUTPUTS)
                    there += UInt32(vector * (WARP * WIDTH // OUTPUTS) * OUTPUTS_PITCH)
                var values = of_warp.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](there)
                y_mine.unsafe_store[alignment=VECTOR_BYTES](vector * WARP * WIDTH, values)
        else:
            for place in range(lane, wanted, Int32(WARP)):
                var there = place // Int32(OUTPUTS) * Int32(OUTPUTS_PITCH) + place % Int32(OUTPUTS)
                y_here[unsafe_offset=place] = of_warp[unsafe_offset=there]
        comptime if rate.is_streamed:
            var other = window
            window = next
            next = other
            tile += step
        else:
            return


@always_inline
def stage_runs[
    dtype: DType, //, rate: Rate
](
    window: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    begin: Int,
    runs: Int32,
):
    """Begins to copy the samples of a team to shared memory; `await_copies` waits for them.

    Parameters:
        dtype: Element type.
        rate: The rates.

    Args:
        window: Room for the runs, `pitch_of` elements each.
        x: The row's signal.
        samples: N.
        begin: The first sample, where a vector begins; outside of x zeros are staged.
        runs: How many runs, at least those of the team.
    """
    comptime RUN = rate.periods * rate.down
    comptime TEAM = rate.team()
    comptime STEP = step_of[dtype](rate)
    comptime PITCH = pitch_of[dtype](RUN, rate.split)
    comptime STRIDE = TEAM * STEP
    var count = UInt32(runs) * UInt32(RUN)
    var member = UInt32(thread_idx.x) % UInt32(TEAM)
    if begin >= 0 and begin + Int(count) <= samples:
        var place = member * UInt32(STEP)
        var first = x.unsafe_offset(begin + Int(place))
        comptime if STRIDE % RUN == 0:  # a thread's vectors have the same place in their runs
            var there = window.unsafe_offset(place // UInt32(RUN) * UInt32(PITCH) + place % UInt32(RUN))
            comptime for turn in range(RUN // STEP // rate.split):
                comptime DISTANCE = turn * (STRIDE // RUN) * PITCH
                begin_copy[STEP](there.unsafe_offset(DISTANCE), first.unsafe_offset(turn * STRIDE))
            place += UInt32(RUN * TEAM // rate.split)
        while place < count:
            var there = window.unsafe_offset(place // UInt32(RUN) * UInt32(PITCH) + place % UInt32(RUN))
            begin_copy[STEP](there, first.unsafe_offset(place - member * UInt32(STEP)))
            place += UInt32(STRIDE)
    else:
        for place in range(member, count, UInt32(TEAM)):
            var position = begin + Int(place)
            var is_there = 0 <= position and position < samples
            var there = place // UInt32(RUN) * UInt32(PITCH) + place % UInt32(RUN)
            if is_there:  # not waited for one by one: the last tile would end 8 us later
                begin_copy[1](window.unsafe_offset(there), x.unsafe_offset(position))
            else:
                window[unsafe_offset=there] = 0


@always_inline
def load_run[
    dtype: DType, acc: DType, places: Int, //, rate: Rate
](
    mut known: Array[Scalar[acc], places],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
):
    """Reads a thread's part of a run of samples into the first places of an array.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        places: Length of the array.
        rate: The rates.

    Args:
        known: The array.
        samples: The part of the run.
    """
    comptime WIDTH = vector_width[dtype]()
    comptime OWN = rate.down // rate.split
    comptime for place in range(0, places // 2, WIDTH):
        comptime there = place // OWN * rate.down + place % OWN
        var some = samples.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](there)
        comptime for each in range(WIDTH):
            known[place + each] = some[each].cast[acc]()


@always_inline
def add_part[
    acc: DType, outputs: Int, places: Int, //, rate: Rate, part: Int
](
    mut sums: Array[Scalar[acc], outputs],
    known: Array[Scalar[acc], places],
    taps: Pointer[mut=True, Scalar[acc], _, address_space=AddressSpace.SHARED],
):
    """Adds the terms of as many positions as a part of a run has samples, from the newest down.

    Parameters:
        acc: Accumulation type.
        outputs: Outputs of a thread.
        places: Samples of two runs.
        rate: The rates.
        part: Which part.

    Args:
        sums: The sums, neighbouring outputs side by side.
        known: The samples of two runs, the older first.
        taps: For each position of the run those of a period's outputs.
    """
    comptime RUN = places // 2
    comptime WIDTH = vector_width[acc]()
    comptime OWN = rate.down // rate.split
    comptime VECTORS = RUN * rate.up // WIDTH // rate.parts
    comptime for vector in range(part * VECTORS, (part + 1) * VECTORS):
        comptime there = vector * WIDTH // (OWN * rate.up) * rate.down * rate.up + vector * WIDTH % (OWN * rate.up)
        var some = taps.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](there)
        comptime for each in range(WIDTH):
            comptime position = (vector * WIDTH + each) // rate.up
            comptime output = (vector * WIDTH + each) % rate.up
            # The first period's sample; each further period meets one `down` later.
            comptime first = RUN + OWN - 1 - position
            comptime for period in range(rate.periods):
                comptime place = period * rate.up + output
                sums[place] = multiply_add(known[first + period * OWN], some[each], sums[place])
