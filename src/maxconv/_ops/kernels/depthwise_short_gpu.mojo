"""Depthwise 1-D convolution of layers on GPU with few taps: from memory to registers and back, by whole vectors.

Computes:   what depthwise_gpu.mojo says, of stride and dilation 1 and without sequence numbers.
Algorithm:  a thread has VECTORS vectors of outputs of a row. All vectors that its windows touch are loaded first, the
            halo a second time through the level-1 cache; then each is widened and multiplied in registers. Filters
            stand at the end of `taps` places, behind zeros. Neighbouring threads have neighbouring vectors, and a
            block has as many rows as fit into it.
Cost:       2*N*O*L_out*K flop; reads N*C*L and writes N*O*L_out elements: memory-bound. Of 12288 channels by 16384
            samples, 4 taps, bfloat16: 805 MB and 1.6 Gflop, so 192 us at 4.2 TB/s. Measured on an H200 (2026-11-23, by
            benchmarks/mojo/bench_depthwise_gpu.mojo): 199 us, 1.04 times a copy; 8 signals of 4096 by 2048 69 us,
            1.05; float32 385 us, 1.02. Rows that begin anywhere 1.62, 16 taps 1.71, SiLU 1.61: their instructions count.
Layout:     as in depthwise_gpu.mojo; rows may begin anywhere.
Accuracy:   the bits of depthwise_gpu.mojo: ascending order of taps, then the bias. Outputs of a thread that has made
            NaN where zeros stand outside x or before a filter are done again without them.
Gate:       `is_short_depthwise`; otherwise depthwise_gpu.mojo.
Tuning:     DEPTHWISE_SHORT_* of shared/tuning_gpu.mojo.
"""

from std.bit import count_trailing_zeros
from std.math import ceildiv
from std.utils.numerics import isnan
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx


from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import LONGEST_ROW, VECTOR_BYTES, AlignedRow, vector_width, widen
from ..shared.epilogue import NONE, Epilogue, activate
from ..shared.history import History
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    DEPTHWISE_SHORT_FEW_TAPS as FEW_TAPS,
    DEPTHWISE_SHORT_LEAST_BLOCKS as LEAST_BLOCKS,
    DEPTHWISE_SHORT_LEAST_TEAM as LEAST_TEAM,
    DEPTHWISE_SHORT_MANY_TAPS as MANY_TAPS,
    DEPTHWISE_SHORT_MOST_TAPS as MOST_TAPS,
    DEPTHWISE_SHORT_SPARSE_VECTORS as SPARSE_VECTORS,
    DEPTHWISE_SHORT_THREADS as THREADS,
    DEPTHWISE_SHORT_VECTORS as VECTORS,
)

comptime ANY_LEAD = -1
"""Where windows begin in a vector of x, if the row or the launch decides."""


def is_short_depthwise[dtype: DType](geometry: LayerGeometry, has_numbers: Bool) -> Bool:
    """Tells whether `depthwise_short_gpu` can compute a layer.

    Parameters:
        dtype: Element type of x and y.

    Args:
        geometry: Sizes and shifts of a depthwise layer.
        has_numbers: Whether the samples are numbered.

    Returns:
        True for few taps, of stride and dilation 1, and rows of two vectors or more.
    """
    var is_dense = geometry.stride == 1 and geometry.dilation == 1 and not has_numbers
    var are_vectors = min(geometry.length, geometry.outputs) >= 2 * vector_width[dtype]()
    # Two at a time: kernels ask this, too, and `max` of three puts them into local memory.
    var are_countable = max(max(geometry.length, geometry.outputs), abs(geometry.pad_left)) <= LONGEST_ROW
    return is_dense and geometry.taps <= MOST_TAPS and are_vectors and are_countable


def common_lead[
    dtype: DType, //, taps: Int
](x: Pointer[Scalar[dtype], MutAnyOrigin], y: Pointer[Scalar[dtype], MutAnyOrigin], geometry: LayerGeometry) -> Int:
    """Finds where in a vector of x the windows of vectors of y begin.

    Parameters:
        dtype: Element type of x and y.
        taps: Places of a filter, at least K.

    Args:
        x: Signals.
        y: Outputs.
        geometry: Sizes and shifts.

    Returns:
        An element, the same of all windows if every row begins at a multiple of VECTOR_BYTES; else ANY_LEAD.
    """
    comptime WIDTH = vector_width[dtype]()
    if (Int(x) | Int(y)) % VECTOR_BYTES != 0 or (geometry.length | geometry.outputs) % WIDTH != 0:
        return ANY_LEAD
    return (geometry.taps - geometry.pad_left - taps) & (WIDTH - 1)


