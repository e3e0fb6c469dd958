"""Host arrays by way of an NVIDIA GPU: several threads, each with a queue, page-locked memory and memory there.

A thread takes one block through all stages: copied into page-locked memory, uploaded, computed, downloaded, copied to
the result. Stages of different threads meet, so that both directions of the bus, the device and the cores are busy at
once; and no more of a signal lies on the device than what is under way.

    pageable     one thread copies 11 GB/s, and 4 into fresh pages, where the bus takes 55 each way: hence several
    page-locked  such arrays go over the bus as they lie; so do their results, which are page-locked, too

(H200, 2026-11-22.)
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _plan
from . import devices, native
from .tuning import BLOCK_BYTES, ENOUGH_THREADS, FEWEST_BYTES, MOST_THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._problem import Problem


class Lane:
    """What a thread needs to take a block through all stages."""

    def __init__(self, device: str) -> None:
        from max.driver import Buffer, DeviceQueue
        from max.dtype import DType

        handle = devices.handle(device)
        self._queue = DeviceQueue(handle)
        self.context: int = self._queue._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
        self._there = [Buffer(DType.uint8, (BLOCK_BYTES,), handle) for _ in range(2)]
        self.x, self.y = (buffer._data_ptr() for buffer in self._there)  # noqa: SLF001
        self._here = _page_locked(self._queue.native_stream_handle)

    def send(self, address: int, part: np.ndarray, is_locked: bool) -> None:
        """Enqueue the upload of an array, which is contiguous if it is page-locked."""
        if is_locked:
            native.upload(self.context, address, part.ctypes.data, part.nbytes)
            return
        here = self._here[: part.nbytes]
        np.copyto(here.view(part.dtype).reshape(part.shape), part)
        native.upload(self.context, address, here.ctypes.data, part.nbytes)

    def receive(self, part: np.ndarray, address: int, is_locked: bool) -> None:
        """Download into a contiguous array, once everything that was enqueued is done."""
        here = part if is_locked else self._here[: part.nbytes]
        native.download(self.context, here.ctypes.data, address, part.nbytes)
        self.wait()
        if not is_locked:
            np.copyto(part, here.view(part.dtype).reshape(part.shape))

    def wait(self) -> None:
        """Wait for everything that was enqueued."""
        native.wait(self.context)


class Piece(NamedTuple):
    """Some outputs of a problem, and the samples they are made of."""

    rows: slice
    outputs: slice
    samples: slice
    problem: Problem


def serve(size: int, handle: Any) -> bool:
    """Tell whether lanes copy arrays of so many bytes to and from a device."""
    return size >= FEWEST_BYTES and bool(handle.api == "cuda")


def pieces(problem: Problem, itemsize: int) -> list[Piece]:
    """Cut a problem into pieces that fit a lane; none if it is too small, or halos would be most of a piece."""
    most, halo = BLOCK_BYTES // itemsize, problem.taps - 1
    rows, longer = problem.rows, max(problem.samples, problem.outputs)
    if max(problem.samples, problem.outputs) * rows * itemsize < FEWEST_BYTES:
        return []
    if longer <= most // 2:
        return list(_whole_rows(problem, most // longer))
    if halo > most // 8 or problem.samples < most // 2 or problem.border == "wrap":
        return []
    return [piece for row in range(rows) for piece in _parts_of_row(problem, row, most - 2 * halo - 2)]


def _whole_rows(problem: Problem, most: int) -> Iterator[Piece]:
    count = -(-problem.rows // -(-problem.rows // most))
    for begin in range(0, problem.rows, count):
        rows = slice(begin, min(begin + count, problem.rows))
        height = rows.stop - begin
        part = problem._replace(batch=(height,), tap_rows=1 if problem.tap_rows == 1 else height)
        yield Piece(rows, slice(0, problem.outputs), slice(0, problem.samples), part)


def _parts_of_row(problem: Problem, row: int, most: int) -> Iterator[Piece]:
    samples, taps, outputs = problem.samples, problem.taps, problem.outputs
    length = -(-outputs // -(-outputs // most))
    for begin in range(0, outputs, length):
        end = min(begin + length, outputs)
        first, last = begin - problem.pad_left, end - problem.pad_left + taps - 1
        low, high, border = max(0, first), min(samples, last), "omit"
        if first < 0 or last > samples:  # what borders reflect is read, too
            low, high, border = min(low, samples - taps - 1), max(high, taps + 1), problem.border
        part = problem._replace(
            samples=high - low, outputs=end - begin, pad_left=low - first, batch=(), tap_rows=1, border=border
        )
        yield Piece(slice(row, row + 1), slice(begin, end), slice(low, high), part)


def convolve(
    problem: Problem, x: np.ndarray, device: str, parts: list[Piece], launch: Callable[[Lane, Piece], None]
) -> np.ndarray:
    """Compute a problem of a host array.

    Parameters
    ----------
    problem
        What to compute.
    x
        Signals (rows, N), or (N), in any memory layout and byte order.
    device
        A "gpu:<id>" that is served natively.
    parts
        What `pieces` says.
    launch
        Enqueues a piece, from `x` of a lane to its `y`.
    """
    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    is_locked = x.flags.c_contiguous and is_page_locked(x)
    y = _empty(problem.shape, x.dtype, device, is_locked)
    from_rows, to_rows = x.reshape(-1, problem.samples), y.reshape(-1, problem.outputs)

    def compute(lane: Lane, index: int) -> None:
        piece = parts[index]
        lane.send(lane.x, from_rows[piece.rows, piece.samples], is_locked)
        launch(lane, piece)
        lane.receive(to_rows[piece.rows, piece.outputs], lane.y, is_locked)

    _run(device, compute, len(parts), _most(is_locked))
    return y


def upload(array: np.ndarray, there: Any, device: str) -> None:
    """Copy a contiguous array to a Buffer."""
    flat, address, is_locked = array.reshape(-1).view(np.uint8), there._data_ptr(), is_page_locked(array)  # noqa: SLF001

    def send(lane: Lane, index: int) -> None:
        begin = index * BLOCK_BYTES
        lane.send(address + begin, flat[begin : begin + BLOCK_BYTES], is_locked)
        lane.wait()

    _run(device, send, -(-len(flat) // BLOCK_BYTES), _most(is_locked))


def download(there: Any, array: np.ndarray, device: str) -> None:
    """Copy a Buffer to a contiguous array."""
    flat, address = array.reshape(-1).view(np.uint8), there._data_ptr()  # noqa: SLF001

    def receive(lane: Lane, index: int) -> None:
        begin = index * BLOCK_BYTES
        lane.receive(flat[begin : begin + BLOCK_BYTES], address + begin, is_locked=False)

    _run(device, receive, -(-len(flat) // BLOCK_BYTES), width())


def _run(device: str, work: Callable[[Lane, int], None], count: int, most: int) -> None:
    """Do some numbered works, in as many lanes at once."""
    with _opening:
        free, threads = _lanes(device), _threads()
    devices.handle(device).synchronize()  # lanes know nothing of what the default queue still does to this memory
    numbers = iter(range(count))  # threads take the next one, which the interpreter's lock makes safe

    def take() -> None:
        lane = free.get()
        try:
            for number in numbers:
                work(lane, number)
        except BaseException:
            deque(numbers, 0)  # nobody begins another
            lane.wait()  # what was enqueued before still reads its memory
            raise
        finally:
            free.put(lane)

    tasks = [threads.submit(take) for _ in range(min(count, most))]
    errors = [error for task in tasks if (error := task.exception()) is not None]  # all are done: memory may be freed
    if errors:
        raise errors[0]


def width() -> int:
    """Count the lanes of a device."""
    return min(MOST_THREADS, _plan.cores())


def _most(is_locked: bool) -> int:
    """Count the lanes that serve one call."""
    return min(ENOUGH_THREADS, width()) if is_locked else width()


_opening = threading.Lock()
"""Held while lanes are made, which two first calls would else make twice."""


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads, which serve all devices."""
    return ThreadPoolExecutor(width(), "maxconv")


