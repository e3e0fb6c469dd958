"""`conv1d`, `conv_transpose1d`, `causal_conv1d` and their gradients are PyTorch's, within the numerics contract."""

from __future__ import annotations

import runpy
from pathlib import Path

import layer_reference as reference
import ml_dtypes
import numpy as np
import pytest
from arrays import FLOATS
from conftest import DEVICES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tolerances import assert_layer_within_bound, assert_within_fft_bound

import maxconv
from maxconv import ArgumentError, DeviceError, DtypeError, ShapeError, _layer
from maxconv._engine import download, layers, native, upload

LAYERS = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/layers.py"))["LAYERS"]
SHORT = 150


@pytest.fixture(scope="module", autouse=True)
def layer_kernels() -> None:
    """Build the layers' kernels first: an example of hypothesis must not wait for it."""
    maxconv.conv1d(np.ones((1, 1)), np.ones((1, 1, 1)))


def normal(rng: np.random.Generator, shape, dtype=np.float64) -> np.ndarray:
    """Draw normal numbers."""
    return rng.standard_normal(shape).astype(dtype)


def shortened(layer):
    """Return a layer on a signal that a slow reference can take."""
    taps = min(layer.taps, SHORT)
    padding = (taps - 1, 0) if layer.taps == layer.length else layer.padding
    length = min(layer.length, SHORT // layer.stride * layer.stride + layer.dilation)
    return layer._replace(taps=taps, padding=padding, length=length)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layer", [shortened(layer) for layer in LAYERS], ids=lambda layer: layer.name)
def test_layers_of_published_models(rng, layer, dtype, device):
    """Every layer of the table, on a short signal, is right in every element type."""
    x = normal(rng, (1, layer.in_channels, layer.length), dtype)
    w = normal(rng, layer.weight_shape, dtype)
    b = normal(rng, layer.out_channels, dtype)
    pads = layer.padding if isinstance(layer.padding, tuple) else (layer.padding, layer.padding)
    if layer.kind == "causal_conv1d":
        actual = maxconv.causal_conv1d(x, w, b, device=device)
        function, options = reference.causal_conv1d, {}
    elif layer.kind == "conv_transpose1d":
        options = {"stride": layer.stride, "padding": layer.padding}
        actual = maxconv.conv_transpose1d(x, w, b, **options, device=device)
        function = reference.conv_transpose1d
    else:
        options = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups}
        actual = maxconv.conv1d(x, w, b, padding=layer.padding, **options, device=device)
        function, options = reference.conv1d, options | {"padding": pads}
    assert actual.dtype == dtype
    terms = w.size // w.shape[0] + 1 if layer.kind == "conv1d" else layer.in_channels * layer.taps + 1
    exact, magnitude = function(x, w, b, **options), function(abs(x), abs(w), abs(b), **options)
    if layer.taps == SHORT:  # by FFT
        for channel in range(layer.in_channels):
            bare = exact[0, channel] - reference.widen(b)[channel]
            without_bias = actual[0, channel].astype(exact.dtype) - reference.widen(b)[channel]
            if dtype.itemsize > 2:
                assert_within_fft_bound(without_bias.astype(dtype), bare, x[0, channel], w[channel, 0])
        return
    assert_layer_within_bound(actual, exact, magnitude, terms)


