"""Signals larger than memory: functions of maxconv on arrays of Dask, lazily, block by block.

Results are those of the functions in memory: of direct sums the same bits, whatever the chunks, of FFTs within their
bound. A block reads its own samples and K - 1 more; chunks of fewer samples than that are joined with their neighbours,
so the taps must fit in memory, as must as many samples. Method and device are chosen once, for the whole signal.

The same functions of `maxconv` do the same for a signal that is Dask's already.
"""

from __future__ import annotations

from typing import Any, Literal

try:
    import dask.array as da
except ModuleNotFoundError as error:  # before anything of ours needs it
    message = f"maxconv.dask needs {error.name}: pip install 'maxconv[dask]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from . import multirate, ndimage, neural, signal

__all__ = ["causal_conv1d", "convolve", "convolve1d", "correlate", "correlate1d", "upfirdn"]


def convolve(
    in1: Any, in2: Any, mode: str = "full", method: str = "auto", *, axis: int = -1, device: str | None = None
) -> da.Array:
    """Convolve along an axis, lazily: `maxconv.convolve` of arrays that need not fit in memory.

    Parameters
    ----------
    in1 : dask.array.Array or array_like
        First operand; other arrays become Dask's.
    in2 : array_like
        Second operand. The shorter of both is held in memory.
    mode, method, axis, device
        As for `maxconv.convolve`.

    Returns
    -------
    dask.array.Array
        Of the shape and dtype that `maxconv.convolve` gives. Chunks end where those of `in1` do, but for joined ones;
        what "full" adds belongs to the last.

    Raises
    ------
    ShapeError
        (a ValueError) As for `maxconv.convolve`, or if the length of a chunk is unknown.
    ArgumentError
        (a ValueError) As for `maxconv.convolve`, or if blocks are not NumPy's.
    DtypeError, DeviceError
        As for `maxconv.convolve`.

    Notes
    -----
    Cost: that of `maxconv.convolve` on every chunk, and K - 1 samples a chunk that are read from its neighbours.

    Examples
    --------
    >>> import dask.array as da
    >>> import maxconv.dask
    >>> y = maxconv.dask.convolve(da.arange(6, chunks=2), [1, 1, 1], mode="same")
    >>> y
    dask.array<convolve, shape=(6,), dtype=int64, chunksize=(2,), chunktype=numpy.ndarray>
    >>> y.compute()
    array([ 1,  3,  6,  9, 12,  9])
    """
    y: da.Array = signal.convolve(_lazy(in1), in2, mode, method, axis=axis, device=device)
    return y


