"""The methods agree within their bounds; `auto` takes the faster one, and never spreads NaN or Inf."""

from __future__ import annotations

import re
from types import SimpleNamespace

import arrays
import numpy as np
import pytest
import reference
import scipy.signal
import tolerances

import maxconv
from maxconv import ArgumentError, DtypeError, _plan
from maxconv._engine import layers, native, run_fft, spectra
from maxconv._problem import Problem, part_of_full

LENGTHS = [(1, 1), (10, 33), (100, 100), (1000, 100), (40, 3000), (3000, 3000), (12_345, 777), (100_000, 1000)]
LENGTHS += [(60_000, 9001)]  # more taps than a transform in a GPU's shared memory holds


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("function", ["convolve", "correlate"])
def test_fft_stays_within_its_error_bound(rng, device, function, mode, dtype):
    """By FFT the error is at most 10 * eps * log2(nfft) * ||x|| * ||k||, for every type, mode and length."""
    for n, m in LENGTHS:
        x, k = arrays.random_array(rng, n, dtype), arrays.random_array(rng, m, dtype)
        actual = getattr(maxconv, function)(x, k, mode, "fft", device=device)
        assert actual.dtype == dtype
        exact = getattr(reference, function)(x, k, mode)
        tolerances.assert_within_fft_bound(actual, exact, x, k)


def test_integers_by_fft_are_rounded_as_scipy_rounds(rng, device):
    """Integers that float64 can hold come out exact, in their own type."""
    x, k = rng.integers(-1000, 1000, 5000), rng.integers(-1000, 1000, 300)
    actual = maxconv.convolve(x, k, method="fft", device=device)
    assert actual.dtype == np.int64
    np.testing.assert_array_equal(scipy.signal.convolve(x, k, method="fft"), actual)
    np.testing.assert_array_equal(np.convolve(x, k), maxconv.convolve(x, k, method="auto"))


def test_batches_and_complex_numbers_by_fft(rng, device):
    """Rows with one filter or one each, along any axis, real and complex, equal the direct sums."""
    for shape1, shape2, axis in [((5, 3000), (200,), -1), ((5, 3000), (5, 200), -1), ((3000, 2), (200, 1), 0)]:
        for imaginary in (0, 1j):
            in1 = rng.standard_normal(shape1) + imaginary * rng.standard_normal(shape1)
            in2 = rng.standard_normal(shape2) + imaginary * rng.standard_normal(shape2)
            direct = maxconv.convolve(in1, in2, method="direct", axis=axis)
            fft = maxconv.convolve(in1, in2, method="fft", axis=axis, device=device)
            np.testing.assert_allclose(direct, fft, rtol=1e-10, atol=1e-10)


def test_a_filter_that_comes_again_is_transformed_once(monkeypatch, rng):
    """The spectrum of the taps is kept: the second call with equal taps prepares nothing, other taps do."""
    prepared = []
    maxconv.convolve(rng.standard_normal(5000), rng.standard_normal(600), method="fft")
    prepare = native._cpu_functions["prepare_float64"]
    monkeypatch.setitem(
        native._cpu_functions, "prepare_float64", lambda *arguments: prepared.append(1) or prepare(*arguments)
    )
    k = rng.standard_normal(600)
    for _ in range(3):
        maxconv.convolve(rng.standard_normal(5000), k.copy(), method="fft")
    assert len(prepared) == 1
    maxconv.convolve(rng.standard_normal(5000), k + 1, method="fft")
    assert len(prepared) == 2


def test_the_same_call_gives_the_same_bits_by_fft(rng, device):
    """Large work, split over threads, comes out the same every time."""
    x, k = rng.standard_normal(10**6), rng.standard_normal(5000)
    first = maxconv.convolve(x, k, method="fft", device=device)
    for _ in range(4):
        np.testing.assert_array_equal(first, maxconv.convolve(x, k, method="fft", device=device))


@pytest.mark.gpu
def test_arrays_on_a_gpu_take_the_fft_where_it_is_faster(rng):
    """Resident arrays give what host arrays give on that GPU, one filter or one for each row, by either method."""
    from max.driver import Accelerator, Buffer

    for shape1, shape2 in [((50_000,), (700,)), ((3, 50_000), (3, 700)), ((3, 9000), (8500,)), ((4, 300), (1, 5))]:
        x, k = (rng.standard_normal(shape).astype(np.float32) for shape in (shape1, shape2))
        there = [Buffer.from_numpy(array).to(Accelerator()) for array in (x, k)]
        for method in ("auto", "direct", "fft"):
            expected = maxconv.convolve(x, k, "same", method, device="gpu")
            actual = maxconv.convolve(*there, "same", method).to_numpy()
            np.testing.assert_array_equal(expected, actual)


