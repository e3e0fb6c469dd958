"""`conv1d`, `conv_transpose1d` and their gradients beside PyTorch's own, in float64."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from arrays import FLOATS
from conftest import DEVICES
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_reference import ACTIVATIONS
from tolerances import assert_layer_within_bound, assert_within_fft_bound

import maxconv
from maxconv import _layer
from maxconv._engine import layers

torch = pytest.importorskip("torch")

BENCHMARK = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/layers.py"))
LONGEST = 200
"""Samples of a layer here: enough for more than a tile of every kernel, few enough for every type on a CPU."""


@pytest.fixture(scope="module", autouse=True)
def layer_kernels() -> None:
    """Build the layers' kernels first: an example of hypothesis must not wait for it."""
    maxconv.conv1d(np.ones((1, 1)), np.ones((1, 1, 1)))


def shortened(layer):
    """Return a layer on a shorter signal; the one whose filter is as long as its signal stays so."""
    length = min(layer.length, LONGEST + layer.dilation)
    if layer.taps == layer.length:
        return layer._replace(taps=length, length=length, padding=(length - 1, 0))
    return layer._replace(length=length)


def tensor(array: np.ndarray):
    """Make a tensor of float64."""
    return torch.from_numpy(array.astype(np.float64))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("layer", [shortened(layer) for layer in BENCHMARK["LAYERS"]], ids=lambda layer: layer.name)
def test_layers_of_published_models_are_pytorchs(rng, layer, dtype, device):
    """Every layer of the table, in every element type, is PyTorch's layer in float64 on the same numbers."""
    shapes = (2, layer.in_channels, layer.length), layer.weight_shape, (layer.out_channels,)
    operands = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    maxconv.set_default_device(device)
    actual = BENCHMARK["by_maxconv"](layer, *operands)
    maxconv.set_default_device(None)
    direct = layer._replace(length=-1) if layer.taps == layer.length else layer  # its FFT rounds, too
    exact, magnitude = (
        BENCHMARK["sums_by_torch"](direct, *map(tensor, arrays)).numpy() for arrays in (operands, map(abs, operands))
    )
    if layer.taps == layer.length:
        for n, c in np.ndindex(actual.shape[:2]):
            assert_within_fft_bound(actual[n, c], exact[n, c], operands[0][n, c], operands[1][c, 0])
        return
    terms = operands[1].size // layer.out_channels + 1
    if layer.kind == "conv_transpose1d":
        terms = layer.in_channels // layer.groups * layer.taps + 1
    activate = ACTIVATIONS["silu"] if layer.kind == "causal_conv1d" else None
    assert_layer_within_bound(actual, exact, magnitude, 2 * terms, activate)  # theirs are rounded, too


sizes = st.fixed_dictionaries(
    {
        "groups": st.integers(1, 70),
        "group_in": st.integers(1, 70),
        "group_out": st.integers(1, 70),
        "taps": st.integers(1, 40),
        "stride": st.integers(1, 5),
        "dilation": st.integers(1, 7),
        "length": st.integers(1, 300),
        "batch": st.integers(1, 3),
        "padding": st.integers(0, 150),
    }
)