sizes = st.fixed_dictionaries(
    {
        "groups": st.integers(1, 8),
        "group_in": st.integers(1, 70),
        "group_out": st.integers(1, 70),
        "taps": st.integers(1, 40),
        "stride": st.integers(1, 5),
        "dilation": st.integers(1, 7),
        "length": st.integers(1, 300),
        "batch": st.integers(0, 3),
    }
)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=150, deadline=None)
@given(
    size=sizes, left=st.integers(0, 300), right=st.integers(0, 50), kind=st.sampled_from(FLOATS), seed=st.integers(0)
)
def test_any_convolution_and_its_gradients(device, size, left, right, kind, seed):
    """Any sizes, strides, dilations, groups and paddings give the right sums; the gradients are those of the sums."""
    groups, taps, dilation = size["groups"], size["taps"], size["dilation"]
    group_in, group_out = min(size["group_in"], 70 // groups), min(size["group_out"], 70 // groups)
    assume(size["length"] + left + right > dilation * (taps - 1))
    rng = np.random.default_rng(seed)
    x = normal(rng, (size["batch"], groups * group_in, size["length"]), kind)
    w, b = normal(rng, (groups * group_out, group_in, taps), kind), normal(rng, groups * group_out, kind)
    options = {"stride": size["stride"], "padding": (left, right), "dilation": dilation, "groups": groups}
    problem = _layer.convolution("conv1d", x.shape, w.shape, b.shape, **options)
    exact, magnitude = reference.conv1d(x, w, b, **options), reference.conv1d(abs(x), abs(w), abs(b), **options)
    actual = layers.forward(problem, x, w, b, device=device)
    assert_layer_within_bound(actual, exact, magnitude, group_in * taps + 1)

    gradient = normal(rng, exact.shape, kind)
    through = {name: options[name] for name in ("stride", "dilation", "groups")}
    cut = (slice(None), slice(None), slice(left, left + size["length"]))
    reach = left + size["length"]
    exact, magnitude = (
        np.pad(whole, ((0, 0), (0, 0), (0, max(0, reach - whole.shape[-1]))))[cut]
        for whole in (
            reference.conv_transpose1d(gradient, w, **through),
            reference.conv_transpose1d(abs(gradient), abs(w), **through),
        )
    )
    actual = layers.transposed(problem, gradient, w, device=device)
    assert_layer_within_bound(actual, exact, magnitude, group_out * taps)
    exact = reference.weight_gradient(x, gradient, taps, **options)
    magnitude = reference.weight_gradient(abs(x), abs(gradient), taps, **options)
    terms = max(1, size["batch"] * problem.outputs)
    assert_layer_within_bound(layers.weight_gradient(problem, x, gradient, device), exact, magnitude, terms)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100, deadline=None)
