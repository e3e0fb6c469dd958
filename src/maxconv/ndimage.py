"""Filters as long as their input, with the borders of `scipy.ndimage`: `convolve1d` and `correlate1d`."""

from __future__ import annotations

import math
import operator
from functools import partial
from typing import Any

import numpy as np

from . import _composed, _methods, _problem
from ._engine import arrays, devices, is_native, run_columns
from ._errors import ArgumentError, DeviceError, DtypeError, ShapeError

#: SciPy's name of a mode -> the border of a `Problem`.
MODES = {
    "reflect": "reflect",
    "constant": "constant",
    "nearest": "nearest",
    "mirror": "mirror",
    "wrap": "wrap",
    "grid-mirror": "reflect",
    "grid-constant": "constant",
    "grid-wrap": "wrap",
}

_MODE_NAMES = tuple(MODES)

_BOOLEAN, _INTEGER, _FLOAT, _COMPLEX = range(4)
_CATEGORIES = {"b": _BOOLEAN, "i": _INTEGER, "u": _INTEGER, "c": _COMPLEX}
"""By NumPy's letter; bfloat16, which is foreign to NumPy, has another letter than its floats."""


def convolve1d(
    input: Any,  # noqa: A002  # SciPy's name
    weights: Any,
    axis: int = -1,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    output: Any = None,
    device: str | None = None,
) -> Any:
    """Convolve along an axis, the output as long as the input, which goes on beyond its ends.

    ``y[i] = sum_j input[i + j - (K - 1)//2 + origin] * weights[K - 1 - j]``

    Parameters
    ----------
    input : array_like
        Signal of any rank, N samples along `axis`; a NumPy array, a list, or an array of any library that speaks
        DLPack.
    weights : array_like
        Taps, shape (K). A list is taken as numbers without a size: it makes no float64 of a float32 input.
    axis : int
        Axis of `input` to work along; on an accelerator the last.
    mode : {"reflect", "constant", "nearest", "mirror", "wrap"}
        What stands beyond the ends of a signal a b c d, however far the taps reach: d c b a | a b c d | d c b a
        (reflect, also "grid-mirror"), v v | a b c d | v v with v = `cval` (constant, also "grid-constant"),
        a a | a b c d | d d (nearest), d c b | a b c d | c b a (mirror), a b c d | a b c d | a b c d (wrap, also
        "grid-wrap").
    cval : number
        The value of mode "constant".
    origin : int
        How far the taps are moved, from -(K//2) to (K - 1)//2; 0 centres them.
    output : dtype_like or numpy.ndarray, optional
        Type of the result, or an array of the input's shape to fill and return; values are converted as by
        ``astype``. It may be the input itself.
    device : str, optional
        As for `convolve`.

    Returns
    -------
    array
        Of the library, device and shape of `input` and of dtype ``numpy.result_type(input, weights)``; or `output`.

    Raises
    ------
    ShapeError
        (a ValueError) If `weights` is not of rank 1 or empty, `input` has no axis, or `output` another shape.
    ArgumentError
        (a ValueError) If `axis`, `mode`, `cval`, `origin`, `output` or `device` is none of the above.
    DtypeError
        (a TypeError) If no kernel serves the elements, or a complex result is to fill a real `output`.
    DeviceError
        (a RuntimeError) If the device is not there, or `weights` is on another one.

    Notes
    -----
    Follows `scipy.ndimage.convolve1d`, but: the result has the promoted type, where SciPy keeps that of `input`; sums
    are kept in it (or in that of `output` if this is a wider float), where SciPy takes float64 for all; `output` is
    given by name; float16 and bfloat16 are served; wrong weights, modes and shapes raise ValueError, where SciPy raises
    RuntimeError. An input without elements gives a result without elements.

    Cost and accuracy are those of `convolve`, with "auto" as the method. No padded copy is made: beyond O(K) samples at
    either end the signal is read where it lies.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.convolve1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])
    >>> maxconv.convolve1d([1.0, 2.0, 3.0], [1, 1, 1], mode="constant", cval=10)
    array([13.,  6., 15.])
    """
    return _apply("convolve1d", input, weights, axis, mode, cval, origin, output, device, flip=True)


