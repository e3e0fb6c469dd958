"""Host arrays as MAX buffers, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import devices, lanes, native


def compact(array: np.ndarray) -> np.ndarray:
    """Return the array as the kernels read it: contiguous, aligned, native byte order; a copy only if it is not."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def host_buffer(array: np.ndarray, dtype: str) -> Any:
    """View a compact array as a host Buffer. By way of an integer type: bfloat16 is foreign to NumPy."""
    from max.driver import Buffer
    from max.dtype import DType

    return Buffer.from_numpy(array.view(f"u{array.itemsize}")).view(DType[dtype])


def to_numpy(buffer: Any, dtype: np.dtype) -> np.ndarray:
    """View a host Buffer as an array of `dtype`."""
    from max.dtype import DType

    carrier: np.ndarray = buffer.view(DType[f"uint{8 * dtype.itemsize}"]).to_numpy()
    return carrier.view(dtype)


def upload(array: np.ndarray, device: str) -> Any:
    """Copy an array to an accelerator."""
    array, handle = compact(array), devices.handle(device)
    if not lanes.serve(array.nbytes, handle):
        return host_buffer(array, array.dtype.name).to(handle)
    from max.driver import Buffer
    from max.dtype import DType

    there = Buffer(DType[array.dtype.name], array.shape, handle)
    lanes.upload(array, there, device)
    return there


def fetch(buffer: Any, dtype: np.dtype) -> np.ndarray:
    """Copy an accelerator's array to host memory, as an array of `dtype`."""
    if not lanes.serve(buffer.num_elements * dtype.itemsize, buffer.device):
        from max.driver import CPU

        return to_numpy(buffer.to(CPU()), dtype)
    array = np.empty(buffer.shape, dtype)
    lanes.download(buffer, array, f"gpu:{buffer.device.id}")
    return array


def download(buffer: Any) -> np.ndarray:
    """Copy an accelerator's array to host memory; bfloat16, foreign to NumPy, becomes float32."""
    if buffer.dtype.name == "bfloat16":
        return (fetch(buffer, np.dtype(np.uint16)).astype(np.uint32) << 16).view(np.float32)
    return fetch(buffer, np.dtype(buffer.dtype.name))


def joined(first: Any, second: Any, device: str) -> Any:
    """Put two arrays on an accelerator side by side, along their last axis."""
    from max.driver import Buffer

    before, behind = first.shape[-1], second.shape[-1]
    whole = Buffer(second.dtype, (*second.shape[:-1], before + behind), device=devices.handle(device))
    _copy_columns(whole, first, 0, 0, before, device)
    _copy_columns(whole, second, before, 0, behind, device)
    return whole


def tail(whole: Any, count: int, device: str) -> Any:
    """Copy the last `count` columns of an array on an accelerator."""
    from max.driver import Buffer

    part = Buffer(whole.dtype, (*whole.shape[:-1], count), device=devices.handle(device))
    _copy_columns(part, whole, 0, whole.shape[-1] - count, count, device)
    return part


def _copy_columns(y: Any, x: Any, y_begin: int, x_begin: int, count: int, device: str) -> None:
    if not count:
        return
    size = y.dtype.size_in_bytes
    context = devices.handle(device)._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
    addresses = y._data_ptr() + size * y_begin, x._data_ptr() + size * x_begin  # noqa: SLF001
    sizes = math.prod(y.shape[:-1]), count, y.shape[-1], x.shape[-1]
    native.copy_columns_on_gpu(size, context, addresses, sizes)
