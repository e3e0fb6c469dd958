"""The layer kernels called from Mojo: right sums, and every result written."""

from std.testing import TestSuite, assert_equal, assert_true

from _ops.kernels.conv_cpu import conv_cpu
from _ops.kernels.conv_weight_gradient_cpu import conv_weight_gradient_cpu
from _ops.kernels.depthwise_cpu import depthwise_cpu
from _ops.shared.accumulate import accum_dtype
from _ops.shared.epilogue import NONE, Epilogue
from _ops.shared.history import History
from _ops.shared.layer_geometry import LayerGeometry


comptime POISON = 7777
"""Stands in the results before a call; a sum of few small integers never reaches it."""


def address[dtype: DType](values: List[Scalar[dtype]]) -> Pointer[Scalar[dtype], MutAnyOrigin]:
    """Points to a list's elements.

    Parameters:
        dtype: Element type.

    Args:
        values: The list, which must outlive the pointer.

    Returns:
        The address of its first element.
    """
    return Pointer[Scalar[dtype], MutAnyOrigin](unsafe_from_address=Int(values.unsafe_ptr()))


def held[dtype: DType](values: List[Scalar[dtype]]) -> Pointer[Scalar[dtype], MutUntrackedOrigin]:
    """Points to a list's elements, for a struct to hold.

    Parameters:
        dtype: Element type.

    Args:
        values: The list, which must outlive the pointer.

    Returns:
        The address of its first element.
    """
    return Pointer[Scalar[dtype], MutUntrackedOrigin](unsafe_from_address=Int(values.unsafe_ptr()))


def small_integers[dtype: DType](length: Int, mut state: UInt32) -> List[Scalar[dtype]]:
    """Makes random integers from -3 to 3, whose sums are exact.

    Parameters:
        dtype: Element type.

    Args:
        length: How many.
        state: State of the generator, a linear congruence (Numerical Recipes' constants).

    Returns:
        The numbers.
    """
    var values = List[Scalar[dtype]](capacity=length)
    for _ in range(length):
        state = state * 1664525 + 1013904223
        values.append(Scalar[dtype](Int(state >> 16) % 7 - 3))
    return values^


