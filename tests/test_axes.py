"""Along an axis that is not the last in memory: the same bits as with the axis moved, in place of a transposed copy."""

from __future__ import annotations

import itertools
import tracemalloc

import arrays
import numpy as np
import pytest
import reference
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st
from max.driver import Accelerator, Buffer

import maxconv
from maxconv._engine import native, run_columns
from maxconv._problem import part_of_full

MODES = ["full", "same", "valid"]
SHAPES = [(40, 2), (33, 130), (2, 37, 3), (70, 5, 16), (3, 9, 2, 40)]
AXES = [(shape, axis) for shape in SHAPES for axis in range(len(shape))]
REAL = [*arrays.FLOATS, *arrays.INTEGERS]

#: The modes of `numpy.pad` that extend a signal in the same way.
BORDERS = {"constant": "constant", "nearest": "edge", "reflect": "symmetric", "mirror": "reflect", "wrap": "wrap"}


def random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Draw an array of any rank and of any element type that is served."""
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return arrays.random_array(rng, int(np.prod(shape)), dtype).reshape(shape)


def moved(function: str, x: np.ndarray, k: np.ndarray, mode: str, axis: int, **options) -> np.ndarray:
    """Convolve a copy of x that has the axis at the end of its memory."""
    rows = np.ascontiguousarray(np.moveaxis(x, axis, -1))
    return np.moveaxis(getattr(maxconv, function)(rows, k, mode, **options), -1, axis)


@pytest.fixture
def columns_calls(monkeypatch) -> list[str]:
    """List the calls of kernels down columns, by name of their dtype."""
    calls: list[str] = []
    run = native.columns_on_cpu
    monkeypatch.setattr(
        native, "columns_on_cpu", lambda problem, dtype, *rest: calls.append(dtype) or run(problem, dtype, *rest)
    )
    return calls


@pytest.mark.parametrize(("shape", "axis"), AXES)
@pytest.mark.parametrize("mode", MODES)
def test_every_column_is_within_the_bound_of_the_exact_sums(device, rng, mode, shape, axis):
    """Each vector along the axis is the reference's, for every mode and float type."""
    taps = int(rng.integers(1, shape[axis] + 1))
    for dtype in arrays.FLOATS:
        x, k = random(rng, shape, dtype), random(rng, (taps,), dtype)
        y = maxconv.convolve(x, k, mode, "direct", axis=axis, device=device)
        assert y.dtype == dtype
        columns, outputs = (np.moveaxis(each, axis, -1).reshape(-1, each.shape[axis]) for each in (x, y))
        for column, output in zip(columns, outputs, strict=True):
            exact, magnitude = (f(column, k, mode) for f in (reference.convolve, reference.magnitude))
            tolerances.assert_within_bound(output, exact, magnitude, taps)


@pytest.mark.parametrize(("shape", "axis"), AXES)
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_the_bits_are_those_of_the_moved_axis(device, rng, function, shape, axis):
    """For every type, mode and memory order the result equals, bit for bit, that of the axis moved to the end."""
    dtypes = [*REAL, *map(np.dtype, ("complex64", "complex128", "bool"))]
    for dtype, mode, order in itertools.product(dtypes, MODES, "CF"):
        x = np.array(random(rng, shape, dtype), order=order)
        k = random(rng, (int(rng.integers(1, 2 * shape[axis])),), dtype)
        options = {"method": "direct", "device": device}
        expected = moved(function, x, k, mode, axis, **options)
        actual = getattr(maxconv, function)(x, k, mode, axis=axis, **options)
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(expected, actual)


@pytest.mark.parametrize("columns", [1, 2, 3, 7, 63, 64, 65, 200])
def test_integers_are_exact_however_many_columns(rng, columns):
    """Narrow rows, which are taken flat, and wide ones, with a rest or without, give exact sums of many rows."""
    for dtype in arrays.INTEGERS:
        x, k = random(rng, (300, columns), dtype), random(rng, (int(rng.integers(1, 80)),), dtype)
        y = maxconv.convolve(x, k, axis=0)
        for column in {0, columns // 2, columns - 1}:
            exact = reference.wrap(reference.convolve(x[:, column], k), dtype)
            np.testing.assert_array_equal(exact, y[:, column])


@st.composite
def views(draw) -> tuple[np.ndarray, int]:
    """Draw a view with any steps, order of axes and broadcast axes, and one of its axes."""
    rank = draw(st.integers(2, 4))
    shape = draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, -1, -3]), min_size=rank, max_size=rank))
    base = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal(
        [size * abs(step) for size, step in zip(shape, steps, strict=True)]
    )
    view = base[tuple(slice(None, None, step) for step in steps)].transpose(draw(st.permutations(range(rank))))
    if draw(st.booleans()):
        view = np.broadcast_to(view[:, :1], view.shape)
    return view, draw(st.integers(0, rank - 1))


