"""Signal processing with SciPy's semantics: `convolve`, `correlate` and `choose_method`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _composed, _methods, _plan, _problem, _short
from ._engine import arrays, devices, is_native, run_columns
from ._errors import ArgumentError, DeviceError, DtypeError, ShapeError


def convolve(
    in1: Any, in2: Any, mode: str = "full", method: str = "auto", *, axis: int = -1, device: str | None = None
) -> Any:  # any library's arrays
    """Convolve along one axis: ``full[i] = sum_j in1[i - j] * in2[j]``.

    Parameters
    ----------
    in1 : array_like
        First operand, N samples along `axis`. NumPy arrays, lists, and arrays of any library that speaks DLPack.
    in2 : array_like
        Second operand, on the same device: K samples along `axis` of as many axes, which broadcast with those of
        `in1`, or of rank 1 for all of `in1`. The operands change places when K > N.
    mode : {"full", "same", "valid"}
        Which part of the full result to return.
    method : {"auto", "direct", "fft"}
        How to compute it: by sums, by overlap-save with FFTs, or by whichever `choose_method` expects to be faster.
        Integers are summed unless "fft" is asked for.
    axis : int
        Axis of arrays of higher rank to work along. Where it is not the last in memory, direct sums take no transposed
        copy, and the result has the memory order of `in1`.
    device : str, optional
        Where host arrays are computed: ``"cpu"``, ``"gpu"``, ``"gpu:<id>"``, ``"auto"``; by default as
        `set_default_device` says. Arrays on an accelerator are computed there.

    Returns
    -------
    array
        Of the library and on the device of `in1`, of dtype ``numpy.result_type(in1, in2)`` and, along `axis`, of
        N + K - 1 (full), N (same) or max(N, K) - min(N, K) + 1 (valid) samples.

    Raises
    ------
    ShapeError
        (a ValueError) If an operand is empty, or the shapes do not fit.
    ArgumentError
        (a ValueError) If `mode`, `method`, `axis` or `device` is none of the above.
    DtypeError
        (a TypeError) If the elements are neither float16, bfloat16, float32, float64, complex, boolean nor integers;
        on an accelerator complex numbers and booleans come from host memory only.
    DeviceError
        (a RuntimeError) If the device is not there, or the operands are on different ones.

    Notes
    -----
    Follows `scipy.signal.convolve`, along one axis as `scipy.signal.oaconvolve(axes=axis)`. Cost: 2*N*K flop. Every
    sum is kept in the elements' own type with fused multiply-adds (float16 and bfloat16: in float32, rounded once), so
    ``|error| <= K * eps * sum|in1||in2|``; integers are exact modulo 2^bits. By FFT: ``5*nfft*log2(nfft)`` flop per
    block, and an error of at most ``10 * eps * log2(nfft) * ||in1|| ||in2||``, relative to the largest values around,
    not to the output itself. NaN and Inf reach only the outputs that meet them, but with "fft", and where "auto" takes
    FFTs on an accelerator, all those of the blocks that hold them.

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
    y = _short.convolve(in1, in2, mode, method, device, True) if axis == -1 else None  # noqa: FBT003  # 0.1 us
    return y if y is not None else _apply("convolve", in1, in2, mode, method, axis, device, flip=True)


def correlate(
    in1: Any, in2: Any, mode: str = "full", method: str = "auto", *, axis: int = -1, device: str | None = None
) -> Any:
    """Cross-correlate two vectors: ``full[i] = sum_j in1[i + j - (K - 1)] * in2[j]``.

    Parameters
    ----------
    in1 : array_like
        First operand, shape (N). NumPy arrays, lists, and arrays of any library that speaks DLPack.
    in2 : array_like
        Second operand, shape (K), on the same device.
    mode, method, axis, device
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
    Follows `scipy.signal.correlate`; ``correlate(x, k)`` equals ``convolve(x, k[::-1].conj())``.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.correlate([1, 2, 3], [0, 1, 0.5])
    array([0.5, 2. , 3.5, 3. , 0. ])
    """
    y = _short.convolve(in1, in2, mode, method, device, False) if axis == -1 else None  # noqa: FBT003  # 0.1 us
    return y if y is not None else _apply("correlate", in1, in2, mode, method, axis, device, flip=False)


