"""Arrays of any library in, the same kind out: NumPy's directly, all others through DLPack.

Host arrays become NumPy arrays that share their memory, accelerator arrays become `max.driver.Buffer`s.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._errors import ArgumentError, DeviceError, DtypeError, ShapeError
from .buffers import compact, host_buffer, to_numpy
from .lanes import plain

if TYPE_CHECKING:
    from collections.abc import Callable

_DLPACK_HOST = {1, 3, 11, 13}
"""Device types of the DLPack protocol that the host can read: kDLCPU, kDLCUDAHost, kDLROCMHost, kDLCUDAManaged."""


class Operand(NamedTuple):
    """An array where the kernels can reach it."""

    data: Any
    """A `numpy.ndarray` if `device` is "cpu", else a `max.driver.Buffer`."""
    device: str
    """ "cpu" or "gpu:<id>"."""
    restore: Callable[[Any], Any] | None
    """Makes an array of the caller's library from a result; None if the result is one already."""


def buffer_type() -> Any:
    """Return MAX's type of arrays; None where it was never loaded, and nothing is its array."""
    driver = sys.modules.get("max.driver")
    return None if driver is None else driver.Buffer


def ingest(function: str, argument: str, value: object) -> Operand:
    """Take an array, or anything NumPy can view as one."""
    if type(value) is np.ndarray:
        return Operand(value, "cpu", None)
    if type(value) is buffer_type():
        return _ingest_buffer(function, argument, value)
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _ingest_dlpack(function, argument, value)
    try:
        return Operand(np.asarray(value), "cpu", None)
    except ValueError as error:
        message = f"{function}: {argument} is not an array of numbers ({error})"
        raise ShapeError(message) from None


def ingest_lazily(function: str, argument: str, value: object) -> Operand:
    """Take an array as `ingest` does, but leave one of Dask as it is: blocks to come, in host memory."""
    if type(value) is not np.ndarray and is_lazy(value):
        return Operand(_checked_blocks(function, argument, value), "cpu", None)
    return ingest(function, argument, value)


def is_lazy(*values: object) -> bool:
    """Tell whether a value is an array of Dask; where Dask was never imported nothing is."""
    dask = sys.modules.get("dask.array")
    return dask is not None and any(isinstance(value, dask.Array) for value in values)


def _checked_blocks(function: str, argument: str, value: Any) -> Any:
    """Refuse an array of Dask that no plan can be made for."""
    if not isinstance(value._meta, np.ndarray):  # noqa: SLF001  # Dask's only word on what its blocks are
        kind = type(value._meta)  # noqa: SLF001
        message = f"{function}: {argument} has blocks of type {kind.__module__}.{kind.__qualname__}; expected NumPy's"
        raise ArgumentError(message)
    if any(length != length for length in value.shape):  # noqa: PLR0124  # NaN
        message = f"{function}: {argument} has chunks of unknown length; call its compute_chunk_sizes() first"
        raise ShapeError(message)
    return value


def _ingest_dlpack(function: str, argument: str, value: Any) -> Operand:  # any library's array
    kind, index = value.__dlpack_device__()
    if kind in _DLPACK_HOST:
        restore = _restorer(value)
        try:
            array = _view_bfloat16(value) if "bfloat16" in str(getattr(value, "dtype", "")) else np.from_dlpack(value)
            return Operand(array if kind == 1 else plain(array), "cpu", lambda y: restore(_exportable(y)))
        except (BufferError, ImportError, RuntimeError, TypeError, ValueError) as error:
            message = (
                f"{function}: {argument}, a {type(value).__module__}.{type(value).__qualname__}, "
                f"cannot be viewed by NumPy ({error})"
            )
            raise DtypeError(message) from None
    from max.driver import Buffer  # MAX loads when it is needed

    restore = _restorer(value)
    if callable(getattr(value, "contiguous", None)):
        value = value.contiguous()  # PyTorch's: the same tensor if it is contiguous already
    _wait_for_producer(value)
    try:
        buffer = Buffer.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        message = f"{function}: {argument} is on a device that MAX cannot reach ({error})"
        raise DeviceError(message) from None

    def hand_over(y: Any) -> Any:
        y.device.synchronize()  # the other library's stream knows nothing of MAX's queue
        return restore(y)

    return Operand(_contiguous(function, argument, buffer), f"gpu:{index}", hand_over)


def _ingest_buffer(function: str, argument: str, value: Any) -> Operand:
    """Take an array of MAX's own."""
    kind, index = value.__dlpack_device__()
    if kind in _DLPACK_HOST:
        return _ingest_dlpack(function, argument, value)
    return Operand(_contiguous(function, argument, value), "gpu:0" if index == 0 else f"gpu:{index}", None)


def _contiguous(function: str, argument: str, buffer: Any) -> Any:
    """Refuse strided memory of an accelerator."""
    if not buffer.is_contiguous:
        message = f"{function}: {argument} is strided memory of an accelerator; expected contiguous memory there"
        raise ArgumentError(message)
    return buffer


def _view_bfloat16(value: Any) -> np.ndarray:
    """View host memory of bfloat16, which NumPy's DLPack refuses, as an array of ml_dtypes' type."""
    import ml_dtypes
    from max.driver import Buffer

    whole = value.contiguous() if callable(getattr(value, "contiguous", None)) else value
    return to_numpy(Buffer.from_dlpack(whole), np.dtype(ml_dtypes.bfloat16))


def _exportable(y: np.ndarray) -> Any:
    """Return a result as other libraries take it: bfloat16 in a Buffer, whose DLPack knows that type."""
    return host_buffer(compact(y), "bfloat16") if y.dtype.name == "bfloat16" else np.ascontiguousarray(y)


def _wait_for_producer(value: Any) -> None:
    """Wait for the work that makes an array, on its library's current stream: MAX's queue knows nothing of it."""
    library = type(value).__module__.partition(".")[0]
    if library == "torch":
        sys.modules["torch"].cuda.current_stream(value.device).synchronize()
    elif library == "cupy":
        sys.modules["cupy"].cuda.get_current_stream().synchronize()


def _restorer(value: Any) -> Callable[[Any], Any]:
    """Find the `from_dlpack` of an array's own library, which must be loaded already: it made the array.

    Without one the result stays as it is: an array of NumPy, or a Buffer.
    """
    namespace = getattr(value, "__array_namespace__", None)
    library = namespace() if namespace is not None else sys.modules[type(value).__module__.partition(".")[0]]
    for owner in (type(value), library):
        if (from_dlpack := getattr(owner, "from_dlpack", None)) is not None:
            return from_dlpack  # type: ignore[no-any-return]  # untyped by nature
    return lambda y: y
