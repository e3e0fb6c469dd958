"""Layers by `precision="fast"`: where they give up bits, they are right; elsewhere nothing changes."""

from __future__ import annotations

import layer_reference as reference
import numpy as np
import pytest
from arrays import FLOATS, random_array
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_layer_within_bound, assert_within_fast_bound

import maxconv
from maxconv import _layer, _plan
from maxconv._engine import layers

HALVES = [dtype for dtype in FLOATS if dtype.itemsize == 2]


@pytest.fixture(scope="module", autouse=True)
def layer_kernels() -> None:
    """Build the layers' kernels first: an example of hypothesis must not wait for it."""
    maxconv.conv1d(np.ones((1, 1)), np.ones((1, 1, 1)))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(
    ("batch", "length", "taps", "padding"),
    [(3, 5000, 5000, (4999, 0)), (2, 8192, 8192, (8191, 0)), (1, 2501, 3000, (1500, 1499)), (9, 4096, 2100, (0, 2099))],
)
def test_fast_whole_rows(rng, dtype, batch, length, taps, padding):
    """Rows that tensor cores transform are right for noise and constants, great and small, and the same again."""
    x, w = random_array(rng, (batch, 5, length), dtype), random_array(rng, (5, 1, taps), dtype)
    b = random_array(rng, 5, dtype)
    x[:, 1], w[1] = 1.5, 1 / 64
    x[:, 2], w[2] = x[:, 2] / dtype.type(32), w[2] / dtype.type(32)
    x[:, 3] = x[:, 3] * dtype.type(8)
    x[0, 4] = 0
    options = {"padding": padding, "groups": 5}
    exact = reference.conv1d(*(each.astype(np.float64) for each in (x, w)), None, **options)
    for bias in (None, b):
        y = maxconv.conv1d(x, w, bias, **options, device="gpu", precision="fast")
        np.testing.assert_array_equal(y, maxconv.conv1d(x, w, bias, **options, device="gpu", precision="fast"))
        assert (y != maxconv.conv1d(x, w, bias, **options, device="gpu")).any()
        for n, c in np.ndindex(batch, 5):
            offset = 0 if bias is None else float(bias[c])
            assert_within_fast_bound(y[n, c], exact[n, c] + offset, x[n, c], w[c, 0])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_nan_spoils_its_row_if_fast(rng, dtype):
    """NaN and infinity reach no other row than theirs, in a filter all rows of that."""
    x, w = random_array(rng, (2, 4, 3000), dtype), random_array(rng, (4, 1, 3000), dtype)
    x[0, 0, 1234], x[1, 1, 0], w[2, 0, 7] = np.nan, np.inf, np.nan
    y = maxconv.conv1d(x, w, padding=(2999, 0), groups=4, device="gpu", precision="fast").astype(np.float64)
    spoilt = np.array([[True, False, True, False], [False, True, True, False]])
    np.testing.assert_array_equal(spoilt, ~np.isfinite(y).all(axis=-1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("taps", [4, 31, 200])
def test_fast_layers_on_a_cpu_have_the_same_bits(rng, taps, dtype):
    """`precision="fast"` changes nothing on the CPU, of one filter a channel or of many."""
    x, w, b = random_array(rng, (2, 4, 333), dtype), random_array(rng, (4, taps), dtype), random_array(rng, 4, dtype)
    causal = [maxconv.causal_conv1d(x, w, b, activation="silu", precision=precision) for precision in (None, "fast")]
    np.testing.assert_array_equal(*causal)
    for filters, groups in ((w[:, None], 4), (random_array(rng, (4, 4, taps), dtype), 1)):
        options = {"padding": (taps - 1, 0), "groups": groups}
        results = [maxconv.conv1d(x, filters, b, **options, precision=precision) for precision in (None, "fast")]
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fast_reaches_the_kernels(rng, monkeypatch, dtype):
    """What computes a layer is told what the caller has said, and nothing else changes."""
    told = []
    compute = layers.causal
    monkeypatch.setattr(layers, "causal", lambda *operands, **named: told.append(named) or compute(*operands, **named))
    x, w = random_array(rng, (2, 4, 50), dtype), random_array(rng, (4, 20), dtype)
    for precision in (None, "fast"):
        maxconv.causal_conv1d(x, w, precision=precision)
        maxconv.conv1d(x, w[:, None], padding=(19, 0), groups=4, precision=precision)
        maxconv.conv1d(x, w[:, None], padding="same", groups=4, precision=precision)
    assert [named["is_fast"] for named in told] == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("taps", "padding", "itemsize", "expected"),
    [
        (130, (70, 59), 2, (True, True)),
        (130, (129, 0), 2, (False, True)),
        (131, (130, 0), 2, (False, False)),
        (131, (65, 65), 2, (False, False)),
        (130, (70, 59), 4, (False, False)),
        (130, (129, 0), 4, (False, False)),
    ],
)
def test_products_come_before_ffts(taps, padding, itemsize, expected):
    """On a GPU half-precision layers that tensor cores serve are no FFTs; causal ones are among them if fast."""
    layer = _layer.convolution("test", (2, 3, 500), (3, 1, taps), None, 1, padding, 1, 3)
    assert tuple(_plan.takes_products(layer, itemsize, is_fast=is_fast) for is_fast in (False, True)) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@settings(max_examples=60, deadline=None)
@given(
    taps=st.integers(17, 130) | st.integers(131, 400),
    length=st.integers(1, 80) | st.integers(81, 4000),
    activation=st.sampled_from([None, "relu", "silu"]),
    has_bias=st.booleans(),
    seed=st.integers(0),
)
def test_fast_causal_layers_on_a_gpu(dtype, taps, length, activation, has_bias, seed):
    """Causal layers that are to be fast are right whatever the sizes, by `conv1d` too, and have the same bits again."""
    rng = np.random.default_rng(seed)
    x, w = random_array(rng, (2, 3, length), dtype), random_array(rng, (3, taps), dtype)
    b = random_array(rng, 3, dtype) if has_bias else None
    exact = reference.causal_conv1d(x, w, b)
    magnitude = reference.causal_conv1d(abs(x), abs(w), abs(b) if has_bias else None)
    options = {"activation": activation, "device": "gpu", "precision": "fast"}
    y = maxconv.causal_conv1d(x, w, b, **options)
    np.testing.assert_array_equal(y, maxconv.causal_conv1d(x, w, b, **options))
    by_filters = {"padding": (taps - 1, 0), "groups": 3, "device": "gpu", "precision": "fast"}
    plain = y if activation is None else maxconv.causal_conv1d(x, w, b, **options | {"activation": None})
    np.testing.assert_array_equal(plain, maxconv.conv1d(x, w[:, None], b, **by_filters))
    if taps <= _plan.MOST_PRODUCT_TAPS or activation is not None:
        activate = None if activation is None else reference.ACTIVATIONS[activation]
        assert_layer_within_bound(y, exact, magnitude, taps + 1, activate)
        return
    for n, c in np.ndindex(2, 3):
        assert_within_fast_bound(y[n, c], exact[n, c], x[n, c], w[c])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_fast_causal_layers_add_in_another_order(rng, dtype):
    """They are not the kernels of every other layer, whose pieces have the bits of the whole."""
    x, w = random_array(rng, (4, 64, 8192), dtype), random_array(rng, (64, 128), dtype)
    results = [maxconv.causal_conv1d(x, w, device="gpu", precision=precision) for precision in (None, "fast")]
    assert (results[0] != results[1]).any()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("taps", [20, 300])
def test_what_fast_layers_do_not_serve_keeps_its_bits(rng, taps, dtype):
    """States, packed sequences, filters in float32 and layers in float32 are summed as ever."""
    x, w = random_array(rng, (2, 3, 333), dtype), random_array(rng, (3, taps), dtype)
    wide = [array.astype(np.float32) for array in (x, w)]
    numbers = np.sort(rng.integers(-1, 3, (2, 333)), axis=-1)
    for operands, options in (
        ((x, w), {"initial_state": random_array(rng, (2, 3, taps - 1), dtype)}),
        ((x, w), {"seq_idx": numbers}),
        ((x, wide[1]), {}),
        (wide, {}),
    ):
        results = [maxconv.causal_conv1d(*operands, **options, device="gpu", precision=each) for each in (None, "fast")]
        np.testing.assert_array_equal(*results)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("taps", [17, 64, 129])
def test_nan_stays_local_in_fast_causal_layers(rng, taps, dtype):
    """NaN reaches only the outputs that meet it; an infinite tap meets no sample before the first."""
    x, w = random_array(rng, (2, 3, 1001), dtype), random_array(rng, (3, taps), dtype)
    x[1, 0, 500] = np.nan
    w[2, 0] = np.inf
    y = maxconv.causal_conv1d(x, w, device="gpu", precision="fast").astype(np.float64)
    expected = np.zeros(y.shape, bool)
    expected[1, 0, 500 : 500 + taps] = True
    expected[:, 2, taps - 1 :] = True
    np.testing.assert_array_equal(expected, ~np.isfinite(y))
