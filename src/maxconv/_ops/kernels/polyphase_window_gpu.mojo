"""Polyphase FIR on GPU at small rates, known when compiled: samples and sums in registers, each read serves several.

Computes:   what polyphase_gpu.mojo does, terms outside x left out.
Algorithm:  a period of `up` outputs meets the samples of the period before, `down` further on. A thread has `periods`
            neighbouring periods and holds the samples of two runs, its own and the one before: a tap that is read
            serves all its periods, and a sample all outputs that meet it. Then the run before that takes the place of
            the newer one, until the taps end. Samples come to shared memory by vectors; taps
            stand there in the order of use, behind zeros where an output meets a sample later than its neighbours, and
            as many more as let the samples begin with a vector. Outputs leave by vectors, turned in shared memory
            within a warp.
Cost:       2*L_out*ceil(K/up) flop a row, and (N + L_out)*size bytes of device memory. Zero taps fill whole runs: at
            20*max(up, down) + 1 taps 24 multiply-adds for 20.5 (2/1), 48 for 41 (1/2), 24 for 20.3 (3/2). A turn reads
            `periods`*(up + down) words for periods^2*up*down multiply-adds.
Layout:     as in polyphase_gpu.mojo.
Tile:       up to MOST_THREADS runs of a row, and as many before them as the taps span; at most SHARED_BYTES.
Accuracy:   sums in accumulate.accum_dtype, taps in rising q; outputs that are NaN are summed again without the zeros.
Gate:       up and down in RATES, relatively prime; taps that fit.
Tuning:     RATES, MOST_THREADS.
Measured:   the table RATES on an H200 (2026-11-23), in copies of the bytes of a call at 20*max(up, down) + 1 taps, when
            samples were staged by cp.async, which GPUs before Ampere lack: float32 2/1 1.29, 1/2 1.30, 3/2 1.24, 1/4
            1.29, 4/1 1.48, 1/8 1.45, 8/1 1.43; 64 taps at 1/1 1.83; float64 2/1 1.10, 1/2 1.11, 3/2 1.14, 1/4 1.28,
            4/1 1.07, 1/8 1.43, 8/1 1.17. Panels of polyphase_gpu.mojo took 2.5 to 4.2 for the same.
Tried:      blocks that stay and load the next tile while they add: 1.42 instead of 1.54 at 1/2, slower at 2/1. float64
            with 16 periods a thread: 2.66 at 2/1, its registers spill.
"""

from std.math import ceildiv
from std.sys.info import size_of
from std.utils.numerics import isnan
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.memory import external_memory
from max.gpu.sync import barrier, syncwarp

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES, vector_width
from ..shared.polyphase_geometry import PolyphaseGeometry
from ..shared.shared_memory import STATIC_SHARED_BYTES, await_copies, begin_copy
from .polyphase_outputs_gpu import WARP, sum_again

comptime THREADS = 128
"""Threads of a block."""

comptime PARTS = 2
"""Parts of a run, after each of which the taps may end: fewer zero taps."""

comptime MOST_TAPS = 1 << 24
"""Taps that 32 bits count within a block."""

comptime MOST_BLOCKS = 1 << 30
"""Blocks of a launch."""


@fieldwise_init
struct Rate(TrivialRegisterPassable):
    """Rates that have a kernel of their own."""

    var up: Int
    """Rate of the inserted zeros."""
    var down: Int
    """Rate of the outputs."""
    var periods: Int
    """Periods of a thread: `periods` times either rate is a number of whole vectors, and of PARTS."""
    var blocks: Int
    """Blocks of a multiprocessor that registers must be enough for."""


comptime RATES = [
    (Rate(1, 1, 16, 6), Rate(1, 1, 16, 3)),
    (Rate(1, 2, 16, 5), Rate(1, 2, 8, 3)),
    (Rate(1, 3, 8, 5), Rate(1, 3, 8, 2)),
    (Rate(1, 4, 8, 5), Rate(1, 4, 8, 3)),
    (Rate(1, 8, 4, 6), Rate(1, 8, 4, 2)),
    (Rate(2, 1, 16, 6), Rate(2, 1, 8, 3)),
    (Rate(2, 3, 8, 4), Rate(2, 3, 8, 2)),
    (Rate(3, 1, 8, 6), Rate(3, 1, 8, 2)),
    (Rate(3, 2, 8, 6), Rate(3, 2, 8, 2)),
    (Rate(3, 4, 4, 5), Rate(3, 4, 4, 2)),
    (Rate(4, 1, 8, 6), Rate(4, 1, 8, 2)),
    (Rate(4, 3, 4, 5), Rate(4, 3, 4, 2)),
    (Rate(8, 1, 4, 8), Rate(8, 1, 4, 2)),
]
"""The rates of most calls, for elements of 4 bytes and of 8."""


