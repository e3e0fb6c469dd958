"""The GPU kernels of neural layers against sums in float64 on the CPU, as a program of its own: for compute-sanitizer.

`mojo build --target-accelerator sm_90a` makes it on a machine without a GPU. With any argument it checks a few sizes
only, enough for compute-sanitizer's racecheck. It fails unless every result, poisoned beforehand, is within the direct
bound of the exact one, and nothing beside the result has been written. The last sizes are the same in every run.
"""

from std.math import erf
from std.random import random_float64, random_si64, seed
from std.sys import argv
from std.utils.numerics import inf, isfinite, isnan
from max.gpu.host import DeviceContext, HostBuffer

from _ops.kernels.conv_gpu import conv_gpu
from _ops.kernels.conv_mma_gpu import conv_mma_gpu
from _ops.kernels.depthwise_gpu import depthwise_gpu, is_mirrored_depthwise, mirrored
from _ops.kernels.depthwise_last_gpu import MOST_TAPS, depthwise_last_gpu
from _ops.kernels.weight_gradient_gpu import weight_gradient_gpu, weight_gradient_workspace
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import GELU, RELU, SILU, Epilogue, exponential
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry
from _ops.shared.tuning_gpu import has_tensor_cores

comptime GUARD = 64
"""Poisoned elements before and behind a result."""

comptime POISON = 77.0
"""What results are before the call, and guards after it: exact in every type."""

comptime FORWARD = 0
"""The sum y."""

comptime TRANSPOSED = 1
"""The sum x."""

comptime WEIGHTS = 2
"""The sum w."""

comptime DEPTHWISE = 3
"""The sum y by the depthwise kernel."""

comptime WITH_STATE = 4
"""The same, with the samples before."""

comptime WITH_NUMBERS = 5
"""The same, with sequence numbers."""

comptime LAST = 6
"""The sum y of channels-last signals."""

comptime WEIGHTS_LAST = 7
"""The sum w of channels-last signals."""


def drawn[dtype: DType](ctx: DeviceContext, count: Int) raises -> HostBuffer[dtype]:
    """Draws numbers in [-1, 1).

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        count: How many.

    Returns:
        The numbers; at least one.

    Raises:
        If memory is short.
    """
    var numbers = ctx.enqueue_create_host_buffer[dtype](max(1, count))
    ctx.synchronize()
    for i in range(len(numbers)):
        numbers[i] = random_float64(-1, 1).cast[dtype]()
    return numbers^


def activated(value: Float64, activation: Int) -> Float64:
    """Applies an activation as its formula reads.

    Args:
        value: The value.
        activation: One of the constants of epilogue.mojo.

    Returns:
        What becomes of it.
    """
    if activation == RELU:
        return max(value, 0)
    if activation == GELU:
        return 0.5 * value * (1 + erf(value * 0.70710678118654752440))
    if activation == SILU:
        return value / (1 + exponential(-value))
    return value


