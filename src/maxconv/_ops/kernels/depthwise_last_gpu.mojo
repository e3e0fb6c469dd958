"""Short depthwise convolution of channels-last signals on GPU, and its weight gradient, without a copy of the signals.

Computes:   y[n, i, c] = sum_j x[n, i + j - pad_left, c] * w[c, j] + bias[c], then an activation; terms outside x are
            left out. The weight gradient is w[c, j] = sum_{n, i} y[n, i, c] * x[n, i + j - pad_left, c].
Algorithm:  a thread has neighbouring channels, one vector access wide, and goes along the signal with a window of
            samples in registers: each is read once, but for the K - 1 before a thread's first. Layers of 3 and 4 taps
            have short runs, whose samples are all loaded before the first sum, the K - 1 by way of the cache. Other
            filters stand at the end of TAPS places, behind zeros. Sums of a weight gradient stay in registers; those of
            a block's warps meet in shared memory, those of blocks in weight_gradient_gpu.mojo.
Cost:       2*N*C*L_out*K flop; reads and writes each element of x and y once: memory-bound. Of 12288 channels by
            16384 samples of bfloat16, 4 taps (pytorch#192902): 805 MB and 1.6 Gflop, so 190 us at the 4.24 TB/s of a
            copy on an H200; the weight gradient as much. Measured there (2026-11-23, by
            benchmarks/mojo/bench_depthwise_gpu.mojo): forward 196 us, 1.02 copies; weight gradient
            208 us, 1.09. 8 signals of 4096 by 2048: forward and input gradient 67 us, 1.02; weight gradient 79 us,
            1.20; the three of them 1.30 times their least bytes.
Layout:     x (N, L, C), y (N, L_out, C), aligned to VECTOR_BYTES, C a multiple of a vector; w (C, K).
Accuracy:   sums in accumulate.accum_dtype, each in ascending order of taps: the bits of depthwise_gpu.mojo. Outputs
            of a thread that has made NaN are done again without the zeros; weight_gradient_gpu.mojo does so, too. Short
            runs have no zeros but those beside a signal, and do so where a weight is not finite.
Gate:       groups == in_channels == out_channels, stride == dilation == 1, K <= MOST_TAPS; otherwise depthwise_gpu.
Tuning:     DEPTHWISE_LAST_* of shared/tuning_gpu.mojo.
Tried:      calls and tests inside the loop of FORWARD_STEP, the last a branch for each load: 160 to 255 registers.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys.info import size_of
from std.utils.numerics import isnan
from std.utils.static_tuple import StaticTuple
from max.gpu import MAX_THREADS_PER_BLOCK_METADATA, block_idx, thread_idx
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES
from ..shared.epilogue import NONE, Epilogue, activate
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    DEPTHWISE_LAST_ENOUGH_BLOCKS as ENOUGH_BLOCKS,
    DEPTHWISE_LAST_FEW_TAPS as FEW_TAPS,
    DEPTHWISE_LAST_FORWARD_STEP as FORWARD_STEP,
    DEPTHWISE_LAST_LEAST_BLOCKS as LEAST_BLOCKS,
    DEPTHWISE_LAST_LONGEST_RUN as LONGEST_RUN,
    DEPTHWISE_LAST_MOST_TAPS as MOST_TAPS,
    DEPTHWISE_LAST_SHORT_RUN as SHORT_RUN,
    DEPTHWISE_LAST_SHORT_RUN_CHANNELS as SHORT_RUN_CHANNELS,
    DEPTHWISE_LAST_SHORT_RUN_LEAST_BLOCKS as SHORT_RUN_LEAST_BLOCKS,
    DEPTHWISE_LAST_WARPS as WARPS,
    DEPTHWISE_LAST_WEIGHTS_BLOCKS as WEIGHTS_BLOCKS,
    DEPTHWISE_LAST_WEIGHTS_LEAST_BLOCKS as WEIGHTS_LEAST_BLOCKS,
    DEPTHWISE_LAST_WEIGHTS_RUN as WEIGHTS_RUN,
    DEPTHWISE_LAST_WEIGHTS_STEP as WEIGHTS_STEP,
    WARP,
)

comptime THREADS = WARP * WARPS
"""Threads of a block."""


def vector_width[dtype: DType, taps: Int]() -> Int:
    """Gives how many channels a thread has: as many as a vector holds, and filters of 32 registers.

    Parameters:
        dtype: Element type of x and y.
        taps: Places of a filter.

    Returns:
        A power of two.
    """
    return min(VECTOR_BYTES // size_of[dtype](), 128 // (taps * size_of[accum_dtype[dtype]()]()))


def depthwise_last_gpu[
    dtype: DType, weight_dtype: DType, //
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    queue: Queue,
) raises:
    """Enqueues the computation of all outputs; returns before they are there.

    Parameters:
        dtype: Element type of x and y.
        weight_dtype: Element type of weights and bias, `dtype` or its accumulation type.

    Args:
        y: Outputs on the device, shape (N, L_out, C); every one is written.
        x: Signals on the device, shape (N, L, C).
        w: Weights on the device, shape (C, K).
        epilogue: Bias and activation.
        geometry: Sizes and shifts.
        queue: Where to enqueue it.

    Raises:
        If the launch is refused.
    """
    comptime for taps in [FEW_TAPS - 1, FEW_TAPS]:
        comptime for is_plain in [False, True]:
            if geometry.taps == taps and (epilogue.activation == NONE) == is_plain:
                launch_short_runs[taps, is_plain](y, x, w, epilogue, geometry, queue)
                return
    comptime for taps in [FEW_TAPS, MOST_TAPS]:
        if (geometry.taps <= FEW_TAPS) == (taps == FEW_TAPS):
            comptime kernel = compute_runs[dtype, weight_dtype, taps]
            var column_blocks = ceildiv(geometry.in_channels, WARP * comptime (vector_width[dtype, taps]()))
            var rows = column_blocks * geometry.batch
            var run = LONGEST_RUN
            while run > FORWARD_STEP and rows * ceildiv(geometry.outputs, run * WARPS) < ENOUGH_BLOCKS:
                run //= 2
            var blocks = rows * ceildiv(geometry.outputs, run * WARPS)
            if blocks > 0:  # a grid of no blocks is an error
                queue.enqueue[kernel](y, x, w, epilogue, geometry, Int32(run), grid_dim=blocks, block_dim=THREADS)


def launch_short_runs[
    dtype: DType, weight_dtype: DType, //, taps: Int, is_plain: Bool
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    queue: Queue,
) raises:
    """Enqueues `compute_short_run`.

    Parameters:
        dtype: As for `depthwise_last_gpu`.
        weight_dtype: As for `depthwise_last_gpu`.
        taps: K.
        is_plain: Whether there is no activation.

    Args:
        y: As for `depthwise_last_gpu`.
        x: As for `depthwise_last_gpu`.
        w: As for `depthwise_last_gpu`.
        epilogue: As for `depthwise_last_gpu`.
        geometry: As for `depthwise_last_gpu`.
        queue: As for `depthwise_last_gpu`.

    Raises:
        If the launch is refused.
    """
    comptime kernel = compute_short_run[dtype, weight_dtype, taps, is_plain]
    comptime COLUMNS = WARP * short_run_channels[dtype]()
    var column_blocks = ceildiv(geometry.in_channels, COLUMNS)
    var run_blocks = ceildiv(geometry.outputs, SHORT_RUN * WARPS)
    var blocks = column_blocks * geometry.batch * run_blocks
    if blocks > 0:  # a grid of no blocks is an error
        queue.enqueue[kernel](
            y, x, w, epilogue, geometry, UInt32(column_blocks), UInt32(run_blocks), grid_dim=blocks, block_dim=THREADS
        )


def short_run_channels[dtype: DType]() -> Int:
    """Gives how many channels a thread has that loads all its samples at once.

    Parameters:
        dtype: Element type of x and y.

    Returns:
        A power of two.
    """
    return min(SHORT_RUN_CHANNELS, VECTOR_BYTES // size_of[dtype]())


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.minctasm`=SIMDLength(SHORT_RUN_LEAST_BLOCKS[dtype]),
)
def compute_short_run[
    dtype: DType, weight_dtype: DType, taps: Int, is_plain: Bool
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    column_blocks: UInt32,
    run_blocks: UInt32,
):
    """Kernel: each thread computes SHORT_RUN neighbouring outputs of neighbouring channels.

    Parameters:
        dtype: As for `depthwise_last_gpu`.
        weight_dtype: As for `depthwise_last_gpu`.
        taps: K.
        is_plain: Whether there is no activation.

    Args:
        y: As for `depthwise_last_gpu`.
        x: As for `depthwise_last_gpu`.
        w: As for `depthwise_last_gpu`.
        epilogue: As for `depthwise_last_gpu`.
        geometry: As for `depthwise_last_gpu`.
        column_blocks: Blocks side by side along the channels.
        run_blocks: Blocks that share the outputs of a channel.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime VECTOR = short_run_channels[dtype]()
    comptime ALIGNMENT = VECTOR * size_of[dtype]()
    comptime SPAN = SHORT_RUN + taps - 1
    var thread = UInt32(thread_idx.x)
    var place = UInt32(block_idx.x) // column_blocks
    var column = (UInt32(block_idx.x) - place * column_blocks) * UInt32(WARP) + thread % UInt32(WARP)
    var n = place // run_blocks
    var channel = Int(column) * VECTOR
    var pitch = geometry.in_channels
    var first = Int((place - n * run_blocks) * UInt32(WARPS) + thread // UInt32(WARP)) * SHORT_RUN
    if channel >= pitch or first >= geometry.outputs:
        return
    var left = Int32(min(SHORT_RUN, geometry.outputs - first))
    var begin = first - geometry.pad_left
    var samples = x.unsafe_offset(geometry.input_offset[True](Int(n), channel, 0))
    var outputs = y.unsafe_offset(geometry.output_offset[True](Int(n), channel, 0))
    var is_edge = begin < 0 or begin + SPAN > geometry.length
    var window = Array[SIMD[dtype, VECTOR], SPAN](fill=0)
    load_samples[0, SPAN](window, samples, begin, geometry.length, pitch)
    var filters = load_filters[ACC, VECTOR, taps](w.unsafe_offset(channel * taps))
    var offsets = SIMD[ACC, VECTOR](0)
    comptime for each in range(VECTOR):
        offsets[each] = epilogue.offset[ACC](channel + each)
    if is_edge:
        var zeros = SIMD[ACC, VECTOR](0)
        comptime for t in range(taps):
            zeros = multiply_add(filters[t], SIMD[ACC, VECTOR](0), zeros)
        if isnan(zeros).reduce_or():  # a weight times the zeros beside the signal would be
            compute_existing[VECTOR](outputs, samples, w, epilogue, geometry, channel, first, first + Int(left))
            return
    var here = outputs.unsafe_offset(first * pitch)
    comptime for step in range(SHORT_RUN):
        var sums = SIMD[ACC, VECTOR](0)
        comptime for t in range(taps):
            sums = multiply_add(window[step + t].cast[ACC](), filters[t], sums)
        sums += offsets
        comptime if not is_plain:
            sums = activate(sums, epilogue.activation)
        if Int32(step) < left:
            here.unsafe_store[alignment=ALIGNMENT](step * pitch, sums.cast[dtype]())


@always_inline
def load_filters[
    weight_dtype: DType, //, acc: DType, width: Int, taps: Int
](weights: Pointer[Scalar[weight_dtype], MutAnyOrigin]) -> Array[SIMD[acc, width], taps]:
    """Reads the filters of neighbouring channels, by vectors if they begin where one may.

    Parameters:
        weight_dtype: Element type of the weights.
        acc: Accumulation type.
        width: How many channels.
        taps: K.

    Args:
        weights: The first weight of the first channel.

    Returns:
        For each tap, its weights side by side.
    """
    comptime ALIGNMENT = width * size_of[weight_dtype]()
    var packed = Array[SIMD[weight_dtype, width], taps](fill=0)
    if Int(weights) % ALIGNMENT == 0:
        comptime for t in range(taps):
            packed[t] = weights.unsafe_load[width=width, alignment=ALIGNMENT, invariant=True](t * width)
    else:
        comptime for place in range(taps * width):
            packed[place // width][place % width] = weights[unsafe_offset=place]
    var filters = Array[SIMD[acc, width], taps](fill=0)
    comptime for each in range(width):
        comptime for t in range(taps):
            comptime place = each * taps + t
            filters[t][each] = packed[place // width][place % width].cast[acc]()
    return filters^


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.minctasm`=SIMDLength(LEAST_BLOCKS[dtype, taps]),
)
def compute_runs[
    dtype: DType, weight_dtype: DType, taps: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    run: Int32,
):
    """Kernel: each thread computes neighbouring outputs of neighbouring channels.

    Parameters:
        dtype: As for `depthwise_last_gpu`.
        weight_dtype: As for `depthwise_last_gpu`.
        taps: Places of a filter, at least K.

    Args:
        y: As for `depthwise_last_gpu`.
        x: As for `depthwise_last_gpu`.
        w: As for `depthwise_last_gpu`.
        epilogue: As for `depthwise_last_gpu`.
        geometry: As for `depthwise_last_gpu`.
        run: How many outputs, a multiple of FORWARD_STEP.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime VECTOR = vector_width[dtype, taps]()
    comptime BEFORE = taps - 1
    var column_blocks = ceildiv(geometry.in_channels, WARP * VECTOR)
    var run_blocks = ceildiv(geometry.outputs, Int(run) * WARPS)
    var block = Int(block_idx.x)
    var n = block // column_blocks // run_blocks
    var channel = (block % column_blocks * WARP + Int(thread_idx.x) % WARP) * VECTOR
    if channel >= geometry.in_channels:
        return
    var first = (block // column_blocks % run_blocks * WARPS + Int(thread_idx.x) // WARP) * Int(run)
    var end = min(first + Int(run), geometry.outputs)
    var filters = Array[SIMD[ACC, VECTOR], taps](fill=0)
    var offsets = SIMD[ACC, VECTOR](0)
    comptime for each in range(VECTOR):
        offsets[each] = epilogue.offset[ACC](channel + each)
        comptime for t in range(taps):
            var j = t - taps + geometry.taps
            if j >= 0:
                filters[t][each] = w[unsafe_offset=(channel + each) * geometry.taps + j].cast[ACC]()
    var samples = x.unsafe_offset(geometry.input_offset[True](n, channel, 0))
    var outputs = y.unsafe_offset(geometry.output_offset[True](n, channel, 0))
    # The window: what came before, then the newest sample of each output of a step.
    var newest = geometry.taps - 1 - geometry.pad_left
    var window = Array[SIMD[dtype, VECTOR], BEFORE + FORWARD_STEP](fill=0)
    load_samples[0, BEFORE](window, samples, first + newest - BEFORE, geometry.length, geometry.in_channels)
    var is_spoilt = False
    for i in range(first, end, FORWARD_STEP):
        load_samples[BEFORE, FORWARD_STEP](window, samples, i + newest, geometry.length, geometry.in_channels)
        comptime for step in range(FORWARD_STEP):
            if i + step < end:
                var sums = SIMD[ACC, VECTOR](0)
                comptime for t in range(taps):
                    sums = multiply_add(window[step + t].cast[ACC](), filters[t], sums)
                is_spoilt = is_spoilt or isnan(sums).reduce_or()
                var values = activate(sums + offsets, epilogue.activation).cast[dtype]()
                outputs.unsafe_store[alignment=VECTOR * size_of[dtype]()]((i + step) * geometry.out_channels, values)
        comptime for t in range(BEFORE):
            window[t] = window[FORWARD_STEP + t]
    if is_spoilt:
        compute_existing[VECTOR](outputs, samples, w, epilogue, geometry, channel, first, end)


@always_inline
def load_samples[
    dtype: DType, width: Int, places: Int, //, place: Int, count: Int
](
    mut window: Array[SIMD[dtype, width], places],
    samples: Pointer[Scalar[dtype], MutAnyOrigin],
    position: Int,
    length: Int,
    pitch: Int,
):
    """Reads successive samples of neighbouring channels into a part of a window; zeros outside the signal.

    Parameters:
        dtype: Element type.
        width: How many channels.
        places: Length of the window.
        place: Where in the window the first sample goes.
        count: How many samples.

    Args:
        window: The window.
        samples: The first sample of the first channel.
        position: Index of the first sample; any integer.
        length: Samples of the signal.
        pitch: From one sample to the next.
    """
    comptime ALIGNMENT = width * size_of[dtype]()
    if position >= 0 and position + count <= length:  # for whole warps: loads that do not wait for a test each
        var here = samples.unsafe_offset(position * pitch)
        comptime for step in range(count):
            window[place + step] = here.unsafe_load[width=width, alignment=ALIGNMENT, invariant=True](step * pitch)
    else:
        comptime for step in range(count):
            window[place + step] = SIMD[dtype, width](0)
            if position + step >= 0 and position + step < length:
                window[place + step] = samples.unsafe_load[width=width, alignment=ALIGNMENT]((position + step) * pitch)


@no_inline
def compute_existing[
    dtype: DType, weight_dtype: DType, //, width: Int
](
    outputs: Pointer[Scalar[dtype], MutAnyOrigin],
    samples: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    channel: Int,
    first: Int,
    end: Int,
):
    """Computes outputs of neighbouring channels from the terms that exist: others may have been zero times infinity.

    Parameters:
        dtype: As for `depthwise_last_gpu`.
        weight_dtype: As for `depthwise_last_gpu`.
        width: How many channels.

    Args:
        outputs: The first output of the first channel.
        samples: The first sample of the first channel.
        w: All weights.
        epilogue: As for `depthwise_last_gpu`.
        geometry: As for `depthwise_last_gpu`.
        channel: The first channel.
        first: The first output.
        end: One past the last.
    """
    comptime ACC = accum_dtype[dtype]()
    for i in range(first, end):
        for each in range(width):
            var sum = Scalar[ACC](0)
            for j in range(geometry.first_tap(i), geometry.end_tap(i)):
                var sample = samples[unsafe_offset=geometry.position(i, j) * geometry.in_channels + each]
                var weight = w[unsafe_offset=(channel + each) * geometry.taps + j].cast[ACC]()
                sum = multiply_add(sample.cast[ACC](), weight, sum)
            outputs[unsafe_offset=i * geometry.out_channels + each] = epilogue.apply(channel + each, sum).cast[dtype]()


def depthwise_last_weight_gradient_parts[dtype: DType](geometry: LayerGeometry) -> Int:
    """Counts the partial sums of each weight.

    Parameters:
        dtype: Element type of x and y.

    Args:
        geometry: Sizes and shifts.

    Returns:
        How many there are.
    """
    if geometry.taps <= FEW_TAPS:
        return parts_of[dtype, FEW_TAPS](geometry)
    return parts_of[dtype, MOST_TAPS](geometry)


def parts_of[dtype: DType, taps: Int](geometry: LayerGeometry) -> Int:
    """Decides how many blocks share the outputs of a channel.

    Parameters:
        dtype: Element type of x and y.
        taps: Places of a filter.

    Args:
        geometry: Sizes and shifts.

    Returns:
        At least 1.
    """
    var column_blocks = ceildiv(geometry.in_channels, WARP * vector_width[dtype, taps]())
    var runs = geometry.batch * ceildiv(geometry.outputs, WEIGHTS_RUN)
    return max(1, min(ceildiv(runs, WARPS), WEIGHTS_BLOCKS // column_blocks))


def depthwise_last_weight_gradient_gpu[
    dtype: DType
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    queue: Queue,
) raises -> Int:
    """Enqueues the computation of partial sums of all weights; returns before they are there.

    Parameters:
        dtype: Element type of x and y.

    Args:
        partial: Partial sums on the device, shape (parts, C, K).
        x: Signals on the device, shape (N, L, C).
        y: Outputs on the device, shape (N, L_out, C).
        geometry: Sizes and shifts.
        queue: Where to enqueue it.

    Returns:
        How many parts there are; every element of them is written.

    Raises:
        If the launch is refused.
    """
    comptime for taps in [FEW_TAPS, MOST_TAPS]:
        if (geometry.taps <= FEW_TAPS) == (taps == FEW_TAPS):
            comptime kernel = sum_runs[dtype, taps]
            var column_blocks = ceildiv(geometry.in_channels, WARP * comptime (vector_width[dtype, taps]()))
            var blocks = column_blocks * parts_of[dtype, taps](geometry)
            queue.enqueue[kernel](partial, x, y, geometry, grid_dim=blocks, block_dim=THREADS)
    return depthwise_last_weight_gradient_parts[dtype](geometry)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.minctasm`=SIMDLength(WEIGHTS_LEAST_BLOCKS[taps]),
)
def sum_runs[
    dtype: DType, taps: Int
](
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
):
    """Kernel: one block sums one part of the outputs of some channels, each warp its runs.

    Parameters:
        dtype: As for `depthwise_last_weight_gradient_gpu`.
        taps: Places of a filter, at least K.

    Args:
        partial: As for `depthwise_last_weight_gradient_gpu`.
        x: As for `depthwise_last_weight_gradient_gpu`.
        y: As for `depthwise_last_weight_gradient_gpu`.
        geometry: As for `depthwise_last_weight_gradient_gpu`.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime VECTOR = vector_width[dtype, taps]()
    comptime BEFORE = taps - 1
    var warp_sums = unsafe_stack_allocation[
        THREADS * VECTOR * taps, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var column_blocks = ceildiv(geometry.in_channels, WARP * VECTOR)
    var parts = parts_of[dtype, taps](geometry)
    var part = Int(block_idx.x) // column_blocks
    var warp = Int(thread_idx.x) // WARP
    var lane = Int(thread_idx.x) % WARP
    var first_channel = Int(block_idx.x) % column_blocks * WARP * VECTOR
    var channel = first_channel + lane * VECTOR
    var newest = geometry.taps - 1 - geometry.pad_left
    var sums = Array[SIMD[ACC, VECTOR], taps](fill=0)

    var row_runs = ceildiv(geometry.outputs, WEIGHTS_RUN)
    var runs = geometry.batch * row_runs
    var runner = part * WARPS + warp
    var last_run = runs * (runner + 1) // (parts * WARPS) if channel < geometry.in_channels else 0
    for run in range(runs * runner // (parts * WARPS), last_run):
        var n = run // row_runs
        var first = run % row_runs * WEIGHTS_RUN
        var end = min(first + WEIGHTS_RUN, geometry.outputs)
        var samples = x.unsafe_offset(geometry.input_offset[True](n, channel, 0))
        var outputs = y.unsafe_offset(geometry.output_offset[True](n, channel, 0))
        var window = Array[SIMD[dtype, VECTOR], BEFORE + WEIGHTS_STEP](fill=0)
        load_samples[0, BEFORE](window, samples, first + newest - BEFORE, geometry.length, geometry.in_channels)
        for i in range(first, end, WEIGHTS_STEP):
            var news = Array[SIMD[dtype, VECTOR], WEIGHTS_STEP](fill=0)
            load_samples[BEFORE, WEIGHTS_STEP](window, samples, i + newest, geometry.length, geometry.in_channels)
            load_samples[0, WEIGHTS_STEP](news, outputs, i, end, geometry.out_channels)
            comptime for step in range(WEIGHTS_STEP):
                comptime for t in range(taps):
                    sums[t] = multiply_add(news[step].cast[ACC](), window[step + t].cast[ACC](), sums[t])
            comptime for t in range(BEFORE):
                window[t] = window[WEIGHTS_STEP + t]

    # Tap by tap: neighbouring threads store, and later read, neighbouring channels.
    comptime for t in range(taps):
        warp_sums.unsafe_store[alignment=VECTOR * size_of[ACC]() if VECTOR <= 2 else VECTOR_BYTES](
            ((warp * taps + t) * WARP + lane) * VECTOR, sums[t]
        )
    barrier()
    var count = min(WARP * VECTOR, geometry.in_channels - first_channel) * geometry.taps
    for index in range(Int(thread_idx.x), count, THREADS):
        var c = index // geometry.taps
        var t = index % geometry.taps + taps - geometry.taps
        var sum = Scalar[ACC](0)
        comptime for turn in range(WARPS):
            sum += warp_sums[unsafe_offset=(turn * taps + t) * WARP * VECTOR + c]
        partial[unsafe_offset=(part * geometry.in_channels + first_channel) * geometry.taps + index] = sum
