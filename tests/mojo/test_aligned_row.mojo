"""Rows read by whole vectors: every sample where it belongs, whatever the address, and nothing read beside the row."""

from std.testing import TestSuite, assert_equal, assert_true

from _ops.shared.aligned_row import AlignedRow, widen


def check_row[dtype: DType](offset: Int, length: Int) raises:
    """Takes every window out of a row that begins anywhere; elements beside it are poisoned.

    Parameters:
        dtype: Element type.

    Args:
        offset: Elements before the row.
        length: Samples of the row.

    Raises:
        If an element is wrong, or none of the row.
    """
    comptime WIDTH = AlignedRow[dtype].WIDTH
    comptime COUNT = WIDTH + 3
    var memory = List[Scalar[dtype]](length=offset + length + 3 * WIDTH, fill=-1)
    for i in range(length):
        memory[offset + i] = Scalar[dtype](i + 1)
    var samples = Pointer[Scalar[dtype], MutAnyOrigin](
        unsafe_from_address=Int(memory.unsafe_ptr().unsafe_offset(offset))
    )
    var row = AlignedRow[dtype].of[True](samples, length)
    for position in range(-2 * WIDTH, length + 2 * WIDTH):
        var lead = row.before(Int32(position))
        var begin = Int32(position) - lead
        var window = Array[SIMD[dtype, WIDTH], 3](fill=SIMD[dtype, WIDTH](0))
        comptime for vector in range(3):
            window[vector] = row.load(begin + Int32(vector * WIDTH))
            assert_true(window[vector].reduce_min() > 0, "an element beside the row")
        if row.has(begin, Int32(3 * WIDTH)):
            var elements = widen[COUNT](window, lead)
            for each in range(COUNT):
                assert_equal(Int(elements[each]), position + each + 1)
    _ = memory^


def test_windows_of_rows_that_begin_anywhere() raises:
    """Every window of every row is right.

    Raises:
        If one is not.
    """
    comptime for dtype in [DType.bfloat16, DType.float16, DType.float32, DType.float64]:
        for offset in range(AlignedRow[dtype].WIDTH):
            for length in range(2 * AlignedRow[dtype].WIDTH, 6 * AlignedRow[dtype].WIDTH):
                check_row[dtype](offset, length)


def check_last_vector[dtype: DType]() raises:
    """Takes all but the first element out of two vectors.

    Parameters:
        dtype: Element type.

    Raises:
        If an element is wrong.
    """
    comptime WIDTH = AlignedRow[dtype].WIDTH
    var window = Array[SIMD[dtype, WIDTH], 2](fill=SIMD[dtype, WIDTH](0))
    comptime for i in range(2 * WIDTH):
        window[i // WIDTH][i % WIDTH] = Scalar[dtype](i)
    var elements = widen[2 * WIDTH - 1](window, 1)
    for i in range(2 * WIDTH - 1):
        assert_equal(Int(elements[i]), i + 1)


def test_last_vector_is_whole() raises:
    """Windows that end with their last vector need nothing behind it.

    Raises:
        If an element is wrong.
    """
    comptime for dtype in [DType.bfloat16, DType.float16, DType.float32, DType.float64]:
        check_last_vector[dtype]()


def main() raises:
    """Runs the tests.

    Raises:
        If one fails.
    """
    TestSuite.discover_tests[__functions_in_module()]().run()
