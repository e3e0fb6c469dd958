"""Arrays of any rank are convolved along one axis, in one launch; complex and boolean elements as SciPy has them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

import maxconv
from maxconv._engine import native

CASES = [
    ((3, 40), (7,), -1),
    ((40, 3), (7,), 0),
    ((2, 3, 33), (2, 3, 5), -1),
    ((2, 33, 4), (1, 5, 4), 1),
    ((2, 33, 4), (2, 40, 1), 1),
    ((1, 1, 9), (4, 5, 3), 2),
    ((5, 1, 20), (1, 6, 20), -1),
    ((1, 700), (1, 70), 1),
    ((30, 2), (3, 2), -2),
]


def along_axis(function, in1: np.ndarray, in2: np.ndarray, axis: int, **options) -> np.ndarray:
    """Apply a function of vectors to every pair of vectors along an axis, one at a time."""
    if in2.ndim < in1.ndim:
        in2 = in2.reshape([-1 if position == axis % in1.ndim else 1 for position in range(in1.ndim)])
    rows1, rows2 = np.moveaxis(in1, axis, -1), np.moveaxis(in2, axis, -1)
    batch = np.broadcast_shapes(rows1.shape[:-1], rows2.shape[:-1])
    rows1 = np.broadcast_to(rows1, (*batch, rows1.shape[-1]))
    rows2 = np.broadcast_to(rows2, (*batch, rows2.shape[-1]))
    results = [function(rows1[index], rows2[index], **options) for index in np.ndindex(batch)]
    return np.moveaxis(np.reshape(results, (*batch, -1)), -1, axis)


@pytest.mark.parametrize(("shape1", "shape2", "axis"), CASES)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_each_vector_along_the_axis_is_convolved(device, rng, function, mode, shape1, shape2, axis):
    """Every vector along the axis gets what it gets alone, bit for bit, other axes broadcast."""
    in1, in2 = rng.standard_normal(shape1), rng.standard_normal(shape2)
    whole = getattr(maxconv, function)(in1, in2, mode, axis=axis, device=device)
    alone = along_axis(getattr(maxconv, function), in1, in2, axis, mode=mode, device=device)
    np.testing.assert_array_equal(alone, whole)
    expected = along_axis(getattr(scipy.signal, function), in1, in2, axis, mode=mode, method="direct")
    np.testing.assert_allclose(expected, whole, rtol=1e-12, atol=1e-12)


def test_a_batch_is_one_launch(monkeypatch, rng):
    """A thousand rows reach the kernel together, not in a Python loop."""
    calls = []
    run = native.run_on_cpu
    monkeypatch.setattr(native, "run_on_cpu", lambda *arguments: calls.append(1) or run(*arguments))
    maxconv.convolve(rng.standard_normal((1000, 20)), rng.standard_normal(3))
    assert len(calls) == 1


@pytest.mark.parametrize("rows", [2, 5, 1000, 70_001])
def test_many_rows_of_work_for_several_threads(device, rng, rows):
    """Rows that are split over threads, or exceed a GPU grid's second dimension, are all right."""
    x, k = rng.standard_normal((rows, 37)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    long = np.tile(x, (1, 300)) if rows < 10 else x
    actual = maxconv.convolve(long, k, device=device)
    for row in {0, 1, rows // 2, rows - 1}:
        np.testing.assert_allclose(np.convolve(long[row], k), actual[row], rtol=1e-5, atol=1e-5)


def test_complex_batches_are_right(rng):
    """Complex arrays of several axes, with a filter for each row, equal the vectors one by one."""
    in1 = rng.standard_normal((2, 3, 20)) + 1j * rng.standard_normal((2, 3, 20))
    in2 = rng.standard_normal((2, 1, 4)) + 1j * rng.standard_normal((2, 1, 4))
    expected = along_axis(np.convolve, in1, in2, -1)
    np.testing.assert_allclose(expected, maxconv.convolve(in1, in2), rtol=1e-12, atol=1e-12)


def test_booleans_are_ored_ands(rng):
    """Boolean operands give booleans: an output is true if any pair is, however many there are."""
    for n, m in [(5, 3), (600, 300)]:
        in1, in2 = rng.random(n) < 0.5, rng.random(m) < 0.5
        actual = maxconv.convolve(in1, in2)
        assert actual.dtype == bool
        np.testing.assert_array_equal(np.convolve(in1, in2), actual)
    assert maxconv.convolve(np.ones(700, bool), np.ones(300, bool)).all()
