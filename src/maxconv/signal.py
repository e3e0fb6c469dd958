"""Signal processing with SciPy's semantics: `convolve` and `correlate` of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _plan, _problem
from ._engine import arrays, devices, run
from ._errors import DeviceError

METHODS = ("auto", "direct")


def convolve(
    in1: Any, in2: Any, mode: str = "full", method: str = "auto", *, device: str | None = None
) -> Any:  # any library's arrays
    """Convolve two vectors: ``full[i] = sum_j in1[i - j] * in2[j]``.

    Parameters
    ----------
    in1 : array_like
        First operand, shape (N). NumPy arrays, lists, and arrays of any library that speaks DLPack.
    in2 : array_like
        Second operand, shape (K), on the same device. The operands change places when K > N.
    mode : {"full", "same", "valid"}
        Which part of the full result to return.
    method : {"auto", "direct"}
        How to compute it; both sum directly.
    device : str, optional
        Where host arrays are computed: ``"cpu"``, ``"gpu"``, ``"gpu:<id>"``, ``"auto"``; by default as
        `set_default_device` says. Arrays on an accelerator are computed there.

    Returns
    -------
    array
        Of the library and on the device of `in1`, of dtype ``numpy.result_type(in1, in2)`` and length
        N + K - 1 (full), N (same) or max(N, K) - min(N, K) + 1 (valid).

    Raises
    ------
    ShapeError
        (a ValueError) If an operand is empty or not of rank 1.
    ArgumentError
        (a ValueError) If `mode`, `method` or `device` is none of the above.
    DtypeError
        (a TypeError) If the elements are neither float16, bfloat16, float32, float64 nor integers.
    DeviceError
        (a RuntimeError) If the device is not there, or the operands are on different ones.

    Notes
    -----
    Follows `scipy.signal.convolve`. Cost: 2*N*K flop. Every sum is kept in the elements' own type with fused
    multiply-adds (float16 and bfloat16: in float32, rounded once), so ``|error| <= K * eps * sum|in1||in2|``;
    integers are exact modulo 2^bits. NaN and Inf reach only the outputs that meet them.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.convolve([1, 2, 3], [0, 1, 0.5])
    array([0. , 1. , 2.5, 4. , 1.5])
    >>> maxconv.convolve([1, 2, 3], [0, 1, 0.5], mode="same")
    array([1. , 2.5, 4. ])
    >>> maxconv.convolve([1, 2, 3], [0, 1, 0.5], mode="valid")
    array([2.5])
    """
    return _apply("convolve", in1, in2, mode, method, device, flip=True)


def correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto", *, device: str | None = None) -> Any:
    """Cross-correlate two vectors: ``full[i] = sum_j in1[i + j - (K - 1)] * in2[j]``.

    Parameters
    ----------
    in1 : array_like
        First operand, shape (N). NumPy arrays, lists, and arrays of any library that speaks DLPack.
    in2 : array_like
        Second operand, shape (K), on the same device.
    mode, method, device
        As for `convolve`.

    Returns
    -------
    array
        As for `convolve`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `convolve`.

    Notes
    -----
    Follows `scipy.signal.correlate`; ``correlate(x, k)`` equals ``convolve(x, k[::-1])``.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.correlate([1, 2, 3], [0, 1, 0.5])
    array([0.5, 2. , 3.5, 3. , 0. ])
    """
    return _apply("correlate", in1, in2, mode, method, device, flip=False)


def _apply(function: str, in1: Any, in2: Any, mode: str, method: str, device: str | None, *, flip: bool) -> Any:
    _problem.check_choice(function, "mode", mode, _problem.MODES)
    _problem.check_choice(function, "method", method, METHODS)
    x, place, restore = arrays.ingest(function, "in1", in1)
    k, place_of_k, _ = arrays.ingest(function, "in2", in2)
    if place != place_of_k:
        message = f"{function}: in1 is on {place}, but in2 is on {place_of_k}; both must be on one device"
        raise DeviceError(message)
    if len(x.shape) == len(k.shape) == 0:
        return x * k  # as SciPy does
    _problem.check_vector(function, "in1", x)
    _problem.check_vector(function, "in2", k)
    problem = _problem.part_of_full(x.shape[0], k.shape[0], mode, flip)
    if flip and problem.taps > problem.samples:
        x, k, problem = k, x, _problem.swapped(problem)
    wanted = devices.requested(function, device)
    if place == "cpu":
        if x.dtype != k.dtype:
            common = np.result_type(x.dtype, k.dtype)
            x, k = x.astype(common, copy=False), k.astype(common, copy=False)
        place = wanted if wanted != "auto" else _cheapest(problem, x.dtype.itemsize)
    elif device is not None and wanted not in {place, "auto"}:
        message = f"{function}: device={device!r} was asked for, but in1 and in2 are on {place}"
        raise DeviceError(message)
    y = run(function, problem, x, k, place)
    return y if restore is None else restore(y)


def _cheapest(problem: _problem.Problem, itemsize: int) -> str:
    """Choose the device for host arrays; MAX is not even loaded for work that no GPU would do faster."""
    return "gpu:0" if _plan.prefers_gpu(problem, itemsize) and devices.accelerator_count() > 0 else "cpu"
