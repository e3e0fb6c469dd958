"""The column kernel called from Mojo: right sums under every border, the bits of the direct kernel, any split."""

from std.testing import TestSuite, assert_equal

from _ops.kernels.columns_cpu import columns_cpu
from _ops.kernels.direct_cpu import direct_cpu
from _ops.shared.border import OMIT, WRAP, Border
from _ops.shared.geometry import Geometry


comptime POISON = Float32(-77777)
"""No sum of the tests is this number."""


def address(values: List[Float32]) -> Pointer[Float32, MutAnyOrigin]:
    """Points to a list's elements.

    Args:
        values: The list, which must outlive the pointer.

    Returns:
        The address of its first element.
    """
    return Pointer[Float32, MutAnyOrigin](unsafe_from_address=Int(values.unsafe_ptr()))


def numbers(length: Int, mut state: UInt32) -> List[Float32]:
    """Makes random integers from -3 to 3, whose sums are exact.

    Args:
        length: How many.
        state: State of the generator, a linear congruence (Numerical Recipes' constants).

    Returns:
        The numbers.
    """
    var values = List[Float32](capacity=length)
    for _ in range(length):
        state = state * 1664525 + 1013904223
        values.append(Float32(Int(state >> 16) % 7 - 3))
    return values^


def check[per_column: Bool](geometry: Geometry, inner: Int, mode: Int, mut state: UInt32) raises:
    """Compares one call with the definition; outputs and the memory on either side are poisoned.

    Parameters:
        per_column: Whether there is a filter for each column.

    Args:
        geometry: Sizes and shifts.
        inner: Columns.
        mode: Of the border.
        state: State of the generator.

    Raises:
        If an output is wrong.
    """
    var outputs = geometry.rows * geometry.outputs * inner
    var x = numbers(geometry.rows * geometry.samples * inner, state)
    var filters = inner if per_column else 1
    var k = numbers(geometry.taps * filters, state)
    var y = List[Float32](length=outputs + 2, fill=POISON)
    var border = Border[DType.float32](mode, 2)
    columns_cpu[DType.float32, per_column](
        address(y).unsafe_offset(1), address(x), address(k), geometry, inner, border, 0
    )
    assert_equal(y[0], POISON)
    assert_equal(y[outputs + 1], POISON)
    for index in range(outputs):
        var outer = index // (geometry.outputs * inner)
        var column = index % inner
        var sum = Float32(0)
        for j in range(geometry.taps):
            var position = geometry.input_index(index // inner % geometry.outputs, j)
            var at = border.index(position, geometry.samples)
            if at < 0 and mode == OMIT:
                continue
            var tap = k[geometry.tap_index(j) * filters + (column if per_column else 0)]
            sum += tap * (Float32(2) if at < 0 else x[(outer * geometry.samples + at) * inner + column])
        assert_equal(y[1 + index], sum)


def test_every_output_is_the_defined_sum() raises:
    """Narrow and wide rows, one filter or one per column, every border, windows far outside: all as defined.

    Raises:
        If it is not so.
    """
    var state = UInt32(1)
    for inner in [1, 2, 7, 63, 64, 65, 150]:
        for taps in [1, 2, 3, 5, 31, 33, 70]:
            for samples in [1, 6, 40]:
                for mode in range(OMIT, WRAP + 1):
                    var full = Geometry(samples, taps, samples + taps - 1, taps - 1, True, 2, 1)
                    var shifted = Geometry(samples, taps, samples + 3, -2, False, 1, 1)
                    check[False](full, inner, mode, state)
                    check[True](full, inner, mode, state)
                    check[False](shifted, inner, mode, state)
                    check[True](shifted, inner, mode, state)


def test_the_interior_of_tall_arrays_is_right() raises:
    """Rows that fill whole flat tiles, far from both ends, are as defined.

    Raises:
        If it is not so.
    """
    var state = UInt32(2)
    for inner in [1, 2, 3, 17, 80]:
        for taps in [1, 4, 32, 75]:
            check[False](Geometry(500, taps, 500, taps // 2, True, 1, 1), inner, OMIT, state)


def test_each_column_gets_the_bits_of_the_direct_kernel() raises:
    """Inexact sums down a column are bit for bit those that the direct kernel gives it alone, on any thread count.

    Raises:
        If it is not so.
    """
    for inner in [1, 3, 64, 100]:
        for taps in [1, 31, 32, 33, 64, 100, 129]:
            for samples in [50, 400]:
                var outputs = samples + taps - 1
                var x = List[Float32](capacity=samples * inner)
                for i in range(samples * inner):
                    x.append(Float32(1) / Float32(1 + i))
                var k = List[Float32](capacity=taps)
                for j in range(taps):
                    k.append(Float32(1) / Float32(3 + j))
                var geometry = Geometry(samples, taps, outputs, taps - 1, True, 1, 1)
                var border = Border[DType.float32](OMIT, 0)
                for workers in [0, 1]:
                    var y = List[Float32](length=outputs * inner, fill=POISON)
                    columns_cpu[DType.float32, False](
                        address(y), address(x), address(k), geometry, inner, border, workers
                    )
                    for column in [0, inner // 2, inner - 1]:
                        var alone = List[Float32](capacity=samples)
                        for i in range(samples):
                            alone.append(x[i * inner + column])
                        var expected = List[Float32](length=outputs, fill=POISON)
                        direct_cpu(address(expected), address(alone), address(k), geometry, 1)
                        for i in range(outputs):
                            assert_equal(y[i * inner + column], expected[i])


def main() raises:
    """Runs every test of this file.

    Raises:
        If one fails.
    """
    TestSuite.discover_tests[__functions_in_module()]().run()
