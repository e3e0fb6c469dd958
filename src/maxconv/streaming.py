"""Filters that take a signal block by block."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from . import _problem
from ._engine import devices, run
from ._errors import ArgumentError, DtypeError, ShapeError


class FIRFilter:
    """A finite-impulse-response filter that keeps its state between blocks.

    ``y[i] = sum_j taps[j] * x[i - j]`` over the whole signal, however it is cut: the outputs of `process`, put one
    behind another, are ``convolve(signal, taps)[:len(signal)]``, bit for bit.

    Parameters
    ----------
    taps : array_like
        Filter coefficients, shape (K), K >= 1; copied.
    channels : int, optional
        How many signals are filtered side by side, each with its own state; blocks then have shape (channels, n).
        Without it there is one, and blocks have shape (n).
    dtype : dtype_like, optional
        Element type of the taps; by default that of `taps`.
    device : str, optional
        Where blocks are computed: as for `convolve`.

    Raises
    ------
    ShapeError
        (a ValueError) If `taps` is empty or not of rank 1.
    ArgumentError
        (a ValueError) If `channels` is not a positive integer, or `device` is unknown.
    DtypeError
        (a TypeError) If the elements are neither floating-point numbers nor integers that a kernel serves.
    DeviceError
        (a RuntimeError) If the device is not there.

    Notes
    -----
    Follows `scipy.signal.lfilter(taps, 1, block, zi=...)`. Cost: 2*K flop an output; the state is the last K - 1
    samples of each channel. Objects may be pickled and copied in the middle of a signal; calls from several threads
    are taken one after another.

    Examples
    --------
    >>> import maxconv
    >>> moving_sum = maxconv.FIRFilter([1.0, 1.0, 1.0])
    >>> moving_sum.process([1, 2, 3])
    array([1., 3., 6.])
    >>> moving_sum.process([4])
    array([9.])
    >>> moving_sum
    FIRFilter(taps=3, float64, cpu, direct)
    """

    def __init__(self, taps: Any, *, channels: int | None = None, dtype: Any = None, device: str | None = None) -> None:
        self._taps = np.array(taps, dtype=dtype)
        if self._taps.ndim != 1:
            message = f"FIRFilter: taps has shape {self._taps.shape}, but rank 1 is expected"
            raise ShapeError(message)
        _problem.check_array("FIRFilter", "taps", self._taps)
        _refuse_composed("taps", self._taps)
        if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
            message = f"FIRFilter: channels must be an integer >= 1, got {channels!r}"
            raise ArgumentError(message)
        self._channels = channels
        place = devices.requested("FIRFilter", device)
        self._device = "cpu" if place == "auto" else place  # blocks are small: a transfer costs more than it saves
        self._lock = threading.Lock()
        self.reset()

    @property
    def taps(self) -> np.ndarray:
        """The filter coefficients, a copy."""
        return np.array(self._taps)

    @property
    def channels(self) -> int | None:
        """How many signals are filtered side by side; None for one that comes without a channel axis."""
        return self._channels

    def reset(self) -> None:
        """Forget all samples: the next block begins a new signal."""
        shape = (0,) if self._channels is None else (self._channels, 0)
        self._history = np.empty(shape, self._taps.dtype)

    def process(self, block: Any) -> np.ndarray:
        """Filter the next samples of the signal.

        Parameters
        ----------
        block : array_like
            Shape (n), or (channels, n); n may be 0. Not modified.

        Returns
        -------
        numpy.ndarray
            Filtered samples, of the block's shape and of dtype ``numpy.result_type(taps, block)``.

        Raises
        ------
        ShapeError
            (a ValueError) If the block has another rank or another number of channels.
        DtypeError
            (a TypeError) If no kernel serves the elements.
        """
        samples = np.asarray(block)
        expected = self._history.shape[:-1]
        if samples.shape[:-1] != expected or samples.ndim == 0:
            wanted = "(n)" if self._channels is None else f"({self._channels}, n)"
            message = f"FIRFilter.process: block has shape {samples.shape}, but {wanted} is expected"
            raise ShapeError(message)
        if samples.size:
            _problem.check_array("FIRFilter.process", "block", samples)
            _refuse_composed("block", samples)
        with self._lock:
            return self._process(samples)

    def _process(self, block: np.ndarray) -> np.ndarray:
        dtype = np.result_type(self._taps, block)
        length = block.shape[-1]
        if length == 0:
            return np.empty(block.shape, dtype)
        known = np.concatenate([self._history, block], axis=-1, dtype=np.result_type(self._history, block))
        remembered, taps = self._history.shape[-1], len(self._taps)
        # Of the full result the outputs from `remembered` on. Samples before the signal began are not in the history
        # and their terms are left out: multiplying zeros by them would make NaN of an infinite tap.
        batch = block.shape[:-1]
        problem = _problem.Problem(remembered + length, taps, length, taps - 1 - remembered, flip=True, batch=batch)
        coefficients = self._taps.astype(dtype, copy=False)
        y: np.ndarray = run(
            "FIRFilter.process",
            problem,
            known.astype(dtype, copy=False),
            coefficients[None] if batch else coefficients,
            self._device,
        )
        keep = min(taps - 1, known.shape[-1])
        self._history = known[..., known.shape[-1] - keep :].copy()
        return y

    def __repr__(self) -> str:
        channels = "" if self._channels is None else f", channels={self._channels}"
        return f"FIRFilter(taps={len(self._taps)}, {self._taps.dtype}{channels}, {self._device}, direct)"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def _refuse_composed(argument: str, array: np.ndarray) -> None:
    """Refuse types that need several calls of a kernel: a state of their own would be needed for each."""
    if array.dtype.name in _problem.COMPOSED_DTYPES:
        message = f"FIRFilter: {argument} has elements of type {array.dtype.name}; expected real numbers"
        raise DtypeError(message)
