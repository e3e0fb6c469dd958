"""The shortest way of vectors on the CPU: one call of the direct kernel, without a plan.

It serves what most small calls are, two contiguous arrays of rank 1 and of one type, and leaves everything else,
refusals included, to the usual way, whose Python takes 4 us: more than the sums of 1000 x 16. The bits are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _plan, _problem
from ._engine import devices, native

_READY = 0x101
"""NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED: one number is asked for, not two properties."""

_kernels: dict[np.dtype, Any] = {}
"""Element type, in native byte order, to its kernel; empty until the usual way has loaded the extension."""


def convolve(
    in1: Any,
    in2: Any,
    mode: str,
    method: str,
    device: str | None,
    flip: bool,
    _array: Any = np.ndarray,
    _empty: Any = np.empty,
) -> np.ndarray | None:
    """Convolve or correlate two vectors if this way serves them; None if it does not. Written for few bytecodes."""
    if type(in1) is not _array or type(in2) is not _array or in1.ndim != 1 or in2.ndim != 1:
        return None
    dtype = in1.dtype
    if (
        dtype is not in2.dtype
        or (devices.get_default_device() if device is None else device) != "cpu"
        or in1.flags.num & in2.flags.num & _READY != _READY
    ):
        return None
    samples, taps = in1.size, in2.size
    if mode == "full":
        start, outputs = 0, samples + taps - 1
    elif mode in _problem.MODES:
        start, outputs = _problem.start_and_outputs(samples, taps, mode)
    else:
        return None
    if flip and taps > samples:
        in1, in2, samples, taps = in2, in1, taps, samples
    if method == "auto":  # within these bounds the usual way sums, without asking its model
        served = taps < _plan.FEWEST_FFT_TAPS or outputs * taps < _plan.FEWEST_FFT_PRODUCTS or dtype.kind in "iu"
    else:
        served = method == "direct"
    kernel = _kernels.get(dtype) or _find_kernel(dtype)
    if not (served and samples and taps and kernel):
        return None
    y: np.ndarray = _empty(outputs, dtype)
    kernel(y, in1, in2, taps - 1 - start, flip, native.max_workers())
    return y


def _find_kernel(dtype: np.dtype) -> Any:
    if not _kernels:
        _kernels.update(native.loaded_direct_kernels())
    return _kernels.get(dtype)
