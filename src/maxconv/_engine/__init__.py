"""Runs a problem on a device. The only room that imports `max.engine` and `max.driver`.

Two ways lead to the same kernels: *native* (`native.py`, extensions called on raw addresses) serves every eager call
on a CPU or an NVIDIA GPU; *graph* (`models.py`, MAX models) serves every other device. They give the same bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import DeviceError, DtypeError
from .._problem import kernel_dtype
from . import devices, native
from .report import report as report

if TYPE_CHECKING:
    from .._problem import Problem


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
    if x.dtype != k.dtype:
        message = f"{function}: in1 is {x.dtype.name}, but in2 is {k.dtype.name}; on {device} both must have one dtype"
        raise DtypeError(message)
    dtype = kernel_dtype(x.dtype)
    if device != "cpu":
        return _run_on_accelerator(problem, dtype, x, k, device, way)
    x, k = _compact(x), _compact(k)
    if way == "graph":
        from . import models  # loads MAX

        return _to_numpy(models.run(problem, dtype, "cpu", _to_buffer(x, dtype), _to_buffer(k, dtype)), x.dtype)
    if not problem.batch:
        y = np.empty(problem.outputs, x.dtype)
        native.run_on_cpu(problem, dtype, y, x, k)
        return y
    y = np.empty((problem.rows, problem.outputs), x.dtype)
    native.run_on_cpu(problem, dtype, y, x, k)
    return y.reshape(problem.shape)


def run_fft(problem: Problem, x: np.ndarray, k: np.ndarray, nfft: int) -> np.ndarray:
    """Compute the output of a problem on the CPU by overlap-save with blocks of `nfft`.

    As `run`, for float32 and float64. NaN and infinity reach every output of the blocks that hold them.
    """
    y = np.empty((problem.rows, problem.outputs) if problem.batch else problem.outputs, x.dtype)
    native.overlap_save_on_cpu(problem, y, _compact(x), _compact(k), nfft)
    return y.reshape(problem.shape)


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
    native.resample_on_cpu(y, _compact(x), _compact(h), rates, start, beyond)
    return y


def _resample_on_accelerator(
    x: Any, h: np.ndarray, sizes: tuple[int, int, int, int], beyond: tuple[int, float], device: str
) -> Any:
    from max.driver import CPU, Buffer  # MAX loads when it is needed
    from max.dtype import DType

    handle = devices.handle(device)
    if handle.api != "cuda":
        message = f"resampling is served by the CPU and by NVIDIA GPUs so far; {device} is a {handle.api} device"
        raise DeviceError(message)
    dtype, outputs = h.dtype.name, sizes[-1]
    shape = tuple(x.shape)
    rows = math.prod(shape[:-1])
    context = handle._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
    try:
        taps = upload(h, device)
        signal = upload(x, device) if isinstance(x, np.ndarray) else x
        if signal.dtype.name != dtype:
            signal = Buffer(DType[dtype], shape, device=handle)
            addresses = signal._data_ptr(), x._data_ptr()  # noqa: SLF001
            native.cast_on_gpu(x.dtype.name, dtype, context, addresses, math.prod(shape))
        y = Buffer(DType[dtype], (*shape[:-1], outputs), device=handle)
    except ValueError as error:
        if "cannot satisfy allocation" not in str(error):
            raise
        elements = rows * (shape[-1] + outputs) + len(h)
        message = f"{device} has not enough free memory for {elements:,} elements of {dtype}"
        raise MemoryError(message) from None
    pointers = y._data_ptr(), signal._data_ptr(), taps._data_ptr()  # noqa: SLF001
    native.resample_on_gpu(dtype, context, pointers, (shape[-1], len(h), *sizes, rows), beyond)
    handle.synchronize()  # the kernel reads taps that nobody holds after this
    return _to_numpy(y.to(CPU()), h.dtype) if isinstance(x, np.ndarray) else y


def download(buffer: Any) -> np.ndarray:
    """Copy an accelerator's array to host memory; bfloat16, foreign to NumPy, becomes float32."""
    from max.driver import CPU

    here = buffer.to(CPU())
    if buffer.dtype.name == "bfloat16":
        return (_to_numpy(here, np.dtype(np.uint16)).astype(np.uint32) << 16).view(np.float32)
    return _to_numpy(here, np.dtype(buffer.dtype.name))


def upload(array: np.ndarray, device: str) -> Any:
    """Copy an array to an accelerator."""
    return _to_buffer(_compact(array), array.dtype.name).to(devices.handle(device))


def _run_on_accelerator(problem: Problem, dtype: str, x: Any, k: Any, device: str, way: str | None) -> Any:
    handle = devices.handle(device)
    launch = _launch_graph if way == "graph" or (way is None and handle.api != "cuda") else _launch_native
    try:
        if not isinstance(x, np.ndarray):
            return launch(problem, dtype, device, x, k)
        from max.driver import CPU  # MAX loads when it is needed

        on_device = (_to_buffer(_compact(array), dtype).to(handle) for array in (x, k))
        return _to_numpy(launch(problem, dtype, device, *on_device).to(CPU()), x.dtype)
    except ValueError as error:
        if "cannot satisfy allocation" not in str(error):
            raise
        elements = problem.rows * (problem.samples + problem.outputs) + problem.tap_rows * problem.taps
        message = f"{device} has not enough free memory for {elements:,} elements of {dtype}"
        raise MemoryError(message) from None


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


def _compact(array: np.ndarray) -> np.ndarray:
    """Return the array as the kernels read it: contiguous, aligned, native byte order; a copy only if it is not."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _to_buffer(array: np.ndarray, dtype: str) -> Any:
    """View a compact array as a host Buffer. By way of an integer type: bfloat16 is foreign to NumPy."""
    from max.driver import Buffer
    from max.dtype import DType

    return Buffer.from_numpy(array.view(f"u{array.itemsize}")).view(DType[dtype])


def _to_numpy(buffer: Any, dtype: np.dtype) -> np.ndarray:
    """View a host Buffer as an array of `dtype`."""
    from max.dtype import DType

    carrier: np.ndarray = buffer.view(DType[f"uint{8 * dtype.itemsize}"]).to_numpy()
    return carrier.view(dtype)
