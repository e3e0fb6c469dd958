"""`maxconv.graph` and `maxconv.nn`: neural layers in MAX graphs have the bits of the eager functions."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import layer_reference as reference
import ml_dtypes
import numpy as np
import pytest
import raw_ops
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType
from tolerances import assert_layer_within_bound

import maxconv
from maxconv import ArgumentError, DeviceError, DtypeError, ShapeError

HOST = DeviceRef.CPU()
EXAMPLES = Path(__file__).parents[1] / "examples"

#: Lengths of the symbolic dimensions of graph "layers".
LENGTHS = [
    {"n": 2, "l": 40, "k": 3, "m": 3, "c": 10, "i": 33, "o": 6, "g": 5, "j": 4, "r": 19, "q": 4, "t": 9},
    {"n": 1, "l": 4, "k": 1, "m": 1, "c": 2, "i": 1, "o": 2, "g": 1, "j": 1, "r": 1, "q": 1, "t": 1},
    {"n": 3, "l": 301, "k": 8, "m": 2, "c": 36, "i": 257, "o": 14, "g": 18, "j": 9, "r": 1100, "q": 31, "t": 2},
]


@contextmanager
def eager_calls_on(device):
    """Compute host arrays where a graph is."""
    maxconv.set_default_device(device.label)
    yield
    maxconv.set_default_device(None)


def draw(rng: np.random.Generator, lengths: dict[str, int]) -> dict[str, np.ndarray]:
    """Draw inputs of graph "layers"."""
    inputs = {}
    for name, (dtype, shape) in raw_ops.LAYER_INPUTS.items():
        sizes = [lengths.get(size, size) for size in shape]
        if name == "seq_idx":
            inputs[name] = np.sort(rng.integers(-1, 4, sizes, np.int32), axis=-1)
        else:
            inputs[name] = rng.standard_normal(sizes).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return inputs


@pytest.mark.parametrize("lengths", LENGTHS)
def test_layers_have_the_bits_of_the_eager_functions(ops_on_device, rng, lengths):
    """One model is the eager functions for all lengths, in every type: shapes, values and states."""
    inputs = draw(rng, lengths)
    with eager_calls_on(ops_on_device.device):
        expected = raw_ops.apply_layers(maxconv, **inputs)
    *actual, _ = ops_on_device.run_all("layers", *inputs.values())
    for (name, eager), graph in zip(expected.items(), actual, strict=True):
        assert graph.dtype == eager.dtype, name
        np.testing.assert_array_equal(graph, eager, err_msg=name)


def test_layers_are_right(ops_on_device, rng):
    """Layers in a graph are within the numerics contract of float64."""
    inputs = draw(rng, LENGTHS[0])
    *results, _ = ops_on_device.run_all("layers", *inputs.values())
    actual = dict(zip(raw_ops.apply_layers(maxconv, **inputs), results, strict=True))
    x, w, b, transposed_w = (inputs[name] for name in ("x", "w", "b", "transposed_w"))
    exact, magnitude = (
        reference.conv1d(*operands, 3, (4, 1), 2, 2) for operands in ((x, w, b), (abs(x), abs(w), abs(b)))
    )
    assert_layer_within_bound(actual["conv"], exact, magnitude, 16)
    exact, magnitude = (
        reference.conv_transpose1d(*operands, None, 3, 1, 2, 2)
        for operands in ((x, transposed_w), (abs(x), abs(transposed_w)))
    )
    assert_layer_within_bound(actual["transposed"], exact, magnitude, 9)
    x, w = inputs["symbolic_x"], inputs["symbolic_w"]
    exact, magnitude = (
        reference.conv1d(*operands, padding=(4, 5), dilation=3, groups=2) for operands in ((x, w), (abs(x), abs(w)))
    )
    assert_layer_within_bound(actual["symbolic"], exact, magnitude, 20)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_modules_take_pytorchs_state_dict(ops_on_device, rng, lengths):
    """A model of `maxconv.nn` with a loaded state dict is the eager functions with its weights."""
    inputs, state = draw(rng, lengths), ops_on_device.net_state
    actual = ops_on_device.run_all("layers", *inputs.values())[-1]
    with eager_calls_on(ops_on_device.device):
        y = np.maximum(maxconv.conv1d(inputs["x"], state["stem.weight"], state["stem.bias"], 2, 3, groups=2), 0)
        y = maxconv.conv_transpose1d(y, state["up.weight"], None, 2, 1, 1, 2)
        y = maxconv.causal_conv1d(y, state["mix.weight"][:, 0], state["mix.bias"], activation="silu")
    np.testing.assert_array_equal(y, actual)


MISFITS = [
    ("x", (2, 6, 2), "a window of 9 samples does not fit into 2 samples padded by 4 and 1"),
    ("symbolic_w", (6, 4, 3), "w has shape .6, 4, 3., which does not fit x of shape .3, 10, 33. and 2 groups"),
]


@pytest.mark.parametrize(("name", "shape", "text"), MISFITS)
def test_symbolic_shapes_that_do_not_fit_are_refused_at_run_time(ops_on_device, rng, name, shape, text):
    """What only the run knows is refused in words when it runs, and the model serves on."""
    inputs = draw(rng, LENGTHS[0] | ({"l": shape[2]} if name == "x" else {}))
    bad = inputs | {name: rng.standard_normal(shape).astype(inputs[name].dtype)}
    with pytest.raises(ValueError, match=text):
        ops_on_device.run_all("layers", *bad.values())
    ops_on_device.run_all("layers", *draw(rng, LENGTHS[0]).values())


def kind(*shape, dtype=DType.float32, place=HOST) -> TensorType:
    """Describe a graph's input."""
    return TensorType(dtype, shape, place)


