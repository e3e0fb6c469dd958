"""`FIRFilter`: however a signal is cut into blocks, the outputs are those of the whole, bit for bit."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import arrays
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import maxconv
from maxconv import ArgumentError, DtypeError, FIRFilter, ShapeError


def cut(signal: np.ndarray, lengths: list[int]) -> list[np.ndarray]:
    """Cut a signal along its last axis; what the lengths leave over is the last piece."""
    return np.split(signal, np.minimum(np.cumsum(lengths), signal.shape[-1]), axis=-1)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 200), max_size=12),
    taps=st.integers(1, 150),
    dtype=st.sampled_from(arrays.FLOATS + arrays.INTEGERS),
    seed=st.integers(0, 2**32),
)
def test_any_cut_gives_the_bits_of_the_whole(lengths, taps, dtype, seed):
    """Blocks of 0, 1 and any other number of samples give, put together, `convolve(signal, taps)[:n]` exactly."""
    rng = np.random.default_rng(seed)
    signal, coefficients = arrays.random_array(rng, 400, dtype), arrays.random_array(rng, taps, dtype)
    stream = FIRFilter(coefficients)
    pieces = [stream.process(block) for block in cut(signal, lengths)]
    assert all(piece.dtype == dtype for piece in pieces)
    whole = maxconv.convolve(signal, coefficients)[:400]
    np.testing.assert_array_equal(whole.view(f"u{dtype.itemsize}"), np.concatenate(pieces).view(f"u{dtype.itemsize}"))


def test_values_are_lfilters(device, rng):
    """The output is `scipy.signal.lfilter(taps, 1, x)`, on every device."""
    signal, taps = rng.standard_normal(1000), rng.standard_normal(33)
    stream = FIRFilter(taps, device=device)
    actual = np.concatenate([stream.process(block) for block in cut(signal, [1, 10, 300, 64])])
    np.testing.assert_allclose(scipy.signal.lfilter(taps, 1, signal), actual, rtol=1e-12, atol=1e-12)


def test_channels_are_filtered_side_by_side(rng):
    """Each row of (channels, n) blocks is a signal with a state of its own."""
    signal, taps = rng.standard_normal((5, 301)), rng.standard_normal(17)
    stream = FIRFilter(taps, channels=5)
    actual = np.concatenate([stream.process(block) for block in cut(signal, [3, 0, 100, 1])], axis=-1)
    np.testing.assert_array_equal(maxconv.convolve(signal, taps)[:, :301], actual)


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("kinds", [("complex64", "float32"), ("float64", "complex128"), ("complex128", "complex128")])
def test_complex_signals_and_taps_are_filtered(rng, device, kinds, channels):
    """Complex numbers on either side give the bits of the whole, with channels and without."""
    shape = (301,) if channels is None else (channels, 301)
    signal, taps = (
        (rng.standard_normal(size) + 1j * rng.standard_normal(size)).astype(kind)
        if kind.startswith("complex")
        else rng.standard_normal(size).astype(kind)
        for size, kind in zip((shape, 17), kinds, strict=True)
    )
    stream = FIRFilter(taps, channels=channels, device=device)
    actual = np.concatenate([stream.process(block) for block in cut(signal, [3, 0, 100, 1])], axis=-1)
    assert actual.dtype == np.result_type(*kinds)
    whole = maxconv.convolve(signal, taps, method="direct", device=device)[..., :301]
    np.testing.assert_array_equal(whole, actual)


def test_long_filters_go_by_fft_where_asked(rng, device):
    """With method="fft" the blocks' outputs are those of the whole within the bound of the FFT."""
    signal, taps = rng.standard_normal((2, 5000)), rng.standard_normal(900)
    stream = FIRFilter(taps, channels=2, device=device, method="fft")
    actual = np.concatenate([stream.process(block) for block in cut(signal, [1, 2000, 64])], axis=-1)
    np.testing.assert_allclose(maxconv.convolve(signal, taps, method="direct")[:, :5000], actual, rtol=0, atol=1e-10)
    assert repr(stream).endswith("fft)")


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [None, 3])
def test_blocks_on_a_gpu_stay_there(rng, channels):
    """Blocks of Buffers give Buffers with the bits of the whole; host blocks between them continue the signal."""
    from max.driver import Accelerator, Buffer

    shape = (900,) if channels is None else (channels, 900)
    signal, taps = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(65).astype(np.float32)
    stream = FIRFilter(taps, channels=channels, device="gpu")
    pieces = []
    for number, block in enumerate(cut(signal, [1, 300, 1, 2, 64])):
        if number == 3:
            stream = pickle.loads(pickle.dumps(stream))  # noqa: S301
            pieces.append(stream.process(block))
        else:
            y = stream.process(Buffer.from_numpy(np.ascontiguousarray(block)).to(Accelerator()))
            assert isinstance(y, Buffer)
            pieces.append(y.to_numpy())
    whole = maxconv.convolve(signal, taps, device="gpu", method="direct")[..., :900]
    np.testing.assert_array_equal(whole, np.concatenate(pieces, axis=-1))
    double = Buffer.from_numpy(np.zeros(shape)).to(Accelerator())
    with pytest.raises(DtypeError, match="block is float64, but taps is float32; on gpu:0"):
        stream.process(double)
    with pytest.raises(maxconv.DeviceError, match="block is on gpu:0, but the filter on cpu"):
        FIRFilter(taps, channels=channels, device="cpu").process(double)