def check[dtype: DType, sum: Int](ctx: DeviceContext, g: LayerGeometry, activation: Int, has_infinity: Bool) raises:
    """Compares one sum on the GPU with float64.

    Parameters:
        dtype: Element type.
        sum: Which sum, a constant of this file.

    Args:
        ctx: The device.
        g: Sizes and shifts of the layer.
        activation: One of the constants of epilogue.mojo; the result has a bias if it is one.
        has_infinity: Whether the first weight, or gradient, is infinite.

    Raises:
        If a result differs, or a guard.
    """
    comptime ACC = accum_dtype[dtype]()
    comptime is_weights = sum == WEIGHTS or sum == WEIGHTS_LAST
    comptime is_last = sum == LAST or sum == WEIGHTS_LAST
    var x = drawn[dtype](ctx, g.batch * g.in_channels * g.length)
    var w = drawn[dtype](ctx, g.out_channels * g.group_in() * g.taps)
    var y = drawn[dtype](ctx, g.batch * g.out_channels * g.outputs)
    var bias = drawn[dtype](ctx, max(g.in_channels, g.out_channels))
    var state = drawn[dtype](ctx, g.batch * g.in_channels * (g.taps - 1))
    var numbers = ctx.enqueue_create_host_buffer[DType.int32](max(1, g.batch * g.length))
    ctx.synchronize()
    for i in range(len(numbers)):
        numbers[i] = Int32(random_si64(-1, 1))
    if has_infinity:
        comptime if is_weights:
            y[0] = inf[dtype]()
        else:
            w[0] = inf[dtype]()

    # Every term, once, as the formula of layer_geometry.mojo reads.
    var count = g.batch * g.out_channels * g.outputs
    comptime if sum == TRANSPOSED:
        count = g.batch * g.in_channels * g.length
    elif is_weights:
        count = g.out_channels * g.group_in() * g.taps
    var exact = List[Float64](length=count, fill=0)
    var magnitude = List[Float64](length=count, fill=0)
    var terms = List[Int](length=count, fill=0)
    for n in range(g.batch):
        for o in range(g.out_channels):
            for c in range(g.group_in()):
                var channel = o // g.group_out() * g.group_in() + c
                for i in range(g.outputs):
                    for j in range(g.taps):
                        var at = g.position(i, j)
                        var from_state = False
                        comptime if sum == WITH_STATE:
                            from_state = at < 0
                        if not from_state and (at < 0 or at >= g.length):
                            continue
                        comptime if sum == WITH_NUMBERS:
                            if numbers[n * g.length + at] != numbers[n * g.length + i] or numbers[n * g.length + i] < 0:
                                continue
                        var weight = w[g.weight_offset(o, c, j)].cast[DType.float64]()
                        var sample: Float64
                        if from_state:
                            var before = (n * g.in_channels + channel + 1) * (g.taps - 1) + at
                            sample = state[before].cast[DType.float64]()
                        else:
                            sample = x[g.input_offset[is_last](n, channel, at)].cast[DType.float64]()
                        var output = y[g.output_offset[is_last](n, o, i)].cast[DType.float64]()
                        var target = g.output_offset[is_last](n, o, i)
                        var term = sample * weight
                        comptime if sum == TRANSPOSED:
                            target = g.input_offset(n, channel, at)
                            term = output * weight
                        elif is_weights:
                            target = g.weight_offset(o, c, j)
                            term = output * sample
                        exact[target] += term
                        magnitude[target] += abs(term)
                        terms[target] += 1

    var result = ctx.enqueue_create_host_buffer[dtype](count + 2 * GUARD)
    ctx.synchronize()
    for i in range(len(result)):
        result[i] = Scalar[dtype](POISON)
    var result_there = ctx.enqueue_create_buffer[dtype](len(result))
    var x_there = ctx.enqueue_create_buffer[dtype](len(x))
    var w_there = ctx.enqueue_create_buffer[dtype](len(w))
    var y_there = ctx.enqueue_create_buffer[dtype](len(y))
    var bias_there = ctx.enqueue_create_buffer[dtype](len(bias))
    var state_there = ctx.enqueue_create_buffer[dtype](len(state))
    var numbers_there = ctx.enqueue_create_buffer[DType.int32](len(numbers))
    ctx.enqueue_copy(result_there, result)
    ctx.enqueue_copy(x_there, x)
    ctx.enqueue_copy(w_there, w)
    ctx.enqueue_copy(y_there, y)
    ctx.enqueue_copy(bias_there, bias)
    ctx.enqueue_copy(state_there, state)
    ctx.enqueue_copy(numbers_there, numbers)
    var has_bias = activation != 0
    var epilogue = Epilogue[dtype](untracked[dtype](Int(bias_there.unsafe_ptr())), has_bias, activation)
    var rp = pointer_to[dtype](Int(result_there.unsafe_ptr().unsafe_offset(GUARD)))
    var xp = pointer_to[dtype](Int(x_there.unsafe_ptr()))
    var wp = pointer_to[dtype](Int(w_there.unsafe_ptr()))
    var yp = pointer_to[dtype](Int(y_there.unsafe_ptr()))
    comptime if sum <= TRANSPOSED:
        var source = yp if sum == TRANSPOSED else xp
        var nothing = History[dtype](untracked[dtype](Int(xp)), False, untracked[DType.int32](Int(xp)), False)
        if sum == TRANSPOSED and is_mirrored_depthwise(g):
            depthwise_gpu(rp, source, wp, epilogue, mirrored(g), nothing, ctx, True)
        else:
            comptime if has_tensor_cores[dtype]():
                conv_mma_gpu[sum == TRANSPOSED](rp, source, wp, epilogue, g, ctx)
            else:
                conv_gpu[sum == TRANSPOSED](rp, source, wp, epilogue, g, ctx)
    elif sum == LAST:
        depthwise_last_gpu(rp, xp, wp, epilogue, g, ctx)
    elif is_weights:
        # Poisoned, and with guards, too: a part that no block writes, or one too many, shows.
        var workspace = ctx.enqueue_create_host_buffer[ACC](weight_gradient_workspace[dtype, is_last](g) + 2 * GUARD)
        ctx.synchronize()
        for i in range(len(workspace)):
            workspace[i] = Scalar[ACC](POISON)
        var workspace_there = ctx.enqueue_create_buffer[ACC](len(workspace))
        ctx.enqueue_copy(workspace_there, workspace)
        var parts = pointer_to[ACC](Int(workspace_there.unsafe_ptr().unsafe_offset(GUARD)))
        weight_gradient_gpu[dtype, is_last](rp, parts, xp, yp, g, ctx)
        ctx.enqueue_copy(workspace, workspace_there)
        ctx.synchronize()
        for i in range(GUARD):
            if workspace[i] != Scalar[ACC](POISON) or workspace[len(workspace) - 1 - i] != Scalar[ACC](POISON):
                raise Error(describe[dtype, sum](g, activation), " guard of the workspace")
        _ = workspace_there^
    else:
        var history = History[dtype](
            state=untracked[dtype](Int(state_there.unsafe_ptr())),
            has_state=sum == WITH_STATE,
            numbers=untracked[DType.int32](Int(numbers_there.unsafe_ptr())),
            has_numbers=sum == WITH_NUMBERS,
        )
        depthwise_gpu(rp, xp, wp, epilogue, g, history, ctx)
    ctx.enqueue_copy(result, result_there)
    ctx.synchronize()

    var unit = epsilon[ACC]() / 2
    for i in range(len(result)):
        var at = i - GUARD
        var actual = result[i].cast[DType.float64]()
        if at < 0 or at >= count:
            if actual != POISON:
                raise Error(describe[dtype, sum](g, activation), " guard at ", at, " of ", count, ": ", actual)
            continue
        var wanted = exact[at]
        var bound = Float64(terms[at] + 1) * unit * (magnitude[at] + 1)
        comptime if not is_weights:
            if has_bias:
                var channel = at // g.outputs % g.out_channels
                comptime if sum == TRANSPOSED:
                    channel = at // g.length % g.in_channels
                elif sum == LAST:
                    channel = at % g.out_channels
                wanted += bias[channel].cast[DType.float64]()
            bound = 1.13 * bound + 16 * unit * abs(wanted)
            wanted = activated(wanted, activation)
            comptime if sum == WITH_NUMBERS:
                if numbers[at // g.outputs // g.out_channels * g.length + at % g.outputs] < 0:
                    wanted = 0
        comptime if ACC != dtype:
            bound += epsilon[dtype]() / 2 * (abs(wanted) + bound) + 1e-7
        var is_right = abs(actual - wanted) <= bound
        if not isfinite(wanted):
            is_right = actual == wanted or (isnan(actual) and isnan(wanted))
        if not is_right:
            raise Error(
                describe[dtype, sum](g, activation),
                " infinity ",
                has_infinity,
                " element ",
                at,
                " of ",
                count,
                ": ",
                actual,
                " for ",
                wanted,
                ", bound ",
                bound,
                ", ",
                terms[at],
                " terms",
            )
    _ = x_there^
    _ = w_there^
    _ = y_there^
    _ = bias_there^
    _ = state_there^
    _ = numbers_there^
    _ = result_there^


def epsilon[dtype: DType]() -> Float64:
    """Gives the distance from 1 to the next number.

    Parameters:
        dtype: Element type.

    Returns:
        A power of two.
    """
    comptime if dtype == DType.float64:
        return 2.220446049250313e-16
    elif dtype == DType.float32:
        return 1.1920928955078125e-07
    elif dtype == DType.float16:
        return 0.0009765625
    return 0.0078125


def describe[dtype: DType, sum: Int](g: LayerGeometry, activation: Int) -> String:
    """Names a check.

    Parameters:
        dtype: Element type.
        sum: Which sum.

    Args:
        g: Sizes and shifts of the layer.
        activation: One of the constants of epilogue.mojo.

    Returns:
        Everything that is needed to repeat it.
    """
    comptime if sum == FORWARD:
        return String("forward ", dtype, " ", describe_sizes(g, activation))
    elif sum == TRANSPOSED:
        return String("transposed ", dtype, " ", describe_sizes(g, activation))
    elif sum == WEIGHTS:
        return String("weights ", dtype, " ", describe_sizes(g, activation))
    elif sum == DEPTHWISE:
        return String("depthwise ", dtype, " ", describe_sizes(g, activation))
    elif sum == WITH_STATE:
        return String("state ", dtype, " ", describe_sizes(g, activation))
    elif sum == LAST:
        return String("channels last ", dtype, " ", describe_sizes(g, activation))
    elif sum == WEIGHTS_LAST:
        return String("weights, channels last ", dtype, " ", describe_sizes(g, activation))
    return String("numbers ", dtype, " ", describe_sizes(g, activation))


def describe_sizes(g: LayerGeometry, activation: Int) -> String:
    """Lists the sizes of a layer.

    Args:
        g: Sizes and shifts of the layer.
        activation: One of the constants of epilogue.mojo.

    Returns:
        The sizes in the order of `LayerGeometry`.
    """
    var sizes = String("LayerGeometry(", g.batch, ", ", g.in_channels, ", ", g.out_channels, ", ", g.groups, ", ")
    sizes += String(g.length, ", ", g.outputs, ", ", g.taps, ", ", g.stride, ", ", g.dilation, ", ", g.pad_left, ")")
    return sizes + String(" activation ", activation)


def pointer_to[dtype: DType](address: Int) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Makes a pointer of an address.

    Parameters:
        dtype: Element type.

    Args:
        address: The address.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=address)


