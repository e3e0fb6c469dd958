"""Random arrays of every element type."""

from __future__ import annotations

import ml_dtypes
import numpy as np

FLOATS = [np.dtype(name) for name in ("float16", "float32", "float64")] + [np.dtype(ml_dtypes.bfloat16)]
INTEGERS = [np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]


def random_array(rng: np.random.Generator, length: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Draw normal numbers, or integers over the whole range of the type so that sums wrap."""
    if dtype in INTEGERS:
        bounds = np.iinfo(dtype)
        return rng.integers(bounds.min, bounds.max, length, dtype=dtype, endpoint=True)
    return rng.standard_normal(length).astype(dtype)
