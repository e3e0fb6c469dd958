"""Element types without kernels of their own, computed by the kernels of others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Convolve = Callable[[np.ndarray, np.ndarray], np.ndarray]


def apply(x: np.ndarray, k: np.ndarray, flip: bool, convolve: Convolve) -> np.ndarray:
    """Convolve arrays of one boolean or complex type along the last axis by calls with a real one.

    Parameters
    ----------
    x, k
        Operands, of the same dtype.
    flip
        True for convolution; a correlation conjugates k, as SciPy does.
    convolve
        Computes real operands.
    """
    if x.dtype.kind == "b":
        # A sum of ands is an or if no count can wrap to zero: at most 2^31 terms.
        counts = convolve(x.astype(np.int32), k.astype(np.int32))
        return counts.astype(np.bool_)
    # (a + ib)(c + id) = (ac - bd) + i(bc + ad), and for a correlation, whose taps are conjugated, -d in place of d.
    ac, bc = _convolve_parts(x, k.real, convolve)
    y = np.empty(ac.shape, x.dtype)
    y.real, y.imag = ac, bc
    if k.imag.any():  # real taps beside a complex signal are common, and half the work
        ad, bd = _convolve_parts(x, k.imag if flip else -k.imag, convolve)
        y.real -= bd
        y.imag += ad
    return y


def _convolve_parts(x: np.ndarray, k: np.ndarray, convolve: Convolve) -> tuple[np.ndarray, np.ndarray]:
    """Convolve the real and the imaginary part of x with real taps, as one batch."""
    parts = convolve(np.stack([x.real, x.imag]), k if k.ndim == 1 else k[None])
    return parts[0], parts[1]
