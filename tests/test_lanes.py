"""Host arrays by way of a GPU: cut into pieces, through page-locked memory, in several threads."""

from __future__ import annotations

import ctypes
import math
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest

import maxconv
from maxconv._engine import lanes, native, run
from maxconv._problem import BORDERS, Problem


@pytest.fixture
def small_lanes(monkeypatch) -> None:
    """Let pieces be as short as tests are quick."""
    monkeypatch.setattr(lanes, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(lanes, "FEWEST_BYTES", 8192)


class LaneHere(lanes.Lane):
    """A lane whose device is the host: kernels and copies are done at once."""

    def __init__(self) -> None:
        """Give the "device" and the page-locked memory values that no test expects."""
        self.context = 0
        self._there = [np.full(lanes.BLOCK_BYTES, 0x7F, np.uint8) for _ in range(2)]
        self._here = np.full(lanes.BLOCK_BYTES, 0x55, np.uint8)
        self.x, self.y = (memory.ctypes.data for memory in self._there)


@pytest.fixture
def lanes_here(monkeypatch, small_lanes) -> SimpleQueue:  # noqa: ARG001  # small first
    """Let three lanes on the host do what those of a GPU do."""
    free = SimpleQueue()
    for _ in range(3):
        free.put(LaneHere())
    monkeypatch.setattr(lanes, "_lanes", lambda _: free)
    monkeypatch.setattr(lanes, "is_page_locked", lambda _: False)
    monkeypatch.setattr(lanes.devices, "handle", lambda _: SimpleNamespace(synchronize=lambda: None))
    monkeypatch.setattr(native, "upload", lambda _, there, here, size: ctypes.memmove(there, here, size))
    monkeypatch.setattr(native, "download", lambda _, here, there, size: ctypes.memmove(here, there, size))
    monkeypatch.setattr(native, "wait", lambda _: None)
    return free


def array_at(address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """View memory."""
    return (
        np.ctypeslib.as_array((ctypes.c_uint8 * (math.prod(shape) * dtype.itemsize)).from_address(address))
        .view(dtype)
        .reshape(shape)
    )


def convolve_here(problem: Problem, x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Compute a problem by lanes on the host."""

    def launch(lane: lanes.Lane, piece: lanes.Piece) -> None:
        part = piece.problem._replace(batch=(piece.rows.stop - piece.rows.start,))
        signals = array_at(lane.x, (part.rows, part.samples), k.dtype)
        array_at(lane.y, part.shape, k.dtype)[:] = run("convolve", part, signals, k, "cpu")

    return lanes.convolve(problem, x, "gpu:0", lanes.pieces(problem, x.itemsize), launch)


@pytest.mark.usefixtures("lanes_here")
@pytest.mark.parametrize("is_locked", [False, True])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1"])
def test_lanes_compute_arrays_of_any_layout(rng, monkeypatch, dtype, is_locked):
    """Vectors and rows, strided and reversed, page-locked or not, come back whole, with the bits of one piece."""
    monkeypatch.setattr(lanes, "is_page_locked", lambda _: is_locked)
    monkeypatch.setattr(lanes, "_empty", lambda shape, dtype, *_: np.full(shape, 77, dtype))
    memory = (30 * rng.standard_normal((7, 20_001))).astype(dtype)
    k = (3 * rng.standard_normal((1, 12))).astype(dtype)
    swapped = memory.astype(memory.dtype.newbyteorder())
    for x in (memory, memory[::2], memory[:, ::-1], memory[::-3, 1::2], memory[:1], memory.reshape(-1, 59), swapped):
        problem = Problem(x.shape[1], 12, x.shape[1] + 5, 8, flip=True, batch=(len(x),))
        expected = run("convolve", problem, x.astype(dtype), k, "cpu")
        np.testing.assert_array_equal(convolve_here(problem, x, k), expected)


def test_an_error_in_a_piece_reaches_the_caller_and_leaves_the_lanes(lanes_here, rng):
    """The first error is raised once no piece is under way; all lanes are free again."""
    problem, x = Problem(50_000, 3, 50_000, 1, flip=True, batch=(1,)), rng.standard_normal((1, 50_000))
    with pytest.raises(ZeroDivisionError):
        lanes.convolve(problem, x, "gpu:0", lanes.pieces(problem, 8), lambda *_: 1 / 0)
    assert lanes_here.qsize() == 3


@pytest.mark.usefixtures("lanes_here")
def test_lanes_copy_whole_arrays(rng):
    """An array of any length is there, and back, byte by byte."""
    for length in (1, 4096, 4097, 12_345):
        x, y = rng.integers(0, 256, length, np.uint8), np.zeros(length, np.uint8)
        there = np.zeros(length, np.uint8)
        buffer = SimpleNamespace(_data_ptr=lambda there=there: there.ctypes.data)
        lanes.upload(x, buffer, "gpu:0")
        lanes.download(buffer, y, "gpu:0")
        np.testing.assert_array_equal(there, x)
        np.testing.assert_array_equal(y, x)


def in_pieces(problem: Problem, x: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Compute a problem piece by piece, as lanes do, on the CPU."""
    y = np.full((problem.rows, problem.outputs), 77, x.dtype)
    for piece in lanes.pieces(problem, x.itemsize):
        part = x[piece.rows, piece.samples]
        assert max(part.nbytes, y[piece.rows, piece.outputs].nbytes) <= lanes.BLOCK_BYTES
        taps = k[piece.rows] if problem.tap_rows > 1 else k
        assert piece.problem.tap_rows == len(taps)
        task = piece.problem._replace(batch=(len(part),))
        y[piece.rows, piece.outputs] = run("convolve", task, np.ascontiguousarray(part), taps, "cpu")
    return y


@pytest.mark.usefixtures("small_lanes")
@pytest.mark.parametrize("border", [border for border in BORDERS if border != "wrap"])
@pytest.mark.parametrize("taps", [1, 2, 16, 63, 128])
def test_pieces_of_a_row_make_the_whole(rng, border, taps):
    """However long signal and taps are, and whatever stands beyond the ends, pieces have the bits of the whole."""
    for _ in range(8):
        samples = int(rng.integers(2048, 9000))
        pad_left = int(rng.integers(0, taps))
        outputs = samples + int(rng.integers(0, taps)) - taps // 2 if border == "omit" else samples
        problem = Problem(samples, taps, outputs, pad_left, flip=True, batch=(2,), border=border, cval=1.5)
        x, k = rng.standard_normal((2, samples), "f4"), rng.standard_normal((1, taps), "f4")
        np.testing.assert_array_equal(in_pieces(problem, x, k), run("convolve", problem, x, k, "cpu"))
        for begin in (0, samples - 10):  # a few outputs at either end, which meet what is reflected there
            few = problem._replace(outputs=10, pad_left=pad_left - begin)
            np.testing.assert_array_equal(in_pieces(few, x, k), run("convolve", few, x, k, "cpu"))


@pytest.mark.usefixtures("small_lanes")
@pytest.mark.parametrize("tap_rows", [1, 100])
def test_pieces_of_short_rows_are_rows(rng, tap_rows):
    """Short rows stay whole, each with its own filter where each has one."""
    problem = Problem(150, 9, 158, 8, flip=True, batch=(100,), tap_rows=tap_rows)
    x, k = rng.standard_normal((100, 150)), rng.standard_normal((tap_rows, 9))
    assert 1 < len(lanes.pieces(problem, 8)) < 100
    np.testing.assert_array_equal(in_pieces(problem, x, k), run("convolve", problem, x, k, "cpu"))


@pytest.mark.usefixtures("small_lanes")
def test_what_lanes_do_not_serve_has_no_pieces():
    """Small arrays, filters as long as a piece, and circles go in one piece."""
    long = Problem(10_000, 16, 10_000, 8, flip=True)
    assert lanes.pieces(long, 4)
    for change in ({"samples": 1000, "outputs": 1000}, {"taps": 600}, {"border": "wrap"}):
        assert lanes.pieces(long._replace(**change), 4) == []


@pytest.mark.parametrize("dtype", ["f2", "f8", "c8", "i1", "?", "bfloat16"])
def test_plain_arrays_share_the_memory(rng, dtype):
    """`plain` views any element type and layout where it lies."""
    import ml_dtypes

    x = rng.integers(0, 2, (4, 6)).astype(getattr(ml_dtypes, dtype, dtype))[::2, ::3]
    y = lanes.plain(x)
    assert y.dtype == x.dtype
    assert y.ctypes.data == x.ctypes.data
    np.testing.assert_array_equal(y, x)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "c8"])
@pytest.mark.parametrize("taps", [5, 64, 2001])
def test_large_host_arrays_have_the_values_of_the_cpu(rng, dtype, taps):
    """Large arrays of every kind, and of any layout, come back from the GPU as the CPU computes them."""
    x = (100 * rng.standard_normal((3, 5_000_001))).astype(dtype)[:, ::-1]
    k = rng.standard_normal(taps).astype(dtype)
    ours, exact = maxconv.convolve(x, k[None], device="gpu"), maxconv.convolve(x, k[None], device="cpu")
    assert ours.dtype == x.dtype
    scale = np.abs(exact.astype("c16")).max()
    bound = 0 if dtype == "i2" else {"f2": 2e-3, "f4": 1e-5, "f8": 1e-13, "c8": 1e-5}[dtype] * scale
    assert np.abs(ours.astype("c16") - exact.astype("c16")).max() <= bound


@pytest.mark.gpu
@pytest.mark.parametrize("samples", [1000, 5_000_001])
def test_page_locked_tensors_are_taken(rng, samples):
    """PyTorch's page-locked tensors are served like others; large ones give results that are page-locked, too."""
    torch = pytest.importorskip("torch")
    x, k = torch.randn(samples), rng.standard_normal(31).astype("f4")
    y = maxconv.convolve(x.pin_memory(), torch.from_numpy(k), device="gpu")
    assert y.is_pinned() == (samples > 1000)
    np.testing.assert_array_equal(y.numpy(), maxconv.convolve(x.numpy(), k, device="gpu"))
    assert not lanes.is_page_locked(x.numpy())


@pytest.mark.gpu
@pytest.mark.parametrize("samples", [1000, 5_000_001])
def test_page_locked_buffers_are_taken(rng, samples):
    """MAX's page-locked Buffers are host memory: the result is a Buffer there."""
    from max.driver import Accelerator, Buffer, Usage
    from max.dtype import DType

    x = Buffer(DType.float32, (samples,), Accelerator(), Usage.STAGING)
    x.to_numpy()[:] = rng.standard_normal(samples, "f4")
    k = rng.standard_normal(31).astype("f4")
    y = maxconv.convolve(x, Buffer.from_numpy(k), device="gpu")
    assert isinstance(y, Buffer)
    assert lanes.is_page_locked(y.to_numpy()) == (samples > 1000)
    np.testing.assert_array_equal(y.to_numpy(), maxconv.convolve(np.array(x.to_numpy()), k, device="gpu"))


@pytest.mark.gpu
def test_threads_may_share_the_lanes(rng):
    """Calls from several threads at once give each its own result."""
    signals, k = [rng.standard_normal(3_000_000 + n, "f4") for n in range(6)], rng.standard_normal(7).astype("f4")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda x: maxconv.convolve(x, k, device="gpu"), signals))
    for x, y in zip(signals, found, strict=True):
        np.testing.assert_array_equal(y, maxconv.convolve(x, k, device="gpu"))


@pytest.mark.gpu
def test_a_failure_in_a_lane_is_raised_and_leaves_the_lane(rng, monkeypatch):
    """An error in one piece comes to the caller; the next call works."""
    x, k = rng.standard_normal(3_000_000, "f4"), rng.standard_normal(7).astype("f4")
    good = maxconv.convolve(x, k, device="gpu")

    with monkeypatch.context() as patch:
        patch.setattr(native, "run_on_gpu", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            maxconv.convolve(x, k, device="gpu")
    np.testing.assert_array_equal(maxconv.convolve(x, k, device="gpu"), good)