def causal_lead[dtype: DType, taps: Int]() -> Int:
    """Gives the common lead of aligned causal layers: their windows end with a vector.

    Parameters:
        dtype: Element type of x and y.
        taps: Places of a filter.

    Returns:
        An element.
    """
    return (1 - taps) & (vector_width[dtype]() - 1)


def load_count[dtype: DType, taps: Int, lead: Int]() -> Int:
    """Counts the vectors that a window touches.

    Parameters:
        dtype: Element type of x.
        taps: Places of a filter.
        lead: The common lead, or ANY_LEAD.

    Returns:
        At least one.
    """
    comptime WIDTH = vector_width[dtype]()
    return ceildiv((WIDTH - 1 if lead == ANY_LEAD else lead) + taps - 1 + WIDTH, WIDTH)


def place_count(taps: Int) -> Int:
    """Decides how many places filters have.

    Args:
        taps: K, at most MOST_TAPS.

    Returns:
        FEW_TAPS, MANY_TAPS or MOST_TAPS.
    """
    return FEW_TAPS if taps <= FEW_TAPS else MANY_TAPS if taps <= MANY_TAPS else MOST_TAPS


def depthwise_short_gpu[
    dtype: DType, weight_dtype: DType, //
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    queue: Queue,
    is_mirrored: Bool = False,
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of x, y and state.
        weight_dtype: Element type of weights and bias, `dtype` or its accumulation type.

    Args:
        y: Outputs on the device, shape (N, O, L_out); every one is written.
        x: Signals on the device, shape (N, C, L).
        w: Weights on the device, shape (O, K).
        epilogue: Bias and activation.
        geometry: Sizes and shifts, of which `is_short_depthwise` is true; not empty.
        history: The state; no numbers.
        queue: Where to enqueue it.
        is_mirrored: Whether tap j of a filter is its element K - 1 - j.

    Raises:
        If the launch is refused.
    """
    comptime for taps in [FEW_TAPS, MANY_TAPS, MOST_TAPS]:
        if place_count(geometry.taps) == taps:
            comptime CAUSAL = causal_lead[dtype, taps]()
            comptime BLOCKS = LEAST_BLOCKS[taps]
            var lead = common_lead[taps](x, y, geometry)
            comptime if taps == FEW_TAPS:
                # Layers of models: no places without a tap, and their input gradients.
                comptime for known in [CAUSAL, 0, ANY_LEAD]:
                    if geometry.taps == taps and known == (lead if lead == CAUSAL or lead == 0 else ANY_LEAD):
                        launch_vectors[taps, known, True, VECTORS, THREADS, BLOCKS](
                            y, x, w, epilogue, geometry, history, queue, is_mirrored
                        )
                        return
            comptime for known in [CAUSAL, ANY_LEAD]:
                if known == (lead if lead == CAUSAL else ANY_LEAD):
                    launch_vectors[taps, known, False, SPARSE_VECTORS[dtype, taps], THREADS, BLOCKS](
                        y, x, w, epilogue, geometry, history, queue, is_mirrored
                    )


def launch_vectors[
    dtype: DType, weight_dtype: DType, //, taps: Int, lead: Int, is_full: Bool, vectors: Int, threads: Int, blocks: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    queue: Queue,
    is_mirrored: Bool,
) raises:
    """Enqueues the kernel.

    Parameters:
        dtype: As for `depthwise_short_gpu`.
        weight_dtype: As for `depthwise_short_gpu`.
        taps: Places of a filter, at least K.
        lead: The `common_lead` of the layer, or ANY_LEAD.
        is_full: Whether K is `taps`.
        vectors: Vectors of a thread.
        threads: Threads of a block.
        blocks: Blocks of a multiprocessor that registers must be enough for.

    Args:
        y: As for `depthwise_short_gpu`.
        x: As for `depthwise_short_gpu`.
        w: As for `depthwise_short_gpu`.
        epilogue: As for `depthwise_short_gpu`.
        geometry: As for `depthwise_short_gpu`.
        history: As for `depthwise_short_gpu`.
        queue: As for `depthwise_short_gpu`.
        is_mirrored: As for `depthwise_short_gpu`.

    Raises:
        If the launch is refused.
    """
    comptime WIDTH = vector_width[dtype]()
    var slots = ceildiv(geometry.outputs + (WIDTH - 1 if lead == ANY_LEAD else 0), WIDTH)
    # A team of threads has a part of a row: as long a part as leaves few of them without outputs.
    var team = threads
    while team > LEAST_TEAM and ceildiv(slots, team * vectors) * team * vectors * 7 > slots * 8:
        team //= 2
    var tiles = ceildiv(slots, team * vectors)
    var teams = geometry.batch * geometry.out_channels * tiles
    comptime kernel = compute_vectors[dtype, weight_dtype, taps, lead, is_full, vectors, threads, blocks]
    queue.enqueue[kernel](
        y,
        x,
        w,
        epilogue,
        geometry,
        history,
        Int32(-1 if is_mirrored else 1),
        Int32(team),
        Int32(tiles),
        grid_dim=ceildiv(teams, threads // team),
        block_dim=threads,
    )


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(threads)),
    `nvvm.minctasm`=SIMDLength(blocks),
)
def compute_vectors[
    dtype: DType, weight_dtype: DType, taps: Int, lead: Int, is_full: Bool, vectors: Int, threads: Int, blocks: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    tap_step: Int32,
    team: Int32,
    tiles: Int32,
):
    """Kernel: each thread computes some vectors of outputs of a row.

    Parameters:
        dtype: As for `depthwise_short_gpu`.
        weight_dtype: As for `depthwise_short_gpu`.
        taps: As for `launch_vectors`.
        lead: As for `launch_vectors`.
        is_full: As for `launch_vectors`.
        vectors: As for `launch_vectors`.
        threads: As for `launch_vectors`.
        blocks: As for `launch_vectors`.

    Args:
        y: As for `depthwise_short_gpu`.
        x: As for `depthwise_short_gpu`.
        w: As for `depthwise_short_gpu`.
        epilogue: As for `depthwise_short_gpu`.
        geometry: As for `depthwise_short_gpu`.
        history: As for `depthwise_short_gpu`.
        tap_step: -1 where filters are mirrored, else 1.
        team: Threads that have neighbouring vectors of a row, a power of two.
        tiles: Teams of a row.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime WIDTH = vector_width[dtype]()
    comptime BEFORE = taps - 1
    comptime LOADS = load_count[dtype, taps, lead]()
    comptime is_skewed = lead == ANY_LEAD
    var thread = UInt32(thread_idx.x)
    var index = (UInt32(block_idx.x) * UInt32(threads) + thread) >> count_trailing_zeros(team).cast[DType.uint32]()
    var row = Int(index // UInt32(tiles))
    if row >= geometry.batch * geometry.out_channels:
        return
    var o = Int(UInt32(row) % UInt32(geometry.out_channels))
    var channel = Int(UInt32(row) // (UInt32(geometry.out_channels) // UInt32(geometry.in_channels)))
    var signal = AlignedRow[dtype].of[is_skewed](x.unsafe_offset(channel * geometry.length), geometry.length)
    var result = AlignedRow[dtype].of[is_skewed](y.unsafe_offset(row * geometry.outputs), geometry.outputs)
    var slot = Int32(index % UInt32(tiles)) * team * Int32(vectors) + (Int32(thread) & (team - 1))
    var first = slot * Int32(WIDTH) - result.skew
    var pitch = team * Int32(WIDTH)
    # The sample that meets the first place of the filter and the first output.
    var oldest = first + Int32(geometry.taps - 1 - geometry.pad_left) - Int32(BEFORE)
    var offset = signal.before(oldest) if is_skewed else Int32(lead)

    var windows = Array[Array[SIMD[dtype, WIDTH], LOADS], vectors](fill=Array[SIMD[dtype, WIDTH], LOADS](fill=0))
    comptime for vector in range(vectors):
        comptime for place in range(LOADS):
            windows[vector][place] = signal.load(oldest - offset + Int32(vector) * pitch + Int32(place * WIDTH))

    var weights = w.unsafe_offset(o * geometry.taps + (geometry.taps - 1 if tap_step < 0 else 0))
    var filter = Array[Scalar[ACC], taps](fill=0)
    comptime for t in range(taps):
        var j = Int32(t - taps) + Int32(geometry.taps)
        if j >= 0:
            filter[t] = weights[unsafe_offset=Int(j * tap_step)].cast[ACC]()
    var bias = epilogue.offset[ACC](o)
    var is_plain = not epilogue.has_bias and epilogue.activation == NONE
    var before = Int32(geometry.taps - 1) if history.has_state else Int32(0)
    var state = history.state.unsafe_offset((channel + 1) * (geometry.taps - 1))
    var is_spoilt = False
    comptime for vector in range(vectors):
        var at = first + Int32(vector) * pitch
        var begin = oldest - offset + Int32(vector) * pitch
        var is_edge = not signal.has(begin, Int32(LOADS * WIDTH))
        if is_edge:
            comptime for place in range(LOADS):
                var position = begin + Int32(place * WIDTH)
                if position + Int32(WIDTH) <= -before or position >= signal.length:
                    windows[vector][place] = 0
                elif not signal.has(position, Int32(WIDTH)):
                    windows[vector][place] = load_piece(signal, state, before, position)
        var samples = widen[BEFORE + WIDTH, lead](windows[vector], offset)
        var sums = SIMD[ACC, WIDTH](0)
        comptime for t in range(taps):
            comptime for output in range(WIDTH):
                sums[output] = multiply_add(samples[output + t], filter[t], sums[output])
        comptime if is_full:
            if is_edge:
                is_spoilt = is_spoilt or has_nan(sums)
        else:
            is_spoilt = is_spoilt or isnan(sums.reduce_add())
        if not is_plain:
            sums = finish(sums, bias, epilogue.activation)
        var values = sums.cast[dtype]()
        if result.has(at, Int32(WIDTH)):
            result.samples.unsafe_store[alignment=VECTOR_BYTES](Int(at), values)
        else:
            comptime for each in range(WIDTH):
                if at + Int32(each) >= 0 and at + Int32(each) < result.length:
                    result.samples[unsafe_offset=Int(at) + each] = values[each]
    if is_spoilt:
        comptime for vector in range(vectors):
            var at = first + Int32(vector) * pitch
            compute_existing(result, x, weights, epilogue, geometry, history, tap_step, channel, o, at, Int32(WIDTH))


@no_inline
def finish[
    acc: DType, width: SIMDLength
](sums: SIMD[acc, width], bias: Scalar[acc], activation: Int) -> SIMD[acc, width]:
    """Adds a bias and applies an activation; out of line, for selections would compute both for every sum.

    Parameters:
        acc: Accumulation type.
        width: Number of sums.

    Args:
        sums: The sums.
        bias: What is added.
        activation: One of the constants of epilogue.mojo.

    Returns:
        What is to be rounded and stored.
    """
    return activate(sums + bias, activation)


@no_inline
def has_nan[acc: DType, width: SIMDLength](sums: SIMD[acc, width]) -> Bool:
    """Tells whether a sum may be NaN; out of line, where a branch skips it.

    Parameters:
        acc: Accumulation type.
        width: Number of sums.

    Args:
        sums: The sums.

    Returns:
        True if one is, or if infinities of both signs are among them.
    """
    return isnan(sums.reduce_add())


@no_inline
def load_piece[
    dtype: DType, //
](
    signal: AlignedRow[dtype],
    state: Pointer[Scalar[dtype], MutUntrackedOrigin],
    before: Int32,
    position: Int32,
) -> SIMD[dtype, vector_width[dtype]()]:
    """Reads a vector that lies in a row in part, one element at a time.

    Parameters:
        dtype: Element type.

    Args:
        signal: The row.
        state: Where the samples before the row end.
        before: How many of them there are.
        position: Index of the first element.

    Returns:
        The vector, with zeros where there is no sample.
    """
    var vector = SIMD[dtype, vector_width[dtype]()](0)
    comptime for each in range(vector_width[dtype]()):
        var at = position + Int32(each)
        if -before <= at and at < signal.length:
            vector[each] = (state if at < 0 else signal.samples)[unsafe_offset=Int(at)]
    return vector


@no_inline
def compute_existing[
    dtype: DType, weight_dtype: DType, //
](
    result: AlignedRow[dtype],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    weights: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    tap_step: Int32,
    channel: Int,
    o: Int,
    first: Int32,
    count: Int32,
):
    """Computes neighbouring outputs from the terms that exist: others may have been zero times infinity.

    Parameters:
        dtype: As for `depthwise_short_gpu`.
        weight_dtype: As for `depthwise_short_gpu`.

    Args:
        result: The outputs of the row.
        x: All signals.
        weights: The first tap of the row.
        epilogue: As for `depthwise_short_gpu`.
        geometry: As for `depthwise_short_gpu`.
        history: As for `depthwise_short_gpu`.
        tap_step: From one tap to the next.
        channel: Counted over signals and channels.
        o: Channel of the result.
        first: The first output; it may lie before the row.
        count: How many outputs; the last may lie behind the row.
    """
    comptime ACC = accum_dtype[dtype]()
    for i in range(max(first, 0), min(first + count, result.length)):
        var sum = Scalar[ACC](0)
        for j in range(geometry.taps):
            var position = geometry.position(Int(i), j)
            if history.exists(geometry, position):
                var sample = history.sample(x, geometry, channel, position).cast[ACC]()
                sum = multiply_add(sample, weights[unsafe_offset=j * Int(tap_step)].cast[ACC](), sum)
        result.samples[unsafe_offset=Int(i)] = epilogue.apply(o, sum).cast[dtype]()
