"""SciPy's and NumPy's published behaviour as tables: shapes, types, methods, inputs, special values, refusals.

Each table says in its head what its columns promise; values are held to `reference.py` within `tolerances.py`.
"""

from __future__ import annotations

import arrays
import ml_dtypes
import numpy as np
import pytest
import reference
import scipy.signal
import tolerances

import maxconv

FUNCTIONS = ["convolve", "correlate"]
MODES = ["full", "same", "valid"]
COMPLEX = [np.dtype(np.complex64), np.dtype(np.complex128)]
BOOL = np.dtype(np.bool_)
DTYPES = [*arrays.FLOATS, *COMPLEX, *arrays.INTEGERS, BOOL]

#: Shapes of in1 and in2, axis -> shape of the result in each mode. Axes other than the convolved one broadcast.
SHAPES = [
    # in1         in2          axis  full         same         valid
    ((1,), (1,), 0, (1,), (1,), (1,)),
    ((7,), (1,), -1, (7,), (7,), (7,)),
    ((1,), (7,), -1, (7,), (1,), (7,)),
    ((10,), (3,), -1, (12,), (10,), (8,)),
    ((3,), (10,), -1, (12,), (3,), (8,)),
    ((10,), (4,), 0, (13,), (10,), (7,)),
    ((5,), (5,), 0, (9,), (5,), (1,)),
    ((600,), (170,), -1, (769,), (600,), (431,)),
    ((170,), (600,), -1, (769,), (170,), (431,)),
    ((4, 50), (4, 6), 1, (4, 55), (4, 50), (4, 45)),
    ((50, 4), (6, 4), 0, (55, 4), (50, 4), (45, 4)),
    ((4, 50), (1, 6), -1, (4, 55), (4, 50), (4, 45)),
    ((1, 50), (4, 6), -1, (4, 55), (4, 50), (4, 45)),
    ((3, 1, 40), (1, 2, 7), 2, (3, 2, 46), (3, 2, 40), (3, 2, 34)),
    ((2, 33, 3), (2, 60, 1), 1, (2, 92, 3), (2, 33, 3), (2, 28, 3)),
    ((2, 9, 1, 2), (2, 3, 3, 1), -3, (2, 11, 3, 2), (2, 9, 3, 2), (2, 7, 3, 2)),
]

#: in1 of any rank with in2 of rank 1, which SciPy refuses: the filter is that of every vector.
ONE_FILTER_FOR_ALL = [
    ((2, 33, 3), (5,), 1, (2, 37, 3), (2, 33, 3), (2, 29, 3)),
    ((3, 40), (7,), -1, (3, 46), (3, 40), (3, 34)),
    ((40, 3), (90,), 0, (129, 3), (40, 3), (51, 3)),
]


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype, *, small: bool = False) -> np.ndarray:
    """Draw numbers of a type: normal ones, or integers over its whole range; or, of any type, integers 0 to 3."""
    if dtype in COMPLEX:
        part = np.dtype(f"f{dtype.itemsize // 2}")
        return draw(rng, shape, part, small=small) + dtype.type(1j) * draw(rng, shape, part, small=small)
    if small or dtype == BOOL:
        return rng.integers(0, 4 if small else 2, shape).astype(dtype)
    return arrays.random_array(rng, int(np.prod(shape)), dtype).reshape(shape)


def vectors(in1: np.ndarray, in2: np.ndarray, y: np.ndarray, axis: int):
    """Yield the vectors of two operands and a result that belong together."""
    if in2.ndim < in1.ndim:
        in2 = in2.reshape([-1 if position == axis % in1.ndim else 1 for position in range(in1.ndim)])
    rows = [np.moveaxis(array, axis, -1) for array in (in1, in2, y)]
    batch = rows[2].shape[:-1]
    rows = [np.broadcast_to(array, (*batch, array.shape[-1])) for array in rows]
    for index in np.ndindex(batch):
        yield tuple(array[index] for array in rows)


