"""Runs a problem on a device. The only room that imports `max.engine` and `max.driver`.

Two ways lead to the same kernels: *native* (`native.py`, extensions called on raw addresses) serves every eager call
on a CPU or an NVIDIA GPU; *graph* (`models.py`, MAX models) serves every other device. They give the same bits.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import DeviceError, DtypeError
from .._problem import kernel_dtype
from . import devices, lanes, native
from .buffers import compact, fetch, host_buffer, to_numpy
from .buffers import download as download
from .buffers import joined as joined
from .buffers import tail as tail
from .buffers import upload as upload
from .report import report as report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._problem import Problem

OMIT = 0
"""Nothing lies beyond the ends of a signal: the first constant of `_ops/shared/border.mojo`."""


def run(function: str, problem: Problem, x: Any, k: Any, device: str, *, way: str | None = None) -> Any:
    """Compute the output of a problem.

    Parameters
    ----------
    function
        The public function, for messages.
    problem
        What to compute.
    x, k
        Signals (rows, N) and taps (tap_rows, K), or (N) and (K) if there is one of each, of one dtype: NumPy arrays in
        any memory layout, or contiguous `max.driver.Buffer`s on `device`.
    device
        "cpu" or "gpu:<id>".
    way
        "native" or "graph", to insist on one; by default whichever serves the device.

    Returns
    -------
    numpy.ndarray or max.driver.Buffer
        y, like x, of shape `problem.shape`. A Buffer is complete once its device's default queue has come to it.
    """
    dtype = _common_kernel_dtype(function, x, k, device)
    if device != "cpu":
        launch = _launch_native if way == "native" or (way is None and is_native(device)) else _launch_graph
        if launch is _launch_native and isinstance(x, np.ndarray) and (parts := lanes.pieces(problem, x.itemsize)):
            return _run_in_pieces(problem, dtype, x, k, device, parts)
        return _run_on_accelerator(problem, dtype, x, k, device, launch)
    x, k = compact(x), compact(k)
    if way == "graph":
        from . import models  # loads MAX

        return to_numpy(models.run(problem, dtype, "cpu", host_buffer(x, dtype), host_buffer(k, dtype)), x.dtype)
    if not problem.batch:
        y = np.empty(problem.outputs, x.dtype)
        native.run_on_cpu(problem, dtype, y, x, k)
        return y
    y = np.empty((problem.rows, problem.outputs), x.dtype)
    native.run_on_cpu(problem, dtype, y, x, k)
    return y.reshape(problem.shape)


def run_columns(function: str, problem: Problem, x: Any, k: Any, inner: tuple[int, ...], device: str) -> Any:
    """Compute the output of a problem along an axis that is not the last, by sums, without a transposed copy.

    Parameters
    ----------
    function
        The public function, for messages.
    problem
        What to compute; its batch is the shape before the axis.
    x, k
        Signals (batch, N, inner) and taps (K), or, of floating-point types, (K, inner) with a filter for each column;
        otherwise as for `run`.
    inner
        The shape behind the axis.
    device
        "cpu", or a "gpu:<id>" that `is_native`.

    Returns
    -------
    numpy.ndarray or max.driver.Buffer
        y, like x, of shape (batch, L_out, inner).
    """
    dtype = _common_kernel_dtype(function, x, k, device)
    columns, shape = math.prod(inner), (*problem.shape, *inner)
    if "int" in dtype and math.prod(k.shape) != problem.taps:
        message = f"{function}: a filter for each column serves floating-point types, got {x.dtype.name}"
        raise DtypeError(message)
    if device == "cpu":
        y = np.empty(shape, x.dtype)
        native.columns_on_cpu(problem, dtype, y, compact(x), compact(k), columns)
        return y

    def launch(_: Problem, dtype: str, device: str, x: Any, k: Any) -> Any:
        from max.driver import Buffer

        handle = devices.handle(device)
        y = Buffer(x.dtype, shape, device=handle)
        context = handle._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
        native.columns_on_gpu(problem, dtype, context, (y, x, k), columns)
        return y

    return _run_on_accelerator(problem._replace(batch=(*problem.batch, *inner)), dtype, x, k, device, launch)


def run_fft(function: str, problem: Problem, x: Any, k: Any, nfft: int, device: str = "cpu") -> Any:
    """Compute the output of a problem by overlap-save.

    NaN and infinity reach every output of the blocks that hold them. On an accelerator, the spectrum of taps from host
    memory is kept there for filters that come again.

    Parameters
    ----------
    function, problem, x, k, device
        As for `run`, of a floating-point type; on the CPU float32 or float64. Beside an `x` on an accelerator, `k` may
        be a NumPy array all the same.
    nfft
        Length of a block, a power of two; another on a GPU with too little shared memory for it.
    """
    if device == "cpu":
        y = np.empty((problem.rows, problem.outputs) if problem.batch else problem.outputs, x.dtype)
        native.overlap_save_on_cpu(problem, y, compact(x), compact(k), nfft)
        return y.reshape(problem.shape) if problem.batch else y
    if not is_native(device):
        message = f'{function}: method="fft" is served by CPUs and NVIDIA GPUs, but {device} is neither'
        raise DeviceError(message)
    from . import spectra  # loads MAX

    dtype = kernel_dtype(x.dtype)
    with blame_memory(_elements(problem), dtype, device):
        nfft = spectra.served(nfft, problem.taps, dtype, device)
        taps = spectra.of_taps(problem, dtype, device, compact(k) if isinstance(k, np.ndarray) else k, nfft)
        is_cut = problem.tap_rows == 1 and nfft < spectra.LONG_NFFT  # which needs no workspace
        if is_cut and isinstance(x, np.ndarray) and (parts := lanes.pieces(problem, x.itemsize)):
            plan = taps._data_ptr()  # noqa: SLF001

            def enqueue(lane: lanes.Lane, piece: lanes.Piece) -> None:
                addresses = lane.y, lane.x, plan, plan
                native.overlap_save_on_gpu(piece.problem, dtype, lane.context, addresses, nfft, 0)

            return lanes.convolve(problem, x, device, parts, enqueue)
        there = upload(x, device) if isinstance(x, np.ndarray) else x
        return like(x, spectra.convolve(problem, dtype, device, there, taps, nfft), x.dtype)


def is_native(device: str) -> bool:
    """Tell whether the native way serves a device: `run_fft`, `run_columns` and `resample` have no other."""
    return device == "cpu" or bool(devices.handle(device).api == "cuda")


def resample(
    x: Any,
    h: np.ndarray,
    rates: tuple[int, int],
    part: tuple[int, int],
    beyond: tuple[int, float] = (0, 0.0),
    device: str = "cpu",
) -> Any:
    """Compute the outputs (start, count) of upsampling, filtering and downsampling rows.

    Parameters
    ----------
    x
        Signals (rows, N), float32 or float64 like `h`: a NumPy array in any memory layout; or a contiguous
        `max.driver.Buffer` of any rank and type on `device`.
    h
        Taps (K) in host memory.
    rates
        (up, down), at least 1.
    part
        Index of the first output on the output grid, and how many.
    beyond
        How signals go on beyond their ends, (mode, value) of `_ops/shared/extension.mojo`; nothing by default.
    device
        "cpu" or "gpu:<id>".

    Returns
    -------
    numpy.ndarray or max.driver.Buffer
        y, like x, but of the dtype of `h`.
    """
    start, outputs = part
    if device != "cpu":
        return _resample_on_accelerator(x, h, (*rates, start, outputs), beyond, device)
    y = np.empty((len(x), outputs), x.dtype)
    native.resample_on_cpu(y, compact(x), compact(h), rates, start, beyond)
    return y


def _resample_on_accelerator(
    x: Any, h: np.ndarray, sizes: tuple[int, int, int, int], beyond: tuple[int, float], device: str
) -> Any:
    from max.driver import Buffer  # MAX loads when it is needed
    from max.dtype import DType

    handle = devices.handle(device)
    if handle.api != "cuda":
        message = f"resampling is served by the CPU and by NVIDIA GPUs so far; {device} is a {handle.api} device"
        raise DeviceError(message)
    dtype, outputs = h.dtype.name, sizes[-1]
    shape = tuple(x.shape)
    rows = math.prod(shape[:-1])
    context = handle._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
    with blame_memory(rows * (shape[-1] + outputs) + len(h), dtype, device):
        taps = upload(h, device)
        signal = upload(x, device) if isinstance(x, np.ndarray) else x
        if signal.dtype.name != dtype:
            signal = Buffer(DType[dtype], shape, device=handle)
            addresses = signal._data_ptr(), x._data_ptr()  # noqa: SLF001
            native.cast_on_gpu(x.dtype.name, dtype, context, addresses, math.prod(shape))
        y = Buffer(DType[dtype], (*shape[:-1], outputs), device=handle)
        pointers = y._data_ptr(), signal._data_ptr(), taps._data_ptr()  # noqa: SLF001
        native.resample_on_gpu(dtype, context, pointers, (shape[-1], len(h), *sizes, rows), beyond)
        return like(x, y, h.dtype)


def _common_kernel_dtype(function: str, x: Any, k: Any, device: str) -> str:
    """Name the kernels that serve both operands; refuse operands of two types."""
    if x.dtype != k.dtype and x.dtype.name != k.dtype.name:  # MAX's types and NumPy's compare unequal
        message = f"{function}: in1 is {x.dtype.name}, but in2 is {k.dtype.name}; on {device} both must have one dtype"
        raise DtypeError(message)
    return kernel_dtype(x.dtype)


def _run_on_accelerator(
    problem: Problem, dtype: str, x: Any, k: Any, device: str, launch: Callable[[Problem, str, str, Any, Any], Any]
) -> Any:
    with blame_memory(_elements(problem), dtype, device):
        there = (upload(array, device) if isinstance(array, np.ndarray) else array for array in (x, k))
        return like(x, launch(problem, dtype, device, *there), x.dtype)


def _run_in_pieces(
    problem: Problem, dtype: str, x: np.ndarray, k: Any, device: str, parts: list[lanes.Piece]
) -> np.ndarray:
    with blame_memory(_elements(problem), dtype, device):
        there = upload(k, device) if isinstance(k, np.ndarray) else k
        first, filter_bytes = there._data_ptr(), problem.taps * x.itemsize  # noqa: SLF001

        def enqueue(lane: lanes.Lane, piece: lanes.Piece) -> None:
            taps = first if problem.tap_rows == 1 else first + piece.rows.start * filter_bytes
            native.run_on_gpu(piece.problem, dtype, lane.context, lane.y, lane.x, taps)

        return lanes.convolve(problem, x, device, parts, enqueue)


@contextmanager
def blame_memory(elements: int, dtype: str, device: str) -> Iterator[None]:
    """Say in Python's words that an accelerator's memory is full."""
    try:
        yield
    except ValueError as error:
        if "cannot satisfy allocation" not in str(error):
            raise
        message = f"{device} has not enough free memory for {elements:,} elements of {dtype}"
        raise MemoryError(message) from None


def _elements(problem: Problem) -> int:
    """Count the elements of all arrays of a problem."""
    return problem.rows * (problem.samples + problem.outputs) + problem.tap_rows * problem.taps


def like(x: Any, y: Any, dtype: np.dtype) -> Any:
    """Copy a result to host memory if the signal came from there."""
    return fetch(y, dtype) if isinstance(x, np.ndarray) else y


def _launch_native(problem: Problem, dtype: str, device: str, x: Any, k: Any) -> Any:
    from max.driver import Buffer

    handle = devices.handle(device)
    y = Buffer(x.dtype, problem.shape, device=handle)
    context = handle._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
    native.run_on_gpu(problem, dtype, context, *(array._data_ptr() for array in (y, x, k)))  # noqa: SLF001
    return y


def _launch_graph(problem: Problem, dtype: str, device: str, x: Any, k: Any) -> Any:
    from . import models

    return models.run(problem, dtype, device, x, k)
