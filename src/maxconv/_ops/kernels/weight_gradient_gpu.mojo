"""Weight gradient of a layer on GPU: which kernel sums it, and the last step of all of them.

Computes:   w from x and y, as conv_weight_gradient_gpu.mojo says; partial sums of it first, which are then added. With it
            the gradient of the signals of layers of one filter a channel, in one pass over y where a kernel does both.
Algorithm:  the terms of a weight are divided among blocks, so that few weights keep a GPU busy, too. Every block stores
            its own sum, and a second kernel adds those of a weight in ascending order: the same bits every time.
Cost:       writes and reads `parts` sums for each weight; a second launch.
Accuracy:   sums in accumulate.accum_dtype, rounded once. A sum that comes out as NaN, and has terms outside x, is done
            again without the zeros that stand there.
Gate:       none.
"""

from std.math import ceildiv
from std.utils.numerics import isnan
from max.gpu import block_idx, thread_idx

from ..shared.accumulate import accum_dtype, multiply_add
from ..shared.epilogue import NONE, Epilogue
from ..shared.history import History
from ..shared.layer_geometry import LayerGeometry
from ..shared.queue import Queue
from ..shared.tuning_gpu import WEIGHT_GRADIENT_BATCH as BATCH, WEIGHT_GRADIENT_THREADS as THREADS
from .conv_weight_gradient_gpu import conv_weight_gradient_gpu, conv_weight_gradient_parts
from .depthwise_gpu import depthwise_gpu, mirrored
from .depthwise_last_gpu import depthwise_last_weight_gradient_gpu, depthwise_last_weight_gradient_parts
from .depthwise_short_weight_gradient_gpu import (
    depthwise_short_gradients_gpu,
    has_both_gradients,
    is_short_gradient,
)
from .depthwise_weight_gradient_gpu import depthwise_weight_gradient_gpu, depthwise_weight_gradient_parts


def weight_gradient_workspace[dtype: DType, channels_last: Bool = False](geometry: LayerGeometry) -> Int:
    """Counts the elements of the workspace.

    Parameters:
        dtype: Element type of the arrays.
        channels_last: As for `weight_gradient_gpu`.

    Args:
        geometry: Sizes and shifts.

    Returns:
        Elements of the type of sums.
    """
    var weights = geometry.out_channels * geometry.group_in() * geometry.taps
    comptime if channels_last:
        return weights * depthwise_last_weight_gradient_parts[dtype](geometry)
    if geometry.groups == geometry.in_channels:
        return weights * depthwise_weight_gradient_parts(geometry)
    return weights * conv_weight_gradient_parts[dtype](geometry)


def weight_gradient_gpu[
    dtype: DType, channels_last: Bool = False
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    queue: Queue,
) raises:
    """Enqueues the computation of all weights; returns before they are there.

    Parameters:
        dtype: Element type of w, x and y.
        channels_last: The layout of x and y, which only the layers of depthwise_last_gpu.mojo may have.

    Args:
        w: Weights on the device, shape (O, C/G, K); every one is written.
        workspace: On the device, as many elements as `weight_gradient_workspace` counts, nobody else's meanwhile.
        x: Signals on the device, shape (N, C, L), or (N, L, C).
        y: Outputs on the device, shape (N, O, L_out), or (N, L_out, O).
        geometry: Sizes and shifts.
        queue: Where to enqueue it.

    Raises:
        If a launch is refused.
    """
    var parts: Int
    comptime if channels_last:
        parts = depthwise_last_weight_gradient_gpu[dtype](workspace, x, y, geometry, queue)
    else:
        if geometry.groups == geometry.in_channels:
            parts = depthwise_weight_gradient_gpu[dtype](workspace, x, y, geometry, queue)
        else:
            parts = conv_weight_gradient_gpu[dtype](workspace, x, y, geometry, queue)
    launch_additions[dtype, channels_last](w, workspace, x, y, geometry, parts, queue)


def depthwise_gradients_gpu[
    dtype: DType
](
    dx: Pointer[Scalar[dtype], MutAnyOrigin],
    dw: Pointer[Scalar[dtype], MutAnyOrigin],
    workspace: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    queue: Queue,
) raises:
    """Enqueues the computation of both gradients of a layer.

    Parameters:
        dtype: Element type of all arrays but the workspace.

    Args:
        dx: Gradients of the signals on the device, shape (N, C, L); every one is written.
        dw: Gradients of the weights on the device, shape (C, 1, K); every one is written.
        workspace: As for `weight_gradient_gpu`.
        x: Signals on the device, shape (N, C, L).
        y: Gradients of the outputs on the device, shape (N, C, L_out).
        w: Weights on the device, shape (C, 1, K).
        geometry: Sizes and shifts, of which `is_mirrored_depthwise` is true; not empty.
        queue: Where to enqueue it.

    Raises:
        If a launch is refused.
    """
    if has_both_gradients(dx, x, y, geometry):
        var most_parts = depthwise_weight_gradient_parts(geometry)
        var parts = depthwise_short_gradients_gpu[dtype](workspace, dx, x, y, w, geometry, most_parts, queue)
        launch_additions[dtype, False](dw, workspace, x, y, geometry, parts, queue)
        return
    var nothing = w.unsafe_origin_cast[MutUntrackedOrigin]()
    var numbers = Pointer[Int32, MutUntrackedOrigin](unsafe_from_address=Int(w))
    var history = History[dtype](nothing, False, numbers, False)
    depthwise_gpu(dx, y, w, Epilogue[dtype](nothing, False, NONE), mirrored(geometry), history, queue, True)
    weight_gradient_gpu[dtype](dw, workspace, x, y, geometry, queue)


