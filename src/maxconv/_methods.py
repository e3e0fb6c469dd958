"""The method and the device of a call that leaves the choice to us, shared by the doors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import _plan
from ._engine import devices, run, run_fft

if TYPE_CHECKING:
    from ._problem import Problem


def cheapest(problem: Problem, dtype: np.dtype, method: str) -> str:
    """Choose the device for host arrays; MAX is not even loaded for work that no GPU would do faster."""
    methods = "direct" if dtype.kind in "iu" else method
    wanted = _plan.prefers_gpu(problem, dtype.itemsize, methods)
    return "gpu:0" if wanted and devices.accelerator_count() > 0 else "cpu"


def by_fft(function: str, problem: Problem, x: np.ndarray, k: np.ndarray, method: str) -> np.ndarray | None:
    """Convolve by overlap-save if that was asked for or promises to be faster; None if not.

    Integers go through float64 and are rounded, as SciPy does; half-precision floats through float32.
    """
    if method == "auto" and problem.taps < _plan.FEWEST_FFT_TAPS:
        return None
    wide = np.dtype(np.float64 if x.dtype.kind in "iu" or x.dtype.itemsize == 8 else np.float32)  # noqa: PLR2004
    choice = _plan.choose(problem, wide.itemsize)
    if method == "auto" and choice.method == "direct":
        return None
    y = run_fft(problem, x.astype(wide, copy=False), k.astype(wide, copy=False), choice.nfft)
    if method == "auto" and not np.isfinite(y.sum()):
        _mend(function, problem, x, k, y)
    if x.dtype != wide:
        y = (np.rint(y) if x.dtype.kind in "iu" else y).astype(x.dtype)
    return y


def _mend(function: str, problem: Problem, x: np.ndarray, k: np.ndarray, y: np.ndarray) -> None:
    """Compute the stretch of outputs that are not finite anew, directly: an FFT spreads NaN and Inf over its blocks."""
    spoilt = np.flatnonzero(~np.isfinite(y).reshape(-1, problem.outputs).all(axis=0))
    if len(spoilt):
        begin, end = int(spoilt[0]), int(spoilt[-1]) + 1
        stretch = problem._replace(outputs=end - begin, pad_left=problem.pad_left - begin)
        y[..., begin:end] = run(function, stretch, x, k, "cpu")