@settings(deadline=None)
@given(views(), st.integers(1, 12), st.sampled_from(MODES), st.sampled_from(["convolve", "correlate"]))
def test_any_strides_give_the_bits_of_a_plain_copy(view_and_axis, taps, mode, function):
    """Slices, negative steps, Fortran order and broadcast views are read as the numbers they show."""
    view, axis = view_and_axis
    k = np.random.default_rng(taps).standard_normal(taps)
    expected = moved(function, view, k, mode, axis)
    np.testing.assert_array_equal(expected, getattr(maxconv, function)(view, k, mode, axis=axis))


def test_a_filter_of_the_same_rank_may_be_the_one_for_all(rng, columns_calls):
    """Taps of the rank of in1, of length 1 along all other axes, need no moved axis either."""
    x, k = rng.standard_normal((4, 30, 6)), rng.standard_normal((1, 5, 1))
    np.testing.assert_array_equal(maxconv.convolve(x, k[0, :, 0], axis=1), maxconv.convolve(x, k, axis=1))
    assert len(columns_calls) == 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_result_has_the_memory_order_of_the_signal(rng, columns_calls, order):
    """A C array gives a C array, a Fortran array a Fortran array, wherever the axis is but last in memory."""
    x = np.array(rng.standard_normal((6, 20, 8)), order=order)
    for axis in (0, 1) if order == "C" else (1, 2):
        y = maxconv.convolve(x, np.ones(3), axis=axis)
        assert y.flags.c_contiguous if order == "C" else y.flags.f_contiguous
    assert len(columns_calls) == 2


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_no_transposed_copy_is_made(rng, dtype):
    """Beside the result a call along the first axis takes less memory than a hundredth of it."""
    x, k = rng.standard_normal((4000, 500)).astype(dtype), np.ones(9, dtype)
    maxconv.convolve(x, k, axis=0)
    tracemalloc.start()
    y = maxconv.convolve(x, k, axis=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.01 * y.nbytes


def test_long_filters_go_by_fft_as_rows_do(rng, columns_calls):
    """Where the cost model expects the FFT to be faster, or it is asked for, an axis is still moved."""
    x, k = rng.standard_normal((20_000, 4)), rng.standard_normal(3000)
    for method in ("auto", "fft"):
        np.testing.assert_array_equal(
            moved("convolve", x, k, "same", 0, method=method), maxconv.convolve(x, k, "same", method, axis=0)
        )
    assert columns_calls == []


def test_what_is_not_there_is_not_multiplied(device):
    """An infinite tap beyond the ends of a column makes no NaN, nor does an infinite sample beside a zero tap's row."""
    k = np.array([1, np.inf, 1])
    for columns in (2, 100):
        y = maxconv.convolve(np.ones((4, columns)), k, axis=0, device=device)
        expected = np.array([1, np.inf, np.inf, np.inf, np.inf, 1])
        np.testing.assert_array_equal(np.broadcast_to(expected[:, None], y.shape), y)


@pytest.mark.parametrize("inner", [(1,), (3,), (5, 40)])
@pytest.mark.parametrize("mode", BORDERS)
@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("dtype", [np.dtype("float64"), np.dtype("uint8"), np.dtype("int64")], ids=str)
def test_borders_are_those_of_numpy_pad(device, rng, mode, per_column, inner, dtype):
    """The engine extends columns as `numpy.pad` does, with one filter or one for each column."""
    samples, taps = int(rng.integers(2, 30)), int(rng.integers(1, 20))
    x = rng.integers(0, 100, (2, samples, *inner)).astype(dtype)
    k = rng.integers(0, 100, (taps, *inner) if per_column else (taps,)).astype(dtype)
    problem = part_of_full(samples, taps, "same", flip=False)._replace(batch=(2,), border=mode, cval=100)
    y = run_columns("test", problem, x, k, inner, device)
    ends = [(0, 0), (problem.pad_left, problem.pad_right), *((0, 0) for _ in inner)]
    wide = np.pad(x.astype(object), ends, BORDERS[mode], **({"constant_values": 100} if mode == "constant" else {}))
    terms = (wide[:, j : j + samples] * k[j].astype(object) for j in range(taps))
    exact = sum(terms, np.zeros(y.shape, object))
    np.testing.assert_array_equal(
        reference.wrap(exact.ravel(), dtype) if dtype.kind != "f" else exact.ravel(), y.ravel()
    )


@pytest.mark.gpu
@pytest.mark.parametrize("columns", [2, 30, 64, 1000])
def test_arrays_on_an_accelerator_are_convolved_along_any_axis(rng, columns):
    """Buffers are served in place, along an axis that is not the last, and give a Buffer of that shape."""
    x, k = rng.standard_normal((3, 500, columns)).astype(np.float32), rng.standard_normal(31).astype(np.float32)
    there = [Buffer.from_numpy(array).to(Accelerator()) for array in (x, k)]
    y = maxconv.convolve(*there, "same", axis=1)
    assert isinstance(y, Buffer)
    np.testing.assert_array_equal(maxconv.convolve(x, k, "same", axis=1, device="gpu"), y.to_numpy())
