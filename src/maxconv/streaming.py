"""Filters that take a signal block by block."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from . import _composed, _methods, _problem
from ._engine import arrays, devices, download, joined, tail, upload
from ._errors import DeviceError, DtypeError, ShapeError


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
        Where blocks are computed: as for `convolve`. Taps, their transform and, for blocks that come from there, the
        state stay on an accelerator.
    method : {"direct", "fft", "auto"}
        As for `convolve`. Only "direct" makes the outputs independent of the cuts to the last bit.

    Raises
    ------
    ShapeError
        (a ValueError) If `taps` is empty or not of rank 1.
    ArgumentError
        (a ValueError) If `channels` is not a positive integer, or `device` or `method` is unknown.
    DtypeError
        (a TypeError) If the elements are not numbers that a kernel serves.
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

    def __init__(
        self,
        taps: Any,
        *,
        channels: int | None = None,
        dtype: Any = None,
        device: str | None = None,
        method: str = "direct",
    ) -> None:
        self._taps = np.array(taps, dtype=dtype)
        if self._taps.ndim != 1:
            message = f"FIRFilter: taps has shape {self._taps.shape}, but rank 1 is expected"
            raise ShapeError(message)
        _problem.check_array("FIRFilter", "taps", self._taps)
        if channels is not None:
            channels = _problem.integer("FIRFilter", "channels", channels, 1)
        _problem.check_choice("FIRFilter", "method", method, _methods.METHODS)
        self._channels = channels
        self._method = method
        place = devices.requested("FIRFilter", device)
        self._device = "cpu" if place == "auto" else place  # blocks are small: a transfer costs more than it saves
        self._taps_there: Any = None
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
        with self._lock:
            self._history: Any = np.empty(shape, self._taps.dtype)

    def process(self, block: Any) -> Any:
        """Filter the next samples of the signal.

        Parameters
        ----------
        block : array_like
            Shape (n), or (channels, n); n may be 0. Not modified. On an accelerator it must be the filter's device,
            and of the taps' dtype.

        Returns
        -------
        array
            Filtered samples, of the block's library, device and shape, and of dtype
            ``numpy.result_type(taps, block)``.

        Raises
        ------
        ShapeError
            (a ValueError) If the block has another rank or another number of channels.
        DtypeError
            (a TypeError) If no kernel serves the elements.
        DeviceError
            (a RuntimeError) If the block is on another accelerator than the filter.
        """
        samples, place, restore = arrays.ingest("FIRFilter.process", "block", block)
        shape = tuple(samples.shape)
        if not shape or shape[:-1] != tuple(self._history.shape[:-1]):
            wanted = "(n)" if self._channels is None else f"({self._channels}, n)"
            message = f"FIRFilter.process: block has shape {shape}, but {wanted} is expected"
            raise ShapeError(message)
        _problem.check_dtype("FIRFilter.process", "block", samples.dtype)
        if place not in {"cpu", self._device}:
            message = f"FIRFilter.process: block is on {place}, but the filter on {self._device}; make it with device="
            raise DeviceError(message)
        with self._lock:
            y = self._process_here(samples) if place == "cpu" else self._process_there(samples)
        return y if restore is None else restore(y)

    def _process_here(self, block: np.ndarray) -> np.ndarray:
        dtype = np.result_type(self._taps, block)
        if not block.size:
            return np.empty(block.shape, dtype)
        if not isinstance(self._history, np.ndarray):
            self._history = download(self._history)
        known = np.concatenate([self._history, block], axis=-1, dtype=np.result_type(self._history, block))
        problem = self._next(block.shape)

        def convolve(x: np.ndarray, k: Any) -> np.ndarray:
            if self._device != "cpu" and self._method == "direct" and k.dtype == self._taps.dtype:
                k = self._resident_taps()
            elif x.ndim > 1:
                k = k[None]
            rows = x.reshape(-1, problem.samples) if x.ndim > 1 else x
            y: np.ndarray = self._apply(problem._replace(batch=x.shape[:-1]), rows, k)
            return y

        signal, taps = known.astype(dtype, copy=False), self._taps.astype(dtype, copy=False)
        y = (
            _composed.apply(signal, taps, flip=True, convolve=convolve)
            if dtype.kind in "cb"
            else convolve(signal, taps)
        )
        keep = min(len(self._taps) - 1, known.shape[-1])
        self._history = known[..., known.shape[-1] - keep :].copy()
        return y

    def _process_there(self, block: Any) -> Any:
        name = block.dtype.name
        if name != self._taps.dtype.name or name in _problem.COMPOSED_DTYPES:
            message = f"FIRFilter.process: block is {name}, but taps is {self._taps.dtype.name}; "
            message += f"on {self._device} both must have one real dtype"
            raise DtypeError(message)
        if 0 in block.shape:
            return block
        if isinstance(self._history, np.ndarray):
            self._history = upload(self._history.astype(self._taps.dtype), self._device)
        known = joined(self._history, block, self._device)
        # Spectra are found again by the content of the taps, which must be in host memory.
        taps = self._resident_taps() if self._method == "direct" else self._taps
        y = self._apply(self._next(tuple(block.shape)), known, taps)
        self._history = tail(known, min(len(self._taps) - 1, known.shape[-1]), self._device)
        return y

    def _resident_taps(self) -> Any:
        if self._taps_there is None:
            self._taps_there = upload(self._taps, self._device)
        return self._taps_there

    def _next(self, shape: tuple[int, ...]) -> _problem.Problem:
        """Say which outputs a block adds, of the history and the block side by side."""
        remembered, length, taps = self._history.shape[-1], shape[-1], len(self._taps)
        # Of the full result the outputs from `remembered` on. Samples before the signal began are not in the history
        # and their terms are left out: multiplying zeros by them would make NaN of an infinite tap.
        return _problem.Problem(remembered + length, taps, length, taps - 1 - remembered, flip=True, batch=shape[:-1])

    def _apply(self, problem: _problem.Problem, x: Any, k: Any) -> Any:
        return _methods.apply("FIRFilter.process", problem, x, k, self._method, self._device)

    def __repr__(self) -> str:
        channels = "" if self._channels is None else f", channels={self._channels}"
        return f"FIRFilter(taps={len(self._taps)}, {self._taps.dtype}{channels}, {self._device}, {self._method})"

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        if not isinstance(state["_history"], np.ndarray):
            state["_history"] = download(state["_history"])
        return {**state, "_taps_there": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