X, W = kind("n", 16, "l"), kind(4, 8, 3)
HALF = kind("n", 16, "l", dtype=DType.float16)
DEPTHWISE = kind(16, 4)

BAD_LAYERS = [
    ("conv1d", [X, W], {}, ShapeError, r"weight has 8 input .*but input has 16 .*\(4, 8, 3\) and \(n, 16, l\)"),
    ("conv1d", [X, W], {"groups": 3}, ShapeError, "weight has 8 input channels per group, but input has 16"),
    ("conv1d", [X, W], {"groups": 0}, ArgumentError, "groups must be an integer >= 1, got 0"),
    ("conv1d", [X, W], {"groups": 2, "stride": 0}, ArgumentError, "stride must be"),
    ("conv1d", [X, W], {"groups": 2, "padding": "same", "stride": 2}, ArgumentError, "padding='same' needs stride=1"),
    ("conv1d", [X, W], {"groups": 2, "activation": "tanh"}, ArgumentError, "activation must be one of"),
    ("conv1d", [X, kind(5, 8, 3)], {"groups": 2}, ShapeError, "5 output channels, which groups=2 does not divide"),
    ("conv1d", [X, kind("o", 8, "k"), kind(5)], {"groups": 2}, ShapeError, "o output channels, which groups=2"),
    ("conv1d", [X, W, kind(5)], {"groups": 2}, ShapeError, r"bias has shape \(5,\), but \(4,\) is expected"),
    ("conv1d", [X, W, kind(4, 1)], {"groups": 2}, ShapeError, r"bias has shape \(4, 1\)"),
    ("conv1d", [kind("n", "c", 2), W], {"groups": 2}, ShapeError, r"window of 3 samples .* \(input \(n, c, 2\)"),
    ("conv1d", [kind(2, "n", 16, "l"), W], {}, ShapeError, r"input has shape \(2, n, 16, l\)"),
    ("conv1d", [X, kind(4, 8)], {"groups": 2}, ShapeError, r"weight has shape \(4, 8\), but three dimensions"),
    ("conv1d", [kind("n"), kind("k")], {"stride": 2}, ArgumentError, "vectors take no other argument than padding"),
    ("conv1d", [HALF, W], {"groups": 2}, DtypeError, "weight is float32, but x is float16"),
    ("conv1d", [kind(1, 2, 3, dtype=DType.int32), W], {}, DtypeError, "x has elements of type int32"),
    ("conv1d", [X, kind(4, 8, 3, place=DeviceRef.GPU())], {"groups": 2}, DeviceError, "x is on cpu:0, but weight"),
    ("conv_transpose1d", [X, W], {}, ShapeError, r"weight has 4 input channels, but input has 16; .*\(n, 16, l\)"),
    ("conv_transpose1d", [X, kind(16, 2, 3), kind(4)], {}, ShapeError, r"bias has shape \(4,\), but \(2,\)"),
    ("conv_transpose1d", [X, kind(16, 2, 3)], {"output_padding": 1}, ArgumentError, "output_padding must be smaller"),
    ("conv_transpose1d", [kind(16, 3), kind(16, 2, 3)], {"padding": 4}, ShapeError, "output would have -3 samples"),
    ("causal_conv1d", [X, kind(8, 4)], {}, ShapeError, r"weight has shape \(8, 4\), but \(C, K\) = \(16, at least 1\)"),
    ("causal_conv1d", [X, kind(16, 4, dtype=DType.float64)], {}, DtypeError, "weight is float64, but x is float32"),
    ("causal_conv1d", [X, DEPTHWISE, kind(3)], {}, ShapeError, r"bias has shape \(3,\), but \(16,\) is expected"),
    ("causal_conv1d", [X, DEPTHWISE], {"activation": 1}, ArgumentError, "activation must be one of"),
    ("causal_conv1d", [kind(1, 2), DEPTHWISE], {}, ShapeError, r"x of shape \(1, 2\)"),
    ("causal_conv1d", [X, DEPTHWISE], {"precision": "slow"}, ArgumentError, "precision must be None or 'fast', got 's"),
    ("conv1d", [X, W], {"groups": 2, "precision": 1}, ArgumentError, "precision must be None or 'fast', got 1"),
]  # fmt: skip

