"""The shortest way gives the bits of the usual way, and serves nothing that the usual way treats otherwise."""

from __future__ import annotations

import arrays
import numpy as np
import pytest

import maxconv
from maxconv import _short


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Let the usual way load the extension, without which there is no short one."""
    maxconv.convolve([1.0], [1.0])


def usual(monkeypatch, function, *arguments, **options) -> np.ndarray:
    """Call a door whose short way is blocked."""
    with monkeypatch.context() as patch:
        patch.setattr(_short, "convolve", lambda *_: None)
        return getattr(maxconv, function)(*arguments, **options)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16", "int64"])
def test_the_bits_are_those_of_the_usual_way(monkeypatch, rng, dtype, flip, mode):
    """Lengths 1 to 40 against each other, either operand the longer: the same bits, type and shape."""
    function = "convolve" if flip else "correlate"
    for _ in range(40):
        in1, in2 = (arrays.random_array(rng, int(rng.integers(1, 40)), np.dtype(dtype)) for _ in range(2))
        for method in ("auto", "direct"):
            actual = _short.convolve(in1, in2, mode, method, None, flip)
            assert actual is not None
            expected = usual(monkeypatch, function, in1, in2, mode, method)
            assert actual.dtype == expected.dtype
            np.testing.assert_array_equal(expected, actual)


def test_the_doors_take_it(monkeypatch):
    """`convolve` and `correlate` return what the short way gives them."""
    answer = np.arange(3.0)
    monkeypatch.setattr(_short, "convolve", lambda *_: answer)
    assert maxconv.convolve(np.ones(3), np.ones(3)) is answer
    assert maxconv.correlate(np.ones(3), np.ones(3)) is answer


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_of_long_operands_auto_takes_what_the_usual_way_takes(monkeypatch, rng, function, dtype, mode):
    """Sums and transforms, NaN within included, have the bits of the usual way; "fft" is never answered with sums."""
    for n, m in ((200, 31), (200, 32), (1000, 40), (1000, 400), (3000, 2000), (2000, 3000)):
        x, k = (arrays.random_array(rng, length, np.dtype(dtype)) for length in (n, m))
        for _ in range(2):
            expected = usual(monkeypatch, function, x, k, mode)
            np.testing.assert_array_equal(expected, getattr(maxconv, function)(x, k, mode))
            if dtype.startswith("float"):
                x[n // 2] = np.nan
        assert _short.convolve(x, k, mode, "fft", None, function == "convolve") is None


def test_everything_else_is_left_to_the_usual_way(rng):
    """Other types, ranks, layouts, devices and names, empty and mixed operands: the short way says nothing."""
    x, k = rng.standard_normal(30), rng.standard_normal(4)
    misaligned = np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)[1:].view(np.float64)
    others = [
        (list(x), k),
        (x[::2], k),
        (x, k[::-1]),
        (misaligned, k),
        (x.astype(">f8"), k.astype(">f8")),
        (x.astype(np.float32), k),
        (x.astype(complex), k.astype(complex)),
        (x > 0, k > 0),
        (x.view(np.recarray), k),
        (x[None], k[None]),
        (np.float64(2), k),
        (x[:0], k),
        (x, k[:0]),
    ]
    for in1, in2 in others:
        assert _short.convolve(in1, in2, "full", "auto", None, True) is None
    for options in (
        ("middle", "auto", None),
        ("full", "slow", None),
        ("full", "auto", "auto"),
        ("full", "auto", "gpu"),
    ):
        assert _short.convolve(x, k, *options, True) is None


def test_a_default_device_other_than_the_cpu_is_respected(monkeypatch, rng):
    """Where the process computes on another device, the short way is closed; device="cpu" opens it."""
    x, k = rng.standard_normal(30), rng.standard_normal(4)
    monkeypatch.setattr(maxconv._engine.devices, "default", "auto")
    assert _short.convolve(x, k, "full", "auto", None, True) is None
    assert _short.convolve(x, k, "full", "auto", "cpu", True) is not None


@pytest.mark.gpu
@pytest.mark.parametrize("function", ["convolve", "correlate"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "uint8"])
def test_arrays_on_a_gpu_have_the_bits_of_the_usual_way(monkeypatch, rng, function, dtype):
    """Resident vectors, either operand the longer, in every mode; what is not served there is left alone."""
    from max.driver import Accelerator, Buffer

    device = Accelerator()
    for n, m in ((1, 1), (1024, 16), (16, 1024), (5000, 300)):
        x, k = (Buffer.from_numpy(arrays.random_array(rng, length, np.dtype(dtype))).to(device) for length in (n, m))
        for mode in ("full", "same", "valid"):
            actual = _short.convolve(x, k, mode, "direct", None, function == "convolve")
            expected = usual(monkeypatch, function, x, k, mode, "direct")
            np.testing.assert_array_equal(expected.to_numpy(), actual.to_numpy())
    assert _short.convolve(x, k.to_numpy(), "full", "auto", None, True) is None
    assert _short.convolve(x, k, "full", "fft", None, True) is None
    assert _short.convolve(x, k, "half", "auto", None, True) is None
    assert _short.convolve(x[::2], k, "full", "auto", None, True) is None


@pytest.mark.parametrize("outputs", [1, 1039, 2048, 100_000])
def test_small_results_have_memory_of_their_own(outputs):
    """Results cut from one allocation do not meet, and have the asked length; long ones are allocated alone."""
    from max.driver import CPU, Buffer
    from max.dtype import DType

    spare: list[Buffer] = []
    results = [_short._allocate(spare, Buffer, DType.float32, outputs, CPU()), *spare]
    assert len(results) == {1: 64, 1039: 30, 2048: 16, 100_000: 1}[outputs]
    for number, y in enumerate(results):
        y.to_numpy()[:] = number
    for number, y in enumerate(results):
        np.testing.assert_array_equal(y.to_numpy(), np.full(outputs, number, "f4"))


@pytest.mark.gpu
def test_results_on_a_gpu_that_are_kept_stay_as_they_are(rng):
    """Of many small calls each keeps its result, whatever memory the next ones take."""
    from max.driver import Accelerator, Buffer

    device, k = Accelerator(), rng.standard_normal(5).astype("f4")
    signals = [rng.standard_normal(100, "f4") for _ in range(600)]
    there = Buffer.from_numpy(k).to(device)
    kept = [maxconv.convolve(Buffer.from_numpy(x).to(device), there) for x in signals]
    for x, y in zip(signals, kept, strict=True):
        np.testing.assert_allclose(y.to_numpy(), np.convolve(x, k), rtol=0, atol=1e-5)
