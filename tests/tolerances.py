"""The numerics contract of docs and README as functions; no test types a number of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

ACCUMULATORS = {"float16": np.float32, "bfloat16": np.float32, "float32": np.float32, "float64": np.float64}


def direct_bound(dtype: np.dtype, taps: int, magnitude: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Bound the error of a direct sum of `taps` products: K*u*sum|x||k| of the accumulator, then one rounding.

    Higham, Accuracy and Stability of Numerical Algorithms, ch. 3; u is half the machine epsilon.
    """
    name = np.dtype(dtype).name
    accumulator = np.finfo(ACCUMULATORS[name])
    unit = float(accumulator.eps) / 2
    bound = taps * unit / (1 - taps * unit) * magnitude + float(accumulator.tiny)
    if accumulator.bits > 8 * np.dtype(dtype).itemsize:
        output = ml_dtypes.finfo(dtype)
        bound = bound + float(output.eps) / 2 * (np.abs(exact) + bound) + float(output.smallest_subnormal)
    return bound


def assert_within_bound(actual: np.ndarray, exact: np.ndarray, magnitude: np.ndarray, taps: int) -> None:
    """Fail unless every element is within the direct bound of the exact result, shape included.

    Complex numbers: each part by itself, which is one more addition, as ``|ac| + |bd| <= |a + ib| |c + id|``.
    """
    assert actual.shape == exact.shape
    if actual.dtype.kind == "c":
        for part in ("real", "imag"):
            assert_within_bound(getattr(actual, part), getattr(exact, part), magnitude, taps + 1)
        return
    error = np.abs(actual.astype(np.float64) - exact)
    bound = direct_bound(actual.dtype, taps, magnitude, exact)
    worst = int(np.argmax(error - bound)) if len(error) else 0
    assert np.all(error <= bound), f"element {worst}: {actual[worst]} for {exact[worst]}, bound {bound[worst]}"


def assert_within_fft_bound(actual: np.ndarray, exact: np.ndarray, x: np.ndarray, k: np.ndarray) -> None:
    """Fail unless every element is within 10 * eps * log2(nfft) * ||x|| * ||k|| of the exact result.

    nfft is taken as the shortest power of two that holds the taps and 512, the least that any block has; half types
    are computed in float32 and rounded once. Complex numbers: each part by itself.
    """
    assert actual.shape == exact.shape
    if actual.dtype.kind == "c":
        for part in ("real", "imag"):
            assert_within_fft_bound(getattr(actual, part), getattr(exact, part), x, k)
        return
    wide_x, wide_k = np.abs(x).astype(np.float64), np.abs(k).astype(np.float64)
    scale = np.linalg.norm(wide_x) * np.linalg.norm(wide_k)
    log2 = max(9, (min(len(x), len(k)) - 1).bit_length())
    bound = 10 * float(np.finfo(ACCUMULATORS[actual.dtype.name]).eps) * log2 * scale
    if actual.dtype.itemsize == 2:
        output = ml_dtypes.finfo(actual.dtype)
        bound = bound + float(output.eps) / 2 * (np.abs(exact) + bound) + float(output.smallest_subnormal)
    assert np.all(np.abs(actual.astype(np.float64) - exact) <= bound)


def assert_within_fast_bound(actual: np.ndarray, exact: np.ndarray, x: np.ndarray, k: np.ndarray) -> None:
    """Fail unless a row by `precision="fast"` keeps the bound of its elements' eps, and is as near as it can be.

    The first is the promise, which a wrong result might keep. So the norm of the error is held, too: seven roundings of
    values to float16 and six of the matrices that multiply them take half an eps each from that of the whole
    convolution, tail included.
    """
    assert actual.shape == exact.shape
    wide_x, wide_k = x.astype(np.float64), k.astype(np.float64)
    output = float(ml_dtypes.finfo(actual.dtype).eps)
    error = actual.astype(np.float64) - exact
    scale = np.linalg.norm(wide_x) * np.linalg.norm(wide_k)
    assert np.all(np.abs(error) <= 10 * output * math.log2(2 * len(x)) * scale)
    whole = np.linalg.norm(np.convolve(wide_x, wide_k))
    on_the_way = 13 / 2 * float(np.finfo(np.float16).eps)
    assert np.linalg.norm(error) <= on_the_way * whole + output / 2 * np.linalg.norm(exact)


def assert_layer_within_bound(
    actual: np.ndarray, sums: np.ndarray, magnitude: np.ndarray, terms: int, activate: Callable | None = None
) -> None:
    """Fail unless every output of a layer is within the direct bound of the exact one, after an activation, too.

    No activation of ours is steeper than 1.13; evaluating one costs a few roundings of the accumulator, relative to its
    argument.
    """
    name = actual.dtype.name
    accumulator = np.finfo(ACCUMULATORS[name])
    exact = sums if activate is None else activate(sums)
    assert actual.shape == exact.shape
    bound = direct_bound(np.dtype(ACCUMULATORS[name]), terms, magnitude, sums)
    if activate is not None:
        bound = 1.13 * bound + 8 * float(accumulator.eps) * np.abs(sums)
    if actual.dtype.itemsize == 2:
        output = ml_dtypes.finfo(actual.dtype)
        bound = bound + float(output.eps) / 2 * (np.abs(exact) + bound) + float(output.smallest_subnormal)
    error = np.abs(actual.astype(exact.dtype) - exact)
    assert np.all(error <= bound), f"wrong by {(error / bound).max()} bounds"
