"""Depthwise 1-D convolution of layers on GPU, causal ones with a state and with packed sequences included.

Computes:   y[n, o, i] = sum_j x[n, o // M, i*stride + j*dilation - pad_left] * w[o, j] + bias[o], then an activation,
            with M = O/C filters a channel; terms outside x are left out, or taken from a state where there is one.
            With sequence numbers only terms whose sample has the output's number count.
Algorithm:  few taps of stride and dilation 1 by depthwise_short_gpu.mojo; many in half precision, unless their order
            matters or the target lacks tensor cores, by depthwise_mma_gpu.mojo. Other rows of stride and dilation 1 as
            in direct_gpu.mojo: a tile of samples and its halo in shared memory, widened, register windows that slide
            over them, CHUNK taps a pass; zeros, or the state, stand outside x. All others, short rows and numbered
            samples: a thread an output, whatever its row, which reads samples and taps through the level-1 cache.
Cost:       2*N*O*L_out*K flop; reads N*C*L and writes N*O*L_out elements; memory-bound below K ~ 16.
Layout:     x (N, C, L), w (O, K), y (N, O, L_out), state (N, C, K - 1), numbers (N, L).
Accuracy:   sums in accumulate.accum_dtype on EVERY path. But for depthwise_mma_gpu.mojo, each output adds its terms in
            ascending order of taps, then the bias: a signal taken in pieces, each with the state of the one before,
            gives the same bits. A sum that comes out as NaN at an edge is done again without the zeros that stand
            outside x.
Gate:       groups == in_channels. A state needs stride == dilation == 1 and pad_left == K - 1; so do numbers.
Tuning:     DIRECT_* and DEPTHWISE_SHORT_ROW of shared/tuning_gpu.mojo.
Source:     the meaning of state and numbers is that of Dao-AILab/causal-conv1d.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.utils.numerics import isnan
from max.gpu import block_idx, thread_idx
from max.gpu.sync import barrier

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.aligned_row import VECTOR_BYTES
from ..shared.epilogue import Epilogue
from ..shared.history import History
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import (
    DEPTHWISE_SHORT_ROW as SHORT_ROW,
    DIRECT_CHUNK as CHUNK,
    DIRECT_THREADS as THREADS,
    has_tensor_cores,
)
from .depthwise_mma_gpu import depthwise_mma_gpu, is_long_depthwise
from .depthwise_short_gpu import depthwise_short_gpu, is_short_depthwise
from .direct_gpu import add_taps, first_of_run, group_count, run_length


def depthwise_gpu[
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
    is_ordered: Bool = False,
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
        geometry: Sizes and shifts.
        history: State and sequence numbers.
        queue: Where to enqueue it.
        is_mirrored: Whether tap j of a filter is its element K - 1 - j.
        is_ordered: Whether each output is to add its terms in ascending order: pieces of a signal then have the bits of
            the whole.

    Raises:
        If the launch is refused.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime GROUPS = group_count[ACC]()
    var rows = geometry.batch * geometry.out_channels
    if rows * geometry.outputs == 0:
        return  # a grid of no blocks is an error
    if is_short_depthwise[dtype](geometry, history.has_numbers):
        depthwise_short_gpu(y, x, w, epilogue, geometry, history, queue, is_mirrored)
        return
    comptime if dtype == weight_dtype and has_tensor_cores[dtype]():
        if is_long_depthwise[dtype](geometry, history.has_state or history.has_numbers, is_ordered):
            var weights = rebind[Pointer[Scalar[dtype], MutAnyOrigin]](w)
            depthwise_mma_gpu(y, x, weights, rebind[Epilogue[dtype]](epilogue), geometry, history, queue, is_mirrored)
            return
    var is_dense = geometry.stride == 1 and geometry.dilation == 1 and not history.has_numbers
    if not is_dense or geometry.outputs < SHORT_ROW:
        comptime kernel = compute_outputs[dtype, weight_dtype]
        queue.enqueue[kernel](
            y,
            x,
            w,
            epilogue,
            geometry,
            history,
            Int32(-1 if is_mirrored else 1),
            grid_dim=ceildiv(rows * geometry.outputs, THREADS),
            block_dim=THREADS,
        )
    elif geometry.outputs <= THREADS * run_length[ACC]() * GROUPS // 2:
        launch_tiles[GROUPS // 4](y, x, w, epilogue, geometry, history, queue, is_mirrored)
    else:
        launch_tiles[GROUPS](y, x, w, epilogue, geometry, history, queue, is_mirrored)


def is_mirrored_depthwise(geometry: LayerGeometry) -> Bool:
    """Tells whether the transposed sum of a layer is a depthwise layer itself, with its filters mirrored.

    Args:
        geometry: Sizes and shifts.

    Returns:
        True for one filter a channel, of stride 1.
    """
    var is_single = geometry.groups == geometry.in_channels and geometry.groups == geometry.out_channels
    return is_single and geometry.stride == 1 and geometry.pad_left <= geometry.halo()


def mirrored(geometry: LayerGeometry) -> LayerGeometry:
    """Makes the layer that computes x from y.

    Args:
        geometry: A layer of which `is_mirrored_depthwise` is true.

    Returns:
        The layer, for filters that are read backwards.
    """
    var other = geometry
    other.length = geometry.outputs
    other.outputs = geometry.length
    other.pad_left = geometry.halo() - geometry.pad_left
    return other


def launch_tiles[
    dtype: DType, weight_dtype: DType, //, groups: Int
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
    """Enqueues the kernel for one length of tiles.

    Parameters:
        dtype: As for `depthwise_gpu`.
        weight_dtype: As for `depthwise_gpu`.
        groups: Runs of neighbouring outputs of a thread.

    Args:
        y: As for `depthwise_gpu`.
        x: As for `depthwise_gpu`.
        w: As for `depthwise_gpu`.
        epilogue: As for `depthwise_gpu`.
        geometry: Sizes and shifts; stride and dilation are 1.
        history: As for `depthwise_gpu`, without numbers.
        queue: As for `depthwise_gpu`.
        is_mirrored: As for `depthwise_gpu`.

    Raises:
        If the launch is refused.
    """
    comptime TILE = THREADS * groups * run_length[accum_dtype[dtype]()]()
    comptime kernel = compute_tile[dtype, weight_dtype, groups]
    queue.enqueue[kernel](
        y,
        x,
        w,
        epilogue,
        geometry,
        history,
        Int32(-1 if is_mirrored else 1),
        grid_dim=geometry.batch * geometry.out_channels * ceildiv(geometry.outputs, TILE),
        block_dim=THREADS,
    )


@always_inline
def channel_of(geometry: LayerGeometry, row: Int) -> Int:
    """Finds the channel of x that a row of y is made of.

    Args:
        geometry: Sizes and shifts.
        row: Counted over signals and output channels.

    Returns:
        Counted over signals and input channels.
    """
    return row // geometry.group_out()  # O = C * group_out: the signals are counted along


def compute_tile[
    dtype: DType, weight_dtype: DType, groups: Int
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    tap_step: Int32,
):
    """Kernel: one block computes one tile of outputs of one row, of stride and dilation 1.

    Parameters:
        dtype: As for `depthwise_gpu`.
        weight_dtype: As for `depthwise_gpu`.
        groups: Runs of neighbouring outputs of a thread.

    Args:
        y: As for `depthwise_gpu`.
        x: As for `depthwise_gpu`.
        w: As for `depthwise_gpu`.
        epilogue: As for `depthwise_gpu`.
        geometry: As for `depthwise_gpu`.
        history: As for `depthwise_gpu`, without numbers.
        tap_step: -1 where filters are mirrored, else 1.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime RUN = run_length[ACC]()
    comptime TILE = THREADS * groups * RUN
    var window = unsafe_stack_allocation[
        TILE + CHUNK + 2 * RUN, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var tap_window = unsafe_stack_allocation[
        CHUNK + 2 * RUN, Scalar[ACC], address_space=AddressSpace.SHARED, alignment=VECTOR_BYTES
    ]()
    var tiles = ceildiv(geometry.outputs, TILE)
    var row = Int(block_idx.x) // tiles
    var tile_begin = Int(block_idx.x) % tiles * TILE
    var channel = channel_of(geometry, row)
    var o = row % geometry.out_channels
    var weights = w.unsafe_offset(o * geometry.taps + (geometry.taps - 1 if tap_step < 0 else 0))
    var thread = Int32(thread_idx.x)
    var sums = Array[SIMD[ACC, RUN], groups](fill=0)

    # Only taps that meet a sample: a row shorter than the taps then costs N*L_out, not K*L_out.
    var begin = 0 if history.has_state else geometry.first_tap(min(tile_begin + TILE, geometry.outputs) - 1)
    var end = geometry.end_tap(tile_begin)
    for chunk_begin in range(begin, end, CHUNK):
        var chunk = Int32(min(CHUNK, end - chunk_begin))
        var window_begin = geometry.position(tile_begin, chunk_begin)
        var staged = Int32(TILE - 1) + chunk
        var at = thread
        if window_begin >= 0 and window_begin + Int(staged) <= geometry.length:
            var samples = x.unsafe_offset(channel * geometry.length + window_begin)
            while at < staged:
                window[unsafe_offset=at] = samples[unsafe_offset=at].cast[ACC]()
                at += Int32(THREADS)
        else:
            while at < staged:
                window[unsafe_offset=at] = history.sample(x, geometry, channel, window_begin + Int(at)).cast[ACC]()
                at += Int32(THREADS)
        var j = thread
        while j < chunk:
            tap_window[unsafe_offset=j] = weights[unsafe_offset=(chunk_begin + Int(j)) * Int(tap_step)].cast[ACC]()
            j += Int32(THREADS)
        barrier()
        add_taps(sums, window, tap_window, 0, chunk, thread)
        barrier()  # the next chunk overwrites what slower threads still read

    # By way of shared memory: stores are then coalesced for every type, and the activation is in the program once.
    comptime for group in range(groups):
        window.unsafe_store[alignment=VECTOR_BYTES](first_of_run[ACC](group, thread), sums[group])
    barrier()
    var count = Int32(min(TILE, geometry.outputs - tile_begin))
    var outputs = y.unsafe_offset(row * geometry.outputs + tile_begin)
    var at = thread
    while at < count:
        var sum = window[unsafe_offset=at]
        if isnan(sum) and not geometry.is_interior(tile_begin + Int(at), 1):
            sum = sum_terms(x, weights, geometry, history, Int(tap_step), channel, tile_begin + Int(at))
        outputs[unsafe_offset=at] = epilogue.apply(o, sum).cast[dtype]()
        at += Int32(THREADS)


def compute_outputs[
    dtype: DType, weight_dtype: DType
](
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    epilogue: Epilogue[weight_dtype],
    geometry: LayerGeometry,
    history: History[dtype],
    tap_step: Int32,
):
    """Kernel: each thread computes one output.

    Parameters:
        dtype: As for `depthwise_gpu`.
        weight_dtype: As for `depthwise_gpu`.

    Args:
        y: As for `depthwise_gpu`.
        x: As for `depthwise_gpu`.
        w: As for `depthwise_gpu`.
        epilogue: As for `depthwise_gpu`.
        geometry: As for `depthwise_gpu`.
        history: As for `depthwise_gpu`.
        tap_step: -1 where filters are mirrored, else 1.
    """
    var index = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    var row = index // geometry.outputs
    var i = index % geometry.outputs
    if row >= geometry.batch * geometry.out_channels:
        return
    var o = row % geometry.out_channels
    var weights = w.unsafe_offset(o * geometry.taps + (geometry.taps - 1 if tap_step < 0 else 0))
    if history.has_numbers:
        # Of stride 1, and as long as the signal.
        var of_signal = history.numbers.unsafe_offset(row // geometry.out_channels * geometry.length)
        if of_signal[unsafe_offset=i] < 0:
            y[unsafe_offset=index] = 0
            return
    var sum = sum_terms(x, weights, geometry, history, Int(tap_step), channel_of(geometry, row), i)
    y[unsafe_offset=index] = epilogue.apply(o, sum).cast[dtype]()


@always_inline
def sum_terms[
    dtype: DType, weight_dtype: DType
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    weights: Pointer[Scalar[weight_dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    history: History[dtype],
    tap_step: Int,
    channel: Int,
    i: Int,
) -> Scalar[accum_dtype[dtype]()]:
    """Does one sum over the terms that exist.

    Parameters:
        dtype: As for `depthwise_gpu`.
        weight_dtype: As for `depthwise_gpu`.

    Args:
        x: All signals.
        weights: The first tap of the row.
        geometry: Sizes and shifts.
        history: State and sequence numbers.
        tap_step: From one tap to the next.
        channel: Counted over signals and channels.
        i: Which output.

    Returns:
        The sum.
    """
    comptime ACC = accum_dtype[dtype]()
    var of_signal = history.numbers.unsafe_offset(channel // geometry.in_channels * geometry.length)
    var sum = Scalar[ACC](0)
    for j in range(geometry.taps):
        var position = geometry.position(i, j)
        var counts = history.exists(geometry, position)
        if history.has_numbers and counts:
            counts = of_signal[unsafe_offset=position] == of_signal[unsafe_offset=i]
        if counts:
            var sample = history.sample(x, geometry, channel, position).cast[ACC]()
            sum = multiply_add(sample, weights[unsafe_offset=j * tap_step].cast[ACC](), sum)
    return sum


def roll_state_gpu[
    dtype: DType, //
](
    last: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    history: History[dtype],
    geometry: LayerGeometry,
    queue: Queue,
) raises:
    """Enqueues the copy of the last samples of a state and the signals behind it; returns before it is done.

    Parameters:
        dtype: Element type of signals and states.

    Args:
        last: Receives (N, C, K - 1) on the device.
        x: Signals on the device, shape (N, C, L).
        history: The state; zeros if there is none.
        geometry: Sizes of the layer that the state belongs to.
        queue: Where to enqueue it.

    Raises:
        If the launch is refused.
    """
    var count = geometry.batch * geometry.in_channels * (geometry.taps - 1)
    if count == 0:
        return  # a grid of no blocks is an error
    comptime kernel = roll_sample[dtype]
    queue.enqueue[kernel](last, x, history, geometry, grid_dim=ceildiv(count, THREADS), block_dim=THREADS)


def roll_sample[
    dtype: DType
](
    last: Pointer[Scalar[dtype], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    history: History[dtype],
    geometry: LayerGeometry,
):
    """Kernel: each thread copies one sample.

    Parameters:
        dtype: As for `roll_state_gpu`.

    Args:
        last: As for `roll_state_gpu`.
        x: As for `roll_state_gpu`.
        history: As for `roll_state_gpu`.
        geometry: As for `roll_state_gpu`.
    """
    var index = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    var before = geometry.taps - 1
    if index < geometry.batch * geometry.in_channels * before:
        var place = geometry.length - before + index % before
        last[unsafe_offset=index] = history.sample(x, geometry, index // before, place)
