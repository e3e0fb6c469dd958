"""Changing the sample rate, with SciPy's semantics: `upfirdn` and `resample_poly`."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from . import _polyphase, _problem
from ._engine import arrays, resample
from ._errors import ArgumentError, DeviceError, ShapeError

#: What `resample_poly` takes off a signal before it is filtered, and puts back afterwards.
BACKGROUNDS = {
    "constant": None,
    "mean": np.mean,
    "median": np.median,
    "maximum": np.amax,
    "minimum": np.amin,
}


def upfirdn(h: Any, x: Any, up: int = 1, down: int = 1, axis: int = -1) -> Any:
    """Upsample by inserting zeros, filter, and keep every `down`-th sample.

    No inserted zero is multiplied and no discarded output computed.

    Parameters
    ----------
    h : array_like
        Taps, shape (K).
    x : array_like
        Signal of any rank, N samples along `axis`, in host memory.
    up, down : int
        Rates, at least 1: after each sample up - 1 zeros are inserted; of the filtered signal every `down`-th
        sample is kept.
    axis : int
        Axis of `x` to work along.

    Returns
    -------
    array
        Of the library of `x`, of ``ceil(((N - 1)*up + K) / down)`` samples along `axis` and of dtype
        ``numpy.result_type(h, x, numpy.float32)``.

    Raises
    ------
    ShapeError
        (a ValueError) If `h` is not of rank 1, or an operand is empty.
    ArgumentError
        (a ValueError) If `up` or `down` is not an integer >= 1, or there is no such axis.
    DtypeError
        (a TypeError) If the elements are not numbers.
    DeviceError
        (a RuntimeError) If an operand is on an accelerator.

    Notes
    -----
    Follows `scipy.signal.upfirdn` with its default border, zeros. Cost: 2*ceil(K/up) flop an output.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.upfirdn([1, 1, 1], [1, 2, 3], up=3)
    array([1., 1., 1., 2., 2., 2., 3., 3., 3.])
    >>> maxconv.upfirdn([1], [1, 2, 3, 4, 5], down=2)
    array([1., 3., 5.])
    """
    taps, _ = _operand("upfirdn", "h", h)
    signal, restore = _operand("upfirdn", "x", x)
    if taps.ndim != 1:
        message = f"upfirdn: h has shape {taps.shape}, but rank 1 is expected"
        raise ShapeError(message)
    up, down = _rate("upfirdn", "up", up), _rate("upfirdn", "down", down)
    axis = _problem.normalized_axis("upfirdn", axis, signal.ndim)
    outputs = _polyphase.output_length(signal.shape[axis], len(taps), up, down)
    y = _resample_axis(signal, taps, up, down, (0, outputs), axis)
    return y if restore is None else restore(y)


def resample_poly(
    x: Any,
    up: int,
    down: int,
    axis: int = 0,
    window: Any = ("kaiser", 5.0),
    padtype: str = "constant",
    cval: Any = None,
) -> Any:
    """Change the sample rate by the factor up/down, with a symmetric low-pass filter and no delay.

    Parameters
    ----------
    x : array_like
        Signal of any rank, N samples along `axis`, in host memory.
    up, down : int
        Rates, at least 1.
    axis : int
        Axis of `x` to work along; as in SciPy the first by default.
    window : array_like, str or tuple
        The filter's taps, shape (K), at the upsampled rate; or a window by which `scipy.signal.firwin` designs
        ``20*max(up, down) + 1`` of them (this needs SciPy).
    padtype : {"constant", "mean", "median", "minimum", "maximum"}
        What the signal is taken to be beyond its ends: `cval`, or that statistic of the signal along `axis`.
    cval : number, optional
        The value for ``padtype="constant"``; 0 by default.

    Returns
    -------
    array
        Of the library of `x`, of ``ceil(N*up/down)`` samples along `axis` (`up` and `down` without their common
        divisor) and of dtype ``numpy.result_type(x, numpy.float32)``.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `upfirdn`; ArgumentError also for an unknown `padtype`, or a `cval` without ``"constant"``.

    Notes
    -----
    Follows `scipy.signal.resample_poly`. Its border modes "line", "symmetric" and the like are not offered.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.resample_poly([1.0, 2.0, 3.0, 4.0], 2, 1, window=[0.25, 0.5, 0.25])
    array([1. , 1.5, 2. , 2.5, 3. , 3.5, 4. , 2. ])
    """
    signal, restore = _operand("resample_poly", "x", x)
    up, down = _rate("resample_poly", "up", up), _rate("resample_poly", "down", down)
    _problem.check_choice("resample_poly", "padtype", padtype, tuple(BACKGROUNDS))
    if cval is not None and padtype != "constant":
        message = f'resample_poly: cval has no meaning with padtype={padtype!r}, only with "constant"'
        raise ArgumentError(message)
    axis = _problem.normalized_axis("resample_poly", axis, signal.ndim)
    divisor = math.gcd(up, down)
    up, down = up // divisor, down // divisor
    dtype = np.result_type(signal, np.float32)
    signal = signal.astype(dtype, copy=False)
    if up == down == 1:
        y = signal.copy()
        return y if restore is None else restore(y)
    taps = _resampling_taps(window, up, down).astype(dtype, copy=False) * up
    statistic = BACKGROUNDS[padtype]
    background = (cval or 0) if statistic is None else statistic(signal, axis=axis, keepdims=True)
    centred = signal - background if np.any(background) else signal
    part = _polyphase.resampled_part(signal.shape[axis], len(taps), up, down)
    padded = np.concatenate([np.zeros(part.pad, taps.dtype), taps])
    y = _resample_axis(centred, padded, up, down, (part.start, part.outputs), axis)
    if np.any(background):
        y = y + background * (1 if statistic else _gains(padded, up, down, part, axis, signal.ndim))
    y = y.astype(dtype, copy=False)
    return y if restore is None else restore(y)


def _gains(taps: np.ndarray, up: int, down: int, part: _polyphase.ResampledPart, axis: int, rank: int) -> np.ndarray:
    """Return what each output makes of a signal of ones without ends: the sum of its phase's taps, not quite 1."""
    sums = np.array([taps[phase::up].sum() for phase in range(up)])
    phases = np.arange(part.start, part.start + part.outputs) * down % up
    return sums[phases].reshape([-1 if position == axis else 1 for position in range(rank)])