def correlate1d(
    input: Any,  # noqa: A002  # SciPy's name
    weights: Any,
    axis: int = -1,
    mode: str = "reflect",
    cval: complex = 0.0,
    origin: int = 0,
    *,
    output: Any = None,
    device: str | None = None,
) -> Any:
    """Cross-correlate along an axis, the output as long as the input, which goes on beyond its ends.

    ``y[i] = sum_j input[i + j - K//2 - origin] * weights[j]``; complex weights are conjugated.

    Parameters
    ----------
    input, weights, axis, mode, cval, origin, output, device
        As for `convolve1d`; a positive `origin` moves the taps the other way.

    Returns
    -------
    array
        As for `convolve1d`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `convolve1d`.

    Notes
    -----
    Follows `scipy.ndimage.correlate1d`, with the differences that `convolve1d` lists.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.correlate1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    return _apply("correlate1d", input, weights, axis, mode, cval, origin, output, device, flip=False)


def _apply(
    function: str,
    signal: Any,
    weights: Any,
    axis: int,
    mode: str,
    cval: complex,
    origin: int,
    output: Any,
    device: str | None,
    flip: bool,
) -> Any:
    _problem.check_choice(function, "mode", mode, _MODE_NAMES)
    x, place, restore = arrays.ingest_lazily(function, "input", signal)
    k, place_of_k, _ = arrays.ingest_lazily(function, "weights", weights)
    if place_of_k not in {place, "cpu"}:
        message = f"{function}: input is on {place}, but weights is on {place_of_k}; both must be on one device"
        raise DeviceError(message)
    _problem.check_dtype(function, "input", x.dtype)
    if len(k.shape) != 1:
        message = f"{function}: weights has shape {tuple(k.shape)}, but rank 1 is expected"
        raise ShapeError(message)
    _problem.check_array(function, "weights", k)
    rank = len(x.shape)
    if rank == 0:
        message = f"{function}: input has rank 0, but at least one axis is expected"
        raise ShapeError(message)
    axis = _problem.normalized_axis(function, axis, rank)
    samples, taps = x.shape[axis], k.shape[0]
    origin = _checked_origin(function, origin, taps)
    pad_left = (taps - 1) // 2 - origin if flip else taps // 2 + origin
    problem = _problem.Problem(samples, taps, samples, pad_left, flip, border=MODES[mode])
    number = cval if type(cval) is float else _checked_cval(function, cval, x.dtype)
    wanted = devices.place(function, device, place, "input", x, k)
    is_weak = not hasattr(weights, "dtype")
    if place == "cpu":
        y = _apply_here(function, problem, x, k, axis, number, output, wanted, is_weak)
        return y if restore is None or y is output else restore(y)
    if output is not None:
        message = f"{function}: output is for inputs in host memory, but input is on {place}; expected None"
        raise ArgumentError(message)
    if axis != rank - 1 and not is_native(place):
        message = f"{function}: axis={axis} of an input on {place}; expected the last axis, in contiguous memory"
        raise ArgumentError(message)
    if place_of_k == "cpu":
        k = _like_input(function, x, k, place, is_weak)
    y = _apply_there(function, problem, x, k, axis, number, place)
    return y if restore is None else restore(y)


def _apply_here(
    function: str,
    problem: _problem.Problem,
    x: np.ndarray,
    k: np.ndarray,
    axis: int,
    cval: complex,
    output: Any,
    device: str,
    is_weak: bool,
) -> np.ndarray:
    """Filter a host array: types first, then along the axis, then into the output."""
    if isinstance(output, np.ndarray) and arrays.is_lazy(x, k):
        message = f"{function}: output is an array, but input or weights is Dask's; expected None or a dtype"
        raise ArgumentError(message)
    result = _promoted(function, x.dtype, k.dtype, is_weak)
    dtype = _output_dtype(function, output, x.shape)
    common = result
    if dtype is None:
        dtype = result
    elif _category(dtype) >= _FLOAT:
        real = _category(result) < _COMPLEX
        common = _promoted(function, result, np.empty(0, dtype).real.dtype if real else dtype, is_weak=False)
    if _category(result) == _COMPLEX > _category(dtype):
        message = f"{function}: output is {dtype.name}, but the result is {result.name}; expected a complex output"
        raise DtypeError(message)
    if _category(common) == _INTEGER and problem.border == "constant" and not _is_integer(cval):
        common = np.dtype(np.float64)  # as SciPy, for whom every sum is one
    if x.size:
        x, k = x.astype(common, copy=False), k.astype(common, copy=False)
        y = _filter(function, problem, x, k, axis - x.ndim, cval, device)
    else:
        y = np.empty(x.shape, dtype)
    if not isinstance(output, np.ndarray):
        return y.astype(dtype, copy=False)
    np.copyto(output, y, casting="unsafe")
    return output


def _filter(
    function: str,
    problem: _problem.Problem,
    x: np.ndarray,
    k: np.ndarray,
    axis: int,
    cval: complex,
    device: str,
    method: str = "auto",
) -> np.ndarray:
    """Filter a host array along an axis counted from the end; x and k are of one type."""
    if arrays.is_lazy(x, k):
        from . import _blocks  # loads Dask, as the array's owner did

        y: Any = _blocks.filter_lines(function, problem, x, k, axis, partial(_filter, cval=cval), device)
        return y  # type: ignore[no-any-return]  # an array of Dask, as was asked for
    if x.dtype.kind == "b":
        count = int(bool(cval))
        return _composed.apply(
            x, k, problem.flip, lambda a, b: _filter(function, problem, a, b, axis, count, device, method)
        )
    if x.dtype.kind == "c":

        def filter_parts(parts: np.ndarray, taps: np.ndarray) -> np.ndarray:
            if problem.border != "constant" or cval.real == cval.imag:
                return _filter(function, problem, parts, taps, axis, cval.real, device, method)
            values = (cval.real, cval.imag)
            pairs = zip(parts, values, strict=True)
            return np.stack(
                [_filter(function, problem, part, taps, axis, value, device, method) for part, value in pairs]
            )

        return _composed.apply(x, k, problem.flip, filter_parts)
    if problem.border == "constant":
        problem = problem._replace(cval=_as_element(cval, x.dtype))
    return _methods.along_axis(function, problem, x, k, axis, method, device)


def _apply_there(
    function: str, problem: _problem.Problem, x: Any, k: Any, axis: int, cval: complex, device: str
) -> Any:
    """Filter an array on an accelerator, where it lies."""
    _problem.check_array(function, "input", x)
    if (name := x.dtype.name) in _problem.COMPOSED_DTYPES:
        message = f"{function}: elements of type {name} are served in host memory only; input is on {device}"
        raise DtypeError(message)
    if problem.border == "constant":
        if "int" in name and not _is_integer(cval):
            message = f"{function}: cval must be an integer for elements of type {name} on {device}, got {cval!r}"
            raise ArgumentError(message)
        # bfloat16, foreign to NumPy, is rounded by the kernel's caller.
        value = cval.real if name == "bfloat16" else _as_element(cval, np.dtype(name))
        problem = problem._replace(cval=value)
    problem, inner = problem._replace(batch=tuple(x.shape[:axis])), tuple(x.shape[axis + 1 :])
    if inner:
        return run_columns(function, problem, x, k, inner, device)
    return _methods.apply(function, problem, x, k, "auto", device)


def _like_input(function: str, x: Any, k: np.ndarray, device: str, is_weak: bool) -> np.ndarray:
    """Convert weights to the type of an input on an accelerator; refuse those that would widen it."""
    try:
        dtype = np.dtype(x.dtype.name)
    except TypeError:  # bfloat16, if nothing has taught it to NumPy
        dtype = None
    if dtype is None or _promoted(function, dtype, k.dtype, is_weak) != dtype:
        message = (
            f"{function}: input is {x.dtype.name}, but weights is {k.dtype.name}; on {device} both must have one dtype"
        )
        raise DtypeError(message)
    return k.astype(dtype)


def _category(dtype: np.dtype) -> int:
    return _CATEGORIES.get(dtype.kind, _FLOAT)


def _promoted(function: str, dtype: np.dtype, other: np.dtype, is_weak: bool) -> np.dtype:
    """Promote as NumPy does; a weak type, that of a list, counts by its category alone."""
    if is_weak:
        if _category(other) <= _category(dtype):
            return np.result_type(dtype)  # in native byte order
        if _category(other) == _COMPLEX and _category(dtype) == _FLOAT:
            other = np.dtype(np.complex64)
    try:
        return np.result_type(dtype, other)
    except TypeError:
        message = f"{function}: NumPy knows no common type of {dtype.name} and {other.name}; convert one"
        raise DtypeError(message) from None


def _output_dtype(function: str, output: Any, shape: tuple[int, ...]) -> np.dtype | None:
    """Check `output`, and return the type it asks for."""
    if output is None:
        return None
    if not isinstance(output, np.ndarray):
        try:
            dtype: np.dtype = np.dtype(output)
        except (TypeError, ValueError):
            message = f"{function}: output must be a dtype or a NumPy array, got {output!r}"
            raise ArgumentError(message) from None
        _problem.check_dtype(function, "output", dtype)
        return dtype
    if output.shape != shape:
        message = f"{function}: output has shape {output.shape}, but that of input, {shape}, is expected"
        raise ShapeError(message)
    if not output.flags.writeable:
        message = f"{function}: output is read-only; expected an array that can be filled"
        raise ArgumentError(message)
    _problem.check_dtype(function, "output", output.dtype)
    return np.dtype(output.dtype)


def _checked_origin(function: str, origin: int, taps: int) -> int:
    """Refuse an origin that puts no tap on the output's own sample."""
    least, most = -(taps // 2), (taps - 1) // 2
    try:
        position = operator.index(origin)
    except TypeError:
        position = least - 1
    if not least <= position <= most:
        message = f"{function}: origin must be an integer from {least} to {most} for {taps} weights, got {origin!r}"
        raise ArgumentError(message)
    return position


def _checked_cval(function: str, cval: object, dtype: Any) -> complex:
    """Return cval as a number of Python's; refuse what is none, or complex beside a real input."""
    is_complex = dtype.name.startswith("complex")
    value = np.asarray(cval)
    if value.shape == () and value.dtype.name in {*_problem.KERNEL_DTYPES, *_problem.COMPOSED_DTYPES}:
        number: complex = value.item()
        if is_complex or not isinstance(number, complex):
            return number
    kind = "number" if is_complex else "real number for a real input"
    message = f"{function}: cval must be a {kind}, got {cval!r}"
    raise ArgumentError(message)


def _is_integer(number: complex) -> bool:
    return math.isfinite(number.real) and number == int(number.real)


def _as_element(number: complex, dtype: np.dtype) -> float:
    """Round a number to an element type; integers modulo 2^bits, signed, as the kernels have them."""
    if dtype.kind in "iu":
        half = 1 << (8 * dtype.itemsize - 1)
        return (int(number.real) + half) % (2 * half) - half
    return float(np.asarray(number.real).astype(dtype))
