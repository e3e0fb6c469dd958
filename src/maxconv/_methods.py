"""The method and the device of a call that leaves the choice to us, shared by the doors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _plan
from ._engine import devices, is_native, run, run_columns, run_fft
from ._errors import ArgumentError, DtypeError

if TYPE_CHECKING:
    from ._problem import Problem

METHODS = ("auto", "direct", "fft")

CHOSEN_FFT = "chosen fft"
"""FFTs that "auto" chose for a whole signal before it was cut: unlike those that were asked for, they spread no NaN."""

_FLOAT_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def apply(function: str, problem: Problem, x: Any, k: Any, method: str, device: str) -> Any:
    """Compute a problem by a method of `METHODS`.

    Parameters
    ----------
    function, problem, x, k
        As for `maxconv._engine.run`.
    method
        "auto" takes whichever is expected to be faster; integers are summed unless "fft" is asked for.
    device
        "cpu", "gpu:<id>", or "auto" for host arrays.
    """
    if device == "auto":
        device = cheapest(problem, x.dtype, method)
    if method != "direct":
        if device == "cpu":
            y = _by_fft_here(function, problem, x, k, method)
        else:
            y = _by_fft_there(function, problem, x, k, method, device)
        if y is not None:
            return y
    return run(function, problem, x, k, device)


def along_axis(
    function: str, problem: Problem, x: np.ndarray, k: np.ndarray, axis: int, method: str, device: str
) -> np.ndarray:
    """Compute a problem for every line of a host array along an axis, with one filter.

    Lines whose samples are not neighbours in memory are summed where they lie; for an FFT they are copied into rows.

    Parameters
    ----------
    function, method, device
        As for `apply`.
    problem
        What to compute for one line.
    x, k
        Signals of any rank, taps (K).
    axis
        Counted from the end, hence negative.
    """
    y = None if x.ndim == 1 else _down_columns(function, problem, x, k, axis, method, device)
    if y is not None:
        return y
    rows = np.moveaxis(x, axis, -1)
    batch = rows.shape[:-1]
    if batch:
        rows, k = rows.reshape(-1, problem.samples), k[None]
    y = apply(function, problem._replace(batch=batch), rows, k, method, device)
    return np.moveaxis(y, -1, axis)


def _down_columns(
    function: str, problem: Problem, x: np.ndarray, k: np.ndarray, axis: int, method: str, device: str
) -> np.ndarray | None:
    """Sum along an axis that is not the last in memory, where x lies; None if rows serve better.

    The result has the memory order of x.
    """
    order = sorted(range(x.ndim), key=lambda each: -x.strides[each])  # from the slowest axis in memory to the fastest
    if x.flags.c_contiguous:
        order.sort()
    ordered, place = x.transpose(order), order.index(x.ndim + axis)
    inner = ordered.shape[place + 1 :]
    if math.prod(inner) == 1 or not ordered.flags.c_contiguous:
        return None
    lines = problem._replace(batch=(*ordered.shape[:place], *inner))
    if device == "auto":
        device = cheapest(lines, x.dtype, method)
    if not is_native(device) or not is_summed(lines, x.dtype, method, device):
        return None
    y = run_columns(function, problem._replace(batch=ordered.shape[:place]), ordered, k, inner, device)
    back: np.ndarray = y.transpose(np.argsort(order))
    return back


def is_summed(problem: Problem, dtype: np.dtype, method: str, device: str) -> bool:
    """Tell whether a method sums directly."""
    if method != "auto" or dtype.kind in "iu" or (device == "cpu" and not _plan.is_worth_a_choice(problem)):
        return method not in {"fft", CHOSEN_FFT}
    if device == "cpu":
        return _plan.choose(problem, max(4, dtype.itemsize)).method == "direct"
    return is_summed_there(problem, dtype.name)


def is_summed_there(problem: Problem, name: str) -> bool:
    """Tell whether "auto" sums elements of a type directly on an NVIDIA GPU."""
    return name not in _FLOAT_BYTES or _plan.choose_on_gpu(problem, _FLOAT_BYTES[name]).method == "direct"


def cheapest(problem: Problem, dtype: np.dtype, method: str) -> str:
    """Choose the device for host arrays; MAX is not even loaded for work that no GPU would do faster."""
    if method == "auto" and dtype.kind in "iu":
        method = "direct"
    wanted = _plan.prefers_gpu(problem, dtype.itemsize, method)
    return "gpu:0" if wanted and devices.accelerator_count() > 0 else "cpu"


def _by_fft_here(function: str, problem: Problem, x: np.ndarray, k: np.ndarray, method: str) -> np.ndarray | None:
    """Convolve on the CPU by overlap-save if that was asked for or promises to be faster; None if not.

    Integers go through float64 and are rounded, as SciPy does; half-precision floats through float32.
    """
    if method == "auto" and (x.dtype.kind in "iu" or not _plan.is_worth_a_choice(problem)):
        return None
    wide = np.dtype(np.float64 if x.dtype.kind in "iu" or x.dtype.itemsize == 8 else np.float32)  # noqa: PLR2004
    choice = _plan.choose(problem, wide.itemsize)
    if method == "auto" and choice.method == "direct":
        return None
    by_fft = run_fft if method == "fft" else fft_mended
    y: np.ndarray = by_fft(function, problem, x.astype(wide, copy=False), k.astype(wide, copy=False), choice.nfft)
    if x.dtype != wide:
        y = (np.rint(y) if x.dtype.kind in "iu" else y).astype(x.dtype)
    return y


def fft_mended(function: str, problem: Problem, x: np.ndarray, k: np.ndarray, nfft: int) -> np.ndarray:
    """Convolve float32 or float64 rows on the CPU by overlap-save, NaN and Inf kept where sums would have them."""
    y: np.ndarray = run_fft(function, problem, x, k, nfft)
    # A block that holds NaN or Inf is spoilt from its first output on: to look at all outputs took a fifth of the call.
    if not math.isfinite(np.add.reduce(y[..., :: nfft - problem.taps + 1], axis=None)):
        _mend(function, problem, x, k, y)
    return y


def _by_fft_there(function: str, problem: Problem, x: Any, k: Any, method: str, device: str) -> Any:
    """Convolve on an accelerator by overlap-save if that was asked for or promises to be faster; None if not."""
    name = x.dtype.name
    if method == "auto" and (name not in _FLOAT_BYTES or not is_native(device)):
        return None
    if name not in _FLOAT_BYTES:
        if not isinstance(x, np.ndarray):
            message = f'{function}: method="fft" serves floating-point numbers on {device}; in1 is {name} there'
            raise DtypeError(message)
        wide = _by_fft_there(function, problem, x.astype(np.float64), k.astype(np.float64), method, device)
        return np.rint(wide).astype(x.dtype)
    choice = _plan.choose_on_gpu(problem, _FLOAT_BYTES[name])
    if method == "auto" and choice.method == "direct":
        return None
    if not choice.nfft:
        most = _plan.LONGEST_GPU_FFT
        message = f'{function}: method="fft" serves at most {most} taps on {device}, got {problem.taps}'
        raise ArgumentError(message)
    return run_fft(function, problem, x, k, choice.nfft, device)


def _mend(function: str, problem: Problem, x: np.ndarray, k: np.ndarray, y: np.ndarray) -> None:
    """Compute the stretch of outputs that are not finite anew, directly: an FFT spreads NaN and Inf over its blocks."""
    spoilt = np.flatnonzero(~np.isfinite(y).reshape(-1, problem.outputs).all(axis=0))
    if len(spoilt):
        begin, end = int(spoilt[0]), int(spoilt[-1]) + 1
        stretch = problem._replace(outputs=end - begin, pad_left=problem.pad_left - begin)
        y[..., begin:end] = run(function, stretch, x, k, "cpu")
