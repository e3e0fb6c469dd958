"""What is right: sums in a wider type or in unbounded integers. Nothing else in the tests defines it."""

from __future__ import annotations

import numpy as np
import scipy.signal

#: Products beyond which the plain sum is replaced by an FFT in float64, whose error stays under 1e-14 of the bound.
LARGE = 10**8


def widen(array: np.ndarray) -> np.ndarray:
    """Return an array in the type that its sums are defined in."""
    if array.dtype == np.float64:
        return array.astype(np.longdouble)  # the rounding of a float64 sum would be as large as what is measured
    if array.dtype.kind == "c":
        return array.astype(np.clongdouble if array.dtype == np.complex128 else np.complex128)
    return array.astype(np.float64 if array.dtype.name.startswith(("float", "bfloat")) else object)


def convolve(x: np.ndarray, k: np.ndarray, mode: str = "full") -> np.ndarray:
    """Convolve as SciPy defines it, in float64 or exactly."""
    wide_x, wide_k = widen(x), widen(k)
    if wide_x.dtype != object and len(x) * len(k) > LARGE:
        full = scipy.signal.oaconvolve(wide_x.astype(np.float64), wide_k.astype(np.float64))
    else:
        full = np.zeros(len(x) + len(k) - 1, wide_x.dtype)
        short, long = sorted((wide_x, wide_k), key=len)
        for j, tap in enumerate(short):
            full[j : j + len(long)] += tap * long
    return part(full, len(x), len(k), mode)


def part(full: np.ndarray, samples: int, taps: int, mode: str) -> np.ndarray:
    """Cut SciPy's mode out of a full result."""
    if mode == "full":
        return full
    length = samples if mode == "same" else abs(samples - taps) + 1
    start = (len(full) - length) // 2
    return full[start : start + length]


def correlate(x: np.ndarray, k: np.ndarray, mode: str = "full") -> np.ndarray:
    """Correlate as SciPy defines it: with the complex conjugate of k."""
    return convolve(x, k[::-1].conj() if k.dtype.kind == "c" else k[::-1], mode)


def seed(x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Compute op conv1d: ``out[i] = sum_j x[i + j] * k[j]``, zeros past the end, as long as x."""
    return correlate(x, k)[len(k) - 1 :]


def magnitude(x: np.ndarray, k: np.ndarray, mode: str = "full") -> np.ndarray:
    """Sum the absolute products of each output of `convolve`: what rounding errors are measured against."""
    return convolve(np.abs(widen(x)), np.abs(widen(k)), mode)


def wrap(exact: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Reduce unbounded integers modulo 2^bits, as NumPy's integers wrap."""
    dtype = np.dtype(dtype)
    modulus = 1 << (8 * dtype.itemsize)
    residues = [int(value) % modulus for value in exact]
    return np.array(residues, dtype=f"u{dtype.itemsize}").view(dtype)
