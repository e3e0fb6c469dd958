"""The depthwise GPU kernel of few taps against the kernel of single outputs, and that of the CPU, bit by bit.

The kernel of many taps, whose sums have another order, is held to their rounding. Both gradients in one launch are held
to one after the other: those of signals to their bits, those of weights, in another order, to their rounding.

`mojo build --target-accelerator sm_90a` makes it on a machine without a GPU. With any argument it checks a few sizes
only, enough for compute-sanitizer. It fails unless every output, poisoned beforehand, has the same bits whichever
kernel computed it, and nothing beside the outputs has been written.
"""

from std.math import ceildiv
from std.random import random_float64, random_si64, seed
from std.sys import argv
from std.utils.numerics import inf, isnan
from max.gpu.host import DeviceContext, HostBuffer

from _ops.kernels.depthwise_cpu import depthwise_cpu
from _ops.kernels.depthwise_gpu import THREADS, compute_outputs, depthwise_gpu, mirrored
from _ops.kernels.depthwise_mma_gpu import depthwise_mma_gpu, is_long_depthwise
from _ops.kernels.depthwise_short_gpu import FEW_TAPS, depthwise_short_gpu, is_short_depthwise
from _ops.kernels.depthwise_short_weight_gradient_gpu import has_both_gradients
from _ops.kernels.weight_gradient_gpu import depthwise_gradients_gpu, weight_gradient_gpu, weight_gradient_workspace
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import NONE, RELU, Epilogue
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry

comptime GUARD = 64
"""Poisoned elements before and behind the outputs."""

comptime POISON = 77.0
"""What outputs are before the call, and guards after it: exact in every type."""


@fieldwise_init
struct Extras(TrivialRegisterPassable):
    """What of a layer is not its sizes."""

    var skew_x: Int
    """Elements between a boundary of 16 bytes and the signals."""
    var skew_y: Int
    """The same for the outputs."""
    var has_state: Bool
    """Whether there are samples before the signals."""
    var is_mirrored: Bool
    """Whether filters are read backwards."""
    var activation: Int
    """One of the constants of epilogue.mojo; there is a bias if it is one."""
    var has_infinity: Bool
    """Whether some samples and taps are infinite."""

    def describe(self, g: LayerGeometry) -> String:
        """Names a case in errors.

        Args:
            g: Sizes and shifts of the layer.

        Returns:
            The sizes and the rest.
        """
        return String(
            t"N {g.batch} C {g.in_channels} O {g.out_channels} L {g.length} outputs {g.outputs} K {g.taps} pad"
            t" {g.pad_left} skews {self.skew_x} {self.skew_y} state {self.has_state} mirrored"
            t" {self.is_mirrored} activation {self.activation} infinity {self.has_infinity}"
        )


def drawn[dtype: DType](ctx: DeviceContext, count: Int, has_infinity: Bool) raises -> HostBuffer[dtype]:
    """Draws numbers in [-1, 1).

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        count: How many.
        has_infinity: Whether one in 16 is infinite.

    Returns:
        The numbers; at least one.

    Raises:
        If memory is short.
    """
    var numbers = ctx.enqueue_create_host_buffer[dtype](max(1, count))
    ctx.synchronize()
    for i in range(len(numbers)):
        numbers[i] = random_float64(-1, 1).cast[dtype]()
        if has_infinity and random_si64(0, 15) == 0:
            numbers[i] = inf[dtype]()
    return numbers^


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


def is_close[dtype: DType](left: Scalar[dtype], right: Scalar[dtype], tolerance: Float64) -> Bool:
    """Compares two results.

    Parameters:
        dtype: Element type.

    Args:
        left: One result.
        right: The other.
        tolerance: How far apart sums of products in [-1, 1) may be before they are rounded; 0: not at all.

    Returns:
        True if they agree, or neither is a number.
    """
    if left == right or (isnan(left) and isnan(right)):
        return True
    var difference = abs(left.cast[DType.float64]() - right.cast[DType.float64]())
    return tolerance > 0 and difference <= tolerance + 0.008 * abs(right.cast[DType.float64]())