@pytest.mark.gpu
@pytest.mark.parametrize("taps", [1, 9000, 16_384, spectra.PARTS_BLOCK])
def test_blocks_that_fill_a_multiprocessor(rng, taps):
    """Blocks of 24 parts stay within the bound, for signals of less than a block and of several."""
    for samples in (3000, 140_001):
        x, k = (rng.standard_normal(n).astype(np.float32) for n in (samples, taps))
        problem = part_of_full(samples, taps, "same", flip=True)
        actual = run_fft("test", problem, x, k, spectra.PARTS_BLOCK, "gpu:0")
        exact = scipy.signal.convolve(x.astype(float), k.astype(float), "full", "fft")
        begin = taps - 1 - problem.pad_left
        tolerances.assert_within_fft_bound(actual, exact[begin:][:samples], x, k)


@pytest.mark.parametrize(
    ("architecture", "dtype", "taps", "expected"),
    [
        ("sm_90a", "float32", 20_000, spectra.PARTS_BLOCK),
        ("sm_80", "float32", 8000, 1 << 14),
        ("sm_80", "float32", 9000, spectra.LONG_NFFT),
        ("sm_75", "float32", 3000, 1 << 13),
        ("sm_90a", "float64", 8000, 1 << 14),
    ],
)
def test_a_gpu_with_less_shared_memory_takes_other_blocks(monkeypatch, architecture, dtype, taps, expected):
    """Blocks that do not fit give way to shorter ones, or to those through memory where the taps need more."""
    there = SimpleNamespace(architecture_name=architecture)
    monkeypatch.setattr(spectra.devices, "handle", lambda _: there)
    assert spectra.served.__wrapped__(spectra.PARTS_BLOCK, taps, dtype, "gpu:0") == expected


def test_the_model_of_a_gpu_counts_folded_blocks_singly():
    """One block more costs half of two, but where two share a transform the second comes for nothing."""
    for nfft, shares in ((4096, True), (8192, False)):
        hop = nfft - 999
        one, two, three = (
            _plan._gpu_fft_ns(part_of_full(blocks * hop, 1000, "same", flip=True), 4, nfft) for blocks in (1, 2, 3)
        )
        assert (one == two) is shares
        assert three > two


@pytest.mark.parametrize(
    ("samples", "taps", "expected"),
    [(8192, 8192, 16384), (2048, 2048, 4096), (1025, 2000, 4096), (300, 300, 1024), (8192, 64, 0), (8193, 8193, 0)],
)
def test_rows_of_a_layer_are_blocks_of_their_own_on_a_gpu(samples, taps, expected):
    """Half a block holds a row; short filters keep short blocks, and rows longer than the longest half have none."""
    problem = Problem(samples, taps, samples, taps - 1, flip=False, batch=(8, 768), tap_rows=768)
    nfft = _plan.choose_on_gpu(problem, 4).nfft
    assert _plan.row_block_on_gpu(problem, 4, nfft) == expected


def test_rows_that_a_gpu_lacks_the_shared_memory_for_are_left_to_blocks(monkeypatch):
    """Where no block of 8192 points fits, nothing is enqueued for rows of that length."""
    there = SimpleNamespace(architecture_name="sm_75")
    monkeypatch.setattr(spectra.devices, "handle", lambda _: there)
    monkeypatch.setattr(spectra, "served", spectra.served.__wrapped__)
    problem = Problem(8192, 9, 8192, 8, flip=False, batch=(1, 1), tap_rows=1)
    x, w = np.zeros((1, 1, 8192), np.float32), np.zeros((1, 1, 9), np.float32)
    assert layers.by_rows(problem, x, w, None, 1 << 14, "gpu:0", is_fast=False) is None


