"""Runs a problem on a device. The only room that imports `max.engine` and `max.driver`.

Two ways lead to the same kernels: *native* (`native.py`, extensions called on raw addresses) serves every eager call
on a CPU or an NVIDIA GPU; *graph* (`models.py`, MAX models) serves every other device. They give the same bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._errors import DtypeError
from .._problem import kernel_dtype
from . import devices, native
from .report import report as report

if TYPE_CHECKING:
    from collections.abc import Callable

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
        is_native = way == "native" or (way is None and _is_native(device))
        return _run_on_accelerator(problem, dtype, x, k, device, _launch_native if is_native else _launch_graph)
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


def run_columns(
    function: str,
    problem: Problem,
    x: Any,
    k: Any,
    device: str,
    *,
    inner: tuple[int, ...],
    border: int = OMIT,
    cval: float = 0,
) -> Any:
    """Compute the output of a problem along an axis that is not the last, by sums, without a transposed copy.

    Parameters
    ----------
    function
        The public function, for messages.
    problem
        What to compute; its batch is the shape before the axis.
    x, k
        Signals (batch, N, inner) and taps (K), or (K, inner) with a filter for each column; as in `run`.
    device
        "cpu", or a "gpu:<id>" that `has_columns`.
    inner
        The shape behind the axis.
    border, cval
        What lies beyond the ends of a column, a constant of `_ops/shared/border.mojo`; and the value of a constant one.

    Returns
    -------
    numpy.ndarray or max.driver.Buffer
        y, like x, of shape (batch, L_out, inner).
    """
    dtype = _common_kernel_dtype(function, x, k, device)
    columns, shape = math.prod(inner), (*problem.shape, *inner)
    # Unsigned integers share the signed kernels, which take the same bits.
    beyond = border, float(cval) if "float" in dtype else (int(cval) + 2**63) % 2**64 - 2**63
    if device == "cpu":
        x, k = _compact(x), _compact(k)
        y = np.empty(shape, x.dtype)
        native.columns_on_cpu(problem, dtype, y, x, k, columns, beyond)
        return y

    def launch(_: Problem, dtype: str, device: str, x: Any, k: Any) -> Any:
        from max.driver import Buffer

        handle = devices.handle(device)
        y = Buffer(x.dtype, shape, device=handle)
        context = handle._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
        native.columns_on_gpu(problem, dtype, context, (y, x, k), columns, beyond)
        return y

    return _run_on_accelerator(problem._replace(batch=(*problem.batch, *inner)), dtype, x, k, device, launch)


def has_columns(device: str) -> bool:
    """Tell whether `run_columns` serves a device: the native way does, the graph way does not."""
    return device == "cpu" or _is_native(device)


def run_fft(problem: Problem, x: np.ndarray, k: np.ndarray, nfft: int) -> np.ndarray:
    """Compute the output of a problem on the CPU by overlap-save with blocks of `nfft`.

    As `run`, for float32 and float64. NaN and infinity reach every output of the blocks that hold them.
    """
    y = np.empty((problem.rows, problem.outputs) if problem.batch else problem.outputs, x.dtype)
    native.overlap_save_on_cpu(problem, y, _compact(x), _compact(k), nfft)
    return y.reshape(problem.shape)


def resample(x: np.ndarray, h: np.ndarray, up: int, down: int, part: tuple[int, int]) -> np.ndarray:
    """Compute the outputs (start, count) of upsampling, filtering and downsampling rows on the CPU.

    Parameters
    ----------
    x, h
        Signals (rows, N) and taps (K), both float32 or both float64, in any memory layout.
    up, down
        Rates, at least 1.
    part
        Index of the first output on the output grid, and how many.
    """
    start, outputs = part
    y = np.empty((len(x), outputs), x.dtype)
    native.resample_on_cpu(y, _compact(x), _compact(h), up, down, start)
    return y


def _common_kernel_dtype(function: str, x: Any, k: Any, device: str) -> str:
    """Name the kernels that serve both operands; refuse operands of two types."""
    if x.dtype != k.dtype:
        message = f"{function}: in1 is {x.dtype.name}, but in2 is {k.dtype.name}; on {device} both must have one dtype"
        raise DtypeError(message)
    return kernel_dtype(x.dtype)


def _is_native(device: str) -> bool:
    """Tell whether the native way serves an accelerator."""
    return bool(devices.handle(device).api == "cuda")


def _run_on_accelerator(
    problem: Problem, dtype: str, x: Any, k: Any, device: str, launch: Callable[[Problem, str, str, Any, Any], Any]
) -> Any:
    handle = devices.handle(device)
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
