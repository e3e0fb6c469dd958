"""FFT convolution on an NVIDIA GPU: spectra of filters that come again, and workspaces."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from . import devices, native
from .buffers import upload
from .tuning import LEAST_SHARED_KB, SHARED_KB, WORKSPACE_BYTES

if TYPE_CHECKING:
    from .._problem import Problem

LONG_NFFT = 1 << 18
"""From this length on a transform goes through a workspace: the SHORTEST of overlap_save_long_gpu.mojo."""

PARTS_BLOCK = 3 << 14
"""The one length that is no power of two, for types summed in float32: that of overlap_save_parts_gpu.mojo."""

_LARGEST_KEPT_FILTER = 1 << 20
"""Bytes of taps up to which their spectrum is kept; 2^18 taps of float32 then hold 4 to 8 MB."""


@lru_cache(maxsize=256)
def served(nfft: int, taps: int, dtype: str, device: str) -> int:
    """Return a length of block, or of the next shorter or longer that a device has the shared memory for."""
    family = re.sub(r"\D", "", devices.handle(device).architecture_name)
    # One place in 32 stays empty.
    points = SHARED_KB.get(family, LEAST_SHARED_KB) * 1024 * 32 // 33 // (16 if dtype == "float64" else 8)
    while 2 * points < nfft < LONG_NFFT:
        shorter = nfft // (3 if nfft == PARTS_BLOCK else 2)
        nfft = shorter if 2 * taps <= shorter else LONG_NFFT
    return nfft


def of_taps(problem: Problem, dtype: str, device: str, k: Any, nfft: int) -> Any:
    """Return the spectra of taps as a Buffer: of a contiguous NumPy array, kept if it is small, or of a Buffer."""
    if not isinstance(k, np.ndarray):
        return _prepare(problem.tap_rows, problem.taps, problem.flip, dtype, device, k, nfft)
    find = _kept if k.nbytes <= _LARGEST_KEPT_FILTER else _kept.__wrapped__
    return find(k.tobytes(), problem.tap_rows, problem.taps, problem.flip, dtype, device, nfft)


@lru_cache(maxsize=16)
def _kept(content: bytes, tap_rows: int, taps: int, flip: bool, dtype: str, device: str, nfft: int) -> Any:
    from max.dtype import DType

    size = len(content) // (tap_rows * taps)
    k = upload(np.frombuffer(content, f"u{size}"), device).view(DType[dtype])
    return _prepare(tap_rows, taps, flip, dtype, device, k, nfft)


def _prepare(tap_rows: int, taps: int, flip: bool, dtype: str, device: str, k: Any, nfft: int) -> Any:
    plan = _allocate(native.gpu_fft_plan_length(nfft, tap_rows), dtype, device)
    workspace = plan if nfft < LONG_NFFT else _allocate(2 * nfft, dtype, device)
    addresses = _addresses(plan, workspace, k)
    native.prepare_fft_on_gpu(dtype, _context(device), addresses, (taps, tap_rows, int(flip), nfft))
    return plan


def convolve(problem: Problem, dtype: str, device: str, x: Any, plan: Any, nfft: int, y: Any = None) -> Any:
    """Enqueue the computation of y, a new Buffer if there is none, from a Buffer x and the spectra of the taps."""
    from max.driver import Buffer

    if y is None:
        y = Buffer(x.dtype, problem.shape, device=devices.handle(device))
    workspace, matrices = plan, 0
    if nfft >= LONG_NFFT:
        pairs = problem.rows * -(-problem.outputs // (2 * (nfft - problem.taps + 1)))
        matrices = max(1, min(pairs, WORKSPACE_BYTES // (2 * nfft * (8 if dtype == "float64" else 4))))
        workspace = _allocate(2 * nfft * matrices, dtype, device)
    addresses = _addresses(y, x, plan, workspace)
    native.overlap_save_on_gpu(problem, dtype, _context(device), addresses, nfft, matrices)
    return y


def convolve_rows(
    problem: Problem, dtype: str, device: str, y: Any, x: Any, k: Any, bias: Any, *, is_fast: bool
) -> None:
    """Enqueue the computation of y from Buffers; each row is one block, and filters are transformed on the way."""
    workspace = _allocate(native.rows_workspace_on_gpu(problem, dtype), dtype, device)
    offsets = (0,) if bias is None else _addresses(bias)
    addresses = (*_addresses(y, x, k), *offsets, *_addresses(workspace))
    native.overlap_save_rows_on_gpu(problem, dtype, _context(device), addresses, is_fast=is_fast)


def _allocate(elements: int, dtype: str, device: str) -> Any:
    from max.driver import Buffer
    from max.dtype import DType

    return Buffer(DType.float64 if dtype == "float64" else DType.float32, (elements,), device=devices.handle(device))


def _context(device: str) -> int:
    context: int = devices.handle(device)._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
    return context


def _addresses(*buffers: Any) -> tuple[int, ...]:
    return tuple(buffer._data_ptr() for buffer in buffers)  # noqa: SLF001