def _apply(function: str, in1: Any, in2: Any, mode: str, method: str, axis: int, device: str | None, flip: bool) -> Any:
    _problem.check_choice(function, "mode", mode, _problem.MODES)
    _problem.check_choice(function, "method", method, _methods.METHODS)
    x, place, restore = arrays.ingest_lazily(function, "in1", in1)
    k, place_of_k, _ = arrays.ingest_lazily(function, "in2", in2)
    if place != place_of_k:
        message = f"{function}: in1 is on {place}, but in2 is on {place_of_k}; both must be on one device"
        raise DeviceError(message)
    _problem.check_array(function, "in1", x)
    _problem.check_array(function, "in2", k)
    wanted = devices.place(function, device, place, "in1", x, k)
    if place != "cpu":
        y = _apply_there(function, x, k, mode, method, axis, place, flip)
    elif len(x.shape) == len(k.shape) == 1 and isinstance(x, np.ndarray) and isinstance(k, np.ndarray):
        _problem.normalized_axis(function, axis, 1)
        y = _apply_here(function, x, k, mode, method, wanted, flip)
    else:
        y = _apply_along_axis(function, x, k, mode, method, axis, wanted, flip)
    return y if restore is None else restore(y)


def _apply_here(
    function: str, x: np.ndarray, k: np.ndarray, mode: str, method: str, device: str, flip: bool
) -> np.ndarray:
    """Convolve host arrays along the last axis; the shapes before it fit together."""
    if x.dtype != k.dtype:
        common = _common_dtype(function, x.dtype, k.dtype)
        x, k = x.astype(common, copy=False), k.astype(common, copy=False)
    if x.dtype.kind in "cb":
        return _composed.apply(x, k, flip, lambda a, b: _apply_here(function, a, b, mode, method, device, flip))
    problem = _problem.part_of_full(x.shape[-1], k.shape[-1], mode, flip)
    if flip and problem.taps > problem.samples:
        x, k, problem = k, x, _problem.swapped(problem)
    if x.ndim > 1 or k.ndim > 1:
        x, k, problem = _in_rows(x, k, problem)
    result: np.ndarray = _methods.apply(function, problem, x, k, method, device)
    return result


def choose_method(n: int, k: int, mode: str = "full", dtype: Any = np.float32, *, device: str = "cpu") -> _plan.Choice:
    """Tell which method ``method="auto"`` takes for vectors of these lengths, and why.

    Parameters
    ----------
    n, k : int
        Lengths of the operands, at least 1.
    mode : {"full", "same", "valid"}
        As for `convolve`.
    dtype : dtype_like
        Element type of the operands: float32 or float64; float16 counts as float32.
    device : {"cpu", "gpu"}
        Where the vectors are; asking about a GPU needs none.

    Returns
    -------
    Choice
        ``method``, ``nfft`` (block length of the FFT), ``direct_seconds``, ``fft_seconds``; its text says it in words.

    Raises
    ------
    ArgumentError
        (a ValueError) If a length is not a positive integer, or `mode` is unknown.
    DtypeError
        (a TypeError) If `dtype` is not a floating-point type; integers are always summed directly.

    Notes
    -----
    In the place of `scipy.signal.choose_conv_method`. The model: time per multiply-add, and per element of a
    transformed block by its length, as measured on the machines that `_costs.json` names; threads by the work.

    Examples
    --------
    >>> import maxconv
    >>> maxconv.choose_method(10**6, 16).method
    'direct'
    >>> maxconv.choose_method(10**6, 4096).method
    'fft'
    >>> maxconv.choose_method(10**8, 4, device="gpu").method
    'direct'
    """
    _problem.check_choice("choose_method", "mode", mode, _problem.MODES)
    _problem.check_choice("choose_method", "device", device, ("cpu", "gpu"))
    n, k = _problem.integer("choose_method", "n", n, 1), _problem.integer("choose_method", "k", k, 1)
    kind = np.dtype(dtype)
    if kind.kind != "f":
        message = f"choose_method: dtype must be a floating-point type, got {kind.name}"
        raise DtypeError(message)
    problem = _problem.part_of_full(n, k, mode, flip=True)
    if k > n:
        problem = _problem.swapped(problem)
    if device == "gpu":
        return _plan.choose_on_gpu(problem, kind.itemsize)
    choice = _plan.choose(problem, 8 if kind.itemsize == 8 else 4)  # noqa: PLR2004  # bytes of float64
    return choice if _plan.is_worth_a_choice(problem) else choice._replace(method="direct")


def _common_dtype(function: str, dtype1: np.dtype, dtype2: np.dtype) -> np.dtype:
    """Promote two element types as NumPy does; refuse those that it cannot."""
    try:
        return np.result_type(dtype1, dtype2)
    except TypeError:
        message = f"{function}: NumPy knows no common type of {dtype1.name} (in1) and {dtype2.name} (in2); convert one"
        raise DtypeError(message) from None


def _in_rows(
    x: np.ndarray, k: np.ndarray, problem: _problem.Problem
) -> tuple[np.ndarray, np.ndarray, _problem.Problem]:
    """Lay a batch out as the kernels read it: rows behind one another, one filter for all or one for each."""
    batch = np.broadcast_shapes(x.shape[:-1], k.shape[:-1])
    x = np.broadcast_to(x, (*batch, problem.samples)).reshape(-1, problem.samples)
    if k.size == problem.taps:
        k = k.reshape(1, problem.taps)
    else:
        k = np.broadcast_to(k, (*batch, problem.taps)).reshape(-1, problem.taps)
    return x, k, problem._replace(batch=batch, tap_rows=len(k))