def pitch_of[dtype: DType](count: Int) -> Int:
    """Chooses how far apart the runs of neighbouring threads are, so that their vectors share no bank.

    Parameters:
        dtype: Element type.

    Args:
        count: Elements of a run, whole vectors.

    Returns:
        An odd number of vectors.
    """
    comptime WIDTH = vector_width[dtype]()
    return count if count // WIDTH % 2 == 1 else count + WIDTH


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
                return launches_rate[rate](y, x, h, geometry, ctx)
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
    comptime RUN = rate.periods * rate.down
    comptime OUTPUTS = rate.periods * rate.up
    # The period of the first output: the sample from which its last output goes back.
    var newest = geometry.newest_sample(geometry.start + rate.up - 1)
    var end = newest + 1 - rate.down
    var skew = WIDTH - 1
    if geometry.rows == 1 or geometry.x_stride % WIDTH == 0:
        skew = skew_of(x, end)
    var wait = newest - geometry.newest_sample(geometry.start)
    var parts = ceildiv(geometry.longest_phase() + wait + skew, RUN // PARTS)
    var turns = ceildiv(parts, PARTS)
    var tiles = ceildiv(geometry.outputs, THREADS * OUTPUTS)
    var bytes = turns * RUN * rate.up * size_of[accum_dtype[dtype]()]()
    bytes += (turns + THREADS) * comptime (pitch_of[dtype](RUN) * size_of[dtype]())
    bytes += THREADS * comptime (pitch_of[dtype](OUTPUTS) * size_of[dtype]())
    if bytes > STATIC_SHARED_BYTES or tiles * geometry.rows > MOST_BLOCKS:
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
        UInt32(tiles),
        Int32(geometry.taps),
        Int32(parts),
        grid_dim=tiles * geometry.rows,
        block_dim=THREADS,
        shared_mem_bytes=bytes,
    )
    return True


