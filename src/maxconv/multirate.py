"""Changing the sample rate, with SciPy's semantics: `upfirdn` and `resample_poly`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from . import _plan, _polyphase, _problem
from ._engine import arrays, devices, download, resample, upload
from ._errors import ArgumentError, DtypeError, ShapeError

#: How a signal may go on beyond its ends -> the number by which `_ops/shared/extension.mojo` knows it.
EXTENSIONS = {
    "constant": 1,
    "edge": 2,
    "symmetric": 3,
    "reflect": 4,
    "wrap": 5,
    "smooth": 6,
    "line": 7,
    "antisymmetric": 8,
    "antireflect": 9,
}

#: What `resample_poly` may take off a signal before it is filtered, and put back afterwards.
STATISTICS: dict[str, Any] = {"mean": np.mean, "median": np.median, "maximum": np.amax, "minimum": np.amin}


def upfirdn(
    h: Any,
    x: Any,
    up: int = 1,
    down: int = 1,
    axis: int = -1,
    mode: str = "constant",
    cval: Any = 0,
    *,
    device: str | None = None,
) -> Any:
    """Upsample by inserting zeros, filter, and keep every `down`-th sample.

    No inserted zero is multiplied and no discarded output computed.

    Parameters
    ----------
    h : array_like
        Taps, shape (K), on any device.
    x : array_like
        Signal of any rank, N samples along `axis`. NumPy arrays, lists, and arrays of any library that speaks DLPack.
    up, down : int
        Rates, at least 1: after each sample up - 1 zeros are inserted; of the filtered signal every `down`-th
        sample is kept.
    axis : int
        Axis of `x` to work along; on an accelerator the last.
    mode : str
        How the signal goes on beyond its ends ``1234``, before the zeros are inserted: "constant" (`cval`), "edge"
        ``4444``, "symmetric" ``4321``, "reflect" ``321``, "wrap" ``1234``, "antisymmetric" ``-4 -3 -2 -1``,
        "antireflect" (turned about the last sample) ``5678``; "smooth" and "line" go on as straight lines, with the
        slope of the last two samples, or from the first to the last.
    cval : number
        The value for ``mode="constant"``. At 0 nothing is added: NaN and Inf are not multiplied by it.
    device : str, optional
        Where host arrays are computed: ``"cpu"``, ``"gpu"``, ``"gpu:<id>"``, ``"auto"``; by default as
        `set_default_device` says. Arrays on an accelerator are computed there.

    Returns
    -------
    array
        Of the library and on the device of `x`, of ``ceil(((N - 1)*up + K) / down)`` samples along `axis` and of dtype
        ``numpy.result_type(h, x, numpy.float32)``.

    Raises
    ------
    ShapeError
        (a ValueError) If `h` is not of rank 1, or an operand is empty.
    ArgumentError
        (a ValueError) If `up` or `down` is not an integer >= 1, there is no such axis, or `mode`, `cval` or `device` is
        none of the above.
    DtypeError
        (a TypeError) If the elements are not numbers, or complex on an accelerator.
    DeviceError
        (a RuntimeError) If the device is not there, or not the one that `x` is on.

    Notes
    -----
    Follows `scipy.signal.upfirdn`. A signal of one sample goes on as that sample where a slope is needed. Cost:
    2*ceil(K/up) flop an output.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.upfirdn([1, 1, 1], [1, 2, 3], up=3)
    array([1., 1., 1., 2., 2., 2., 3., 3., 3.])
    >>> maxconv.upfirdn([1], [1, 2, 3, 4, 5], down=2)
    array([1., 3., 5.])
    >>> maxconv.upfirdn([0.5, 0.5], [1, 2, 3], mode="edge")
    array([1. , 1.5, 2.5, 3. ])
    """
    taps = _taps("upfirdn", "h", h)
    operand = arrays.ingest_lazily("upfirdn", "x", x)
    _problem.check_array("upfirdn", "x", operand.data)
    up, down = _problem.integer("upfirdn", "up", up, 1), _problem.integer("upfirdn", "down", down, 1)
    mode = mode.lower() if isinstance(mode, str) else mode  # as SciPy does
    _problem.check_choice("upfirdn", "mode", mode, tuple(EXTENSIONS))
    shape = operand.data.shape
    axis = _problem.normalized_axis("upfirdn", axis, len(shape))
    place = devices.place("upfirdn", device, operand.device, "x", operand.data)
    part = 0, _polyphase.output_length(shape[axis], len(taps), up, down)
    run = _resample_blocks if arrays.is_lazy(operand.data) else _resample_axis
    y = run("upfirdn", operand.data, taps, (up, down), part, axis, (mode, cval), place)
    return y if operand.restore is None else operand.restore(y)


def resample_poly(
    x: Any,
    up: int,
    down: int,
    axis: int = 0,
    window: Any = ("kaiser", 5.0),
    padtype: str = "constant",
    cval: Any = None,
    *,
    device: str | None = None,
) -> Any:
    """Change the sample rate by the factor up/down, with a symmetric low-pass filter and no delay.

    Parameters
    ----------
    x : array_like
        Signal of any rank, N samples along `axis`. NumPy arrays, lists, and arrays of any library that speaks DLPack.
    up, down : int
        Rates, at least 1.
    axis : int
        Axis of `x` to work along; as in SciPy the first by default, on an accelerator the last.
    window : array_like, str or tuple
        The filter's taps, shape (K), at the upsampled rate; or a window by which `scipy.signal.firwin` designs
        ``20*max(up, down) + 1`` of them (this needs SciPy).
    padtype : str
        What the signal is taken to be beyond its ends: a `mode` of `upfirdn`, or "mean", "median", "minimum" or
        "maximum", that statistic of the signal along `axis`.
    cval : number, optional
        The value for ``padtype="constant"``; 0 by default.
    device : str, optional
        As for `upfirdn`.

    Returns
    -------
    array
        Of the library and on the device of `x`, of ``ceil(N*up/down)`` samples along `axis` (`up` and `down` without
        their common divisor) and of dtype ``numpy.result_type(x, taps, numpy.float32)``; designed taps are of the type
        of `x` if that is not an integer's, else float64. If ``up == down`` a copy of `x`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `upfirdn`; ArgumentError also for an unknown `padtype`, or a `cval` without ``"constant"``.

    Notes
    -----
    Follows `scipy.signal.resample_poly`; designed taps are not rounded to float16 for a signal of that type. For a
    statistic a signal on an accelerator goes by way of host memory.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.resample_poly([1.0, 2.0, 3.0, 4.0], 2, 1, window=[0.25, 0.5, 0.25])
    array([1. , 1.5, 2. , 2.5, 3. , 3.5, 4. , 2. ])
    >>> maxconv.resample_poly([1.0, 2.0, 3.0, 4.0], 2, 1, window=[0.25, 0.5, 0.25], padtype="line")
    array([1. , 1.5, 2. , 2.5, 3. , 3.5, 4. , 4.5])
    """
    operand = _operand("resample_poly", "x", x)
    up, down = _problem.integer("resample_poly", "up", up, 1), _problem.integer("resample_poly", "down", down, 1)
    _problem.check_choice("resample_poly", "padtype", padtype, (*EXTENSIONS, *STATISTICS))
    if cval is not None and padtype != "constant":
        message = f'resample_poly: cval has no meaning with padtype={padtype!r}, only with "constant"'
        raise ArgumentError(message)
    signal = operand.data
    axis = _problem.normalized_axis("resample_poly", axis, len(signal.shape))
    place = devices.place("resample_poly", device, operand.device, "x", operand.data)
    divisor = math.gcd(up, down)
    up, down = up // divisor, down // divisor
    if up == down == 1:
        y = signal.copy()
        return y if operand.restore is None else operand.restore(y)
    taps = _resampling_taps(window, up, down, _numpy_dtype(signal)) * up
    part = _polyphase.resampled_part(signal.shape[axis], len(taps), up, down)
    padded = np.concatenate([np.zeros(part.pad, taps.dtype), taps])
    wanted = part.start, part.outputs
    if padtype in EXTENSIONS:
        beyond = padtype, 0 if cval is None else cval
        y = _resample_axis("resample_poly", signal, padded, (up, down), wanted, axis, beyond, place)
    else:
        here = signal if isinstance(signal, np.ndarray) else download(signal)
        here = here.astype(np.result_type(here, taps, np.float32), copy=False)
        background = STATISTICS[padtype](here, axis=axis, keepdims=True)
        centred = here - background
        y = _resample_axis("resample_poly", centred, padded, (up, down), wanted, axis, ("constant", 0), place)
        y += background
        if here is not signal and not isinstance(signal, np.ndarray):
            y = upload(y, place)
    return y if operand.restore is None else operand.restore(y)


def _resampling_taps(window: Any, up: int, down: int, signal_dtype: np.dtype) -> np.ndarray:
    """Return the taps that `window` is, or design them as SciPy does."""
    if not isinstance(window, (str, tuple)):
        return _taps("resample_poly", "window", window)
    try:
        from scipy.signal import firwin
    except ImportError:
        message = (
            f"resample_poly: window={window!r} is designed by SciPy, which is not installed; pass the taps instead"
        )
        raise ArgumentError(message) from None
    widest = max(up, down)
    taps = np.asarray(firwin(20 * widest + 1, 1 / widest, window=window))
    return taps.astype(np.result_type(signal_dtype, np.float32)) if signal_dtype.kind in "fc" else taps


def _resample_axis(
    function: str,
    x: Any,
    taps: np.ndarray,
    rates: tuple[int, int],
    part: tuple[int, int],
    axis: int,
    beyond: tuple[str, Any],
    place: str,
) -> Any:
    """Run the kernel over every vector along an axis; complex signals or taps as real and imaginary parts."""
    dtype = np.result_type(_numpy_dtype(x), taps, np.float32)
    mode, cval = beyond
    value = _constant(function, cval, dtype)
    if not isinstance(x, np.ndarray):
        if axis != len(x.shape) - 1:
            message = f"{function}: axis={axis} of an array on {place}; expected the last axis, in contiguous memory"
            raise ArgumentError(message)
        if dtype.kind == "c":
            message = f"{function}: complex taps are served in host memory only; x is on {place}"
            raise DtypeError(message)
        return resample(x, taps.astype(dtype), rates, part, _extension(mode, value.real), place)
    moved = np.moveaxis(x, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    if place == "auto":
        place = _cheapest(rows.shape, len(taps), rates, part, dtype)
    real = np.dtype(f"f{dtype.itemsize // (2 if dtype.kind == 'c' else 1)}")

    def run(part_of_x: np.ndarray, part_of_taps: np.ndarray, part_of_value: float) -> np.ndarray:
        x, h = part_of_x.astype(real, copy=False), part_of_taps.astype(real, copy=False)
        result: np.ndarray = resample(x, h, rates, part, _extension(mode, part_of_value), place)
        return result

    if dtype.kind != "c":
        y = run(rows, taps, value.real)
    else:
        y = np.zeros((len(rows), part[1]), dtype)
        y.real = run(rows.real, taps.real, value.real)
        has_imaginary_taps = np.any(taps.imag)
        if has_imaginary_taps:
            y.imag = run(rows.real, taps.imag, value.real)
        if rows.dtype.kind == "c" or value.imag:
            y.imag += run(rows.imag, taps.real, value.imag)
            if has_imaginary_taps:
                y.real -= run(rows.imag, taps.imag, value.imag)
    return np.moveaxis(y.reshape(*moved.shape[:-1], y.shape[-1]), -1, axis)


def _resample_blocks(
    function: str,
    x: Any,
    taps: np.ndarray,
    rates: tuple[int, int],
    part: tuple[int, int],
    axis: int,
    beyond: tuple[str, Any],
    place: str,
) -> Any:
    """Run the kernel over the blocks of an array of Dask, on the device that the whole of it is worth."""
    from . import _blocks  # loads Dask, as the array's owner did

    dtype = np.result_type(x.dtype, taps, np.float32)
    _constant(function, beyond[1], dtype)
    if place == "auto":
        place = _cheapest((x.size // x.shape[axis], x.shape[axis]), len(taps), rates, part, dtype).partition(":")[0]
    compute = partial(_resample_block, function, rates, axis, beyond)
    return _blocks.resample(function, x, taps, rates, part[1], axis, beyond[0], compute, place)


def _resample_block(
    function: str,
    rates: tuple[int, int],
    axis: int,
    beyond: tuple[str, Any],
    part: tuple[int, int],
    x: np.ndarray,
    taps: np.ndarray,
    device: str,
) -> Any:
    return _resample_axis(function, x, taps, rates, part, axis, beyond, device)


def _extension(mode: str, value: float) -> tuple[int, float]:
    """Return an extension as the kernels read it. Zeros are left out: they would make NaN of an infinite tap."""
    return (0, 0.0) if mode == "constant" and value == 0 else (EXTENSIONS[mode], value)


def _constant(function: str, cval: Any, dtype: np.dtype) -> complex:
    """Check the constant beyond the ends: a number, and a real one unless the result is complex."""
    try:
        value = complex(cval)
    except (TypeError, ValueError):
        message = f"{function}: cval must be a number, got {cval!r}"
        raise ArgumentError(message) from None
    if value.imag and dtype.kind != "c":
        message = f"{function}: cval must be a real number for a result of type {dtype.name}, got {cval!r}"
        raise ArgumentError(message)
    return value


def _cheapest(shape: tuple[int, ...], taps: int, rates: tuple[int, int], part: tuple[int, int], dtype: np.dtype) -> str:
    """Choose the device for host arrays; MAX is not even loaded for work that no GPU would do faster."""
    rows, samples = shape
    outputs = rows * part[1]
    wanted = _plan.resampling_prefers_gpu(rows * samples, outputs, outputs * -(-taps // rates[0]), dtype.itemsize)
    return "gpu:0" if wanted and devices.accelerator_count() > 0 else "cpu"


def _taps(function: str, argument: str, value: Any) -> np.ndarray:
    """Take the taps, into host memory from wherever they are: they are few."""
    operand = _operand(function, argument, value)
    if len(operand.data.shape) != 1:
        message = f"{function}: {argument} has shape {tuple(operand.data.shape)}, but rank 1 is expected"
        raise ShapeError(message)
    return operand.data if isinstance(operand.data, np.ndarray) else download(operand.data)


def _operand(function: str, argument: str, value: Any) -> arrays.Operand:
    """Take an array that is not empty."""
    operand = arrays.ingest(function, argument, value)
    _problem.check_array(function, argument, operand.data)
    return operand


def _numpy_dtype(data: Any) -> np.dtype:
    """Return the type of an array's elements; an accelerator's bfloat16, foreign to NumPy, counts as float32."""
    name = data.dtype.name
    return np.dtype("float32" if name == "bfloat16" else name)
