"""Host arrays as MAX buffers, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import devices


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
    return host_buffer(compact(array), array.dtype.name).to(devices.handle(device))


def download(buffer: Any) -> np.ndarray:
    """Copy an accelerator's array to host memory; bfloat16, foreign to NumPy, becomes float32."""
    from max.driver import CPU

    here = buffer.to(CPU())
    if buffer.dtype.name == "bfloat16":
        return (to_numpy(here, np.dtype(np.uint16)).astype(np.uint32) << 16).view(np.float32)
    return to_numpy(here, np.dtype(buffer.dtype.name))
