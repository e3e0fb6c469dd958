"""`convolve1d` and `correlate1d` give `scipy.ndimage`'s values for every border, origin, axis and element type."""

from __future__ import annotations

import arrays
import numpy as np
import pytest
import reference
import scipy.ndimage
import tolerances
from hypothesis import given, settings
from hypothesis import strategies as st

import maxconv
from maxconv import ArgumentError, DeviceError, DtypeError, MaxconvError, ShapeError, _methods
from maxconv._engine import native
from maxconv._problem import BORDERS

FUNCTIONS = ["convolve1d", "correlate1d"]
#: Our mode -> that of `numpy.pad` and, if it has one, the synonym.
MODES = {
    "reflect": ("symmetric", "grid-mirror"),
    "constant": ("constant", "grid-constant"),
    "nearest": ("edge", None),
    "mirror": ("reflect", None),
    "wrap": ("wrap", "grid-wrap"),
}
#: Lengths (N, K) of which either is the longer, around the tile (128 float32 outputs) and the tap pair (16, 32); few
#: enough that `auto` sums them.
AWKWARD = [(1, 1), (1, 8), (2, 31), (7, 4), (40, 300), (127, 32), (128, 33), (129, 64), (700, 129)]


def origins(taps: int) -> list[int]:
    """List the least, the greatest and the middle origin."""
    return sorted({-(taps // 2), 0, (taps - 1) // 2})


def padded(x: np.ndarray, taps: int, mode: str, value: float, pad_left: int) -> np.ndarray:
    """Write a signal out with the K - 1 samples that stand beyond its ends."""
    options = {"constant_values": np.asarray(value).astype(x.dtype)} if mode == "constant" else {}
    return np.pad(x, (pad_left, taps - 1 - pad_left), MODES[mode][0], **options)


def pad_left(function: str, taps: int, origin: int) -> int:
    """Count the samples before the first that an output's window begins with: the index arithmetic of SciPy."""
    return (taps - 1) // 2 - origin if function == "convolve1d" else taps // 2 + origin


def test_numbers_a_person_can_check():
    """Small integers give the sums one can do by hand, at the ends above all."""
    for mode, sums in {
        "reflect": [211, 321, 332],
        "constant": [219, 321, 932],
        "nearest": [211, 321, 332],
        "mirror": [212, 321, 232],
        "wrap": [213, 321, 132],
    }.items():
        np.testing.assert_array_equal(sums, maxconv.correlate1d([1, 2, 3], [1, 10, 100], mode=mode, cval=9))
        np.testing.assert_array_equal(sums, maxconv.convolve1d([1, 2, 3], [100, 10, 1], mode=mode, cval=9))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taps", [1, 2, 5, 8, 33, 64])
def test_every_origin_and_axis_equals_scipy(rng, function, mode, taps):
    """Odd and even numbers of taps, every kind of origin and every axis give SciPy's numbers."""
    x, weights = rng.standard_normal((5, 21, 4)), rng.standard_normal(taps)
    for origin in origins(taps):
        for axis in (-1, 0, 1):
            expected = getattr(scipy.ndimage, function)(x, weights, axis, None, mode, 1.5, origin)
            actual = getattr(maxconv, function)(x, weights, axis, mode, 1.5, origin)
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", [mode for mode, (_, synonym) in MODES.items() if synonym])
def test_synonyms_mean_the_same(rng, mode):
    """A mode and its synonym give the same bits, and SciPy's values."""
    x, weights = rng.standard_normal(20), rng.standard_normal(30)
    synonym = MODES[mode][1]
    result = maxconv.convolve1d(x, weights, mode=synonym, cval=2)
    np.testing.assert_array_equal(maxconv.convolve1d(x, weights, mode=mode, cval=2), result)
    expected = scipy.ndimage.convolve1d(x, weights, mode=synonym, cval=2)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=150)
@given(
    samples=st.integers(1, 40) | st.integers(100, 300),
    taps=st.integers(1, 150),
    mode=st.sampled_from(sorted(MODES)),
    function=st.sampled_from(FUNCTIONS),
    data=st.data(),
)
def test_any_lengths_equal_scipy(samples, taps, mode, function, data):
    """Whatever N, K, mode and origin, signals that wrap or turn several times included, integers equal SciPy's."""
    origin = data.draw(st.integers(-(taps // 2), (taps - 1) // 2))
    seed = data.draw(st.integers(0, 2**32))
    numbers = np.random.default_rng(seed)
    x, weights = numbers.integers(-99, 99, samples), numbers.integers(-99, 99, taps)
    expected = getattr(scipy.ndimage, function)(x, weights, mode=mode, cval=-7, origin=origin)
    np.testing.assert_array_equal(getattr(maxconv, function)(x, weights, mode=mode, cval=-7, origin=origin), expected)


@pytest.mark.parametrize("dtype", [*arrays.FLOATS, *arrays.INTEGERS], ids=str)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_border_gives_the_bits_of_a_padded_copy(monkeypatch, device, rng, function, mode, dtype):
    """The sums are bit for bit those of a signal padded by `numpy.pad`: one order of addition."""
    monkeypatch.setattr(_methods, "_by_fft_there", lambda *_: None)  # which a GPU is expected to be faster by
    for samples, taps in AWKWARD:
        x, weights = arrays.random_array(rng, samples, dtype), arrays.random_array(rng, taps, dtype)
        direct = maxconv.convolve if function == "convolve1d" else maxconv.correlate
        for origin in origins(taps):
            long = padded(x, taps, mode, 3, pad_left(function, taps, origin))
            expected = direct(long, weights, "full", "direct", device=device)[taps - 1 :][:samples]
            actual = getattr(maxconv, function)(x, weights, -1, mode, 3, origin, device=device)
            assert actual.dtype == dtype
            assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_floats_stay_within_the_error_bound(device, rng, mode, dtype):
    """Every floating type stays within K*u*sum|x||k| of the float64 result where sums are direct."""
    for samples, taps in AWKWARD[:7]:
        x, weights = arrays.random_array(rng, samples, dtype), arrays.random_array(rng, taps, dtype)
        long = padded(x, taps, mode, 1.5, taps // 2)
        actual = maxconv.correlate1d(x, weights, mode=mode, cval=1.5, device=device)
        exact = reference.correlate(long, weights, "valid")
        magnitude = reference.correlate(np.abs(long), np.abs(weights), "valid")
        tolerances.assert_within_bound(actual, exact, magnitude, taps)


@pytest.mark.parametrize("dtype", arrays.FLOATS, ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_long_filters_go_through_ffts_within_their_bound(rng, mode, dtype):
    """Where the cost model takes the FFT, its blocks see the same border, on rows and with any origin."""
    for samples, taps, rows in [(20_000, 1001, 1), (700, 3000, 2)]:
        x = np.stack([arrays.random_array(rng, samples, dtype) for _ in range(rows)])
        weights = arrays.random_array(rng, taps, dtype)
        origin = int(rng.integers(-(taps // 2), (taps - 1) // 2 + 1))
        actual = maxconv.convolve1d(x, weights, -1, mode, 2, origin)
        for row, result in zip(x, actual, strict=True):
            long = padded(row, taps, mode, 2, pad_left("convolve1d", taps, origin))
            exact = reference.convolve(long, weights)[taps - 1 :][:samples]
            tolerances.assert_within_fft_bound(result, exact, long, weights)


def test_long_filters_take_the_fft(monkeypatch, rng):
    """A thousand taps on floats are transformed, sixteen taps and integers are summed."""
    taken = []
    run = native.overlap_save_on_cpu
    monkeypatch.setattr(native, "overlap_save_on_cpu", lambda *arguments: taken.append(1) or run(*arguments))
    maxconv.convolve1d(rng.standard_normal(20_000), np.ones(16))
    maxconv.convolve1d(np.ones(20_000, np.int32), np.ones(1001, np.int32))
    assert not taken
    maxconv.convolve1d(rng.standard_normal(20_000), np.ones(1001))
    assert taken


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taps", [9, 700])
def test_nan_and_infinity_stay_local(rng, mode, taps):
    """A NaN or Inf sample reaches exactly the outputs whose extended windows hold it, by sums and by FFTs alike."""
    samples = 20_000
    x, weights = rng.standard_normal(samples), rng.standard_normal(taps)
    clean = maxconv.correlate1d(x, weights, mode=mode)
    for place in (0, 9000, samples - 2):
        for value in (np.nan, np.inf):
            spoilt = x.copy()
            spoilt[place] = value
            result = maxconv.correlate1d(spoilt, weights, mode=mode)
            where = padded((np.arange(samples) == place).astype(np.int64), taps, mode, 0, taps // 2)
            reached = np.convolve(where, np.ones(taps, np.int64), "valid") > 0
            np.testing.assert_array_equal(reached, ~np.isfinite(result))
            np.testing.assert_allclose(clean[~reached], result[~reached], rtol=1e-9, atol=1e-9)


def test_work_for_several_threads_is_right(rng):
    """Rows and long signals that are split over threads have right ends, the same bits every time."""
    for shape in [(3_000_000,), (300, 5000)]:
        x, weights = rng.standard_normal(shape), rng.standard_normal(31)
        result = maxconv.correlate1d(x, weights, mode="wrap")
        np.testing.assert_allclose(result, scipy.ndimage.correlate1d(x, weights, mode="wrap"), rtol=1e-12, atol=1e-12)
        assert maxconv.correlate1d(x, weights, mode="wrap").tobytes() == result.tobytes()


def test_work_space_does_not_grow_with_the_signal(monkeypatch, rng):
    """The kernel is handed the caller's own memory: no padded copy of the signal is made."""
    x, seen = rng.standard_normal(10_000), []
    run = native.run_on_cpu
    monkeypatch.setattr(native, "run_on_cpu", lambda *arguments: seen.append(arguments[3]) or run(*arguments))
    maxconv.convolve1d(x, np.ones(7), mode="reflect")
    assert np.shares_memory(seen[0], x)
    assert seen[0].size == x.size


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("taps", [6, 200])
def test_complex_numbers_equal_scipy(rng, function, mode, taps):
    """Complex inputs, weights and constants give SciPy's numbers; a correlation conjugates its weights."""
    real, imaginary = rng.standard_normal((2, 3, 50))
    weights = rng.standard_normal(taps) + 1j * rng.standard_normal(taps)
    for x, k, cval in [
        (real + 1j * imaginary, weights, 2 - 3j),
        (real + 1j * imaginary, weights.real, 2 - 3j),
        (real + 1j * imaginary, weights, 4),
        (real, weights, 1.5),
    ]:
        expected = getattr(scipy.ndimage, function)(x, k, -1, None, mode, cval, 1)
        actual = getattr(maxconv, function)(x, k, -1, mode, cval, 1)
        assert actual.dtype == np.complex128
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
def test_booleans_are_joined_by_or(rng, mode):
    """Boolean input and weights give True where any product is, as SciPy's booleans do."""
    x, weights = rng.random(60) < 0.1, np.array([True, False, True, True])
    expected = scipy.ndimage.correlate1d(x, weights, mode=mode, cval=1)
    actual = maxconv.correlate1d(x, weights, mode=mode, cval=1)
    assert actual.dtype == np.bool_
    np.testing.assert_array_equal(actual, expected)


def test_integers_wrap_and_take_any_constant():
    """Constants beyond an integer type count modulo 2^bits; fractions are summed in float64 and cut, as in SciPy."""
    x = np.array([250, 3, 7], np.uint8)
    ones = np.ones(3, np.uint8)
    np.testing.assert_array_equal(maxconv.correlate1d(x, ones, mode="constant", cval=-1), [252, 4, 9])
    np.testing.assert_array_equal(maxconv.correlate1d(x, ones, mode="constant", cval=257), [254, 4, 11])
    largest = np.array([2**63 + 5], np.uint64)
    result = maxconv.correlate1d(largest, [1, 1, 1], mode="constant", cval=2**63 + 1)
    np.testing.assert_array_equal(result, np.array([2**63 + 7], np.uint64))
    integers = np.arange(1, 4)
    expected = scipy.ndimage.correlate1d(integers, [1, 1, 1], mode="constant", cval=0.5)
    actual = maxconv.correlate1d(integers, [1, 1, 1], mode="constant", cval=0.5)
    assert actual.dtype == np.int64
    np.testing.assert_array_equal(actual, expected)


#: (type of the input, weights, type of the result): arrays widen, lists only by category.
PROMOTIONS = [
    ("float32", [0.5, 1.0], "float32"),
    ("float16", [1, 2], "float16"),
    ("bfloat16", [0.5, 1.0], "bfloat16"),
    ("float32", np.ones(2), "float64"),
    ("uint8", [-1, 1], "uint8"),
    ("int16", [0.5, 1.0], "float64"),
    ("int16", np.ones(2, np.int32), "int32"),
    ("bool", [1, 2], "int64"),
    ("float32", [1j, 2], "complex64"),
    ("float64", [1j, 2], "complex128"),
    ("int8", [1j, 2], "complex128"),
    (">f4", [1.0], "float32"),
    ("complex64", (1.0, 2.0), "complex64"),
]


@pytest.mark.parametrize(("name", "weights", "result"), PROMOTIONS, ids=str)
def test_types_are_promoted_and_lists_are_weak(name, weights, result):
    """The result has `numpy.result_type` of the operands, a list counting by its category alone."""
    x = np.array([1, 0, 1, 1]).astype(name)
    actual = maxconv.correlate1d(x, weights)
    assert actual.dtype == np.dtype(result)
    expected = scipy.ndimage.correlate1d(x.astype(np.complex128), weights)
    np.testing.assert_array_equal(actual.astype(np.complex128), expected.real.astype(result) + 1j * expected.imag)


def test_output_names_a_type_or_an_array(rng):
    """`output` as in SciPy: the type to convert to, or the array that is filled and returned, views included."""
    x = 100 * rng.standard_normal((4, 30)).astype(np.float32)
    weights = np.array([1, 2, 0.25], np.float32)
    for kind in (np.float64, "f4", np.dtype(np.int32), np.complex128, np.float16):
        result = maxconv.convolve1d(x, weights, output=kind)
        assert result.dtype == np.dtype(kind)
    wide = maxconv.convolve1d(x, weights, output=np.float64)
    np.testing.assert_array_equal(wide, maxconv.convolve1d(x.astype(np.float64), weights))
    cut = maxconv.convolve1d(x, weights, output=np.int32)
    np.testing.assert_array_equal(cut, maxconv.convolve1d(x, weights).astype(np.int32))
    room = np.full((8, 30), np.nan, np.float32)
    assert maxconv.convolve1d(x, weights, axis=0, output=(view := room[::2])) is view
    np.testing.assert_array_equal(room[::2], maxconv.convolve1d(x, weights, axis=0))
    assert np.isnan(room[1::2]).all()
    expected = maxconv.convolve1d(x, weights)
    assert maxconv.convolve1d(x, weights, output=x) is x
    np.testing.assert_array_equal(x, expected)


def test_an_input_without_elements_gives_none(rng):
    """Empty inputs give empty results of the same shape, as SciPy's do."""
    for shape in [(0,), (3, 0), (0, 3)]:
        result = maxconv.convolve1d(np.empty(shape, np.float32), np.ones(3, np.float32))
        assert result.shape == shape
        assert result.dtype == np.float32
    filled = np.empty(0)
    assert maxconv.convolve1d([], rng.standard_normal(2), output=filled) is filled


def test_every_memory_layout_is_read_right(rng):
    """Strided, reversed and transposed inputs and weights are read as they stand, and left as they are."""
    base, weights = rng.standard_normal((30, 40)), rng.standard_normal(20)
    for view in (base.T, base[::2, ::-3], np.asfortranarray(base)):
        before = view.copy()
        for axis in (0, 1):
            expected = scipy.ndimage.convolve1d(view, weights[::-2], axis)
            np.testing.assert_allclose(maxconv.convolve1d(view, weights[::-2], axis), expected, atol=1e-12)
        np.testing.assert_array_equal(before, view)


ONES = np.ones(5)

BAD_CALLS = [
    ((ONES, [1], -1, "grid"), {}, ArgumentError, "mode must be one of 'reflect', .* got 'grid'"),
    ((ONES, [1], -1, ["wrap"]), {}, ArgumentError, "mode must be one of .* got \\['wrap'\\]"),
    ((ONES, []), {}, ShapeError, r"weights has shape \(0,\), but at least one element"),
    ((ONES, 2.0), {}, ShapeError, r"weights has shape \(\), but rank 1 is expected"),
    ((ONES, [[1, 2]]), {}, ShapeError, r"weights has shape \(1, 2\), but rank 1 is expected"),
    ((3.0, [1]), {}, ShapeError, "input has rank 0, but at least one axis is expected"),
    ((ONES, [1], 1), {}, ArgumentError, "axis must be an integer from -1 to 0 .* got 1"),
    ((ONES, [1, 2]), {"origin": 1}, ArgumentError, "origin must be an integer from -1 to 0 for 2 weights, got 1"),
    ((ONES, [1, 2, 3]), {"origin": -2}, ArgumentError, "origin must be an integer from -1 to 1 for 3 weights, got -2"),
    ((ONES, [1, 2, 3]), {"origin": 1.0}, ArgumentError, "origin must be an integer .* got 1.0"),
    ((ONES, [1]), {"cval": "1"}, ArgumentError, "cval must be a real number for a real input, got '1'"),
    ((ONES, [1j]), {"cval": 1j}, ArgumentError, "cval must be a real number for a real input, got 1j"),
    ((ONES + 0j, [1]), {"cval": [1, 2]}, ArgumentError, r"cval must be a number, got \[1, 2\]"),
    ((ONES, [1]), {"output": "junk"}, ArgumentError, "output must be a dtype or a NumPy array, got 'junk'"),
    ((ONES, [1]), {"output": [1.0]}, ArgumentError, r"output must be a dtype or a NumPy array, got \[1.0\]"),
    ((ONES, [1]), {"output": np.empty(4)}, ShapeError, r"output has shape \(4,\), but that of input, \(5,\)"),
    ((ONES, [1]), {"output": np.broadcast_to(1.0, 5)}, ArgumentError, "output is read-only"),
    ((ONES, [1]), {"output": "U3"}, DtypeError, "output has elements of type str"),
    ((ONES, [1j]), {"output": np.empty(5)}, DtypeError, "output is float64, but the result is complex128"),
    ((np.array(["a"]), [1]), {}, DtypeError, "input has elements of type str"),
    ((ONES, [None]), {}, DtypeError, "weights has elements of type object"),
    ((ONES, [1]), {"device": "tpu"}, ArgumentError, "device must be"),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("arguments", "options", "kind", "text"), BAD_CALLS)
def test_bad_input_is_refused_in_words(monkeypatch, function, arguments, options, kind, text):
    """Each kind of bad input raises the error that names it, before a kernel is looked for."""
    monkeypatch.setattr(native, "run_on_cpu", lambda *_: pytest.fail("a kernel was run before validation"))
    with pytest.raises(kind, match=f"^{function}: {text}") as caught:
        getattr(maxconv, function)(*arguments, **options)
    assert isinstance(caught.value, MaxconvError)


def test_borders_have_the_numbers_of_the_kernels():
    """`BORDERS` lists the constants of border.mojo in their order."""
    source = (maxconv.kernels_path() / "shared/border.mojo").read_text()
    for number, name in enumerate(BORDERS):
        assert f"comptime {name.upper()} = {number}\n" in source


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8], ids=str)
def test_arrays_on_the_gpu_are_filtered_where_they_lie(rng, dtype):
    """A Buffer gives a Buffer with the bits of the host's call; a list of weights follows it there."""
    from max.driver import CPU, Accelerator, Buffer

    x = arrays.random_array(rng, 6000, np.dtype(dtype)).reshape(3, 2000)
    there = Buffer.from_numpy(x).to(Accelerator())
    weights = [3, -1, 2, 5]
    for mode in MODES:
        result = maxconv.convolve1d(there, weights, mode=mode, cval=-4)
        expected = maxconv.convolve1d(x, weights, mode=mode, cval=-4, device="gpu")
        np.testing.assert_array_equal(result.to(CPU()).to_numpy(), expected)
        result = maxconv.convolve1d(there, weights, axis=0, mode=mode, cval=-4)
        expected = maxconv.convolve1d(x, weights, axis=0, mode=mode, cval=-4, device="gpu")
        np.testing.assert_array_equal(result.to(CPU()).to_numpy(), expected)
    with pytest.raises(ArgumentError, match="output is for inputs in host memory"):
        maxconv.convolve1d(there, weights, output=np.float64)
    with pytest.raises(DeviceError, match="input is on cpu, but weights is on gpu:0"):
        maxconv.convolve1d(x, Buffer.from_numpy(np.ones(3, dtype)).to(Accelerator()))
