"""`convolve` and `correlate` give SciPy's values in every mode, element type and size."""

from __future__ import annotations

import arrays
import numpy as np
import pytest
import reference
import scipy.signal
import tolerances

import maxconv

MODES = ["full", "same", "valid"]
#: Lengths around the tile (128 float32 outputs), the tap pair (16, 32), and the GPU's tap chunk and tile.
AWKWARD = [(1, 1), (1, 40), (40, 1), (127, 31), (128, 32), (129, 33), (300, 300), (33, 1000), (2050, 257), (4500, 515)]


def test_numbers_a_person_can_check():
    """Small integers give the sums one can do by hand."""
    np.testing.assert_array_equal([3, 10, 22, 28, 31, 26, 12], maxconv.convolve([3, 4, 5, 6, 4], [1, 2, 3]))
    np.testing.assert_array_equal([9, 18, 26, 32, 29, 14, 4], maxconv.correlate([3, 4, 5, 6, 4], [1, 2, 3]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_every_small_pair_of_lengths_equals_scipy(rng, function, mode):
    """All lengths 1..20 of both operands, the second longer than the first included, give SciPy's numbers."""
    for n in range(1, 21):
        for m in range(1, 21):
            in1, in2 = rng.integers(-50, 50, n), rng.integers(-50, 50, m)
            expected = getattr(scipy.signal, function)(in1, in2, mode, method="direct")
            np.testing.assert_array_equal(expected, getattr(maxconv, function)(in1, in2, mode))


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_floats_stay_within_the_error_bound(device, rng, function, mode, dtype):
    """Every floating type stays within K*u*sum|x||k| of the float64 result, on every device."""
    for n, m in AWKWARD:
        x, k = arrays.random_array(rng, n, dtype), arrays.random_array(rng, m, dtype)
        actual = getattr(maxconv, function)(x, k, mode, "direct", device=device)
        assert actual.dtype == dtype
        exact = getattr(reference, function)(x, k, mode)
        magnitude = getattr(reference, function)(np.abs(x), np.abs(k), mode)
        tolerances.assert_within_bound(actual, exact, magnitude, min(n, m))


@pytest.mark.parametrize("dtype", arrays.INTEGERS, ids=str)
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_integers_are_exact_modulo_their_size(device, rng, function, dtype):
    """Integers over the whole range of their type wrap exactly as NumPy's do, on every device."""
    for n, m in [*AWKWARD[:8], (1000, 65)]:
        for mode in MODES:
            x, k = arrays.random_array(rng, n, dtype), arrays.random_array(rng, m, dtype)
            actual = getattr(maxconv, function)(x, k, mode, device=device)
            assert actual.dtype == dtype
            exact = getattr(reference, function)(x, k, mode)
            np.testing.assert_array_equal(reference.wrap(exact, dtype), actual)


@pytest.mark.parametrize(("n", "m"), [(10**6, 3), (10**6 + 1, 64), (300_007, 4097), (5, 10**6)])
def test_work_for_several_threads_is_right(device, rng, n, m):
    """Sizes that are split over threads or thousands of GPU blocks are right to the last element."""
    x, k = (arrays.random_array(rng, length, np.dtype(np.float32)) for length in (n, m))
    actual = maxconv.convolve(x, k, method="direct", device=device)
    magnitude = reference.magnitude(x, k)
    tolerances.assert_within_bound(actual, reference.convolve(x, k), magnitude, min(n, m))


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
def test_nan_and_infinity_stay_local(device, rng, dtype):
    """A NaN or Inf sample reaches exactly the K outputs that it meets, and no other changes."""
    x, k = arrays.random_array(rng, 700, dtype), arrays.random_array(rng, 37, dtype)
    clean = maxconv.convolve(x, k, device=device).astype(np.float64)
    for place in (0, 350, 699):
        for value in (np.nan, np.inf, -np.inf):
            spoilt = x.copy()
            spoilt[place] = value
            result = maxconv.convolve(spoilt, k, device=device).astype(np.float64)
            reached = np.zeros(736, bool)
            reached[place : place + 37] = True
            np.testing.assert_array_equal(reached, ~np.isfinite(result))
            np.testing.assert_array_equal(clean[~reached], result[~reached])


def test_an_infinite_tap_meets_only_samples_that_exist(device):
    """At the edges a tap beyond the signal is left out, not multiplied by zero: Inf * 0 would be NaN."""
    for n in (5, 400, 5000):
        x, k = np.ones(n, np.float32), np.array([1, 2, np.inf], np.float32)
        np.testing.assert_array_equal(np.convolve(x, k), maxconv.convolve(x, k, device=device))


def test_the_same_call_gives_the_same_bits(device, rng):
    """Ten runs of one call, large enough for threads, agree bit for bit."""
    x, k = rng.standard_normal(10**6), rng.standard_normal(70)
    first = maxconv.convolve(x, k, method="direct", device=device)
    for _ in range(9):
        np.testing.assert_array_equal(first, maxconv.convolve(x, k, method="direct", device=device))
