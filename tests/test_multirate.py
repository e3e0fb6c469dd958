"""`upfirdn` and `resample_poly` give SciPy's values, lengths and types."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import maxconv
from maxconv import ArgumentError, DeviceError, DtypeError, ShapeError, _plan
from maxconv.multirate import EXTENSIONS, STATISTICS

RATES = [(1, 1), (1, 2), (2, 1), (3, 2), (2, 3), (4, 6), (7, 5), (160, 147), (1, 50), (50, 1)]


def random(rng: np.random.Generator, shape, kind: str) -> np.ndarray:
    """Draw numbers of a type."""
    values = rng.standard_normal(shape) * 10
    return (values + 1j * rng.standard_normal(shape)).astype(kind) if kind.startswith("c") else values.astype(kind)


@settings(max_examples=150, deadline=None)
@given(
    up=st.integers(1, 12),
    down=st.integers(1, 12),
    n=st.integers(1, 200),
    k=st.integers(1, 90),
    seed=st.integers(0, 2**32),
)
def test_any_rates_and_lengths_give_scipys_values(up, down, n, k, seed):
    """Every combination of rates and lengths equals `scipy.signal.upfirdn`."""
    rng = np.random.default_rng(seed)
    h, x = rng.standard_normal(k), rng.standard_normal(n)
    expected = scipy.signal.upfirdn(h, x, up, down)
    actual = maxconv.upfirdn(h, x, up, down)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(expected, actual, rtol=1e-11, atol=1e-11)


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from(sorted(EXTENSIONS)),
    up=st.integers(1, 9),
    down=st.integers(1, 9),
    n=st.integers(2, 120),
    k=st.integers(1, 300),
    seed=st.integers(0, 2**32),
)
def test_any_extension_gives_scipys_values(mode, up, down, n, k, seed):
    """Every mode equals `scipy.signal.upfirdn`, also where the taps reach past the signal many times over."""
    rng = np.random.default_rng(seed)
    h, x = rng.standard_normal(k), rng.standard_normal(n)
    expected = scipy.signal.upfirdn(h, x, up, down, mode=mode, cval=2.5)
    actual = maxconv.upfirdn(h, x, up, down, mode=mode, cval=2.5)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(expected, actual, rtol=1e-11, atol=1e-11 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("mode", ["reflect", "smooth", "line", "antireflect", "edge", "symmetric", "wrap"])
def test_a_single_sample_goes_on_as_itself(mode):
    """A signal of one sample has no slope: it goes on as a constant."""
    np.testing.assert_array_equal([6.0, 6.0, 6.0], maxconv.upfirdn(np.ones(3), [2.0], mode=mode))


@pytest.mark.parametrize("mode", sorted(EXTENSIONS))
@pytest.mark.parametrize(("kind_h", "kind_x"), [("f4", "c8"), ("c16", "f8"), ("c8", "c8"), ("c16", "i2"), ("f4", "f4")])
def test_extensions_of_complex_numbers_and_of_other_axes(rng, kind_h, kind_x, mode):
    """Real and imaginary parts go on beyond the ends alike, with a complex constant too, along any axis."""
    h, x = random(rng, 23, kind_h), random(rng, (3, 40, 2), kind_x)
    cval = 1.5 - (2j if "c" in kind_h + kind_x else 0)
    expected = scipy.signal.upfirdn(h, x, 3, 2, axis=1, mode=mode.upper(), cval=cval)
    actual = maxconv.upfirdn(h, x, 3, 2, axis=1, mode=mode.upper(), cval=cval)
    assert actual.dtype == expected.dtype
    tolerance = 1e-4 if actual.dtype.name in {"float32", "complex64"} else 1e-11
    np.testing.assert_allclose(expected, actual, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("mode", ["antireflect", "smooth"])
def test_an_infinite_sample_spoils_only_the_end_that_it_extends(mode):
    """Where the signal goes on from its left end alone, an infinite sample at the other end is not asked."""
    x = np.r_[np.arange(20.0), np.inf]
    np.testing.assert_array_equal([-3.0, -2.0, -1.0], maxconv.upfirdn([0, 0, 0, 1.0], x, mode=mode)[:3])


@pytest.mark.parametrize("kind_x", ["f2", "f4", "f8", "c8", "c16", "i2", "i8", "u1", "?"])
@pytest.mark.parametrize("kind_h", ["f4", "f8", "c8", "i4"])
def test_types_and_values_are_scipys(rng, kind_h, kind_x):
    """Results have SciPy's type, at least float32, for every pair of types; complex ones included."""
    h, x = random(rng, 21, kind_h), random(rng, 100, kind_x)
    expected = scipy.signal.upfirdn(h, x, 3, 2)
    actual = maxconv.upfirdn(h, x, 3, 2)
    assert actual.dtype == expected.dtype
    tolerance = 1e-4 if actual.dtype.name in {"float32", "complex64"} else 1e-11
    np.testing.assert_allclose(expected, actual, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(("shape", "axis"), [((40, 3), 0), ((2, 40), -1), ((2, 30, 3), 1), ((2, 1, 17), 2)])
@pytest.mark.parametrize(("up", "down"), RATES)
def test_any_axis_of_any_rank(rng, shape, axis, up, down):
    """Each vector along the axis is resampled, in any memory layout."""
    h, x = rng.standard_normal(61), np.asfortranarray(rng.standard_normal(shape))
    np.testing.assert_allclose(
        scipy.signal.upfirdn(h, x, up, down, axis), maxconv.upfirdn(h, x, up, down, axis), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize(("up", "down"), RATES)
@pytest.mark.parametrize("padtype", [*EXTENSIONS, *STATISTICS])
def test_resampling_equals_scipys(rng, padtype, up, down):
    """`resample_poly` equals SciPy's with its default filter and with taps of one's own, along both axes."""
    x = rng.standard_normal((150, 2)) + 5
    for window in (("kaiser", 5.0), "hann", rng.standard_normal(31), rng.standard_normal(10)):
        for axis in (0, 1):
            options = {"axis": axis, "window": window, "padtype": padtype}
            expected = scipy.signal.resample_poly(x, up, down, **options)
            np.testing.assert_allclose(expected, maxconv.resample_poly(x, up, down, **options), rtol=1e-9, atol=1e-9)


def test_a_constant_beyond_the_ends(rng):
    """`cval` is what the signal is taken to be beyond its ends."""
    x = rng.standard_normal(60).astype(np.float32)
    expected = scipy.signal.resample_poly(x, 3, 4, cval=2.5)
    actual = maxconv.resample_poly(x, 3, 4, cval=2.5)
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(expected, actual, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "c8", "c16", "i2", "i8", "u1", "?"])
@pytest.mark.parametrize("window", ["hamming", [0.25, 0.5, 0.25], np.float32([0.5, 1]), np.int16([1, 2])], ids=str)
def test_types_of_resampled_signals_are_scipys(rng, window, kind):
    """A designed filter is of the signal's type; taps of one's own widen the result; equal rates give a copy."""
    x = random(rng, 50, kind)
    for up, down in ((3, 2), (2, 2)):
        expected = scipy.signal.resample_poly(x, up, down, window=window)
        actual = maxconv.resample_poly(x, up, down, window=window)
        assert actual.dtype == expected.dtype
        assert not np.shares_memory(actual, x)
        tolerance = {"f2": 2e-3, "f4": 1e-5, "c8": 1e-5}.get(kind, 1e-12)  # SciPy rounds taps to the type of x
        np.testing.assert_allclose(expected, actual, rtol=tolerance, atol=tolerance * np.abs(expected).max())


def test_bfloat16_is_computed_in_float32(rng):
    """Samples of bfloat16 give the result of the same numbers in float32."""
    x = rng.standard_normal(100).astype(ml_dtypes.bfloat16)
    actual = maxconv.upfirdn(np.float32([1, 2, 1]), x, 3, 2, mode="wrap")
    np.testing.assert_array_equal(maxconv.upfirdn(np.float32([1, 2, 1]), x.astype("f4"), 3, 2, mode="wrap"), actual)
    assert actual.dtype == np.float32


def test_large_work_is_the_same_on_any_number_of_threads(rng):
    """A million samples equal SciPy's to the end, and the same call gives the same bits."""
    h, x = rng.standard_normal(301), rng.standard_normal(10**6)
    first = maxconv.upfirdn(h, x, 3, 2)
    np.testing.assert_allclose(scipy.signal.upfirdn(h, x, 3, 2), first, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(first, maxconv.upfirdn(h, x, 3, 2))


def test_an_infinite_tap_meets_only_samples_that_exist():
    """Inserted zeros and samples beyond the ends are not multiplied: Inf * 0 would be NaN."""
    result = maxconv.upfirdn([1.0, np.inf], [1.0, 2.0, 3.0], up=2)
    np.testing.assert_array_equal([1, np.inf, 2, np.inf, 3, np.inf], result)


BAD_CALLS = [
    (lambda: maxconv.upfirdn([[1.0]], [1.0]), ShapeError, r"upfirdn: h has shape \(1, 1\), but rank 1"),
    (lambda: maxconv.upfirdn([], [1.0]), ShapeError, "upfirdn: h has shape"),
    (lambda: maxconv.upfirdn([1.0], []), ShapeError, "upfirdn: x has shape"),
    (lambda: maxconv.upfirdn([1.0], 3.0), ArgumentError, "axis must be an integer"),
    (lambda: maxconv.upfirdn([1.0], [1.0], 0), ArgumentError, "up must be an integer >= 1, got 0"),
    (lambda: maxconv.upfirdn([1.0], [1.0], True), ArgumentError, "up must be an integer >= 1, got True"),
    (lambda: maxconv.upfirdn([1.0], [1.0], 1, 1.5), ArgumentError, "down must be an integer >= 1, got 1.5"),
    (lambda: maxconv.upfirdn([1.0], [1.0], axis=1), ArgumentError, "axis must be an integer from -1 to 0"),
    (lambda: maxconv.upfirdn(["a"], [1.0]), DtypeError, "h has elements of type str"),
    (lambda: maxconv.resample_poly([1.0], 1, 2, padtype="zero"), ArgumentError, "padtype must be one of 'constant'"),
    (lambda: maxconv.upfirdn([1.0], [1.0], mode="mean"), ArgumentError, "mode must be one of 'constant', 'edge'"),
    (lambda: maxconv.upfirdn([1.0], [1.0], mode=3), ArgumentError, "mode must be one of .* got 3"),
    (lambda: maxconv.upfirdn([1.0], [1.0], cval="a"), ArgumentError, "cval must be a number, got 'a'"),
    (
        lambda: maxconv.upfirdn([1.0], [1.0], cval=1j),
        ArgumentError,
        "cval must be a real number for .* float64, got 1j",
    ),
    (lambda: maxconv.upfirdn([1.0], [1.0], device="tpu"), ArgumentError, "upfirdn: device must be"),
    (lambda: maxconv.resample_poly([1.0], 1, 2, padtype="mean", cval=1), ArgumentError, "cval has no meaning"),
    (lambda: maxconv.resample_poly([1.0], 1, 2, window=[[1.0]]), ShapeError, r"window has shape \(1, 1\)"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD_CALLS)
def test_bad_input_is_refused_in_words(call, kind, text):
    """Wrong ranks, rates, axes, types and borders raise their own errors."""
    with pytest.raises(kind, match=text):
        call()


def test_work_worth_the_transfers_goes_to_the_gpu():
    """With many taps per output the model prefers the GPU, with few the CPU."""
    assert _plan.resampling_prefers_gpu(10**7, 10**7, 10**12, 4)
    assert not _plan.resampling_prefers_gpu(10**7, 10**7, 2 * 10**7, 4)


GPU_RATES = [*RATES, (147, 160), (33, 5), (511, 600), (700, 3), (5, 300_000), (1, 8)]


@pytest.mark.gpu
@pytest.mark.parametrize(("up", "down"), GPU_RATES)
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_the_gpu_gives_scipys_values(rng, kind, up, down):
    """Host arrays computed on the GPU equal SciPy's, for every tiling: short and long rows, few and many taps."""
    for n, k in ((5, 3), (301, 20 * max(up, down) % 5000 + 1), (50_000, 61), (20_000, 2001)):
        h, x = rng.standard_normal(k), rng.standard_normal((2, n))
        expected = scipy.signal.upfirdn(h, x, up, down)
        actual = maxconv.upfirdn(h.astype(kind), x.astype(kind), up, down, device="gpu")
        tolerance = 1e-4 if kind == "f4" else 1e-11
        np.testing.assert_allclose(expected, actual, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.gpu
@pytest.mark.parametrize("mode", sorted(EXTENSIONS))
def test_the_gpu_extends_signals_like_scipy(rng, mode):
    """Every mode on the GPU equals SciPy's, at both ends of long rows and of rows shorter than the taps."""
    for n in (4, 30_000):
        h, x = rng.standard_normal(203), rng.standard_normal((3, n))
        expected = scipy.signal.upfirdn(h, x, 3, 2, mode=mode, cval=1.5)
        actual = maxconv.upfirdn(h, x, 3, 2, mode=mode, cval=1.5, device="gpu")
        np.testing.assert_allclose(expected, actual, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


@pytest.mark.gpu
def test_infinite_numbers_meet_only_their_own_terms_on_the_gpu(rng):
    """Where NaN and Inf appear is the same as on the CPU: zeros that pad taps or samples turn nothing into NaN."""
    x = rng.standard_normal(100_000)
    x[[0, 5000, 70_000, -1]] = np.inf
    x[[50, 30_000]] = np.nan
    for h in (rng.standard_normal(61), np.r_[np.inf, rng.standard_normal(60), -np.inf]):
        for up, down in ((3, 2), (1, 2), (160, 147)):
            expected = maxconv.upfirdn(h, x, up, down)
            np.testing.assert_allclose(expected, maxconv.upfirdn(h, x, up, down, device="gpu"), rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int16", "uint8", "bool"])
def test_arrays_on_the_gpu_are_resampled_there(rng, kind):
    """A Buffer gives a Buffer on its device, of NumPy's result type; taps may be in host memory or beside it."""
    from max.driver import Accelerator, Buffer

    x = random(rng, (2, 30_000), kind) if kind != "bool" else rng.random((2, 30_000)) > 0.5
    there = Buffer.from_numpy(x).to(Accelerator())
    for h in (rng.standard_normal(41), rng.standard_normal(41).astype("f4")):
        expected = scipy.signal.upfirdn(h, x, 2, 1)
        for taps in (h, Buffer.from_numpy(h).to(Accelerator())):
            result = maxconv.upfirdn(taps, there, 2, 1)
            assert isinstance(result, Buffer)
            assert result.device == there.device
            actual = result.to_numpy()
            assert actual.dtype == expected.dtype
            tolerance = 1e-4 if actual.dtype == np.float32 else 1e-11
            np.testing.assert_allclose(expected, actual, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.gpu
@pytest.mark.parametrize("padtype", ["constant", "line", "median"])
def test_cuda_tensors_are_resampled_and_stay(rng, padtype):
    """PyTorch tensors on the GPU come back as such, with every kind of border."""
    torch = pytest.importorskip("torch")
    x = rng.standard_normal((2, 20_000)) + 3
    result = maxconv.resample_poly(torch.from_numpy(x).cuda(), 160, 147, axis=-1, padtype=padtype)
    assert result.is_cuda
    expected = scipy.signal.resample_poly(x, 160, 147, axis=-1, padtype=padtype)
    np.testing.assert_allclose(expected, result.cpu().numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
def test_what_an_accelerator_does_not_serve_is_refused(rng):
    """Other axes, complex taps and another device than the signal's are refused by name."""
    from max.driver import Accelerator, Buffer

    there = Buffer.from_numpy(rng.standard_normal((4, 9))).to(Accelerator())
    with pytest.raises(ArgumentError, match="resample_poly: axis=0 of an array on gpu:0; expected the last axis"):
        maxconv.resample_poly(there, 3, 2)
    with pytest.raises(DtypeError, match="upfirdn: complex taps are served in host memory only; x is on gpu:0"):
        maxconv.upfirdn([1j], there)
    with pytest.raises(DeviceError, match="upfirdn: device='cpu' was asked for, but x is on gpu:0"):
        maxconv.upfirdn([1.0], there, device="cpu")
