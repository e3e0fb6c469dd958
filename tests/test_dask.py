"""Arrays of Dask: the functions in memory define what is right, to the last bit where sums are direct."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_within_fft_bound

import maxconv
import maxconv.dask
from maxconv import ArgumentError, DtypeError, ShapeError, _blocks
from maxconv._problem import part_of_full
from maxconv.multirate import EXTENSIONS

DTYPES = ["float16", "float32", "float64", "complex64", "bool", "int16", "uint8"]


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Make numbers of a type, no two sums of which are likely to be equal."""
    if dtype.startswith("complex"):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)
    return (rng.standard_normal(shape) * (1 if dtype.startswith("float") else 20)).astype(dtype)


@st.composite
def chunkings(draw, length: int) -> tuple[int, ...]:
    """Cut a length into chunks: of one sample each, whole, or anything between."""
    if draw(st.booleans()):
        return (1,) * length
    cuts = draw(st.sets(st.integers(1, max(1, length - 1)), max_size=8))
    ends = [0, *sorted(cut for cut in cuts if cut < length), length]
    return tuple(end - begin for begin, end in itertools.pairwise(ends))


@st.composite
def signals(draw, dtypes: list[str]) -> tuple[np.ndarray, da.Array, np.ndarray, int]:
    """Draw a signal, the same in chunks, taps that may be longer than a chunk or the signal, and an axis."""
    rng = np.random.default_rng(draw(st.integers(0, 2**63)))
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    axis = draw(st.integers(0, len(shape) - 1))
    shape = (*shape[:axis], draw(st.integers(1, 60)), *shape[axis + 1 :])
    x = random_array(rng, shape, draw(st.sampled_from(dtypes)))
    k = random_array(rng, (draw(st.one_of(st.integers(1, 9), st.integers(1, 90))),), draw(st.sampled_from(dtypes)))
    return x, da.from_array(x, chunks=tuple(draw(chunkings(length)) for length in shape)), k, axis


def assert_same(actual: da.Array, expected: np.ndarray) -> None:
    """Fail unless an array of Dask announces and computes exactly what is expected."""
    assert isinstance(actual, da.Array)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    computed = actual.compute(scheduler="synchronous")
    assert computed.dtype == expected.dtype
    np.testing.assert_array_equal(computed, expected)


@given(
    drawn=signals(DTYPES),
    mode=st.sampled_from(["full", "same", "valid"]),
    name=st.sampled_from(["convolve", "correlate"]),
)
@settings(max_examples=100, deadline=None)
def test_sums_have_the_bits_of_the_whole_signal(drawn, mode, name):
    """Whatever shape, chunks, axis, mode, types and taps: blocks give what one call gives; both doors are one."""
    x, blocks, k, axis = drawn
    expected = getattr(maxconv, name)(x, k, mode, "direct", axis=axis)
    assert_same(getattr(maxconv, name)(blocks, k, mode, "direct", axis=axis), expected)
    assert_same(getattr(maxconv.dask, name)(x, da.from_array(k, chunks=3), mode, "direct", axis=axis), expected)


@given(data=st.data(), drawn=signals(DTYPES), flip=st.booleans())
@settings(max_examples=60, deadline=None)
def test_each_row_may_have_its_own_filter(data, drawn, flip):
    """Taps of the signal's rank meet the rows that they meet in memory, broadcast either way."""
    x, blocks, k, axis = drawn
    shape = [
        len(k) if place == axis else data.draw(st.sampled_from([1, length])) for place, length in enumerate(x.shape)
    ]
    taps = random_array(np.random.default_rng(data.draw(st.integers(0, 99))), tuple(shape), k.dtype.name)
    function = maxconv.convolve if flip else maxconv.correlate
    assert_same(function(blocks, taps, method="direct", axis=axis), function(x, taps, method="direct", axis=axis))
    assert_same(
        function(x, da.asarray(taps), method="direct", axis=axis), function(x, taps, method="direct", axis=axis)
    )