@pytest.mark.gpu
def test_more_taps_than_the_longest_transform_are_summed(rng):
    """`auto` serves every number of taps on a GPU; "fft" names its limit."""
    x, k = (rng.standard_normal(n).astype(np.float32) for n in (100, _plan.LONGEST_GPU_FFT + 1))
    with pytest.raises(ArgumentError, match="serves at most 4194304 taps"):
        maxconv.correlate(x, k, "valid", "fft", device="gpu")
    expected = np.correlate(x.astype(np.float64), k.astype(np.float64), "valid")
    np.testing.assert_allclose(expected, maxconv.correlate(x, k, "valid", device="gpu"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(200_000,), (3, 50_000)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_auto_keeps_nan_and_infinity_local(rng, shape, value):
    """Where `auto` takes the FFT, a NaN or Inf sample still reaches only the outputs that meet it."""
    taps = 500
    x, k = rng.standard_normal(shape), rng.standard_normal(taps)
    assert maxconv.choose_method(shape[-1], taps, dtype=np.float64).method == "fft"
    clean = maxconv.convolve(x, k)
    spoilt = x.copy()
    spoilt[..., 30_000] = value
    result = maxconv.convolve(spoilt, k)
    reached = np.zeros(shape[-1] + taps - 1, bool)
    reached[30_000 : 30_000 + taps] = True
    assert not np.isfinite(result[..., reached]).any()
    np.testing.assert_allclose(clean[..., ~reached], result[..., ~reached], rtol=1e-9, atol=1e-9)


def test_auto_takes_what_the_model_expects_to_be_faster(rng):
    """Few taps are summed, thousands are transformed, and the result is that of the method chosen."""
    for n, m, expected in [(1000, 16, "direct"), (10**6, 31, "direct"), (10**6, 4096, "fft"), (10**5, 10**5, "fft")]:
        choice = maxconv.choose_method(n, m)
        assert choice.method == expected
        assert str(choice).startswith(expected + ": ")
        if n <= 10**5:
            x, k = rng.standard_normal(n).astype(np.float32), rng.standard_normal(m).astype(np.float32)
            np.testing.assert_array_equal(maxconv.convolve(x, k, method=expected), maxconv.convolve(x, k))


def test_the_model_of_a_gpu_is_there_without_one():
    """`choose_method` tells what a GPU would do: sums for few taps, transforms for many, in words."""
    assert maxconv.choose_method(10**7, 4, device="gpu").method == "direct"
    choice = maxconv.choose_method(10**7, 10**5, device="gpu")
    assert choice.method == "fft"
    assert choice.nfft >= 10**5
    assert "us of FFTs in blocks of" in str(choice)


def test_blocks_hold_the_taps_and_fit_the_signal():
    """The block length is a power of two, not shorter than the taps, and not needlessly longer than one block."""
    for n in (10, 1000, 10**5, 10**7):
        for m in (1, 33, 1000, 10**5):
            problem = part_of_full(max(n, m), min(n, m), "full", flip=True)
            nfft = _plan.choose(problem, 4).nfft
            assert nfft.bit_count() == 1 if hasattr(nfft, "bit_count") else True
            assert nfft >= problem.taps
            assert nfft <= max(1024, 4 * (problem.outputs + problem.taps))


def test_the_model_shares_work_as_the_kernels_do():
    """The numbers of work per thread in the cost model are those in the kernels' sources."""
    sources = (maxconv.kernels_path() / "kernels" / name for name in ("direct_cpu.mojo", "overlap_save_cpu.mojo"))
    text = "\n".join(path.read_text() for path in sources)
    said = dict(re.findall(r"^comptime (\w+) = (.+)$", text, re.MULTILINE))
    for name in ("MULTIPLY_ADDS_PER_WORKER", "SAMPLES_PER_WORKER", "SHARED_BLOCK"):
        assert said[name] == f"1 << {getattr(_plan, name).bit_length() - 1}"
    for name in ("MULTIPLY_ADDS_OF_AN_OUTPUT", "PAIR_BYTES"):
        assert said[name] == str(getattr(_plan, name))


def test_the_costs_say_where_they_come_from():
    """The measured costs name device, versions and date."""
    assert {"cpu", "date", "max", "mojo", "numpy"} <= set(_plan.costs("cpu"))
    assert {"accelerators", "date"} <= set(_plan.costs("gpu"))


def test_choose_method_takes_numpys_integers():
    """Lengths may be of any integer type."""
    assert maxconv.choose_method(np.int64(10**6), np.int8(100)) == maxconv.choose_method(10**6, 100)


def test_choose_method_refuses_nonsense():
    """Lengths below one, unknown modes and integer types raise."""
    with pytest.raises(ArgumentError, match="choose_method: n must be an integer >= 1, got 0"):
        maxconv.choose_method(0, 5)
    with pytest.raises(ArgumentError, match="mode must be one of"):
        maxconv.choose_method(5, 5, "most")
    with pytest.raises(ArgumentError, match="device must be one of 'cpu', 'gpu', got 'tpu'"):
        maxconv.choose_method(5, 5, device="tpu")
    with pytest.raises(DtypeError, match="dtype must be a floating-point type, got int32"):
        maxconv.choose_method(5, 5, dtype=np.int32)