def check_layer[dtype: DType](g: LayerGeometry, mut state: UInt32) raises:
    """Compares the three sums of a layer with loops over its terms.

    Parameters:
        dtype: Element type.

    Args:
        g: Sizes and shifts.
        state: State of the random numbers.

    Raises:
        If a result differs.
    """
    var x = small_integers[dtype](g.batch * g.in_channels * g.length, state)
    var w = small_integers[dtype](g.out_channels * g.group_in() * g.taps, state)
    var y = small_integers[dtype](g.batch * g.out_channels * g.outputs, state)
    var forward = List[Float64](length=len(y), fill=0)
    var transposed = List[Float64](length=len(x), fill=0)
    var weights = List[Float64](length=len(w), fill=0)
    for n in range(g.batch):
        for o in range(g.out_channels):
            for i in range(g.outputs):
                for c in range(g.group_in()):
                    for j in range(g.taps):
                        var place = g.position(i, j)
                        if place < 0 or place >= g.length:
                            continue
                        var at_x = g.input_offset(n, o // g.group_out() * g.group_in() + c, place)
                        var at_w = g.weight_offset(o, c, j)
                        var at_y = g.output_offset(n, o, i)
                        forward[at_y] += Float64(x[at_x]) * Float64(w[at_w])
                        transposed[at_x] += Float64(y[at_y]) * Float64(w[at_w])
                        weights[at_w] += Float64(x[at_x]) * Float64(y[at_y])
    var none = Epilogue[dtype](held(x), False, NONE)
    var result = List[Scalar[dtype]](length=len(y), fill=POISON)
    conv_cpu[False](address(result), address(x), address(w), none, g, 0)
    check_equal(result, forward)
    result = List[Scalar[dtype]](length=len(x), fill=POISON)
    conv_cpu[True](address(result), address(y), address(w), none, g, 0)
    check_equal(result, transposed)
    result = List[Scalar[dtype]](length=len(w), fill=POISON)
    conv_weight_gradient_cpu(address(result), address(x), address(y), g, 0)
    check_equal(result, weights)
    if g.group_in() == 1:
        comptime ACC = accum_dtype[dtype]()
        var wide = List[Scalar[ACC]](capacity=len(w))
        for at in range(len(w)):
            wide.append(w[at].cast[ACC]())
        var numbers = List[Int32](length=1, fill=0)
        result = List[Scalar[dtype]](length=len(y), fill=POISON)
        var nothing = History[dtype](held(x), False, held(numbers), False)
        depthwise_cpu[dtype](address(result), address(x), address(wide), none, g, nothing, 0)
        check_equal(result, forward)
        _ = wide^
        _ = numbers^
    _ = x^


def check_equal[dtype: DType](actual: List[Scalar[dtype]], exact: List[Float64]) raises:
    """Compares results with exact ones, rounded to their type.

    Parameters:
        dtype: Element type.

    Args:
        actual: The results.
        exact: The exact ones.

    Raises:
        If one differs.
    """
    for at in range(len(exact)):
        assert_equal(actual[at], exact[at].cast[dtype]())


def test_sums_are_those_of_the_terms() raises:
    """Every sum of a layer is exact on small integers, at any sizes, strides, dilations, groups and paddings.

    Raises:
        If it is not so.
    """
    var state = UInt32(1)
    comptime for dtype in [DType.float32, DType.bfloat16]:
        for groups in [1, 3]:
            for channels in [(1, 1), (1, 4), (2, 7), (5, 13)]:
                for length in [1, 9, 70, 300]:
                    for taps in [(1, 1), (2, 1), (5, 1), (3, 5), (8, 2)]:
                        for stride in [1, 2, 3, 5]:
                            for pad in [0, 3, 20]:
                                var room = length + 2 * pad - taps[1] * (taps[0] - 1) - 1
                                if room < 0:
                                    continue
                                var geometry = LayerGeometry(
                                    batch=2,
                                    in_channels=groups * channels[0],
                                    out_channels=groups * channels[1],
                                    groups=groups,
                                    length=length,
                                    outputs=room // stride + 1,
                                    taps=taps[0],
                                    stride=stride,
                                    dilation=taps[1],
                                    pad_left=pad,
                                )
                                check_layer[dtype](geometry, state)


def test_results_begin_anywhere_in_a_line() raises:
    """Sums of few terms are exact wherever in a line of the caches the result begins, and nothing beside it is written.

    Raises:
        If it is not so.
    """
    comptime MARGIN = 32
    var state = UInt32(1)
    for outputs in [16, 48, 1040, 30000]:
        var geometry = LayerGeometry(2, 2, 7, 1, outputs, outputs, 3, 1, 1, 2)
        var x = small_integers[DType.float32](2 * 2 * outputs, state)
        var w = small_integers[DType.float32](7 * 2 * 3, state)
        var exact = List[Float64](length=2 * 7 * outputs + 2 * MARGIN, fill=POISON)
        for n in range(2):
            for o in range(7):
                for i in range(outputs):
                    var sum = Float64(0)
                    for c in range(2):
                        for j in range(max(0, 2 - i), 3):
                            var sample = x[geometry.input_offset(n, c, geometry.position(i, j))]
                            sum += Float64(sample) * Float64(w[geometry.weight_offset(o, c, j)])
                    exact[MARGIN + geometry.output_offset(n, o, i)] = sum
        for begin in range(MARGIN - 16, MARGIN + 1):
            var whole = List[Float32](length=len(exact) + 2 * MARGIN, fill=POISON)
            var none = Epilogue[DType.float32](held(x), False, NONE)
            conv_cpu[False](address(whole).unsafe_offset(begin), address(x), address(w), none, geometry, 2)
            var actual = List[Float32](capacity=len(exact))
            for at in range(len(exact)):
                actual.append(whole[at + begin - MARGIN] if at + begin >= MARGIN else POISON)
            check_equal(actual, exact)
            _ = whole^
        _ = x^
        _ = w^


def test_geometry_agrees_with_itself() raises:
    """`first_tap` and `end_tap` bound the taps whose position lies inside the signal.

    Raises:
        If it is not so.
    """
    for stride in [1, 3]:
        for dilation in [1, 2, 7]:
            for pad in [0, 4, 30]:
                var geometry = LayerGeometry(1, 1, 1, 1, 17, 40, 6, stride, dilation, pad)
                for i in range(geometry.outputs):
                    for j in range(geometry.taps):
                        var place = geometry.position(i, j)
                        var is_inside = place >= 0 and place < geometry.length
                        assert_equal(is_inside, geometry.first_tap(i) <= j and j < geometry.end_tap(i))
                    assert_true(geometry.end_tap(i) <= geometry.taps)


def main() raises:
    """Runs every test of this file.

    Raises:
        If one fails.
    """
    TestSuite.discover_tests[__functions_in_module()]().run()