@cache
def _lanes(device: str) -> SimpleQueue[Lane]:
    """Return the lanes of a device that nobody uses, for all callers; at first all of them."""
    free: SimpleQueue[Lane] = SimpleQueue()
    free.put(Lane(device))
    with suppress(MemoryError, ValueError):  # fewer will do
        for _ in range(width() - 1):
            free.put(Lane(device))
    return free


def _empty(shape: tuple[int, ...], dtype: np.dtype, device: str, is_locked: bool) -> np.ndarray:
    """Make a result. Page-locked memory is MAX's, which keeps what it once locked for the next result."""
    if not is_locked:
        return np.empty(shape, dtype)
    from max.driver import Buffer, Usage
    from max.dtype import DType

    size = math.prod(shape) * dtype.itemsize
    locked = Buffer(DType.uint8, (size,), devices.handle(device), Usage.STAGING | Usage.UNTRACKED)
    return plain(locked.to_numpy()).view(dtype).reshape(shape)


def plain(array: np.ndarray) -> np.ndarray:
    """View page-locked memory as any other: NumPy remembers what DLPack said of it, and few libraries take it so."""
    carrier = array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array  # no memoryview has bfloat16
    return np.asarray(carrier.data).view(array.dtype)


_MEMORY_TYPE, _HOST = 2, 1
"""CU_POINTER_ATTRIBUTE_MEMORY_TYPE and CU_MEMORYTYPE_HOST of cuda.h."""


def is_page_locked(array: np.ndarray) -> bool:
    """Tell whether an array lies in memory that a GPU reads without the host, whichever library allocated it."""
    kind, ask, first = ctypes.c_uint(0), _driver().cuPointerGetAttribute, array.ctypes.data
    for end in (first, first + array.nbytes - 1):
        if ask(ctypes.byref(kind), _MEMORY_TYPE, ctypes.c_uint64(end)) or kind.value != _HOST:
            return False
    return True


def _page_locked(stream: int) -> np.ndarray:
    """Allocate the page-locked bytes of a lane, by CUDA itself: MAX's first allocation of its kind takes 0.4 s."""
    cuda, context, address = _driver(), ctypes.c_void_p(), ctypes.c_void_p()
    failed = cuda.cuStreamGetCtx(ctypes.c_void_p(stream), ctypes.byref(context)) or cuda.cuCtxPushCurrent_v2(context)
    if not failed:
        failed = cuda.cuMemHostAlloc(ctypes.byref(address), ctypes.c_size_t(BLOCK_BYTES), 0)
        cuda.cuCtxPopCurrent_v2(ctypes.byref(context))
    if failed:
        message = f"no {BLOCK_BYTES:,} bytes of host memory can be page-locked (CUDA error {failed})"
        raise MemoryError(message)
    return np.ctypeslib.as_array((ctypes.c_uint8 * BLOCK_BYTES).from_address(address.value or 0))


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")
