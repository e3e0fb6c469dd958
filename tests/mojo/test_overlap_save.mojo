"""Overlap-save from Mojo: within its bound, every output written, nothing beside it, the same bits at any split."""

from std.math import log2, sqrt
from std.testing import TestSuite, assert_equal, assert_true

from _ops.kernels.overlap_save_cpu import overlap_save_cpu, prepare_plan
from _ops.shared.accumulate import accum_dtype
from _ops.shared.border import CONSTANT, MIRROR, NEAREST, OMIT, REFLECT, WRAP, Border
from _ops.shared.fft_block import plan_length, shortest_block
from _ops.shared.geometry import Geometry


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


def noise[dtype: DType](length: Int, seed: Int) -> List[Scalar[dtype]]:
    """Makes numbers in [-1, 1) that look random.

    Parameters:
        dtype: Element type.

    Args:
        length: How many.
        seed: Which ones.

    Returns:
        The numbers.
    """
    var values = List[Scalar[dtype]](capacity=length)
    var state = UInt64(seed) * 7919 + 1
    for _ in range(length):
        state = state * 6364136223846793005 + 1442695040888963407
        values.append((Float64(Int(state >> 40)) / Float64(1 << 23) - 1).cast[dtype]())
    return values^


def convolve[
    dtype: DType, is_complex: Bool = False
](
    x: List[Scalar[dtype]],
    k: List[Scalar[dtype]],
    geometry: Geometry,
    nfft: Int,
    workers: Int,
    border: Border[dtype] = Border[dtype](OMIT, 0),
    poison: Scalar[dtype] = -777,
) -> List[Scalar[dtype]]:
    """Runs the kernel with a plan of its own.

    Parameters:
        dtype: Element type.
        is_complex: True if elements come in pairs.

    Args:
        x: Signals.
        k: Taps.
        geometry: Sizes and shifts.
        nfft: Block length.
        workers: Upper bound of threads.
        border: How the signals go on beyond their ends.
        poison: What stands in the outputs and in the element on either side of them before.

    Returns:
        The outputs with one element on either side.
    """
    comptime PARTS = 2 if is_complex else 1
    var y = List[Scalar[dtype]](length=geometry.rows * geometry.outputs * PARTS + 2, fill=poison)
    var stride = plan_length[dtype, is_complex](nfft)
    var plan = List[Scalar[accum_dtype[dtype]()]](length=stride * geometry.tap_rows, fill=0)
    for row in range(geometry.tap_rows):
        prepare_plan[dtype, is_complex](
            address(plan).unsafe_offset(row * stride),
            address(k).unsafe_offset(geometry.taps_offset(row) * PARTS),
            geometry.taps,
            geometry.flip,
            nfft,
        )
    overlap_save_cpu[dtype, is_complex](
        address(y).unsafe_offset(1), address(x), address(plan), geometry, nfft, workers, border
    )
    _ = plan^
    return y^


def norm[dtype: DType](values: List[Scalar[dtype]]) -> Float64:
    """Computes the Euclidean norm.

    Parameters:
        dtype: Element type.

    Args:
        values: The numbers.

    Returns:
        The root of the sum of squares.
    """
    var sum = Float64(0)
    for value in values:
        sum += value.cast[DType.float64]() ** 2
    return sqrt(sum)


def check[dtype: DType, is_complex: Bool](geometry: Geometry, nfft: Int, mode: Int = OMIT) raises:
    """Compares with a direct sum in float64, row by row.

    Parameters:
        dtype: Element type.
        is_complex: True if elements come in pairs.

    Args:
        geometry: Sizes and shifts.
        nfft: Block length.
        mode: How the signals go on beyond their ends.

    Raises:
        If an output is off by more than the promised bound, or something else was written.
    """
    comptime PARTS = 2 if is_complex else 1
    comptime EPS = Float64(1) / Float64(1 << (10 if dtype == DType.float16 else 23 if dtype == DType.float32 else 52))
    var x = noise[dtype](geometry.rows * geometry.samples * PARTS, 1)
    var k = noise[dtype](geometry.tap_rows * geometry.taps * PARTS, 2)
    var border = Border[dtype](mode, 0.5)
    var y = convolve[dtype, is_complex](x, k, geometry, nfft, 0, border)
    # As many extended samples as a block holds may each be as large as the largest, 1.
    var extended = Float64(0 if border.omits() else nfft * PARTS)
    var bound = 10 * EPS * log2(Float64(nfft)) * sqrt(norm(x) ** 2 + extended) * norm(k)
    assert_equal(y[0], -777)
    assert_equal(y[len(y) - 1], -777)
    for row in range(geometry.rows):
        for i in range(geometry.outputs):
            var re = Float64(0)
            var im = Float64(0)
            for j in range(geometry.taps):
                var index = border.index(geometry.input_index(i, j), max(1, geometry.samples))
                var exists = 0 <= index and index < geometry.samples
                if not exists and mode != CONSTANT:
                    continue
                var at = (row * geometry.samples + index) * PARTS
                var tap = (geometry.taps_offset(row) + geometry.tap_index(j)) * PARTS
                var a = x[at].cast[DType.float64]() if exists else 0.5
                var b = k[tap].cast[DType.float64]()
                comptime if is_complex:
                    var a_im = x[at + 1].cast[DType.float64]() if exists else 0
                    var b_im = k[tap + 1].cast[DType.float64]()
                    re += a * b - a_im * b_im
                    im += a * b_im + a_im * b
                else:
                    re += a * b
            var out = 1 + (row * geometry.outputs + i) * PARTS
            assert_true(abs(y[out].cast[DType.float64]() - re) <= bound)
            comptime if is_complex:
                assert_true(abs(y[out + 1].cast[DType.float64]() - im) <= bound)