@given(
    data=st.data(),
    drawn=signals(DTYPES),
    mode=st.sampled_from(["reflect", "constant", "nearest", "mirror", "wrap"]),
    name=st.sampled_from(["convolve1d", "correlate1d"]),
)
@settings(max_examples=100, deadline=None)
def test_borders_stand_at_the_ends_of_the_whole_signal_alone(data, drawn, mode, name):
    """Every border of `scipy.ndimage`, cval and origin: the bits of the function in memory."""
    x, blocks, k, axis = drawn
    options = {"cval": 1.5, "origin": data.draw(st.integers(-(len(k) // 2), (len(k) - 1) // 2))}
    expected = getattr(maxconv, name)(x, k, axis, mode, **options)
    assert_same(getattr(maxconv, name)(blocks, k, axis, mode, **options), expected)
    assert_same(getattr(maxconv.dask, name)(blocks, k, axis, mode, **options), expected)


@pytest.mark.parametrize("mode", ["reflect", "mirror", "wrap"])
@pytest.mark.parametrize("origin", [-2, 2])
def test_the_first_and_last_block_hold_what_is_reflected(rng, mode, origin):
    """Where a block is as short as the halo and the taps reach furthest out, it reads one sample more."""
    x, k = rng.standard_normal(12), rng.standard_normal(5)
    expected = maxconv.convolve1d(x, k, mode=mode, origin=origin)
    assert_same(maxconv.convolve1d(da.from_array(x, chunks=4), k, mode=mode, origin=origin), expected)


@given(
    drawn=signals(["float32", "float64", "complex64", "int16"]),
    rates=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    mode=st.sampled_from(list(EXTENSIONS)),
    cval=st.sampled_from([0, 1.5]),
)
@settings(max_examples=100, deadline=None)
def test_resampling_has_the_bits_of_the_whole_signal(drawn, rates, mode, cval):
    """Any rates and extension: blocks begin where both grids meet, and give what one call gives."""
    x, blocks, k, axis = drawn
    expected = maxconv.upfirdn(k, x, *rates, axis, mode, cval)
    assert_same(maxconv.upfirdn(k, blocks, *rates, axis, mode, cval), expected)
    assert_same(maxconv.dask.upfirdn(k, blocks, *rates, axis, mode, cval), expected)


@given(
    data=st.data(),
    drawn=signals(["float16", "float32", "float64"]),
    activation=st.sampled_from([None, "silu", "gelu", "relu"]),
    beside=st.sampled_from(["nothing", "a state", "sequences"]),
)
@settings(max_examples=100, deadline=None)
def test_causal_layers_have_the_bits_of_the_whole_signal(data, drawn, activation, beside):
    """Batches, channels and samples in any chunks, a bias, what came before and packed sequences: one call's bits."""
    x, blocks, k, _ = drawn
    x, blocks = (array[None] if array.ndim == 1 else array for array in (x, blocks))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**63)))
    weight, bias = (random_array(rng, (x.shape[-2], *rest), x.dtype.name) for rest in (k.shape, ()))
    options = {"activation": activation, "bias": data.draw(st.sampled_from([None, bias]))}
    if beside == "sequences":
        options["seq_idx"] = np.sort(rng.integers(-1, 4, (*x.shape[:-2], x.shape[-1])))
        assert_same(maxconv.causal_conv1d(blocks, weight, **options), maxconv.causal_conv1d(x, weight, **options))
        return
    options["return_final_state"] = True
    if beside == "a state":
        options["initial_state"] = random_array(rng, (*x.shape[:-1], len(k) - 1), x.dtype.name)
    expected = maxconv.causal_conv1d(x, weight, **options)
    for pair in (
        maxconv.causal_conv1d(blocks, da.asarray(weight), **options),
        maxconv.dask.causal_conv1d(blocks, weight, **options),
    ):
        for lazily, whole in zip(pair, expected, strict=True):
            assert_same(lazily, whole)


@pytest.mark.gpu
@pytest.mark.parametrize("taps", [4, 40])
def test_causal_layers_on_a_gpu_have_the_bits_of_the_whole_signal(rng, taps):
    """In half precision, too, whose layers tensor cores add up where they are not causal; fast ones are right."""
    x, w = random_array(rng, (3, 1000), "float16"), random_array(rng, (3, taps), "float16")
    blocks = da.from_array(x, chunks=(2, (300, 1, 699)))
    whole = maxconv.causal_conv1d(x, w, device="gpu")
    assert_same(maxconv.causal_conv1d(blocks, w, device="gpu"), whole)
    fast = maxconv.dask.causal_conv1d(blocks, w, device="gpu", precision="fast").compute()
    np.testing.assert_allclose(fast.astype(float), whole.astype(float), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["auto", "fft"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ffts_stay_within_their_bound(rng, method, dtype):
    """Long filters: blocks of any length are within the FFT bound of the exact result."""
    x, k = rng.standard_normal(50_000).astype(dtype), rng.standard_normal(700).astype(dtype)
    y = maxconv.convolve(da.from_array(x, chunks=(900, 40_000, 50, 9050)), k, method=method)
    assert_within_fft_bound(y.compute(), reference.convolve(x, k), x, k)


@given(
    data=st.data(),
    length=st.integers(1, 3000),
    taps=st.integers(1, 400),
    mode=st.sampled_from(["full", "same", "valid"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
@settings(max_examples=50, deadline=None)
def test_ffts_of_any_blocks_stay_within_their_bound(data, length, taps, mode, dtype):
    """Any lengths and chunks, one sample each or taps longer than all of them: the bound of the whole signal."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**63)))
    x, k = rng.standard_normal(length).astype(dtype), rng.standard_normal(taps).astype(dtype)
    blocks = da.from_array(x, chunks=(data.draw(chunkings(length)),))
    y = maxconv.convolve(blocks, k, mode, "fft").compute(scheduler="synchronous")
    assert_within_fft_bound(y, reference.convolve(x, k, mode), x, k)


def test_the_method_is_chosen_once_for_the_whole_signal(monkeypatch):
    """FFTs are taken for every block of a long signal, also for those that alone would be summed."""
    methods = set()
    apply = _blocks._methods.apply

    def note(function, problem, x, k, method, device):
        methods.add(method)
        return apply(function, problem, x, k, method, device)

    monkeypatch.setattr(_blocks._methods, "apply", note)
    n, taps = 10**6, 300
    assert maxconv.choose_method(n, taps, "same").method == "fft"
    assert maxconv.choose_method(400, taps, "valid").method == "direct"
    maxconv.convolve(da.ones(n, chunks=(n - 400, 400), dtype="f4"), np.ones(taps, "f4"), "same").compute()
    assert methods == {_blocks._methods.CHOSEN_FFT}


def test_nan_reaches_only_the_outputs_that_meet_it(rng):
    """FFTs that "auto" chose spread no NaN, as in memory."""
    x, k = rng.standard_normal(200_000), rng.standard_normal(500)
    x[77_777] = np.nan
    y = maxconv.convolve(da.from_array(x, chunks=30_000), k).compute()
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(y)), np.arange(77_777, 77_777 + 500))


def test_building_a_graph_computes_nothing(monkeypatch):
    """No block is made before it is asked for, whatever the function."""
    monkeypatch.setattr(dask.array.Array, "__array__", None)

    def fail(_: np.ndarray) -> np.ndarray:
        message = "computed"
        raise AssertionError(message)

    x = da.ones((40, 3), chunks=7).map_blocks(fail, dtype="f8", meta=np.empty((0, 0)))
    k = da.ones(9, chunks=4).map_blocks(fail, dtype="f8", meta=np.empty(0))
    for y in (
        maxconv.convolve(x, k, axis=0),
        maxconv.correlate(x, k, "same", axis=0),
        maxconv.convolve1d(x, k, 0, "wrap"),
        maxconv.upfirdn(np.ones(9), x, 3, 2, axis=0),
        maxconv.causal_conv1d(x, k[None, :1].astype("f8").repeat(40, axis=0)),
    ):
        with pytest.raises(AssertionError, match="computed"):
            y.compute(scheduler="synchronous")


@given(
    chunks=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    taps=st.integers(1, 60),
    mode=st.sampled_from(["full", "same", "valid"]),
)
@settings(deadline=None)
def test_a_block_reads_its_halo_and_no_more(chunks, taps, mode):
    """All blocks together read the signal, and K - 1 samples twice at each cut, which are as far apart."""
    problem = part_of_full(sum(chunks), taps, mode, flip=False)
    blocks = list(_blocks.cut(problem, tuple(chunks)))
    read = sum(end - begin for block in blocks for begin, end in block.spans)
    assert read <= sum(chunks) + (taps - 1) * (len(blocks) - 1)
    assert sum(block.outputs for block in blocks) == problem.outputs
    assert len(blocks) == 1 or all(block.outputs >= taps - 1 for block in blocks[:-1])


def test_a_block_waits_for_nothing_but_its_samples(rng):
    """Beside large chunks the taps are no task: where they lay, Dask would find a second place for every block."""
    k = rng.standard_normal(1000)
    y = maxconv.convolve(da.ones(10**7, chunks=10**6), k, "same")
    needed = {str(key) for key, found in y.dask.get_all_dependencies().items() if key[0] == y.name for key in found}
    assert needed
    assert all(key.startswith(("('ones", "('halo")) for key in needed)


def test_halos_are_cut_early_and_keep_no_chunk(rng):
    """One task cuts both ends of a chunk, so that no worker waits for the last task of another, and copies them."""
    y = maxconv.convolve(da.ones(10**6, chunks=10**5), rng.standard_normal(1001), "same")
    graph = dict(y.dask)
    halos = [key for key in graph if key[0].startswith("halo")]
    assert len(halos) == len(y.chunks[0])
    for ends in dask.get(graph, halos):
        assert 0 < sum(map(len, ends)) <= 1000
        assert all(end.base is None for end in ends)


def test_long_taps_are_in_the_graph_once(rng):
    """A graph of a hundred blocks is hardly larger than its taps: no task holds a copy."""
    k = rng.standard_normal(100_000)
    graph = maxconv.convolve(da.ones(10**7, chunks=10**5), k, method="direct").__dask_graph__()
    sizes = [len(cloudpickle.dumps(task)) for task in dict(graph).values()]
    assert sum(size > k.nbytes for size in sizes) == 1
    assert sum(sizes) < 2 * k.nbytes


BAD_CALLS = [
    (lambda x: maxconv.convolve(x[x > 0], [1.0]), ShapeError, r"convolve: in1 has chunks of unknown length"),
    (lambda x: maxconv.convolve(x, np.ones((2, 2))), ShapeError, "in1 has rank 1, but in2 has rank 2"),
    (lambda x: maxconv.convolve(x, [1.0], mode="both"), ArgumentError, "mode must be one of"),
    (lambda x: maxconv.convolve(x, [1.0], axis=1), ArgumentError, "axis must be an integer from -1 to 0"),
    (lambda x: maxconv.convolve1d(x, [1.0], output=np.empty(9)), ArgumentError, "output is an array, but"),
    (lambda x: maxconv.correlate1d(x, [1.0], origin=1), ArgumentError, "origin must be an integer from 0 to 0"),
    (lambda x: maxconv.upfirdn([1.0], x, cval="one"), ArgumentError, "cval must be a number"),
    (lambda x: maxconv.causal_conv1d(x[None], np.ones((2, 3))), ShapeError, r"weight has shape \(2, 3\)"),
    (lambda x: maxconv.causal_conv1d(x[None], np.ones((1, 3), "f4")), DtypeError, "weight is float32, but x is"),
    (lambda x: maxconv.convolve(x, [1.0], device="tpu"), ArgumentError, "device must be"),
]


@pytest.mark.parametrize(("call", "kind", "text"), BAD_CALLS)
def test_bad_input_is_refused_before_anything_runs(call, kind, text):
    """Lengths, ranks, modes and outputs that cannot be right raise when the graph is built."""
    with pytest.raises(kind, match=text):
        call(da.ones(9, chunks=4))


# ---- devices


def test_gpu_means_that_of_the_process_which_computes(monkeypatch, rng):
    """`device="gpu"` builds a graph where there is no GPU, and every block asks for its own process's."""
    asked = []
    monkeypatch.setattr(_blocks.devices, "own", lambda: asked.append(1) or "cpu")
    x, k = rng.standard_normal((2, 60)), rng.standard_normal(5)
    blocks = da.from_array(x, chunks=(2, 20))
    calls = [
        (maxconv.convolve, (x, k), (blocks, k)),
        (maxconv.correlate1d, (x, k), (blocks, k)),
        (maxconv.upfirdn, (k, x, 2), (k, blocks, 2)),
        (maxconv.causal_conv1d, (x, x[:, :5]), (blocks, x[:, :5])),
    ]
    for function, here, lazily in calls:
        assert_same(function(*lazily, device="gpu"), function(*here, device="cpu"))
    assert len(asked) == 3 * len(calls)


#: Takes a GPU of two, prints it, and keeps it until the standard input ends.
CLAIM = """
import sys
from maxconv._engine import devices
devices.accelerator_count = lambda: 2
print(devices.own(), devices.own(), flush=True)
sys.stdin.read()
"""


def test_every_process_of_a_host_has_a_gpu_of_its_own(monkeypatch, tmp_path):
    """Two workers take two GPUs, a third shares one; other orders and dead workers do not confuse them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:

        def claim(visible: str) -> tuple[subprocess.Popen, str]:
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
            worker = stack.enter_context(subprocess.Popen([sys.executable, "-c", CLAIM], env=environment, **pipes))
            first, again = worker.stdout.readline().split()
            assert first == again
            return worker, first

        _, one = claim("0,1")
        second, two = claim("0,1")
        _, three = claim("1,0")  # what it calls gpu:1 is the first one's
        assert (one, two, three) == ("gpu:0", "gpu:1", "gpu:0")
        second.kill()
        second.wait()
        assert claim("0,1")[1] == "gpu:1"