BAD_HISTORIES = [
    ("initial_state", kind("n", 16, 4), {}, ShapeError, r"initial_state has shape \(n, 16, 4\), but \(n, 16, 3\)"),
    ("initial_state", kind(16, 3), {}, ShapeError, r"initial_state has shape \(16, 3\)"),
    ("initial_state", kind("n", 16, 3, dtype=DType.float64), {}, DtypeError, "initial_state is float64, but x is"),
    ("seq_idx", kind("n", 7), {"return_final_state": True}, ArgumentError, "takes no initial_state and gives no final"),
    ("seq_idx", kind("n", "l"), {}, DtypeError, "seq_idx has elements of type float32; expected integers"),
    ("seq_idx", kind("n", 16, "l", dtype=DType.int64), {}, ShapeError, r"seq_idx has shape \(n, 16, l\), but \(n, l\)"),
]


@pytest.mark.parametrize(("name", "types", "options", "error", "text"), BAD_LAYERS)
def test_bad_layers_are_refused_while_the_graph_is_built(name, types, options, error, text):
    """Shapes known in part, types and options that do not fit raise the eager functions' errors, dimensions by name."""
    with (
        pytest.raises(error, match=f"^{name}: .*{text}"),
        Graph("bad", input_types=types, custom_extensions=[]) as graph,
    ):
        graph.output(getattr(maxconv.graph, name)(*graph.inputs, **options))


@pytest.mark.parametrize(("argument", "history", "options", "error", "text"), BAD_HISTORIES)
def test_bad_histories_are_refused_while_the_graph_is_built(argument, history, options, error, text):
    """States and sequence numbers that do not fit raise, too."""
    with (
        pytest.raises(error, match=f"^causal_conv1d: .*{text}"),
        Graph("bad", input_types=[X, DEPTHWISE, history], custom_extensions=[]) as graph,
    ):
        maxconv.graph.causal_conv1d(*graph.inputs[:2], **{argument: graph.inputs[2]}, **options)