def assert_right(function: str, x: np.ndarray, k: np.ndarray, y: np.ndarray, mode: str, method: str) -> None:
    """Hold one vector of results to the reference: integers and booleans exactly, others within their bound."""
    exact = getattr(reference, function)(x, k, mode)
    if y.dtype == BOOL:
        np.testing.assert_array_equal(exact.astype(bool), y)
    elif y.dtype in arrays.INTEGERS:
        np.testing.assert_array_equal(reference.wrap(exact, y.dtype), y)
    elif method == "fft":
        tolerances.assert_within_fft_bound(y, exact, x, k)
    else:
        magnitude = reference.magnitude(x, k if function == "convolve" else k[::-1], mode)
        tolerances.assert_within_bound(y, exact, magnitude, min(len(x), len(k)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("method", ["direct", "fft"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_shapes_and_values_in_every_mode_type_and_method(rng, function, mode, method, dtype):
    """Every row of the tables gives its shape, and every vector of it the reference's values, of the operands' type."""
    for shape1, shape2, axis, *shapes in [*SHAPES, *ONE_FILTER_FOR_ALL]:
        small = method == "fft" and dtype in arrays.INTEGERS  # rounded float64: exact up to 2^53 only
        in1, in2 = (draw(rng, shape, dtype, small=small) for shape in (shape1, shape2))
        y = getattr(maxconv, function)(in1, in2, mode, method, axis=axis)
        assert y.dtype == dtype
        assert y.shape == shapes[MODES.index(mode)]
        for row in vectors(in1, in2, y, axis):
            assert_right(function, *row, mode, method)


@pytest.mark.parametrize(("shape1", "shape2", "axis", "full", "same", "valid"), SHAPES)
def test_the_table_of_shapes_is_scipys(rng, shape1, shape2, axis, full, same, valid):
    """`scipy.signal.oaconvolve(axes=axis)` returns those very shapes, and the same values.

    But where in1 is broadcast, its "same" also cuts the other axes to the length that in1 has there, and so drops rows.
    """
    in1, in2 = rng.standard_normal(shape1), rng.standard_normal(shape2)
    for mode, shape in zip(MODES, (full, same, valid), strict=True):
        if mode == "same" and same != shape1:
            continue
        expected = scipy.signal.oaconvolve(in1, in2, mode, axes=axis)
        assert expected.shape == shape
        np.testing.assert_allclose(expected, maxconv.convolve(in1, in2, mode, axis=axis), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_auto_is_one_of_the_methods(rng, function, dtype):
    """`auto` gives the very bits of a method; integers and booleans of any size those of the sums, which are exact."""
    for n, m in [(20, 5), (600, 170), (5000, 700)]:
        in1, in2 = draw(rng, (n,), dtype), draw(rng, (m,), dtype)
        call = getattr(maxconv, function)
        auto, direct = call(in1, in2), call(in1, in2, method="direct")
        if dtype in arrays.INTEGERS or dtype == BOOL:
            np.testing.assert_array_equal(direct, auto)
        else:
            assert auto.tobytes() in {direct.tobytes(), call(in1, in2, method="fft").tobytes()}


#: Types that NumPy itself has, which SciPy takes.
NUMPY_DTYPES = [dtype for dtype in DTYPES if dtype != ml_dtypes.bfloat16]


@pytest.mark.parametrize("left", NUMPY_DTYPES, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_any_two_types_give_scipys_type_and_values(rng, function, left):
    """The result has `numpy.result_type` of the operands, whatever two types they have; `correlate` conjugates in2."""
    for right in NUMPY_DTYPES:
        for n, m in [(9, 4), (4, 9)]:
            in1, in2 = draw(rng, (n,), left, small=True), draw(rng, (m,), right, small=True)
            expected = getattr(scipy.signal, function)(in1, in2, method="direct")
            actual = getattr(maxconv, function)(in1, in2)
            assert actual.dtype == expected.dtype == np.result_type(in1, in2)
            np.testing.assert_array_equal(expected, actual)


#: What SciPy takes besides arrays.
VALUES = {
    "two numbers": (3, 4),
    "a number and a complex one": (2.5, 1 - 2j),
    "numbers of two types": (np.float32(3), np.int8(2)),
    "arrays without a dimension": (np.array(2.0), np.array(-1.5)),
    "lists": ([1, 2, 3], [0, 1, 0.5]),
    "list and tuple": ([1, 2, 3], (1, 0.5)),
    "lists in lists": ([[1, 2, 3]], [[1, 2]]),
    "range": (range(5), range(1, 4)),
    "booleans": ([True, False, True], [True, True]),
    "integers beyond int64": ([2**63, 2**63], [1]),
    "complex list": ([1j, 2, 3 + 1j], [1 + 1j, 2]),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_whatever_scipy_takes_is_taken(function, name):
    """Numbers and Python's sequences give SciPy's values, of its type and shape."""
    expected = getattr(scipy.signal, function)(*VALUES[name], method="direct")
    actual = getattr(maxconv, function)(*VALUES[name])
    assert np.asarray(actual).dtype == np.asarray(expected).dtype
    assert np.shape(actual) == np.shape(expected)
    np.testing.assert_array_equal(expected, actual)


#: Makes an array of the same shape and numbers that lies otherwise in memory.
LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "transposed": lambda array: np.ascontiguousarray(array.T).T,
    "reversed twice": lambda array: np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
    "every second row and third column": lambda array: np.repeat(np.repeat(array, 2, 0), 3, 1)[::2, ::3],
    "read-only": lambda array: np.broadcast_to(array, array.shape),
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder(">")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f4", "c16", "u2"])
@pytest.mark.parametrize("method", ["direct", "fft"])
def test_the_memory_layout_of_matrices_does_not_matter(rng, method, dtype, layout):
    """Either operand in any layout gives the bits of contiguous ones, along both axes, and is not changed."""
    in1, in2 = (draw(rng, shape, np.dtype(dtype), small=True) for shape in ((12, 13), (12, 13)))
    other1, other2 = LAYOUTS[layout](in1), LAYOUTS[layout](in2)
    for axis in (0, 1):
        expected = maxconv.correlate(in1, in2, method=method, axis=axis)
        for operands in ((other1, in2), (in1, other2), (other1, other2)):
            np.testing.assert_array_equal(expected, maxconv.correlate(*operands, method=method, axis=axis))
    np.testing.assert_array_equal(in1, other1)
    np.testing.assert_array_equal(in2, other2)


NAN, INF = np.nan, np.inf


def specials(dtype: np.dtype) -> dict[str, tuple[list[float], list[float]]]:
    """Name patterns of signals and taps; their sums are exact in any order, unless they are NaN or infinite."""
    limits = np.finfo(dtype)
    least, most = float(limits.smallest_subnormal), float(limits.max)
    half = int(np.log2(least)) // 2
    return {
        "NaN in the signal": ([1, 2, NAN, 0, 3, 1, 1], [1, 2, -1]),
        "NaN in the taps": ([1, 2, 0, 3], [1, NAN, 2, 1]),
        "Inf in the signal": ([1, INF, 2, 0, 3, 1, 1], [1, 2, 1]),
        "-Inf in the taps": ([1, 2, 1, 3], [1, -INF, 2]),
        "Inf meets -Inf": ([1, INF, -INF, 2, 1, 1, 1, 1], [1, 1, 2]),
        "Inf meets zero": ([1, INF, 2, 1, 1, 1], [1, 0, 2]),
        "zeros of both signs": ([0.0, -0.0, -0.0, 0.0, -0.0], [1, -1, 0.0, -0.0]),
        "negative zeros alone": ([-0.0], [1]),
        "subnormal samples": ([least, 2 * least, -3 * least, 0], [1, 2, 1]),
        "subnormal products": ([2.0**half, -(2.0**half), 0], [least / 2.0**half, 2 * least / 2.0**half]),
        "products above the largest number": ([most, 1, 0, 2], [4, 0]),
        "products below the least number": ([-most, 1, 0], [0, 4]),
        "sums above the largest number": ([most, 1, 0], [1]),
    }


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("name", specials(np.dtype("f8")))
def test_special_values_are_numpys_when_summed(device, name, dtype):
    """NaN, Inf, signed zeros, subnormal and overflowing numbers come out as from `numpy.convolve`, at any length."""
    pattern1, pattern2 = specials(np.dtype(dtype))[name]
    for n, m in [(len(pattern1), len(pattern2)), (40, 20), (20, 40), (517, 70), (5000, 3)]:
        x, k = np.resize(pattern1, n).astype(dtype), np.resize(pattern2, m).astype(dtype)
        with np.errstate(all="ignore"):
            expected = np.convolve(x, k)
        actual = maxconv.convolve(x, k, method="direct", device=device)
        np.testing.assert_array_equal(expected, actual)
        ordered = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(expected[ordered]), np.signbit(actual[ordered]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_fft_that_was_asked_for_spoils_whole_blocks_only(rng, value):
    """With `method="fft"` all outputs of the blocks that hold the value are spoilt, and no others."""
    x, k = rng.standard_normal(100_000), rng.standard_normal(300)
    clean = maxconv.convolve(x, k, "valid", "fft")
    x[50_000] = value
    spoilt = maxconv.convolve(x, k, "valid", "fft")
    finite = np.isfinite(spoilt)
    first, last = np.flatnonzero(~finite)[[0, -1]]
    assert first <= 50_000 - 299
    assert last >= 50_000
    assert not finite[first : last + 1].any()
    assert last - first < 2 * maxconv.choose_method(100_000, 300, "valid", "f8").nfft
    np.testing.assert_array_equal(clean[finite], spoilt[finite])


#: A call that NumPy or SciPy refuses, and Python's kind of the error.
REFUSALS = {
    "empty in1": (np.convolve, ([], [1.0]), ValueError),
    "empty in2": (np.convolve, ([1.0], []), ValueError),
    "both empty": (np.convolve, ([], []), ValueError),
    "objects": (scipy.signal.convolve, ([None], [1]), TypeError),
    "in2 of higher rank": (scipy.signal.convolve, ([1], [[1, 2]]), ValueError),
    "in1 without a dimension": (scipy.signal.convolve, (2, [1]), ValueError),
    "in2 without a dimension": (scipy.signal.convolve, ([1], 2), ValueError),
    "ragged list": (scipy.signal.convolve, ([[1, 2], [3]], [[1]]), ValueError),
    "mode in capitals": (scipy.signal.convolve, ([1], [1], "FULL"), ValueError),
    "no mode": (scipy.signal.convolve, ([1], [1], None), ValueError),
    "unknown method": (scipy.signal.convolve, ([1], [1], "full", "fftw"), ValueError),
    "no method": (scipy.signal.convolve, ([1], [1], "full", None), ValueError),
    "shapes that do not broadcast": (
        lambda in1, in2: scipy.signal.oaconvolve(in1, in2, axes=1),
        (np.ones((2, 5)), np.ones((3, 5))),
        ValueError,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_numpy_or_scipy_refuses_is_refused(function, name):
    """The error is of the same built-in kind."""
    peer, arguments, kind = REFUSALS[name]
    with pytest.raises(kind):
        peer(*arguments)
    with pytest.raises(kind, match=f"^{function}: ") as caught:
        getattr(maxconv, function)(*arguments)
    assert isinstance(caught.value, maxconv.MaxconvError)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (3, 1), (1, 3), (3, 2), (160, 147), (7, 50)])
def test_upfirdn_stays_within_the_error_bound(rng, up, down, dtype):
    """`upfirdn` is a convolution of the signal with zeros put in: as long, and as exact as its K/up products allow."""
    for n, m in [(1, 1), (1, 40), (40, 1), (500, 61), (61, 500), (300, 2)]:
        h, x = draw(rng, (m,), np.dtype(dtype)), draw(rng, (n,), np.dtype(dtype))
        stuffed = np.zeros((n - 1) * up + 1, dtype)
        stuffed[::up] = x
        exact, magnitude = reference.convolve(stuffed, h)[::down], reference.magnitude(stuffed, h)[::down]
        tolerances.assert_within_bound(maxconv.upfirdn(h, x, up, down), exact, magnitude, -(-m // up))