def untracked[dtype: DType](address: Int) -> Pointer[Scalar[dtype], MutUntrackedOrigin]:
    """Makes a pointer that a struct may hold.

    Parameters:
        dtype: Element type.

    Args:
        address: The address.

    Returns:
        The pointer.
    """
    return Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=address)


def layer(
    batch: Int,
    groups: Int,
    group_in: Int,
    group_out: Int,
    taps: Int,
    stride: Int,
    dilation: Int,
    length: Int,
    left: Int,
    right: Int,
) -> LayerGeometry:
    """Makes a layer.

    Args:
        batch: As in `LayerGeometry`.
        groups: As in `LayerGeometry`.
        group_in: Input channels of a group.
        group_out: Output channels of a group.
        taps: As in `LayerGeometry`.
        stride: As in `LayerGeometry`.
        dilation: As in `LayerGeometry`.
        length: As in `LayerGeometry`.
        left: Positions before x.
        right: Positions behind x.

    Returns:
        The geometry; it may have no outputs.
    """
    var room = length + left + right - dilation * (taps - 1) - 1
    var outputs = 0 if room < 0 else room // stride + 1
    return LayerGeometry(
        batch, groups * group_in, groups * group_out, groups, length, outputs, taps, stride, dilation, left
    )


def drawn_layer() -> LayerGeometry:
    """Draws a layer of awkward sizes.

    Returns:
        The geometry, of at least one output.
    """
    while True:
        var groups = one_of(1, 6)
        var g = layer(
            one_of(0, 3),
            groups,
            one_of(1, 70) // groups + 1,
            one_of(1, 150) // groups + 1,
            one_of(1, 20),
            one_of(1, 5),
            one_of(1, 7),
            one_of(1, 200),
            one_of(0, 60),
            one_of(0, 60),
        )
        if g.outputs > 0:
            return g