def _resampling_taps(window: Any, up: int, down: int) -> np.ndarray:
    """Return the taps that `window` is, or design them as SciPy does."""
    if not isinstance(window, (str, tuple)):
        taps, _ = _operand("resample_poly", "window", window)
        if taps.ndim != 1:
            message = f"resample_poly: window has shape {taps.shape}, but rank 1 is expected"
            raise ShapeError(message)
        return taps
    try:
        from scipy.signal import firwin
    except ImportError:
        message = (
            f"resample_poly: window={window!r} is designed by SciPy, which is not installed; pass the taps instead"
        )
        raise ArgumentError(message) from None
    widest = max(up, down)
    taps = firwin(20 * widest + 1, 1 / widest, window=window)
    return np.asarray(taps)


def _resample_axis(
    signal: np.ndarray, taps: np.ndarray, up: int, down: int, part: tuple[int, int], axis: int
) -> np.ndarray:
    """Run the kernel over every vector along an axis; complex signals or taps as real and imaginary parts."""
    dtype = np.result_type(signal, taps, np.float32)
    moved = np.moveaxis(signal, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1]).astype(dtype, copy=False)
    coefficients = taps.astype(dtype, copy=False)
    if dtype.kind != "c":
        y = resample(rows, coefficients, up, down, part)
    else:
        halves = np.concatenate([rows.real, rows.imag])
        ac, bc = np.split(resample(halves, coefficients.real, up, down, part), 2)
        y = np.empty(ac.shape, dtype)
        y.real, y.imag = ac, bc
        if coefficients.imag.any():
            ad, bd = np.split(resample(halves, coefficients.imag, up, down, part), 2)
            y.real -= bd
            y.imag += ad
    return np.moveaxis(y.reshape(*moved.shape[:-1], y.shape[-1]), -1, axis)


def _operand(function: str, argument: str, value: Any) -> tuple[np.ndarray, Any]:
    """Take a host array that is not empty."""
    operand = arrays.ingest(function, argument, value)
    if operand.device != "cpu":
        message = f"{function}: {argument} is on {operand.device}; only arrays in host memory are served so far"
        raise DeviceError(message)
    data: np.ndarray = operand.data
    _problem.check_array(function, argument, data)
    return data, operand.restore


def _rate(function: str, argument: str, value: object) -> int:
    """Check an up- or downsampling rate."""
    try:
        rate = operator.index(value)  # type: ignore[arg-type]  # this is the check
    except TypeError:
        rate = 0
    if rate < 1:
        message = f"{function}: {argument} must be an integer >= 1, got {value!r}"
        raise ArgumentError(message)
    return rate