@always_inline
def skew_of[dtype: DType](x: Pointer[Scalar[dtype], MutAnyOrigin], end: Int) -> Int:
    """Measures how many samples lie before the next boundary of a vector.

    Parameters:
        dtype: Element type.

    Args:
        x: A signal.
        end: Index of a sample; any integer.

    Returns:
        Samples, fewer than a vector has.
    """
    return -(Int(x) // size_of[dtype]() + end) & (vector_width[dtype]() - 1)


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
        tiles: Tiles of a row.
        taps: K.
        parts: Parts of runs that the taps of an output span.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime UP = rate.up
    comptime DOWN = rate.down
    comptime RUN = rate.periods * DOWN
    comptime RUN_PITCH = pitch_of[dtype](RUN)
    comptime OUTPUTS = rate.periods * UP
    comptime OUTPUTS_PITCH = pitch_of[dtype](OUTPUTS)
    comptime WIDTH = vector_width[dtype]()
    var turns = (parts + Int32(PARTS - 1)) // Int32(PARTS)
    var thread = Int32(thread_idx.x)
    var row = UInt32(block_idx.x) // tiles
    var tile = Int(UInt32(block_idx.x) - row * tiles)
    var x_row = x.unsafe_offset(Int(row) * Int(x_stride))
    var staged_taps = external_memory[Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES]()
    var window = staged_taps.unsafe_offset(turns * Int32(RUN * UP)).unsafe_bitcast[Scalar[dtype]]()
    var turned = window.unsafe_offset((turns + Int32(THREADS)) * Int32(RUN_PITCH))

    var skew = skew_of(x_row, Int(end))
    var begin = Int(end) + skew + (tile * THREADS - Int(turns)) * RUN
    stage_runs[RUN](window, x_row, Int(samples), begin, turns)
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

    var lane = thread % Int32(WARP)
    var first = (tile * THREADS + Int(thread - lane)) * OUTPUTS
    var wanted = Int32(min(Int(outputs) - first, WARP * OUTPUTS))
    if wanted <= 0:
        return
    var sums = Array[Scalar[ACC], OUTPUTS](fill=0)
    var known = Array[Scalar[ACC], 2 * RUN](fill=0)
    var run = window.unsafe_offset((thread + turns) * Int32(RUN_PITCH))
    load_run[RUN](known, run)
    var these = staged_taps
    var left = parts
    while left > 0:
        comptime for place in range(RUN):
            known[RUN + place] = known[place]
        run = run.unsafe_offset(-RUN_PITCH)
        load_run[RUN](known, run)
        add_part[rate, 0](sums, known, these)
        comptime for part in range(1, PARTS):
            if left > Int32(part):
                add_part[rate, part](sums, known, these)
        these = these.unsafe_offset(RUN * UP)
        left -= Int32(PARTS)

    var mine = turned.unsafe_offset(thread * Int32(OUTPUTS_PITCH))
    var is_spoilt = False
    comptime for vector in range(OUTPUTS // WIDTH):
        var values = SIMD[dtype, WIDTH](0)
        comptime for each in range(WIDTH):
            values[each] = sums[vector * WIDTH + each].cast[dtype]()
        comptime if dtype.is_floating_point():
            is_spoilt = is_spoilt or isnan(values).reduce_or()
        mine.unsafe_store[alignment=VECTOR_BYTES](vector * WIDTH, values)
    if is_spoilt:
        for place in range(OUTPUTS):
            var m = Int(start) + (tile * THREADS + Int(thread)) * OUTPUTS + place
            mine[unsafe_offset=place] = sum_again(x_row, h, Int(samples), Int(taps), UP, DOWN, m)
    syncwarp()
    # Neighbouring lanes store neighbouring outputs.
    var of_warp = turned.unsafe_offset((thread - lane) * Int32(OUTPUTS_PITCH))
    var y_here = y.unsafe_offset(Int(row) * Int(y_stride) + first)
    if wanted == Int32(WARP * OUTPUTS) and Int(y_here) & (VECTOR_BYTES - 1) == 0:
        comptime for vector in range(OUTPUTS // WIDTH):
            var place = (Int32(vector * WARP) + lane) * Int32(WIDTH)
            var values = of_warp.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](
                place // Int32(OUTPUTS) * Int32(OUTPUTS_PITCH) + place % Int32(OUTPUTS)
            )
            y_here.unsafe_store[alignment=VECTOR_BYTES](place, values)
    else:
        for place in range(lane, wanted, Int32(WARP)):
            var there = place // Int32(OUTPUTS) * Int32(OUTPUTS_PITCH) + place % Int32(OUTPUTS)
            y_here[unsafe_offset=place] = of_warp[unsafe_offset=there]


@always_inline
def stage_runs[
    dtype: DType, //, run: Int
](
    window: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Int,
    begin: Int,
    turns: Int32,
):
    """Begins to copy the samples of a tile to shared memory; `await_copies` waits for them.

    Parameters:
        dtype: Element type.
        run: Samples of a run.

    Args:
        window: Room for the runs, `pitch_of` elements each.
        x: The row's signal.
        samples: N.
        begin: The first sample, where a vector begins; outside of x zeros are staged.
        turns: Runs before those of the threads.
    """
    comptime WIDTH = vector_width[dtype]()
    comptime PITCH = pitch_of[dtype](run)
    comptime STRIDE = THREADS * WIDTH
    var thread = Int32(thread_idx.x)
    var count = (turns + Int32(THREADS)) * Int32(run)
    if begin >= 0 and begin + Int(count) <= samples:
        var place = thread * Int32(WIDTH)
        var first = x.unsafe_offset(begin + Int(place))
        comptime if STRIDE % run == 0:  # a thread's vectors have the same place in their runs
            var there = window.unsafe_offset(place // Int32(run) * Int32(PITCH) + place % Int32(run))
            comptime for turn in range(run // WIDTH):
                comptime DISTANCE = turn * (STRIDE // run) * PITCH
                begin_copy[WIDTH](there.unsafe_offset(DISTANCE), first.unsafe_offset(turn * STRIDE))
            place += Int32(run * THREADS)
        while place < count:
            var there = window.unsafe_offset(place // Int32(run) * Int32(PITCH) + place % Int32(run))
            begin_copy[WIDTH](there, first.unsafe_offset(place - thread * Int32(WIDTH)))
            place += Int32(STRIDE)
    else:
        for place in range(thread, count, Int32(THREADS)):
            var position = begin + Int(place)
            var is_there = 0 <= position and position < samples
            var there = place // Int32(run) * Int32(PITCH) + place % Int32(run)
            window[unsafe_offset=there] = x[unsafe_offset=position] if is_there else 0


@always_inline
def load_run[
    dtype: DType, acc: DType, places: Int, //, run: Int
](
    mut known: Array[Scalar[acc], places],
    samples: Pointer[mut=True, Scalar[dtype], _, address_space=AddressSpace.SHARED],
):
    """Reads a run of samples into the first places of an array.

    Parameters:
        dtype: Element type.
        acc: Accumulation type.
        places: Length of the array.
        run: Samples of a run.

    Args:
        known: The array.
        samples: The run.
    """
    comptime WIDTH = vector_width[dtype]()
    comptime for vector in range(run // WIDTH):
        var some = samples.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](vector * WIDTH)
        comptime for each in range(WIDTH):
            known[vector * WIDTH + each] = some[each].cast[acc]()


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
    comptime VECTORS = RUN * rate.up // WIDTH // PARTS
    comptime for vector in range(part * VECTORS, (part + 1) * VECTORS):
        var some = taps.unsafe_load[width=WIDTH, alignment=VECTOR_BYTES](vector * WIDTH)
        comptime for each in range(WIDTH):
            comptime position = (vector * WIDTH + each) // rate.up
            comptime output = (vector * WIDTH + each) % rate.up
            # The first period's sample; each further period meets one `down` later.
            comptime first = RUN + rate.down - 1 - position
            comptime for period in range(rate.periods):
                comptime place = period * rate.up + output
                sums[place] = multiply_add(known[first + period * rate.down], some[each], sums[place])