def check_all[dtype: DType, is_complex: Bool]() raises:
    """Compares over block lengths, taps, samples, shifts and both directions.

    Parameters:
        dtype: Element type.
        is_complex: True if elements come in pairs.

    Raises:
        If one is wrong.
    """
    comptime SHORTEST = shortest_block[dtype, is_complex]()
    for nfft in [SHORTEST, 2 * SHORTEST, 4 * SHORTEST, 8 * SHORTEST, 32 * SHORTEST]:
        for taps in [1, 2, nfft // 3, nfft // 2, nfft // 2 + 2, nfft - 5, nfft]:
            if nfft > 8 * SHORTEST and taps != nfft // 3:
                continue
            for samples in [1, 70, nfft + nfft // 2 + 3]:
                var full = samples + taps - 1
                if nfft - taps < 8:
                    full = min(full, 50)
                check[dtype, is_complex](Geometry(samples, taps, full, taps - 1, True, 1, 1), nfft)
                check[dtype, is_complex](Geometry(samples, taps, min(full, samples), taps // 2, False, 1, 1), nfft)


def test_float32_is_right() raises:
    """Real float32 signals.

    Raises:
        If not.
    """
    check_all[DType.float32, False]()


def test_float64_is_right() raises:
    """Real float64 signals.

    Raises:
        If not.
    """
    check_all[DType.float64, False]()


def test_float16_is_right() raises:
    """Half-precision signals, computed in float32.

    Raises:
        If not.
    """
    check_all[DType.float16, False]()


def test_complex_is_right() raises:
    """Signals and taps of pairs (real, imaginary).

    Raises:
        If not.
    """
    check_all[DType.float32, True]()
    check_all[DType.float64, True]()


def test_rows_are_separate() raises:
    """Several signals in one call, with one filter for all and with a filter each.

    Raises:
        If not.
    """
    for tap_rows in [1, 3]:
        check[DType.float32, False](Geometry(700, 33, 732, 32, True, 3, tap_rows), 512)
        check[DType.float64, True](Geometry(100, 33, 132, 32, True, 3, tap_rows), 128)


def test_borders_are_right() raises:
    """Blocks beyond the ends load what the border puts there, over one end, both, and several turns of the signal.

    Raises:
        If not.
    """
    for mode in [CONSTANT, NEAREST, REFLECT, MIRROR, WRAP]:
        for samples in [1, 2, 70, 512, 1500]:
            for pad_left in [0, 100, 199]:
                check[DType.float32, False](Geometry(samples, 200, samples, pad_left, True, 1, 1), 512, mode)
        check[DType.float64, False](Geometry(1500, 33, 1500, 16, False, 3, 3), 128, mode)
        check[DType.float16, False](Geometry(900, 33, 900, 16, True, 1, 1), 1024, mode)
        check[DType.float32, True](Geometry(700, 33, 900, 116, True, 2, 1), 512, mode)


def test_windows_far_outside_give_zeros() raises:
    """Outputs whose windows meet no sample are the zeros of the transform, not the leftovers of memory.

    Raises:
        If not.
    """
    check[DType.float32, False](Geometry(5, 3, 3000, 1000, True, 1, 1), 512)


def test_the_number_of_workers_does_not_change_a_bit() raises:
    """Blocks shared out among workers, and long blocks that several workers share.

    Raises:
        If not.
    """
    for nfft in [1024, 1 << 16, 1 << 17]:
        var geometry = Geometry(150000, 1000, 150999, 999, True, 1, 1)
        var x = noise[DType.float32](geometry.samples, 3)
        var k = noise[DType.float32](geometry.taps, 4)
        var alone = convolve[DType.float32](x, k, geometry, nfft, 1)
        for workers in [0, 2, 3, 8]:
            var shared = convolve[DType.float32](x, k, geometry, nfft, workers)
            for i in range(len(alone)):
                assert_equal(alone[i], shared[i])


def test_nothing_to_compute_is_allowed() raises:
    """No outputs or no rows: nothing is written. No samples: zeros.

    Raises:
        If it is not so.
    """
    check[DType.float32, False](Geometry(10, 4, 0, 0, True, 1, 1), 512)
    check[DType.float32, False](Geometry(10, 4, 13, 3, True, 0, 1), 512)
    check[DType.float32, False](Geometry(0, 4, 20, 3, True, 1, 1), 512)


def main() raises:
    """Runs every test of this file.

    Raises:
        If one fails.
    """
    TestSuite.discover_tests[__functions_in_module()]().run()