BAD_MODULES = [
    (lambda: maxconv.nn.Conv1d(6, 4, 3, groups=4), "Conv1d: in_channels=6 is not divisible by groups=4"),
    (lambda: maxconv.nn.Conv1d(6, 4, 3, groups=3), "Conv1d: out_channels=4 is not divisible by groups=3"),
    (lambda: maxconv.nn.Conv1d(6, 4, 3, padding="full"), "Conv1d: padding must be"),
    (lambda: maxconv.nn.Conv1d(6, 4, 0), "Conv1d: kernel_size must be an integer >= 1, got 0"),
    (lambda: maxconv.nn.Conv1d(6, 4, 3, padding_mode="wrap"), "Conv1d: padding_mode must be 'zeros', got 'wrap'"),
    (lambda: maxconv.nn.ConvTranspose1d(6, 4, (3, 3)), "ConvTranspose1d: kernel_size must be one integer"),
    (lambda: maxconv.nn.ConvTranspose1d(6, 4, 3, 0), "ConvTranspose1d: stride must be an integer >= 1, got 0"),
    (lambda: maxconv.nn.CausalConv1d(0, 4), "CausalConv1d: in_channels must be an integer >= 1, got 0"),
    (lambda: maxconv.nn.CausalConv1d(4, 4, activation="tanh"), "CausalConv1d: activation must be"),
    (lambda: maxconv.nn.CausalConv1d(4, 4, precision="slow"), "CausalConv1d: precision must be None or 'fast'"),
    (lambda: maxconv.nn.Conv1d(6, 4, 3, precision="slow"), "Conv1d: precision must be None or 'fast', got 'slow'"),
]


@pytest.mark.parametrize(("make", "text"), BAD_MODULES)
def test_bad_modules_are_refused_when_they_are_made(make, text):
    """Arguments of modules that no weight could fit raise at once."""
    with pytest.raises(ArgumentError, match=text):
        make()


def test_modules_have_pytorchs_weights():
    """Names and shapes of the weights are those of PyTorch's modules; a wrong shape is refused."""
    net = raw_ops.Net(HOST)
    shapes = {name: tuple(map(int, weight.shape)) for name, weight in net.raw_state_dict().items()}
    assert shapes == raw_ops.NET_SHAPES
    with pytest.raises(ValueError, match=r"stem\.weight"):
        net.load_state_dict({name: np.zeros((1, *shape), np.float32) for name, shape in shapes.items()})


def test_modules_load_from_pytorch():
    """The state dicts of PyTorch's modules load as they are."""
    torch = pytest.importorskip("torch")
    pairs = [
        (torch.nn.Conv1d(6, 8, 5, 2, 3, 1, 2), maxconv.nn.Conv1d(6, 8, 5, 2, 3, 1, 2)),
        (torch.nn.ConvTranspose1d(8, 4, 4, 2, 1, 1, 2, False), maxconv.nn.ConvTranspose1d(8, 4, 4, 2, 1, 1, 2, False)),
        (torch.nn.Conv1d(4, 4, 4, groups=4), maxconv.nn.CausalConv1d(4, 4)),
    ]
    for theirs, ours in pairs:
        ours.load_state_dict(theirs.state_dict())


def test_modules_give_pytorchs_outputs(ops_on_device, rng):
    """A model of `maxconv.nn` is PyTorch's modules with the same state dict, in float64 to float32's rounding."""
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential()
    net.add_module("stem", torch.nn.Conv1d(6, 8, 5, 2, 3, 1, 2))
    net.add_module("relu", torch.nn.ReLU())
    net.add_module("up", torch.nn.ConvTranspose1d(8, 4, 4, 2, 1, 1, 2, False))
    net.add_module("mix", torch.nn.Conv1d(4, 4, 4, padding=3, groups=4))
    net.add_module("silu", torch.nn.SiLU())
    net.load_state_dict({name: torch.from_numpy(weight) for name, weight in ops_on_device.net_state.items()})
    inputs = draw(rng, LENGTHS[0])
    actual = ops_on_device.run_all("layers", *inputs.values())[-1]
    exact = net.double()(torch.from_numpy(inputs["x"]).double()).detach().numpy()[..., :-3]  # causal: no output ahead
    roundings = 15 + 16 + 4
    assert np.abs(actual - exact).max() <= roundings * np.finfo(np.float32).eps * np.abs(exact).max()


@pytest.mark.parametrize("job", [("causal_steps.py", "24", "20"), ("hubert_features.py", "32", "4000")])
def test_examples_succeed(job):
    """The examples, made small, find that their networks are right."""
    done = subprocess.run([sys.executable, EXAMPLES / job[0], *job[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
