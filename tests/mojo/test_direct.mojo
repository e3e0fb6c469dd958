"""The kernels called from Mojo: every output is written, results do not depend on the split, other targets raise."""

from std.testing import TestSuite, assert_equal, assert_raises, assert_true
from max.gpu.host import DeviceContext

from _ops.kernels.direct import direct
from _ops.kernels.direct_cpu import compute_span, direct_cpu, nth_tap
from _ops.shared.border import CONSTANT, MIRROR, NEAREST, REFLECT, WRAP, Border
from _ops.shared.geometry import Geometry


comptime POISON = Float32(-77777)
"""No sum of the tests is this number."""


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


def ramp(length: Int) -> List[Float32]:
    """Makes small integers, whose sums are exact.

    Args:
        length: How many.

    Returns:
        1, 2, 3, 1, 2, 3, ...
    """
    var values = List[Float32](capacity=length)
    for i in range(length):
        values.append(Float32(1 + i % 3))
    return values^


def test_every_output_is_written_and_nothing_beside_it() raises:
    """Outputs and the memory on either side are poisoned; only the outputs change, and to the right sums.

    Raises:
        If it is not so.
    """
    for samples in [1, 2, 15, 127, 128, 129, 300]:
        for taps in [1, 4, 33, 64, 150]:
            var outputs = samples + taps - 1
            var y = List[Float32](length=outputs + 2, fill=POISON)
            var x = ramp(samples)
            var k = ramp(taps)
            var geometry = Geometry(samples, taps, outputs, taps - 1, True, 1, 1)
            direct_cpu(address(y).unsafe_offset(1), address(x), address(k), geometry, 0)
            assert_equal(y[0], POISON)
            assert_equal(y[outputs + 1], POISON)
            for i in range(outputs):
                var sum = Float32(0)
                for j in range(max(0, i - samples + 1), min(taps, i + 1)):
                    sum += k[j] * x[i - j]
                assert_equal(y[i + 1], sum)


def test_any_split_gives_the_same_bits() raises:
    """Inexact sums come out bit for bit the same, however the outputs are cut into spans.

    Raises:
        If it is not so.
    """
    comptime SAMPLES = 1000
    for taps in [1, 31, 32, 33, 100]:
        var outputs = SAMPLES - taps + 1
        var x = List[Float32](capacity=SAMPLES)
        for i in range(SAMPLES):
            x.append(Float32(1) / Float32(1 + i))
        var k = x.copy()
        var geometry = Geometry(SAMPLES, taps, outputs, 0, False, 1, 1)
        var whole = List[Float32](length=outputs, fill=POISON)
        direct_cpu(address(whole), address(x), address(k), geometry, 1)
        for cut in [1, 7, 128, 500]:
            var pieces = List[Float32](length=outputs, fill=POISON)
            compute_span(address(pieces), address(x), address(k), geometry, 0, cut)
            compute_span(address(pieces), address(x), address(k), geometry, cut, outputs)
            for i in range(outputs):
                assert_equal(pieces[i], whole[i])


def check_border[dtype: DType](samples: Int, taps: Int, pad_left: Int) raises:
    """Compares every border with the same call on a padded copy, bit for bit, whole and in two spans.

    Parameters:
        dtype: Element type.

    Args:
        samples: N.
        taps: K.
        pad_left: Positions before x[0] at which the first window starts.

    Raises:
        If a bit differs, or something beside the outputs was written.
    """
    var x = List[Scalar[dtype]](length=samples, fill=0)
    var k = List[Scalar[dtype]](length=taps, fill=0)
    for i in range(samples):
        x[i] = (Float64(100) / Float64(1 + i * 7 % 13)).cast[dtype]()
    for j in range(taps):
        k[j] = (Float64(100) / Float64(1 + j * 5 % 17)).cast[dtype]()
    var length = samples + taps - 1
    for mode in [CONSTANT, NEAREST, REFLECT, MIRROR, WRAP]:
        var border = Border[dtype](mode, 3)
        var padded = List[Scalar[dtype]](capacity=length)
        for i in range(length):
            padded.append(border.sample(address(x), i - pad_left, samples))
        var expected = List[Scalar[dtype]](length=samples, fill=99)
        var alone = Geometry(length, taps, samples, 0, True, 1, 1)
        direct_cpu(address(expected), address(padded), address(k), alone, 1)
        var geometry = Geometry(samples, taps, samples, pad_left, True, 1, 1)
        for cut in [0, 1, samples // 2]:
            var y = List[Scalar[dtype]](length=samples + 2, fill=99)
            var outputs = address(y).unsafe_offset(1)
            compute_span(outputs, address(x), address(k), geometry, 0, cut, border)
            compute_span(outputs, address(x), address(k), geometry, cut, samples, border)
            assert_equal(y[0], 99)
            assert_equal(y[samples + 1], 99)
            for i in range(samples):
                assert_equal(y[i + 1], expected[i])


def test_a_border_gives_the_bits_of_a_padded_copy() raises:
    """Short and long signals, taps longer than them, and windows that begin anywhere.

    Raises:
        If it is not so.
    """
    for samples in [1, 2, 7, 127, 128, 129, 700]:
        for taps in [1, 2, 33, 64, 150]:
            for pad_left in [0, taps // 2, taps - 1, taps + 40, -3]:
                check_border[DType.float32](samples, taps, pad_left)
                check_border[DType.float64](samples, taps, pad_left)
                check_border[DType.float16](samples, taps, pad_left)
                check_border[DType.int8](samples, taps, pad_left)


def test_many_rows_with_a_border_on_several_threads() raises:
    """Rows that are shared out among threads keep their own ends.

    Raises:
        If it is not so.
    """
    comptime ROWS = 100
    comptime SAMPLES = 1000
    comptime TAPS = 33
    var x = ramp(ROWS * SAMPLES)
    var k = ramp(TAPS)
    var y = List[Float32](length=ROWS * SAMPLES, fill=POISON)
    var border = Border[DType.float32](WRAP, 0)
    direct_cpu(address(y), address(x), address(k), Geometry(SAMPLES, TAPS, SAMPLES, 16, False, ROWS, 1), 0, border)
    for i in range(ROWS * SAMPLES):
        var sum = Float32(0)
        for j in range(TAPS):
            sum += k[j] * x[i - i % SAMPLES + (i + j - 16) % SAMPLES]
        assert_equal(y[i], sum)


def test_the_order_of_taps_is_a_permutation() raises:
    """Every tap is added exactly once.

    Raises:
        If it is not so.
    """
    for taps in range(1, 200):
        var seen = List[Bool](length=taps, fill=False)
        for step in range(taps):
            var j = nth_tap[DType.float32](step, taps)
            assert_true(not seen[j])
            seen[j] = True


def test_another_target_is_refused() raises:
    """A target that is neither CPU nor GPU raises instead of leaving the output unwritten.

    Raises:
        If it is not so.
    """
    var y = List[Float32](length=1, fill=POISON)
    var ctx = DeviceContext(api="cpu")
    with assert_raises(contains="Unsupported target: npu"):
        direct["npu"](address(y), address(y), address(y), Geometry(1, 1, 1, 0, False, 1, 1), ctx)


def main() raises:
    """Runs every test of this file.

    Raises:
        If one fails.
    """
    TestSuite.discover_tests[__functions_in_module()]().run()