def draw(size, seed, *, is_transposed):
    """Draw input, weight and bias of at most 70 channels, and the layer's options."""
    rng, groups = np.random.default_rng(seed), size["groups"]
    group_in, group_out = (min(size[name], 70 // groups) for name in ("group_in", "group_out"))
    first, second = (groups * group_in, group_out) if is_transposed else (groups * group_out, group_in)
    shapes = (size["batch"], groups * group_in, size["length"]), (first, second, size["taps"]), (groups * group_out,)
    options = {name: size[name] for name in ("stride", "padding", "dilation", "groups")}
    return [rng.standard_normal(shape) for shape in shapes], options


def assert_all_close(actual, exact, terms) -> None:
    """Fail unless sums of so many products of normal numbers agree to float64's rounding."""
    assert actual.shape == exact.shape
    np.testing.assert_allclose(actual, exact, rtol=1e-13, atol=1e-15 * (terms + 10))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100, deadline=None)
@given(size=sizes, seed=st.integers(0))
def test_any_convolution_and_its_gradients_are_pytorchs(device, size, seed):
    """`conv1d` of any sizes and options, and both its gradients, have PyTorch's shapes and values."""
    assume(size["length"] + 2 * size["padding"] > size["dilation"] * (size["taps"] - 1))
    arrays, options = draw(size, seed, is_transposed=False)
    x, w, b = map(tensor, arrays)
    exact = torch.nn.functional.conv1d(x.requires_grad_(), w.requires_grad_(), b, **options)
    terms = arrays[1].size // len(arrays[1])
    assert_all_close(maxconv.conv1d(*arrays, **options, device=device), exact.detach().numpy(), terms)

    gradient = torch.randn(exact.shape, dtype=exact.dtype)
    of_x, of_w = (each.numpy() for each in torch.autograd.grad(exact, (x, w), gradient))
    problem = _layer.convolution("test", *(array.shape for array in arrays), **options)
    actual = layers.transposed(problem, gradient.numpy(), arrays[1], device=device)
    assert_all_close(actual, of_x, terms * len(arrays[1]) // arrays[0].shape[1])
    actual = layers.weight_gradient(problem, arrays[0], gradient.numpy(), device)
    assert_all_close(actual, of_w, gradient.shape[0] * gradient.shape[2])


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=100, deadline=None)
@given(size=sizes, extra=st.integers(0, 6), seed=st.integers(0))
def test_any_transposed_convolution_and_its_gradients_are_pytorchs(device, size, extra, seed):
    """`conv_transpose1d` of any sizes and options, and both its gradients, have PyTorch's shapes and values."""
    arrays, options = draw(size, seed, is_transposed=True)
    options["output_padding"] = min(extra, max(size["stride"], size["dilation"]) - 1)
    reach = (size["length"] - 1) * size["stride"] + size["dilation"] * (size["taps"] - 1) + 1
    assume(reach + options["output_padding"] > 2 * size["padding"])
    x, w, b = map(tensor, arrays)
    exact = torch.nn.functional.conv_transpose1d(x.requires_grad_(), w.requires_grad_(), b, **options)
    terms = arrays[1].size // arrays[1].shape[1] // size["groups"]
    assert_all_close(maxconv.conv_transpose1d(*arrays, **options, device=device), exact.detach().numpy(), terms)

    gradient = torch.randn(exact.shape, dtype=exact.dtype)
    of_x, of_w = (each.numpy() for each in torch.autograd.grad(exact, (x, w), gradient))
    problem = _layer.transposed_convolution("test", *(array.shape for array in arrays), **options)
    actual = layers.forward(problem, gradient.numpy(), arrays[1], device=device)
    assert_all_close(actual, of_x, arrays[1].size // len(arrays[1]))
    actual = layers.weight_gradient(problem, gradient.numpy(), arrays[0], device)
    assert_all_close(actual, of_w, arrays[0].shape[0] * arrays[0].shape[2])


class Convolution(torch.autograd.Function):
    """`conv1d` of three operands, with the gradients that the kernels compute."""

    @staticmethod
    def forward(context, x, w, options):
        """Compute the outputs."""
        context.problem = _layer.convolution("test", x.shape, w.shape, None, **options)
        context.save_for_backward(x, w)
        return torch.from_numpy(layers.forward(context.problem, x.detach().numpy(), w.detach().numpy()))

    @staticmethod
    def backward(context, gradient):
        """Compute the gradients of input and weight."""
        x, w = (saved.detach().numpy() for saved in context.saved_tensors)
        y = np.ascontiguousarray(gradient.numpy())
        of_x = layers.transposed(context.problem, y, w)
        return torch.from_numpy(of_x), torch.from_numpy(layers.weight_gradient(context.problem, x, y)), None


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_gradients_are_the_slopes_of_the_outputs(stride, dilation, groups):
    """`torch.autograd.gradcheck` finds the gradients to be the differences of the outputs, in float64."""
    x = torch.randn(2, 4, 11, dtype=torch.float64, requires_grad=True)
    w = torch.randn(4, 4 // groups, 3, dtype=torch.float64, requires_grad=True)
    options = {"stride": stride, "padding": (2, 1), "dilation": dilation, "groups": groups}
    assert torch.autograd.gradcheck(lambda x, w: Convolution.apply(x, w, options), (x, w))