def launch_additions[
    dtype: DType, channels_last: Bool
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    parts: Int,
    queue: Queue,
) raises:
    """Enqueues the last step.

    Parameters:
        dtype: As for `weight_gradient_gpu`.
        channels_last: As for `weight_gradient_gpu`.

    Args:
        w: As for `weight_gradient_gpu`.
        partial: Partial sums, shape (parts, O, C/G, K).
        x: As for `weight_gradient_gpu`.
        y: As for `weight_gradient_gpu`.
        geometry: As for `weight_gradient_gpu`.
        parts: How many there are.
        queue: As for `weight_gradient_gpu`.

    Raises:
        If the launch is refused.
    """
    comptime kernel = add_parts[dtype, channels_last]
    var weights = geometry.out_channels * geometry.group_in() * geometry.taps
    queue.enqueue[kernel](
        w, partial, x, y, geometry, Int64(parts), grid_dim=ceildiv(weights, THREADS), block_dim=THREADS
    )


def add_parts[
    dtype: DType, channels_last: Bool
](
    w: Pointer[Scalar[dtype], MutAnyOrigin],
    partial: Pointer[Scalar[accum_dtype[dtype]()], MutAnyOrigin],
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    parts: Int64,
):
    """Kernel: each thread adds the parts of one weight.

    Parameters:
        dtype: As for `weight_gradient_gpu`.
        channels_last: As for `weight_gradient_gpu`.

    Args:
        w: As for `weight_gradient_gpu`.
        partial: Partial sums, shape (parts, O, C/G, K).
        x: As for `weight_gradient_gpu`.
        y: As for `weight_gradient_gpu`.
        geometry: As for `weight_gradient_gpu`.
        parts: How many there are.
    """
    var index = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    var weights = geometry.out_channels * geometry.group_in() * geometry.taps
    if index >= weights:
        return
    var sum = partial[unsafe_offset=index]
    var part = 1
    while part + BATCH <= Int(parts):
        var some = Array[type_of(sum), BATCH](fill=0)
        comptime for k in range(BATCH):
            some[k] = partial[unsafe_offset=(part + k) * weights + index]
        comptime for k in range(BATCH):
            sum += some[k]
        part += BATCH
    while part < Int(parts):
        sum += partial[unsafe_offset=part * weights + index]
        part += 1
    # The kernel of rows multiplies no zeros; those of short filters also such as stand behind the last output.
    var is_short = channels_last or geometry.groups == geometry.in_channels and is_short_gradient[dtype](geometry)
    if isnan(sum) and (is_short or geometry.groups < geometry.in_channels):
        var j = index % geometry.taps
        var is_inside = geometry.position(0, j) >= 0 and geometry.position(geometry.outputs - 1, j) < geometry.length
        if is_short or not is_inside:
            var c = index // geometry.taps % geometry.group_in()
            sum = sum_existing[channels_last](x, y, geometry, index // geometry.taps // geometry.group_in(), c, j)
    w[unsafe_offset=index] = sum.cast[dtype]()


@no_inline
def sum_existing[
    dtype: DType, //, channels_last: Bool
](
    x: Pointer[Scalar[dtype], MutAnyOrigin],
    y: Pointer[Scalar[dtype], MutAnyOrigin],
    geometry: LayerGeometry,
    o: Int,
    c: Int,
    j: Int,
) -> Scalar[accum_dtype[dtype]()]:
    """Does one sum term by term, without those whose sample lies outside x: it may have been zero times infinity.

    Parameters:
        dtype: Element type of the arrays.
        channels_last: The layout of x and y.

    Args:
        x: Signals.
        y: Outputs.
        geometry: Sizes and shifts.
        o: Output channel.
        c: Input channel within its group.
        j: Tap.

    Returns:
        The sum.
    """
    comptime ACC = accum_dtype[dtype]()
    var channel = o // geometry.group_out() * geometry.group_in() + c
    var sum = Scalar[ACC](0)
    for n in range(geometry.batch):
        for i in range(geometry.outputs):
            var at = geometry.position(i, j)
            if 0 <= at and at < geometry.length:
                var sample = x[unsafe_offset=geometry.input_offset[channels_last](n, channel, at)].cast[ACC]()
                var output = y[unsafe_offset=geometry.output_offset[channels_last](n, o, i)].cast[ACC]()
                sum = multiply_add(output, sample, sum)
    return sum