def _apply_along_axis(
    function: str, x: np.ndarray, k: np.ndarray, mode: str, method: str, axis: int, device: str, flip: bool
) -> Any:
    """Convolve host arrays of any rank."""
    if x.ndim == k.ndim == 0:
        return x * (k if flip else k.conj())  # as SciPy does
    if k.ndim not in {1, x.ndim} or x.ndim == 0:
        message = f"{function}: in1 has rank {x.ndim}, but in2 has rank {k.ndim}; expected the same rank, or 1 for in2"
        raise ShapeError(message)
    axis = _problem.normalized_axis(function, axis, x.ndim)
    last_x = np.moveaxis(x, axis, -1)
    last_k = k
    if k.ndim == x.ndim:
        last_k = np.moveaxis(k, axis, -1)
        _problem.check_batch_shapes(function, last_x.shape, last_k.shape)
    if arrays.is_lazy(x, k):
        from . import _blocks  # loads Dask, as the array's owner did

        common = _common_dtype(function, x.dtype, k.dtype)
        return _blocks.convolve(function, x, k, common, mode, method, axis, device, flip)
    taps = last_k.shape[-1]
    if last_k.size == taps and not (flip and taps > x.shape[axis]):  # else they change places
        common = _common_dtype(function, x.dtype, k.dtype)
        problem = _problem.part_of_full(x.shape[axis], taps, mode, flip)

        def convolve_lines(x: np.ndarray, k: np.ndarray) -> np.ndarray:
            return _methods.along_axis(function, problem, x, k, from_end, method, device)

        from_end = axis - x.ndim  # complex numbers come with one more axis in front
        x, k = x.astype(common, copy=False), last_k.reshape(-1).astype(common, copy=False)
        return _composed.apply(x, k, flip, convolve_lines) if common.kind in "cb" else convolve_lines(x, k)
    return np.moveaxis(_apply_here(function, last_x, last_k, mode, method, device, flip), -1, axis)


def _apply_there(function: str, x: Any, k: Any, mode: str, method: str, axis: int, device: str, flip: bool) -> Any:
    """Convolve arrays on an accelerator, along their last axis, where they lie."""
    rank = len(x.shape)
    if rank == 0 or len(k.shape) not in {1, rank}:
        message = (
            f"{function}: in1 has rank {rank}, but in2 has rank {len(k.shape)}; expected the same rank, or 1 for in2"
        )
        raise ShapeError(message)
    along = _problem.normalized_axis(function, axis, rank)
    if (name := x.dtype.name) in _problem.COMPOSED_DTYPES:
        message = f"{function}: elements of type {name} are served in host memory only; in1 is on {device}"
        raise DtypeError(message)
    if along != rank - 1:
        if method == "fft":
            message = f'{function}: method="fft" serves the last axis of arrays on {device}, got axis={axis}'
            raise ArgumentError(message)
        return _apply_down_columns_there(function, x, k, mode, along, device, flip)
    batch = tuple(x.shape[:-1])
    tap_rows = math.prod(k.shape[:-1])
    if tap_rows != 1 and tuple(k.shape[:-1]) != batch:
        message = f"{function}: in1 and in2 have shapes {tuple(x.shape)} and {tuple(k.shape)}; on {device} the shapes "
        message += "before the last axis must be equal, or 1 for in2"
        raise ShapeError(message)
    problem = _problem.part_of_full(x.shape[-1], k.shape[-1], mode, flip)._replace(batch=batch, tap_rows=tap_rows)
    if flip and not batch and problem.taps > problem.samples:
        x, k, problem = k, x, _problem.swapped(problem)
    return _methods.apply(function, problem, x, k, method, device)


def _apply_down_columns_there(function: str, x: Any, k: Any, mode: str, axis: int, device: str, flip: bool) -> Any:
    """Convolve arrays on an accelerator along an axis that is not the last."""
    if not is_native(device):
        message = f"{function}: axis={axis} of arrays on {device}; expected the last axis, in contiguous memory"
        raise ArgumentError(message)
    taps = math.prod(k.shape)
    if len(k.shape) > 1 and taps != k.shape[axis]:
        message = f"{function}: in1 and in2 have shapes {tuple(x.shape)} and {tuple(k.shape)}; on {device} in2 must be "
        message += f"one filter along axis {axis}"
        raise ShapeError(message)
    problem = _problem.part_of_full(x.shape[axis], taps, mode, flip)._replace(batch=tuple(x.shape[:axis]))
    return run_columns(function, problem, x, k, tuple(x.shape[axis + 1 :]), device)