def one_of(least: Int, most: Int) -> Int:
    """Draws an integer.

    Args:
        least: The least.
        most: The greatest.

    Returns:
        One of them.
    """
    return Int(random_si64(Int64(least), Int64(most)))


def check_dense[dtype: DType](ctx: DeviceContext, g: LayerGeometry, activation: Int, has_infinity: Bool) raises:
    """Checks the three sums of a layer.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        g: Sizes and shifts of the layer.
        activation: As for `check`.
        has_infinity: As for `check`.

    Raises:
        If one is wrong.
    """
    check[dtype, FORWARD](ctx, g, activation, has_infinity)
    check[dtype, TRANSPOSED](ctx, g, activation, has_infinity)
    check[dtype, WEIGHTS](ctx, g, activation, has_infinity)


def check_type[dtype: DType](ctx: DeviceContext, draws: Int, is_brief: Bool) raises -> Int:
    """Checks everything for one type.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        draws: How many random layers.
        is_brief: Whether the large layers are left out.

    Returns:
        How many layers.

    Raises:
        If a sum is wrong.
    """
    for draw in range(draws):
        check_dense[dtype](ctx, drawn_layer(), draw % 4, draw % 5 == 4)
        var channels = one_of(1, 9)
        var taps = one_of(1, 40)
        var length = one_of(1, 2500) if draw % 2 == 0 else one_of(1, 100)
        var causal = layer(one_of(1, 2), channels, 1, 1, taps, 1, 1, length, taps - 1, 0)
        check[dtype, DEPTHWISE](ctx, causal, draw % 4, draw % 5 == 4)
        check[dtype, WITH_STATE](ctx, causal, draw % 4, False)
        check[dtype, WITH_NUMBERS](ctx, causal, draw % 4, False)
        check[dtype, WEIGHTS](ctx, causal, 0, draw % 5 == 4)
        check[dtype, TRANSPOSED](ctx, causal, draw % 4, draw % 5 == 4)
        var filters = one_of(1, 4)
        var strided = layer(
            2, channels, 1, filters, taps, one_of(1, 3), one_of(1, 3), length + taps * 3, one_of(0, 50), one_of(0, 50)
        )
        check[dtype, DEPTHWISE](ctx, strided, draw % 4, draw % 5 == 4)
        check[dtype, WEIGHTS](ctx, strided, 0, draw % 5 == 4)
        var aligned = layer(one_of(1, 3), channels, 1, filters, taps, 1, 1, one_of(1, 640) * 8, one_of(0, 9), 8)
        aligned.outputs = aligned.outputs // 8 * 8  # rows that vectors can read
        check[dtype, WEIGHTS](ctx, aligned, 0, draw % 5 == 4)
        comptime if dtype != DType.float64:
            var short = one_of(1, MOST_TAPS)
            var last = layer(
                one_of(0, 2), 8 * one_of(1, 40), 1, 1, short, 1, 1, one_of(short, 300), one_of(0, 20), one_of(0, 20)
            )
            check[dtype, LAST](ctx, last, draw % 4, draw % 5 == 4)
            check[dtype, WEIGHTS_LAST](ctx, last, 0, draw % 5 == 4)
    # Nothing to sum, one term, a dilation that few phases of a stride meet, a tile and one more, many taps.
    check_dense[dtype](ctx, layer(0, 2, 3, 4, 3, 1, 1, 10, 1, 1), 0, False)
    check_dense[dtype](ctx, layer(1, 1, 1, 1, 1, 1, 1, 1, 0, 0), 1, False)
    check_dense[dtype](ctx, layer(2, 1, 5, 7, 4, 6, 4, 61, 9, 3), 2, False)
    check_dense[dtype](ctx, layer(1, 1, 17, 129, 1, 1, 1, 129, 0, 0), 0, False)
    check_dense[dtype](ctx, layer(1, 2, 9, 33, 128, 1, 1, 65, 64, 64), 3, False)
    check_dense[dtype](ctx, layer(1, 3, 8, 8, 2, 1, 300, 257, 300, 0), 0, True)
    # Phases that are rows of one product, results at either end that only some of them have.
    check_dense[dtype](ctx, layer(2, 2, 33, 5, 6, 3, 1, 100, 7, 2), 2, True)
    check_dense[dtype](ctx, layer(1, 1, 3, 40, 8, 8, 1, 203, 4, 9), 3, False)
    # Just enough blocks for the larger tiles: the largest, the one below it, the one of few rows.
    check_dense[dtype](ctx, layer(264, 1, 67, 65, 3, 1, 1, 3, 1, 1), 0, False)
    check_dense[dtype](ctx, layer(132, 1, 34, 50, 3, 1, 1, 3, 1, 1), 1, False)
    check_dense[dtype](ctx, layer(132, 1, 9, 20, 3, 1, 1, 3, 1, 1), 2, False)
    check[dtype, DEPTHWISE](ctx, layer(1, 3, 1, 1, 2048, 1, 1, 2048, 2047, 0), 0, False)
    check[dtype, WEIGHTS](ctx, layer(1, 3, 1, 1, 2048, 1, 1, 2048, 2047, 0), 0, True)
    check[dtype, WEIGHTS](ctx, layer(2, 2, 1, 2, 70, 1, 1, 4160, 3, 2), 0, True)
    check[dtype, DEPTHWISE](ctx, layer(1, 2, 1, 1, 300, 1, 1, 5000, 150, 149), 2, True)
    comptime if dtype != DType.float64:  # many parts of a weight, and some more of them
        check[dtype, WEIGHTS_LAST](ctx, layer(3, 72, 1, 1, 4, 1, 1, 1500, 3, 0), 0, False)
    if not is_brief:  # enough blocks for the largest tile
        check_dense[dtype](ctx, layer(20, 1, 3, 130, 3, 1, 1, 2001, 1, 1), 3, False)
        check_dense[dtype](ctx, layer(3, 4, 9, 65, 5, 2, 3, 6001, 6, 6), 0, False)
        check_dense[dtype](ctx, layer(4, 1, 40, 50, 3, 1, 1, 2501, 1, 1), 3, True)
        check_dense[dtype](ctx, layer(4, 1, 20, 30, 3, 1, 2, 2501, 1, 3), 2, False)
        check[dtype, TRANSPOSED](ctx, layer(4, 1, 130, 9, 16, 8, 1, 8000, 4, 4), 1, False)
        # Just enough terms for the largest tile of weights.
        check[dtype, WEIGHTS](ctx, layer(3, 1, 65, 66, 1, 1, 1, 33800, 0, 0), 0, False)
    return draws


def main() raises:
    """Checks random layers and chosen ones in every type; with an argument, a few.

    Raises:
        If one is wrong.
    """
    var ctx = DeviceContext()
    var is_brief = len(argv()) > 1
    var draws = 3 if is_brief else 60
    seed()
    var checked = 0
    comptime for dtype in [DType.float32, DType.float64, DType.bfloat16, DType.float16]:
        checked += check_type[dtype](ctx, draws, is_brief)
    print(checked, "random layers, and the chosen ones, agree with float64 on", ctx.name())