@given(size=sizes, padding=st.integers(0, 60), extra=st.integers(0, 6), seed=st.integers(0))
def test_any_transposed_convolution(device, size, padding, extra, seed):
    """Any sizes, strides, dilations, groups, paddings and output paddings of `conv_transpose1d` give the right sums."""
    groups, taps = size["groups"], size["taps"]
    group_in, group_out = min(size["group_in"], 70 // groups), min(size["group_out"], 70 // groups)
    extra = min(extra, max(size["stride"], size["dilation"]) - 1)
    whole = (size["length"] - 1) * size["stride"] + size["dilation"] * (taps - 1) + 1 + extra
    assume(whole >= 2 * padding)
    rng = np.random.default_rng(seed)
    x = normal(rng, (size["batch"], groups * group_in, size["length"]), np.float32)
    w, b = normal(rng, (groups * group_in, group_out, taps), np.float32), normal(rng, groups * group_out, np.float32)
    options = {"stride": size["stride"], "padding": padding, "output_padding": extra, "groups": groups}
    options |= {"dilation": size["dilation"]}
    exact, magnitude = (
        reference.conv_transpose1d(x, w, b, **options),
        reference.conv_transpose1d(abs(x), abs(w), abs(b), **options),
    )
    actual = maxconv.conv_transpose1d(x, w, b, **options, device=device)
    assert_layer_within_bound(actual, exact, magnitude, group_in * taps + 1)


@pytest.mark.parametrize("groups", [1, 4, 12])
def test_gradients_are_adjoint(rng, groups):
    """<conv(x, w), g> = <x, input_gradient(g, w)> = <w, weight_gradient(x, g)>."""
    x, w = normal(rng, (2, 12, 101)), normal(rng, (24, 12 // groups, 7))
    problem = _layer.convolution("conv1d", x.shape, w.shape, None, 3, (5, 2), 2, groups)
    y = layers.forward(problem, x, w)
    g = normal(rng, y.shape)
    inner = np.vdot(y, g)
    np.testing.assert_allclose(np.vdot(x, layers.transposed(problem, g, w)), inner, rtol=1e-11)
    np.testing.assert_allclose(np.vdot(w, layers.weight_gradient(problem, x, g)), inner, rtol=1e-11)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_activations_are_applied_before_rounding(rng, activation, dtype, device):
    """Bias and activation of dense, transposed and depthwise layers are right in every element type."""
    x, w, b = normal(rng, (2, 8, 77), dtype), normal(rng, (12, 8, 5), dtype), normal(rng, 12, dtype) * 3
    code = _layer.activation_code("test", activation)
    problem = _layer.convolution("test", x.shape, w.shape, b.shape, 1, 2, 1, 1)
    exact, magnitude = (
        reference.conv1d(x, w, b, padding=(2, 2)),
        reference.conv1d(abs(x), abs(w), abs(b), padding=(2, 2)),
    )
    actual = layers.forward(problem, x, w, b, code, device)
    assert_layer_within_bound(actual, exact, magnitude, 41, reference.ACTIVATIONS[activation])
    w, b = normal(rng, (8, 4), dtype), normal(rng, 8, dtype)
    exact, magnitude = reference.causal_conv1d(x, w, b), reference.causal_conv1d(abs(x), abs(w), abs(b))
    actual = maxconv.causal_conv1d(x, w, b, activation=activation, device=device)
    assert_layer_within_bound(actual, exact, magnitude, 5, reference.ACTIVATIONS[activation])


@pytest.mark.parametrize("taps", [1, 2, 4, 9, 40])
@pytest.mark.parametrize("length", [1, 3, 16, 200, 1100])
def test_causal_states_and_sequences(rng, taps, length, device):
    """Initial and final states and sequence numbers mean what the reference says."""
    x, w, b = normal(rng, (2, 5, length)), normal(rng, (5, taps)), normal(rng, 5)
    state = normal(rng, (2, 5, taps - 1))
    actual, final = maxconv.causal_conv1d(x, w, b, initial_state=state, return_final_state=True, device=device)
    exact = reference.causal_conv1d(x, w, b, initial_state=state)
    np.testing.assert_allclose(actual, exact.astype(float), rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(np.concatenate([state, x], axis=-1)[..., length:], final)
    seq_idx = np.sort(rng.integers(-1, 4, (2, length)), axis=-1)
    actual = maxconv.causal_conv1d(x, w, b, seq_idx=seq_idx, device=device)
    np.testing.assert_allclose(actual, reference.causal_conv1d(x, w, b, seq_idx=seq_idx), rtol=1e-11, atol=1e-11)
    seq_idx = rng.integers(-1, 2, (2, length), dtype=np.int8 if length == 16 else np.int64)
    actual = maxconv.causal_conv1d(x, w, b, seq_idx=seq_idx, activation="silu", device=device)
    exact = reference.ACTIVATIONS["silu"](reference.causal_conv1d(x, w, b, seq_idx=seq_idx))
    np.testing.assert_allclose(actual, exact.astype(float), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("taps", [1, 4, 37])
def test_pieces_are_the_whole(rng, taps, dtype, device):
    """Token by token, and in pieces of any length, a signal gives the same bits as at once."""
    x, w, b = normal(rng, (3, 17, 150), dtype), normal(rng, (17, taps), dtype), normal(rng, 17, dtype)
    whole = maxconv.causal_conv1d(x, w, b, activation="silu", device=device)
    state, rolling = np.zeros((3, 17, taps - 1), dtype), np.zeros((3, 17, taps + 2), dtype)
    begin = 0
    while begin < 150:
        end = begin + int(rng.integers(1, 40))
        piece = x[..., begin:end]
        y, state = maxconv.causal_conv1d(
            piece, w, b, activation="swish", initial_state=state, return_final_state=True, device=device
        )
        np.testing.assert_array_equal(whole[..., begin:end], y)
        begin = end
    for i in range(20):
        before = rolling.copy()
        y, updated = maxconv.causal_conv1d_update(x[..., i], rolling, w, b, "silu", device=device)
        np.testing.assert_array_equal(whole[..., i], y)
        np.testing.assert_array_equal(before, rolling)
        rolling = updated
    y, rolling = maxconv.causal_conv1d_update(x[..., 20:60], rolling, w, b, "silu", device=device)
    np.testing.assert_array_equal(whole[..., 20:60], y)
    np.testing.assert_array_equal(x[..., 60 - taps - 2 : 60] if taps < 50 else rolling, rolling)


def test_half_precision_signals_with_wide_weights(rng, device):
    """`causal_conv1d` of bfloat16 with float32 weights rounds once, at the end."""
    x, w, b = normal(rng, (2, 8, 60), ml_dtypes.bfloat16), normal(rng, (8, 4), np.float32), normal(rng, 8, np.float32)
    exact, magnitude = reference.causal_conv1d(x, w, b), reference.causal_conv1d(abs(x), abs(w), abs(b))
    actual = maxconv.causal_conv1d(x, w, b, device=device)
    assert actual.dtype == x.dtype
    assert_layer_within_bound(actual, exact, magnitude, 5)


@pytest.mark.parametrize("length", [40, 300])
def test_absent_samples_meet_no_weight(length, device):
    """Infinite weights, or gradients, that meet nothing but padding make no NaN."""
    for filters, channels in ((1, 1), (2, 1), (9, 1), (20, 17)):
        x = np.ones((1, channels, length))
        w = np.ones((filters, channels, 3))
        w[:, :, 0] = np.inf
        y = maxconv.conv1d(x, w, padding=1, device=device)
        np.testing.assert_array_equal(2 * channels, y[..., 0])
        np.testing.assert_array_equal(np.inf, y[..., 1:])
        y = maxconv.conv_transpose1d(np.ones((1, filters, length)), w, padding=1, device=device)
        np.testing.assert_array_equal(2 * filters, y[..., -1])
        np.testing.assert_array_equal(np.inf, y[..., :-1])
        g = np.ones((1, filters, length))
        g[..., 0] = np.inf
        problem = _layer.convolution("test", x.shape, w.shape, None, 1, 1, 1, 1)
        gradient = layers.weight_gradient(problem, x, g, device)
        np.testing.assert_array_equal(length - 1, gradient[..., 0])
        np.testing.assert_array_equal(np.inf, gradient[..., 1:])


def test_a_long_filter_goes_by_fft(rng, device):
    """A filter as long as the signal takes the FFT; on the CPU NaN still reaches only the outputs that meet it."""
    x, w, b = normal(rng, (2, 6, 2048)), normal(rng, (6, 1, 2048)), normal(rng, 6)
    options = {"padding": (2047, 0), "groups": 6}
    exact = reference.conv1d(x, w, b, **options)
    actual = maxconv.conv1d(x, w, b, **options, device=device)
    for n in range(2):
        for c in range(6):
            assert_within_fft_bound(actual[n, c] - b[c], (exact[n, c] - b[c]).astype(float), x[n, c], w[c, 0])
    if device != "cpu":
        return
    x[1, 2, 1000] = np.nan
    spoilt = np.isnan(maxconv.conv1d(x, w, b, **options))
    assert spoilt[1, 2, 1000:].all()
    assert spoilt.sum() == 1048


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("batch", "length", "taps", "padding"),
    [(3, 900, 700, (350, 349)), (1, 1000, 2000, (1999, 3)), (9, 511, 400, (9, 1)), (2, 8192, 8192, (8191, 0))],
)
def test_whole_rows_go_by_fft(rng, dtype, batch, length, taps, padding):
    """Rows that one transform serves, with a bias and without, windows beyond both ends, are right in every type."""
    x, w = normal(rng, (batch, 5, length), dtype), normal(rng, (5, 1, taps), dtype)
    b = normal(rng, 5, dtype)
    options = {"padding": padding, "groups": 5}
    wide = [each.astype(np.float64) for each in (x, w)]
    exact = reference.conv1d(*wide, None, **options)
    for bias in (None, b):
        actual = maxconv.conv1d(x, w, bias, **options, device="gpu")
        for n, c in np.ndindex(batch, 5):
            offset = 0 if bias is None else float(bias[c])
            assert_within_fft_bound(actual[n, c], exact[n, c] + offset, x[n, c], w[c, 0])


def test_threads_do_not_matter(rng, monkeypatch):
    """A layer large enough for all threads gives the same bits on one."""
    x, w = normal(rng, (2, 96, 700), np.float32), normal(rng, (130, 96, 5), np.float32)
    rows, filters = normal(rng, (2, 300, 3000), np.float32), normal(rng, (300, 9), np.float32)
    signals, long = normal(rng, (1, 130, 2048), np.float32), normal(rng, (130, 1, 2048), np.float32)
    lone, few = normal(rng, (1, 1, 30000), np.float32), normal(rng, (20, 1, 7), np.float32)
    problem = _layer.convolution("test", x.shape, w.shape, None, 2, 3, 1, 1)

    def compute() -> list[np.ndarray]:
        y = layers.forward(problem, x, w)
        gradients = layers.transposed(problem, y, w), layers.weight_gradient(problem, x, y)
        by_fft = maxconv.conv1d(signals, long, padding=(2047, 0), groups=130)
        return [y, *gradients, maxconv.causal_conv1d(rows, filters), by_fft, maxconv.conv1d(lone, few)]

    together = compute()
    monkeypatch.setattr(native, "workers", 1)
    for many, one in zip(together, compute(), strict=True):
        np.testing.assert_array_equal(one, many)


def test_any_layout_and_rank(rng):
    """Strided, Fortran-ordered, read-only and unbatched inputs give the same values, and stay as they were."""
    x, w, b = normal(rng, (2, 4, 60)), normal(rng, (6, 4, 3)), normal(rng, 6)
    expected = maxconv.conv1d(x, w, b)
    wide = np.zeros((2, 8, 120))
    wide[:, ::2, ::2] = x
    wide.flags.writeable = False
    np.testing.assert_array_equal(expected, maxconv.conv1d(wide[:, ::2, ::2], np.asfortranarray(w), b[::-1][::-1]))
    np.testing.assert_array_equal(expected[0], maxconv.conv1d(x[0], w, b))
    np.testing.assert_array_equal(
        maxconv.conv_transpose1d(x, w.swapaxes(0, 1))[1], maxconv.conv_transpose1d(x[1], w.swapaxes(0, 1))
    )
    last = np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2)  # channels last
    np.testing.assert_array_equal(maxconv.causal_conv1d(x, w[:4, 0]), maxconv.causal_conv1d(last, w[:4, 0]))
    np.testing.assert_array_equal(
        maxconv.causal_conv1d(x, w[:4, 0])[0], maxconv.causal_conv1d(x[0], w[:4, 0], seq_idx=np.zeros(60, int))
    )


@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (4, 1), (5, 1), (2, 3), (3, 2), (4, 7)])
def test_same_keeps_the_length(rng, taps, dilation):
    """`padding="same"` keeps the length, the odd position on the right; "valid" pads nothing."""
    x, w = normal(rng, (1, 2, 30)), normal(rng, (3, 2, taps))
    halo = dilation * (taps - 1)
    expected = maxconv.conv1d(x, w, padding=(halo // 2, halo - halo // 2), dilation=dilation)
    assert expected.shape == (1, 3, 30)
    np.testing.assert_array_equal(expected, maxconv.conv1d(x, w, padding="same", dilation=dilation))
    valid = maxconv.conv1d(x, w, padding="valid", dilation=(dilation,))
    np.testing.assert_array_equal(maxconv.conv1d(x, w, dilation=dilation, stride=[1], padding=(0,)), valid)


X, W, B = np.ones((2, 16, 10)), np.ones((4, 8, 3)), np.ones(4)
conv, transposed, causal, update = (
    maxconv.conv1d,
    maxconv.conv_transpose1d,
    maxconv.causal_conv1d,
    maxconv.causal_conv1d_update,
)

#: Calls that PyTorch's functions refuse, too: function name, positional and named arguments, our error, its text.
REFUSED_BY_BOTH = [
    ("conv1d", (X[0, 0], W), {}, ShapeError, r"input has shape \(10,\), but \(N, C, L\) or \(C, L\)"),
    ("conv1d", (X, W[0]), {}, ShapeError, r"weight has shape \(8, 3\), but three dimensions"),
    ("conv1d", (X, np.ones((4, 6, 3))), {"groups": 2}, ShapeError, r"weight has 6 input .* groups=2 \(8 per group\)"),
    ("conv1d", (X, W), {"groups": 3}, ShapeError, "8 input channels .*, but input has 16 channels and groups=3"),
    ("conv1d", (X, np.ones((5, 8, 3))), {"groups": 2}, ShapeError, "5 output channels, which groups=2 does not divide"),
    ("conv1d", (X, W, np.ones(5)), {"groups": 2}, ShapeError, r"bias has shape \(5,\), but \(4,\) is expected"),
    ("conv1d", (X, W, np.ones((4, 1))), {"groups": 2}, ShapeError, r"bias has shape \(4, 1\)"),
    ("conv1d", (X[..., :2], W), {"groups": 2}, ShapeError, "window of 3 samples .* padded input of 2 samples"),
    ("conv1d", (X, W), {"groups": 2, "dilation": 5}, ShapeError, "a window of 11 samples"),
    ("conv1d", (X[..., :0], W), {"groups": 2}, ShapeError, "padded input of 0 samples"),
    ("conv1d", (X, W), {"groups": 0}, ArgumentError, "groups must be an integer >= 1, got 0"),
    ("conv1d", (X, W), {"groups": 2, "stride": 0}, ArgumentError, "stride must be an integer >= 1, got 0"),
    ("conv1d", (X, W), {"groups": 2, "stride": True}, ArgumentError, "stride must be an integer >= 1, got True"),
    ("conv1d", (X, W), {"groups": 2, "stride": (1, 2)}, ArgumentError, r"stride must be one integer .* got \(1, 2\)"),
    ("conv1d", (X, W), {"groups": 2, "padding": -1}, ArgumentError, "padding must be an integer >= 0, got -1"),
    ("conv1d", (X, W), {"groups": 2, "padding": "full"}, ArgumentError, "padding must be .* got 'full'"),
    ("conv1d", (X, W), {"groups": 2, "padding": "same", "stride": 2}, ArgumentError, "'same' needs stride=1, got str"),
    ("conv1d", (X, W), {"groups": 2, "dilation": 0}, ArgumentError, "dilation must be an integer >= 1, got 0"),
    ("conv1d", (X, W), {"groups": 2, "dilation": 1.5}, ArgumentError, "dilation must be an integer >= 1, got 1.5"),
    ("conv1d", (X, W.astype("f4")), {"groups": 2}, DtypeError, "weight is float32, but input is float64"),
    ("conv1d", (X, W, B.astype("f4")), {"groups": 2}, DtypeError, "bias is float32, but input is float64"),
    ("conv_transpose1d", (X[0, 0], W), {}, ShapeError, r"input has shape \(10,\)"),
    ("conv_transpose1d", (X, W), {}, ShapeError, "weight has 4 input channels, but input has 16"),
    ("conv_transpose1d", (X, np.ones((16, 2, 3))), {"groups": 3}, ShapeError, "16 channels, which groups=3 does not"),
    ("conv_transpose1d", (X, np.ones((16, 2, 3)), B), {}, ShapeError, r"bias has shape \(4,\), but \(2,\) is expected"),
    ("conv_transpose1d", (X, np.ones((16, 2, 3))), {"output_padding": 1}, ArgumentError, "output_padding must be"),
    ("conv_transpose1d", (X, np.ones((16, 2, 3))), {"padding": 7}, ShapeError, "the output would have -2 samples"),
    ("conv_transpose1d", (X, np.ones((16, 2, 3))), {"stride": 0}, ArgumentError, "stride must be an integer >= 1"),
]  # fmt: skip

REFUSED = [
    (
        lambda: conv(X.astype(int), W.astype(int), groups=2),
        DtypeError,
        "input has elements of type int64; expected one",
    ),
    (lambda: conv(X, W.astype("c8"), groups=2), DtypeError, "weight has elements of type complex64"),
    (lambda: conv(X, W[..., :0], groups=2), ShapeError, r"weight has shape \(4, 8, 0\)"),
    (lambda: conv(X, W, groups=2, padding=(1, 2, 3)), ArgumentError, r"padding must be one integer .* \(1, 2, 3\)"),
    (lambda: conv(X, W, groups=2, padding=(1, -2)), ArgumentError, "padding must be an integer >= 0, got -2"),
    (lambda: conv([["a"]], W), DtypeError, "input has elements of type str"),
    (lambda: conv(X, W, groups=2, device="gpu:99"), DeviceError, "conv1d: device: gpu:99 was asked for"),
    (lambda: transposed(X, X[0], device="tpu"), ArgumentError, "conv_transpose1d: device must be"),
    (lambda: causal(X[0, 0], W[0]), ShapeError, r"x has shape \(10,\), but \(N, C, L\) or \(C, L\) is expected"),
    (lambda: causal(X, W[0]), ShapeError, r"weight has shape \(8, 3\), but \(C, K\) = \(16, at least 1\)"),
    (lambda: causal(X, W), ShapeError, r"weight has shape \(4, 8, 3\)"),
    (lambda: causal(X, X[0], B), ShapeError, r"bias has shape \(4,\), but \(16,\) is expected"),
    (
        lambda: causal(X, X[0], activation="tanh"),
        ArgumentError,
        "activation must be one of None, 'relu', .* got 'tanh'",
    ),
    (lambda: causal(X, X[0], activation=1), ArgumentError, "activation must be one of"),
    (
        lambda: causal(X, X[0, :, :3], initial_state=X),
        ShapeError,
        r"initial_state has shape \(2, 16, 10\), but \(2, 16, 2",
    ),
    (lambda: causal(X, X[0], initial_state=X.astype("f4")), DtypeError, "initial_state is float32, but x is float64"),
    (lambda: causal(X, X[0], seq_idx=X), DtypeError, "seq_idx has elements of type float64"),
    (lambda: causal(X, X[0], seq_idx=[1]), ShapeError, r"seq_idx has shape \(1,\), but \(2, 10\) is expected"),
    (
        lambda: causal(X, X[0], seq_idx=np.ones((2, 10), int), return_final_state=True),
        ArgumentError,
        "takes no initial",
    ),
    (
        lambda: conv(X, W, groups=2, precision="slow"),
        ArgumentError,
        "conv1d: precision must be None or 'fast', got 'slow'",
    ),
    (lambda: causal(X, X[0], precision=True), ArgumentError, "causal_conv1d: precision must be .*, got True"),
    (lambda: causal(X, X[0].astype("f4")), DtypeError, "weight is float32, but x is float64"),
    (lambda: update(X[0], X[..., :1], X[0, :, :3]), ShapeError, r"x of shape"),
    (
        lambda: update(X[..., 0], X[..., :1], X[0, :, :3]),
        ShapeError,
        r"state has shape \(2, 16, 1\), but \(2, 16, at l",
    ),
    (lambda: update(X, X[0], X[0, :, :3]), ShapeError, r"x and state have shapes \(2, 16, 10\) and \(16, 10\)"),
    (lambda: update(X[..., 0], X, X[0, :, :3], None, "tanh"), ArgumentError, "causal_conv1d_update: activation must"),
]


def no_kernel(*_):
    """Stand in for every kernel."""
    pytest.fail("a kernel was called")


@pytest.mark.parametrize(("name", "arguments", "options", "kind", "text"), REFUSED_BY_BOTH)
def test_what_pytorch_refuses_is_refused_in_words(monkeypatch, name, arguments, options, kind, text):
    """Every error case of PyTorch raises an error of ours, which names function and argument, before any kernel."""
    monkeypatch.setattr(native, "run_layer_on_cpu", no_kernel)
    with pytest.raises(kind, match=f"^{name}: .*{text}"):
        getattr(maxconv, name)(*arguments, **options)


@pytest.mark.parametrize(("name", "arguments", "options", "kind", "text"), REFUSED_BY_BOTH)
def test_pytorch_refuses_it_too(name, arguments, options, kind, text):  # noqa: ARG001
    """The cases above are PyTorch's own."""
    torch = pytest.importorskip("torch")
    with pytest.raises((RuntimeError, ValueError, TypeError)):
        getattr(torch.nn.functional, name)(*map(torch.from_numpy, arguments), **options)


@pytest.mark.parametrize(("call", "kind", "text"), REFUSED)
def test_bad_input_is_refused_in_words(monkeypatch, call, kind, text):
    """Wrong types, shapes and options that PyTorch has no counterpart of raise their own errors before any kernel."""
    monkeypatch.setattr(native, "run_layer_on_cpu", no_kernel)
    with pytest.raises(kind, match=text):
        call()


def test_tensors_come_back_as_tensors(rng):
    """PyTorch tensors give PyTorch tensors with PyTorch's values, states included."""
    torch = pytest.importorskip("torch")
    x, w, b = (torch.from_numpy(normal(rng, shape)) for shape in ((2, 6, 50), (9, 2, 4), 9))
    expected = torch.nn.functional.conv1d(x, w, b, stride=2, padding=3, dilation=2, groups=3)
    torch.testing.assert_close(maxconv.conv1d(x, w, b, 2, 3, 2, 3), expected)
    expected = torch.nn.functional.conv_transpose1d(x, w[:6], stride=2, padding=1, output_padding=1)
    torch.testing.assert_close(maxconv.conv_transpose1d(x, w[:6], None, 2, 1, 1), expected)
    y, state = maxconv.causal_conv1d(x, w[:6, 0], return_final_state=True)
    assert isinstance(y, torch.Tensor)
    torch.testing.assert_close(state, x[..., -3:])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_arrays_on_a_gpu_stay_there(rng, dtype):
    """Buffers on a GPU give Buffers there, of the bits that host arrays sent to it give."""
    x, w, b = normal(rng, (2, 6, 50), dtype), normal(rng, (6, 3, 4), dtype), normal(rng, 6, dtype)
    state = normal(rng, (2, 6, 3), dtype)
    there = {name: upload(array, "gpu:0") for name, array in {"x": x, "w": w, "b": b, "state": state}.items()}
    depthwise, depthwise_there = np.ascontiguousarray(w[:, 0]), upload(w[:, 0], "gpu:0")

    def assert_same(expected, actual) -> None:
        assert actual.device.label == "gpu"
        np.testing.assert_array_equal(np.asarray(expected, np.float64), download(actual).astype(np.float64))

    expected = maxconv.conv1d(x, w, b, padding=2, groups=2, device="gpu")
    assert_same(expected, maxconv.conv1d(there["x"], there["w"], there["b"], padding=2, groups=2))
    expected = maxconv.conv_transpose1d(x, w, stride=2, device="gpu")
    assert_same(expected, maxconv.conv_transpose1d(there["x"], there["w"], stride=2))
    for initial in (None, "state"):
        options = {"activation": "silu", "return_final_state": True}
        before = None if initial is None else state
        whole = maxconv.causal_conv1d(x, depthwise, b, initial_state=before, device="gpu", **options)
        before = None if initial is None else there["state"]
        pair = maxconv.causal_conv1d(there["x"], depthwise_there, there["b"], initial_state=before, **options)
        assert_same(whole[0], pair[0])
        assert_same(whole[1], pair[1])
    step, step_there = x[..., 0], upload(np.ascontiguousarray(x[..., 0]), "gpu:0")
    expected = maxconv.causal_conv1d_update(step, state, depthwise, b, device="gpu")
    pair = maxconv.causal_conv1d_update(step_there, there["state"], depthwise_there, there["b"])
    assert_same(expected[0], pair[0])
    assert_same(expected[1], pair[1])


@pytest.mark.gpu
def test_operands_on_two_devices_are_refused():
    """An input on a GPU and weights in host memory are refused by name."""
    with pytest.raises(DeviceError, match="conv1d: input is on gpu:0, but weight is on cpu; all must be on one device"):
        maxconv.conv1d(upload(X, "gpu:0"), W, groups=2)


@pytest.mark.gpu
def test_cuda_tensors_come_back_as_tensors():
    """PyTorch's tensors on a GPU, sequence numbers included, give tensors there, of PyTorch's values."""
    torch = pytest.importorskip("torch")
    x, w = torch.randn(2, 6, 50, device="cuda"), torch.randn(9, 2, 4, device="cuda")
    expected = torch.nn.functional.conv1d(x.double(), w.double(), None, 2, 3, 2, 3)
    y = maxconv.conv1d(x, w, None, 2, 3, 2, 3)
    assert y.is_cuda
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    numbers = torch.zeros(2, 50, dtype=torch.int32, device="cuda")
    y = maxconv.causal_conv1d(x, w[:6, 0], seq_idx=numbers)
    torch.testing.assert_close(y, maxconv.causal_conv1d(x, w[:6, 0]))
    with pytest.raises(DtypeError, match="seq_idx has elements of type int64; expected int32 on gpu:0"):
        maxconv.causal_conv1d(x, w[:6, 0], seq_idx=numbers.long())