def correlate(
    in1: Any, in2: Any, mode: str = "full", method: str = "auto", *, axis: int = -1, device: str | None = None
) -> da.Array:
    """Cross-correlate along an axis, lazily: `maxconv.correlate` of arrays that need not fit in memory.

    Parameters
    ----------
    in1, in2, mode, method, axis, device
        As for `convolve`; `in2` is held in memory.

    Returns
    -------
    dask.array.Array
        As for `convolve`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `convolve`.

    Examples
    --------
    >>> import dask.array as da
    >>> import maxconv.dask
    >>> maxconv.dask.correlate(da.arange(6, chunks=2), [1, 0, 0], mode="same").compute()
    array([0, 0, 1, 2, 3, 4])
    """
    y: da.Array = signal.correlate(_lazy(in1), in2, mode, method, axis=axis, device=device)
    return y


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
) -> da.Array:
    """Convolve along an axis, lazily, the output as long as the input: `maxconv.convolve1d` of any size.

    Parameters
    ----------
    input : dask.array.Array or array_like
        Signal of any rank; other arrays become Dask's.
    weights, axis, mode, cval, origin, device
        As for `maxconv.convolve1d`. What stands beyond the ends is read from the first and last chunks alone.
    output : dtype_like, optional
        Type of the result.

    Returns
    -------
    dask.array.Array
        Of the shape and dtype that `maxconv.convolve1d` gives.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `maxconv.convolve1d` and `convolve`.

    Examples
    --------
    >>> import dask.array as da
    >>> import maxconv.dask
    >>> maxconv.dask.convolve1d(da.arange(6, chunks=2), [1, 1, 1], mode="wrap").compute()
    array([ 6,  3,  6,  9, 12,  9])
    """
    return _lazy(ndimage.convolve1d(_lazy(input), weights, axis, mode, cval, origin, output=output, device=device))


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
) -> da.Array:
    """Cross-correlate along an axis, lazily, the output as long as the input: `maxconv.correlate1d` of any size.

    Parameters
    ----------
    input, weights, axis, mode, cval, origin, output, device
        As for `convolve1d`.

    Returns
    -------
    dask.array.Array
        As for `convolve1d`.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `convolve1d`.

    Examples
    --------
    >>> import dask.array as da
    >>> import maxconv.dask
    >>> maxconv.dask.correlate1d(da.arange(6, chunks=2), [1, 0, 0], mode="nearest").compute()
    array([0, 0, 1, 2, 3, 4])
    """
    return _lazy(ndimage.correlate1d(_lazy(input), weights, axis, mode, cval, origin, output=output, device=device))


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
) -> da.Array:
    """Upsample, filter and downsample lazily: `maxconv.upfirdn` of a signal that need not fit in memory.

    Parameters
    ----------
    h : array_like
        Taps, shape (K); an array of Dask is computed.
    x : dask.array.Array or array_like
        Signal of any rank; other arrays become Dask's.
    up, down, axis, mode, cval, device
        As for `maxconv.upfirdn`. With ``mode="line"``, which leads from the first sample to the last, the blocks at
        the ends read the whole signal.

    Returns
    -------
    dask.array.Array
        Of the shape and dtype that `maxconv.upfirdn` gives.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `maxconv.upfirdn` and `convolve`.

    Examples
    --------
    >>> import dask.array as da
    >>> import maxconv.dask
    >>> maxconv.dask.upfirdn([1, 1], da.arange(4, chunks=2), up=2).compute()
    array([0., 0., 1., 1., 2., 2., 3., 3.])
    """
    y: da.Array = multirate.upfirdn(h, _lazy(x), up, down, axis, mode, cval, device=device)
    return y


def causal_conv1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    initial_state: Any = None,
    return_final_state: bool = False,
    seq_idx: Any = None,
    device: str | None = None,
    precision: Literal["fast"] | None = None,
) -> da.Array | tuple[da.Array, da.Array]:
    """Apply one filter to each channel lazily, no output looking ahead: `maxconv.causal_conv1d` of any size.

    Parameters
    ----------
    x : dask.array.Array or array_like
        Signals, shape (N, C, L) or (C, L), in chunks along any axis; other arrays become Dask's.
    weight, bias, activation, return_final_state, device, precision
        As for `maxconv.causal_conv1d`.
    initial_state, seq_idx : dask.array.Array or array_like, optional
        As for `maxconv.causal_conv1d`.

    Returns
    -------
    dask.array.Array, or a pair of them
        As for `maxconv.causal_conv1d`, in the chunks of `x`, but for joined ones.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `maxconv.causal_conv1d` and `convolve`.

    Examples
    --------
    >>> import dask.array as da
    >>> import maxconv.dask
    >>> x = da.arange(1.0, 7.0, chunks=2).reshape(1, 6)
    >>> maxconv.dask.causal_conv1d(x, [[0.5, 1.0]], activation="relu").compute()
    array([[1. , 2.5, 4. , 5.5, 7. , 8.5]])
    """
    options = {"initial_state": initial_state, "return_final_state": return_final_state, "seq_idx": seq_idx}
    options |= {"activation": activation, "device": device, "precision": precision}
    y: da.Array = neural.causal_conv1d(_lazy(x), weight, bias, **options)
    return y


def _lazy(value: Any) -> da.Array:
    y: da.Array = value if isinstance(value, da.Array) else da.asarray(value)
    return y
