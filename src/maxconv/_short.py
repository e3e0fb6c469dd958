"""The shortest way of vectors, on the CPU or resident on a GPU: one call of a kernel, whose choice is remembered.

It serves what most small calls are, two contiguous arrays of rank 1 and of one type, and leaves everything else,
refusals included, to the usual way, whose Python takes 4 to 6 us, 20 on a GPU: more than the sums of 1000 x 16. The
bits are the same.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

from . import _methods, _plan, _problem
from ._engine import arrays, devices, is_native, native

_SERVED = {"auto", "direct"}
_TRANSFORMED = 4
"""Bytes of the smallest element that is transformed as it is: the usual way widens float16."""

_SLAB_BYTES = 1 << 17
_FEWEST_OF_SLAB, _MOST_OF_SLAB = 8, 64
"""Small results on a GPU are cut from so many bytes, if these hold the fewest, and the most of them at a time."""
_ALIGNMENT = 256
"""Bytes: what MAX aligns allocations to, too."""

_kernels: dict[np.dtype, Any] = {}
"""Element type, in native byte order, to its kernel; empty until the usual way has loaded the extension."""


def convolve(  # noqa: PLR0911  # a set of reasons, or a name more, costs as much as a question
    in1: Any,
    in2: Any,
    mode: str,
    method: str,
    device: str | None,
    flip: bool,
    _array: Any = np.ndarray,
    _empty: Any = np.empty,
    _fewest_taps: int = _plan.FEWEST_FFT_TAPS,
) -> np.ndarray | None:
    """Convolve or correlate two vectors if this way serves them; None if it does not. Written for few bytecodes."""
    if type(in1) is not _array:
        return _convolve_there(in1, in2, mode, method, flip) if device is None else None
    if type(in2) is not _array or in1.ndim != 1 or in2.ndim != 1:
        return None
    dtype = in1.dtype
    kernel = _kernels.get(dtype) or _find_kernel(dtype)
    is_here = (devices.default or devices.get_default_device()) == "cpu" if device is None else device == "cpu"
    if kernel is None or dtype is not in2.dtype or not is_here or (method != "auto" and method != "direct"):  # noqa: PLR1714
        return None
    samples, taps = in1.size, in2.size
    if mode == "full":
        start, outputs = 0, samples + taps - 1
    elif mode in _problem.MODES:
        start, outputs = _problem.start_and_outputs(samples, taps, mode)
    else:
        return None
    if flip and taps > samples:
        in1, in2, samples, taps = in2, in1, taps, samples
    if not (samples and taps):
        return None
    pad_left = taps - 1 - start
    # Within these bounds, and of integers, the usual way sums without asking its model.
    few = taps < _fewest_taps or outputs * taps < _plan.FEWEST_FFT_PRODUCTS
    if not few and method == "auto" and dtype.kind == "f":
        problem, nfft = _choice(samples, taps, outputs, pad_left, flip, dtype.itemsize)
        if nfft:
            return _methods.fft_mended("convolve", problem, in1, in2, nfft) if dtype.itemsize >= _TRANSFORMED else None
    y: np.ndarray = _empty(outputs, dtype)
    return y if kernel(y, in1, in2, pad_left, flip, native.workers) else None


def _convolve_there(in1: Any, in2: Any, mode: str, method: str, flip: bool) -> Any:
    """Do so with Buffers of MAX on an NVIDIA GPU, by sums."""
    buffer = arrays.buffer_type()
    if type(in1) is not buffer or type(in2) is not buffer:
        return None
    place, dtype = in1.device, in1.dtype
    alike = in1.rank == in2.rank == 1 and dtype == in2.dtype and place == in2.device
    if not alike or place.is_host or not (in1.is_contiguous and in2.is_contiguous) or mode not in _problem.MODES:
        return None
    called = _choice_there(dtype, in1.num_elements, in2.num_elements, mode, method, flip, place.id)
    if called is None:
        return None
    kernel, context, sizes, _, outputs, spare, is_swapped = called
    try:
        y = spare.pop()
    except IndexError:
        y = _allocate(spare, buffer, dtype, outputs, place)
        if y is None:
            return None
    x, k = (in2, in1) if is_swapped else (in1, in2)
    kernel(context, y._data_ptr(), x._data_ptr(), k._data_ptr(), sizes)  # noqa: SLF001  # as in _engine
    return y


def _allocate(spare: list[Any], buffer: Any, dtype: Any, outputs: int, place: Any) -> Any:
    """Return memory for a result, and leave more of it in `spare`; None if there is none.

    MAX takes 4 us to allocate a Buffer and 1 to cut one off: small results are allocated many at once. All are
    enqueued on one queue, so that their memory may be used again as soon as the last of them is gone.
    """
    pitch = -(-outputs * dtype.size_in_bytes // _ALIGNMENT) * _ALIGNMENT // dtype.size_in_bytes
    count = min(_MOST_OF_SLAB, _SLAB_BYTES // (pitch * dtype.size_in_bytes))
    try:
        if count < _FEWEST_OF_SLAB:
            return buffer(dtype, (outputs,), device=place)
        slab = buffer(dtype, (count * pitch,), device=place)
    except ValueError:  # no memory, which the usual way says in better words
        return None
    spare += [slab[begin : begin + outputs] for begin in range(pitch, count * pitch, pitch)]
    return slab[:outputs]


@lru_cache(maxsize=1024)
def _choice_there(
    dtype: Any, samples: int, taps: int, mode: str, method: str, flip: bool, index: int
) -> tuple[Any, int, int, np.ndarray, int, list[Any], bool] | None:
    """Return kernel, context, address of sizes, their array, outputs, spare results, whether operands change places.

    None for what the usual way does.
    """
    device = f"gpu:{index}"
    if not (samples and taps) or method not in _SERVED or dtype.name not in _problem.KERNEL_DTYPES:
        return None
    problem = _problem.part_of_full(samples, taps, mode, flip)
    is_swapped = flip and taps > samples
    if is_swapped:
        problem = _problem.swapped(problem)
    if not is_native(device) or (method == "auto" and not _methods.is_summed_there(problem, dtype.name)):
        return None
    context = devices.handle(device)._device_context_ptr()  # noqa: SLF001  # as in _engine
    kernel, words = native.prepared_on_gpu(problem, _problem.kernel_dtype(dtype))
    return kernel, context, words.ctypes.data, words, problem.outputs, [], is_swapped


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_choice_there.cache_clear)  # the usual way knows what to say there


@lru_cache(maxsize=1024)
def _choice(
    samples: int, taps: int, outputs: int, pad_left: int, flip: bool, itemsize: int
) -> tuple[_problem.Problem, int]:
    """Return what is to be computed, and the length of the blocks of an FFT; 0 for sums."""
    problem = _problem.Problem(samples, taps, outputs, pad_left, flip)
    choice = _plan.choose(problem, max(_TRANSFORMED, itemsize))
    return problem, choice.nfft if choice.method == "fft" else 0


def _find_kernel(dtype: np.dtype) -> Any:
    if not _kernels:
        _kernels.update(native.loaded_vector_kernels())
    return _kernels.get(dtype)