def test_the_result_type_is_numpys(rng):
    """Results have `result_type(taps, block)`, also when the blocks' type changes on the way."""
    stream = FIRFilter(np.ones(3, np.float32))
    for kind in ("float32", "int16", "float64", "float32"):
        block = rng.integers(-5, 5, 10).astype(kind)
        assert stream.process(block).dtype == np.result_type(np.float32, block)
    assert FIRFilter([1, 2], dtype=np.float32).process(np.ones(4, np.float32)).dtype == np.float32


def test_an_infinite_tap_makes_no_nan_of_samples_before_the_signal():
    """The first outputs leave out samples that never were."""
    stream = FIRFilter([1.0, np.inf])
    np.testing.assert_array_equal(
        [1, np.inf, np.inf], np.concatenate([stream.process([1.0]), stream.process([2.0, 3.0])])
    )


def test_reset_begins_a_new_signal(rng):
    """After `reset` the filter gives what a new one gives."""
    signal, taps = rng.standard_normal(100), rng.standard_normal(20)
    stream = FIRFilter(taps)
    first = stream.process(signal)
    stream.reset()
    np.testing.assert_array_equal(first, stream.process(signal))


def test_reset_waits_for_a_block_of_another_thread(monkeypatch):
    """A reset that comes while a block is filtered is not undone by it: the next block begins a new signal."""
    stream, entered, go = FIRFilter([1.0, 1.0]), threading.Event(), threading.Event()
    apply = FIRFilter._apply

    def apply_slowly(*arguments):
        entered.set()
        assert go.wait(60)
        return apply(*arguments)

    monkeypatch.setattr(FIRFilter, "_apply", apply_slowly)
    with ThreadPoolExecutor(2) as pool:
        block = pool.submit(stream.process, [1.0, 2.0])
        assert entered.wait(60)
        reset = pool.submit(stream.reset)
        assert not wait([reset], 0.1).done
        go.set()
        assert block.result().tolist() == [1.0, 3.0]
    assert stream.process([5.0]).tolist() == [5.0]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda stream: pickle.loads(pickle.dumps(stream))])  # noqa: S301
def test_a_copy_goes_on_where_the_original_was(rng, duplicate):
    """A pickled or copied filter continues the signal by itself; the two do not share state."""
    taps, blocks = rng.standard_normal(9), rng.standard_normal((3, 50))
    stream = FIRFilter(taps)
    stream.process(blocks[0])
    twin = duplicate(stream)
    stream.process(blocks[2])
    np.testing.assert_array_equal(maxconv.convolve(blocks[:2].ravel(), taps)[50:100], twin.process(blocks[1]))


def test_the_filter_owns_its_taps_and_history(rng):
    """Changing the arrays that were passed, or those that came back, changes nothing inside."""
    taps, signal = rng.standard_normal(5), rng.standard_normal(40)
    expected = maxconv.convolve(signal, taps)[:40]
    stream = FIRFilter(taps)
    first = signal[:20].copy()
    outputs = [stream.process(first).copy()]
    taps[:] = 0
    first[:] = 0
    stream.taps[:] = 0
    outputs.append(stream.process(signal[20:]))
    np.testing.assert_array_equal(expected, np.concatenate(outputs))


def test_calls_of_many_threads_lose_no_sample():
    """Samples that several threads push at once are all in the state afterwards."""
    stream = FIRFilter(np.ones(1000))
    threads = [threading.Thread(target=lambda: [stream.process(np.ones(1)) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.process([0.0])[0] == 160


BAD_FILTERS = [
    (lambda: FIRFilter([]), ShapeError, "taps has shape"),
    (lambda: FIRFilter([[1.0]]), ShapeError, r"taps has shape \(1, 1\), but rank 1"),
    (lambda: FIRFilter([1.0], method="slow"), ArgumentError, "method must be one of 'auto', 'direct', 'fft', got"),
    (lambda: FIRFilter(["a"]), DtypeError, "taps has elements of type str"),
    (lambda: FIRFilter([1.0], channels=0), ArgumentError, "channels must be an integer >= 1, got 0"),
    (lambda: FIRFilter([1.0], channels=True), ArgumentError, "channels must be an integer >= 1, got True"),
    (lambda: FIRFilter([1.0], device="tpu"), ArgumentError, "device must be"),
    (lambda: FIRFilter([1.0]).process(3.0), ShapeError, r"block has shape \(\), but \(n\) is expected"),
    (lambda: FIRFilter([1.0]).process(np.ones((2, 2))), ShapeError, r"block has shape \(2, 2\), but \(n\) is expected"),
    (lambda: FIRFilter([1.0], channels=3).process(np.ones((2, 4))), ShapeError, r"but \(3, n\) is expected"),
    (lambda: FIRFilter([1.0]).process(["a"]), DtypeError, "block has elements of type str"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD_FILTERS)
def test_bad_filters_and_blocks_are_refused(call, kind, text):
    """Wrong ranks, types, channel counts and devices raise their own errors."""
    with pytest.raises(kind, match=text):
        call()


def test_the_repr_says_what_it_is():
    """A filter shows its length, type, channels, device and method."""
    assert (
        repr(FIRFilter(np.ones(257, np.float32), channels=2)) == "FIRFilter(taps=257, float32, channels=2, cpu, direct)"
    )