def check[dtype: DType, is_long: Bool = False](ctx: DeviceContext, g: LayerGeometry, extras: Extras) raises:
    """Compares the kernels.

    Parameters:
        dtype: Element type.
        is_long: Whether the kernel of many taps is meant.

    Args:
        ctx: The device.
        g: Sizes and shifts of the layer.
        extras: What else there is.

    Raises:
        If a result differs, or a guard.
    """
    comptime ACC = accum_dtype[dtype]()
    var x = drawn[dtype](ctx, extras.skew_x + g.batch * g.in_channels * g.length, extras.has_infinity)
    var w = drawn[dtype](ctx, g.out_channels * g.taps, extras.has_infinity)
    var bias = drawn[dtype](ctx, g.out_channels, False)
    var state = drawn[dtype](ctx, g.batch * g.in_channels * (g.taps - 1), extras.has_infinity)
    var count = g.batch * g.out_channels * g.outputs
    var result = ctx.enqueue_create_host_buffer[dtype](count + 2 * GUARD + extras.skew_y)
    var other = ctx.enqueue_create_host_buffer[dtype](len(result))
    ctx.synchronize()
    for i in range(len(result)):
        result[i] = Scalar[dtype](POISON)
        other[i] = Scalar[dtype](POISON)
    var x_there = ctx.enqueue_create_buffer[dtype](len(x))
    var w_there = ctx.enqueue_create_buffer[dtype](len(w))
    var bias_there = ctx.enqueue_create_buffer[dtype](len(bias))
    var state_there = ctx.enqueue_create_buffer[dtype](len(state))
    var result_there = ctx.enqueue_create_buffer[dtype](len(result))
    var other_there = ctx.enqueue_create_buffer[dtype](len(other))
    ctx.enqueue_copy(x_there, x)
    ctx.enqueue_copy(w_there, w)
    ctx.enqueue_copy(bias_there, bias)
    ctx.enqueue_copy(state_there, state)
    ctx.enqueue_copy(result_there, result)
    ctx.enqueue_copy(other_there, other)
    var xp = pointer_to[dtype](Int(x_there.unsafe_ptr().unsafe_offset(extras.skew_x)))
    var wp = pointer_to[dtype](Int(w_there.unsafe_ptr()))
    var has_bias = extras.activation != 0
    var epilogue = Epilogue[dtype](untracked[dtype](Int(bias_there.unsafe_ptr())), has_bias, extras.activation)
    var history = History[dtype](
        untracked[dtype](Int(state_there.unsafe_ptr())), extras.has_state, untracked[DType.int32](Int(xp)), False
    )
    comptime kernel = compute_outputs[dtype, dtype]
    ctx.enqueue_function[kernel](
        pointer_to[dtype](Int(other_there.unsafe_ptr().unsafe_offset(GUARD + extras.skew_y))),
        xp,
        wp,
        epilogue,
        g,
        history,
        Int32(-1 if extras.is_mirrored else 1),
        grid_dim=ceildiv(count, THREADS),
        block_dim=THREADS,
    )
    var yp = pointer_to[dtype](Int(result_there.unsafe_ptr().unsafe_offset(GUARD + extras.skew_y)))
    var tolerance = 0.0
    comptime if is_long:
        tolerance = 1e-6 * Float64(g.taps)
        depthwise_mma_gpu(yp, xp, wp, epilogue, g, history, ctx, extras.is_mirrored)
    else:
        depthwise_short_gpu(yp, xp, wp, epilogue, g, history, ctx, extras.is_mirrored)
    ctx.enqueue_copy(result, result_there)
    ctx.enqueue_copy(other, other_there)
    ctx.synchronize()
    for i in range(len(result)):
        if not is_close(result[i], other[i], tolerance):
            raise Error(
                String(dtype),
                " ",
                extras.describe(g),
                " element ",
                i - GUARD - extras.skew_y,
                " of ",
                count,
                ": ",
                result[i],
                " for ",
                other[i],
            )
    # Other activations are not of the same bits on both targets.
    if extras.activation <= RELU and not is_long:
        var wide = List[Scalar[ACC]](length=len(w), fill=0)
        for i in range(g.out_channels * g.taps):
            var j = g.taps - 1 - i % g.taps if extras.is_mirrored else i % g.taps
            wide[i] = w[i // g.taps * g.taps + j].cast[ACC]()
        depthwise_cpu[dtype](
            pointer_to[dtype](Int(other.unsafe_ptr().unsafe_offset(GUARD + extras.skew_y))),
            pointer_to[dtype](Int(x.unsafe_ptr().unsafe_offset(extras.skew_x))),
            pointer_to[ACC](Int(wide.unsafe_ptr())),
            Epilogue[dtype](untracked[dtype](Int(bias.unsafe_ptr())), has_bias, extras.activation),
            g,
            History[dtype](
                untracked[dtype](Int(state.unsafe_ptr())), extras.has_state, untracked[DType.int32](Int(xp)), False
            ),
            max_workers=1,
        )
        for i in range(len(result)):
            if not is_close(result[i], other[i], tolerance):
                raise Error(
                    String(dtype), " ", extras.describe(g), " element ", i, ": ", result[i], " on the CPU ", other[i]
                )
        _ = wide^
    _ = x_there^
    _ = w_there^
    _ = bias_there^
    _ = state_there^
    _ = result_there^
    _ = other_there^
    _ = x^
    _ = w^
    _ = bias^
    _ = state^


def check_gradients[dtype: DType](ctx: DeviceContext, g: LayerGeometry, has_infinity: Bool) raises:
    """Compares both gradients in one launch with those of one after the other.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        g: Sizes and shifts of the layer, of one filter a channel.
        has_infinity: Whether some operands are infinite.

    Raises:
        If a result differs, or a guard, or the layer is not computed in one launch.
    """
    var count = g.batch * g.in_channels * g.length
    var weights = g.in_channels * g.taps
    var inputs = List[HostBuffer[dtype]]()
    for elements in [count, count, weights]:
        inputs.append(drawn[dtype](ctx, elements, has_infinity))
    var x = ctx.enqueue_create_buffer[dtype](count)
    var y = ctx.enqueue_create_buffer[dtype](count)
    var w = ctx.enqueue_create_buffer[dtype](weights)
    ctx.enqueue_copy(x, inputs[0])
    ctx.enqueue_copy(y, inputs[1])
    ctx.enqueue_copy(w, inputs[2])
    var sums = ctx.enqueue_create_buffer[accum_dtype[dtype]()](weight_gradient_workspace[dtype](g))
    var workspace = pointer_to[accum_dtype[dtype]()](Int(sums.unsafe_ptr()))
    var xp = pointer_to[dtype](Int(x.unsafe_ptr()))
    var yp = pointer_to[dtype](Int(y.unsafe_ptr()))
    var wp = pointer_to[dtype](Int(w.unsafe_ptr()))
    # Signals' gradients between guards, then the weights'.
    var size = GUARD + count + GUARD + weights + GUARD
    var found = ctx.enqueue_create_host_buffer[dtype](size)
    var expected = ctx.enqueue_create_host_buffer[dtype](size)
    var found_there = ctx.enqueue_create_buffer[dtype](size)
    var expected_there = ctx.enqueue_create_buffer[dtype](size)
    ctx.enqueue_memset(found_there, Scalar[dtype](POISON))
    ctx.enqueue_memset(expected_there, Scalar[dtype](POISON))
    var dx = pointer_to[dtype](Int(found_there.unsafe_ptr().unsafe_offset(GUARD)))
    if not has_both_gradients(dx, xp, yp, g):
        raise Error("a layer meant for one launch is not served by it")
    depthwise_gradients_gpu[dtype](dx, dx.unsafe_offset(count + GUARD), workspace, xp, yp, wp, g, ctx)
    dx = pointer_to[dtype](Int(expected_there.unsafe_ptr().unsafe_offset(GUARD)))
    var nothing = untracked[dtype](Int(wp))
    var history = History[dtype](nothing, False, untracked[DType.int32](Int(wp)), False)
    depthwise_gpu(dx, yp, wp, Epilogue[dtype](nothing, False, NONE), mirrored(g), history, ctx, True)
    weight_gradient_gpu[dtype](dx.unsafe_offset(count + GUARD), workspace, xp, yp, g, ctx)
    ctx.enqueue_copy(found, found_there)
    ctx.enqueue_copy(expected, expected_there)
    ctx.synchronize()
    # Of sums of products below 1; what is half precision is rounded to 8 bits at least.
    comptime UNIT = 2.4e-16 if dtype == DType.float64 else 1.2e-7
    comptime RELATIVE = 0.008 if dtype.is_half_float() else 0.0
    var rounding = 4 * UNIT * Float64(g.batch * g.length)
    for i in range(size):
        var is_right = is_close(found[i], expected[i], 0)
        if not is_right and 2 * GUARD + count <= i and i < size - GUARD:
            var exact = expected[i].cast[DType.float64]()
            is_right = abs(found[i].cast[DType.float64]() - exact) <= rounding + RELATIVE * abs(exact)
        if not is_right:
            var sizes = String(t"N {g.batch} C {g.in_channels} L {g.length} infinity {has_infinity}")
            raise Error(String(dtype), " gradients of ", sizes, " element ", i, ": ", found[i], " for ", expected[i])
    _ = x^
    _ = y^
    _ = w^
    _ = sums^
    _ = found_there^
    _ = expected_there^


def one_of(least: Int, most: Int) -> Int:
    """Draws an integer.

    Args:
        least: The least.
        most: The greatest.

    Returns:
        One of them.
    """
    return Int(random_si64(Int64(least), Int64(most)))


def check_length[dtype: DType](ctx: DeviceContext, length: Int, draws: Int) raises -> Int:
    """Checks layers of signals of one length.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        length: Samples of a signal.
        draws: How many layers to draw.

    Returns:
        How many the kernel took.

    Raises:
        If a result differs.
    """
    var checked = 0
    for draw in range(draws):
        # Causal layers from boundary to boundary, as most are, and anything else.
        var is_plain = draw % 3 == 0
        var taps = FEW_TAPS if draw % 2 == 0 else one_of(1, 16)
        var pads = taps - 1 if is_plain else one_of(0, taps + 3)
        var outputs = length if is_plain else length + pads + one_of(0, taps + 3) - taps + 1
        var has_state = pads == taps - 1 and taps > 1 and one_of(0, 1) == 0
        var channels = one_of(1, 5)
        var filters = one_of(1, 3)
        var g = LayerGeometry(one_of(1, 3), channels, channels * filters, channels, length, outputs, taps, 1, 1, pads)
        if outputs < 1 or not is_short_depthwise[dtype](g, False):
            continue
        var skew_x = 0 if is_plain else one_of(0, 7)
        var skew_y = 0 if is_plain else one_of(0, 7)
        check[dtype](ctx, g, Extras(skew_x, skew_y, has_state, one_of(0, 1) == 1, one_of(0, 3), one_of(0, 2) == 0))
        checked += 1
    return checked


def check_products[dtype: DType](ctx: DeviceContext, draws: Int) raises -> Int:
    """Checks layers of many taps.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        draws: How many layers to draw.

    Returns:
        How many the kernel took.

    Raises:
        If a result differs.
    """
    var checked = 0
    for draw in range(draws):
        var taps = one_of(17, 130)
        var length = one_of(16, 300) if draw % 2 == 0 else one_of(300, 9000)
        var pads = one_of(0, taps + 3)
        var outputs = length + pads + one_of(0, taps + 3) - taps + 1
        if draw % 4 < 2:  # a causal layer
            pads = taps - 1
            outputs = length
        var channels = one_of(1, 5)
        var g = LayerGeometry(
            one_of(1, 3), channels, channels * one_of(1, 3), channels, length, outputs, taps, 1, 1, pads
        )
        if outputs < 1 or not is_long_depthwise[dtype](g, False, False):
            continue
        var has_infinity = one_of(0, 3) == 0
        var extras = Extras(one_of(0, 7), one_of(0, 7), False, one_of(0, 1) == 1, one_of(0, 3), has_infinity)
        check[dtype, True](ctx, g, extras)
        checked += 1
    return checked


def check_type[dtype: DType](ctx: DeviceContext, is_brief: Bool) raises -> Int:
    """Checks one type.

    Parameters:
        dtype: Element type.

    Args:
        ctx: The device.
        is_brief: Whether a few sizes are enough.

    Returns:
        How many layers were checked.

    Raises:
        If a result differs.
    """
    var checked = 0
    for draw in range(3 if is_brief else 60):
        var length = 16 * one_of(1, 20 if draw % 2 == 0 else 300)
        var channels = one_of(1, 9)
        var g = LayerGeometry(one_of(1, 5), channels, channels, channels, length, length, FEW_TAPS, 1, 1, FEW_TAPS - 1)
        check_gradients[dtype](ctx, g, one_of(0, 2) == 0)
        checked += 1
    if is_brief:
        for length in [4, 16, 40, 97, 2100]:
            checked += check_length[dtype](ctx, length, 3)
        comptime if dtype.is_half_float():
            checked += check_products[dtype](ctx, 8)
        return checked
    comptime if dtype.is_half_float():
        checked += check_products[dtype](ctx, 150)
    for length in range(1, 71):
        checked += check_length[dtype](ctx, length, 12)
    for length in [95, 96, 97, 127, 128, 1000, 2047, 2048, 2049, 4100, 16384, 20001]:
        checked += check_length[dtype](ctx, length, 24)
    return checked


def main() raises:
    """Checks every type.

    Raises:
        If a result differs.
    """
    var ctx = DeviceContext()
    seed()
    comptime for dtype in [DType.bfloat16, DType.float16, DType.float32, DType.float64]:
        print(dtype, check_type[dtype](ctx, len(argv()) > 1), "layers")
