"""`upfirdn` and `resample_poly` give SciPy's values, lengths and types."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import maxconv
from maxconv import ArgumentError, DtypeError, ShapeError

RATES = [(1, 1), (1, 2), (2, 1), (3, 2), (2, 3), (4, 6), (7, 5), (160, 147), (1, 50), (50, 1)]


def random(rng: np.random.Generator, shape, kind: str) -> np.ndarray:
    """Draw numbers of a type."""
    values = rng.standard_normal(shape) * 10
    return (values + 1j * rng.standard_normal(shape)).astype(kind) if kind.startswith("c") else values.astype(kind)


@settings(max_examples=150, deadline=None)
@given(
    up=st.integers(1, 12),
    down=st.integers(1, 12),
    n=st.integers(1, 200),
    k=st.integers(1, 90),
    seed=st.integers(0, 2**32),
)
def test_any_rates_and_lengths_give_scipys_values(up, down, n, k, seed):
    """Every combination of rates and lengths equals `scipy.signal.upfirdn`."""
    rng = np.random.default_rng(seed)
    h, x = rng.standard_normal(k), rng.standard_normal(n)
    expected = scipy.signal.upfirdn(h, x, up, down)
    actual = maxconv.upfirdn(h, x, up, down)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(expected, actual, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind_x", ["f2", "f4", "f8", "c8", "c16", "i2", "i8", "u1", "?"])
@pytest.mark.parametrize("kind_h", ["f4", "f8", "c8", "i4"])
def test_types_and_values_are_scipys(rng, kind_h, kind_x):
    """Results have SciPy's type, at least float32, for every pair of types; complex ones included."""
    h, x = random(rng, 21, kind_h), random(rng, 100, kind_x)
    expected = scipy.signal.upfirdn(h, x, 3, 2)
    actual = maxconv.upfirdn(h, x, 3, 2)
    assert actual.dtype == expected.dtype
    tolerance = 1e-4 if actual.dtype.name in {"float32", "complex64"} else 1e-11
    np.testing.assert_allclose(expected, actual, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(("shape", "axis"), [((40, 3), 0), ((2, 40), -1), ((2, 30, 3), 1), ((2, 1, 17), 2)])
@pytest.mark.parametrize(("up", "down"), RATES)
def test_any_axis_of_any_rank(rng, shape, axis, up, down):
    """Each vector along the axis is resampled, in any memory layout."""
    h, x = rng.standard_normal(61), np.asfortranarray(rng.standard_normal(shape))
    np.testing.assert_allclose(
        scipy.signal.upfirdn(h, x, up, down, axis), maxconv.upfirdn(h, x, up, down, axis), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize(("up", "down"), RATES)
@pytest.mark.parametrize("padtype", ["constant", "mean", "median", "minimum", "maximum"])
def test_resampling_equals_scipys(rng, padtype, up, down):
    """`resample_poly` equals SciPy's with its default filter and with taps of one's own, along both axes."""
    x = rng.standard_normal((150, 2)) + 5
    for window in (("kaiser", 5.0), "hann", rng.standard_normal(31), rng.standard_normal(10)):
        for axis in (0, 1):
            options = {"axis": axis, "window": window, "padtype": padtype}
            expected = scipy.signal.resample_poly(x, up, down, **options)
            np.testing.assert_allclose(expected, maxconv.resample_poly(x, up, down, **options), rtol=1e-9, atol=1e-9)


def test_a_constant_beyond_the_ends(rng):
    """`cval` is what the signal is taken to be beyond its ends."""
    x = rng.standard_normal(60).astype(np.float32)
    expected = scipy.signal.resample_poly(x, 3, 4, cval=2.5)
    actual = maxconv.resample_poly(x, 3, 4, cval=2.5)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(expected, actual, rtol=1e-4, atol=1e-4)


def test_large_work_is_the_same_on_any_number_of_threads(rng):
    """A million samples equal SciPy's to the end, and the same call gives the same bits."""
    h, x = rng.standard_normal(301), rng.standard_normal(10**6)
    first = maxconv.upfirdn(h, x, 3, 2)
    np.testing.assert_allclose(scipy.signal.upfirdn(h, x, 3, 2), first, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(first, maxconv.upfirdn(h, x, 3, 2))


def test_an_infinite_tap_meets_only_samples_that_exist():
    """Inserted zeros and samples beyond the ends are not multiplied: Inf * 0 would be NaN."""
    result = maxconv.upfirdn([1.0, np.inf], [1.0, 2.0, 3.0], up=2)
    np.testing.assert_array_equal([1, np.inf, 2, np.inf, 3, np.inf], result)


BAD_CALLS = [
    (lambda: maxconv.upfirdn([[1.0]], [1.0]), ShapeError, r"upfirdn: h has shape \(1, 1\), but rank 1"),
    (lambda: maxconv.upfirdn([], [1.0]), ShapeError, "upfirdn: h has shape"),
    (lambda: maxconv.upfirdn([1.0], []), ShapeError, "upfirdn: x has shape"),
    (lambda: maxconv.upfirdn([1.0], 3.0), ArgumentError, "axis must be an integer"),
    (lambda: maxconv.upfirdn([1.0], [1.0], 0), ArgumentError, "up must be an integer >= 1, got 0"),
    (lambda: maxconv.upfirdn([1.0], [1.0], 1, 1.5), ArgumentError, "down must be an integer >= 1, got 1.5"),
    (lambda: maxconv.upfirdn([1.0], [1.0], axis=1), ArgumentError, "axis must be an integer from -1 to 0"),
    (lambda: maxconv.upfirdn(["a"], [1.0]), DtypeError, "h has elements of type str"),
    (lambda: maxconv.resample_poly([1.0], 1, 2, padtype="edge"), ArgumentError, "padtype must be one of 'constant'"),
    (lambda: maxconv.resample_poly([1.0], 1, 2, padtype="mean", cval=1), ArgumentError, "cval has no meaning"),
    (lambda: maxconv.resample_poly([1.0], 1, 2, window=[[1.0]]), ShapeError, r"window has shape \(1, 1\)"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD_CALLS)
def test_bad_input_is_refused_in_words(call, kind, text):
    """Wrong ranks, rates, axes, types and borders raise their own errors."""
    with pytest.raises(kind, match=text):
        call()
