"""The modules of `maxconv.torch` are PyTorch's in all but the sums, in models that people ship and in training."""

from __future__ import annotations

import copy
import pickle
from math import pi

import pytest

torch = pytest.importorskip("torch")
mt = pytest.importorskip("maxconv.torch")

from maxconv._engine import tensors  # noqa: E402  # behind the skips
from maxconv.torch import _modules, _short  # noqa: E402

nn = torch.nn

CONVOLUTIONS = [
    {"in_channels": 4, "out_channels": 6, "kernel_size": 3},
    {"in_channels": 4, "out_channels": 6, "kernel_size": (3,), "stride": 2, "padding": 2, "dilation": 3, "groups": 2},
    {"in_channels": 4, "out_channels": 4, "kernel_size": 4, "padding": "same", "groups": 4, "bias": False},
    {"in_channels": 4, "out_channels": 6, "kernel_size": 5, "padding": 3, "padding_mode": "circular"},
    {"in_channels": 4, "out_channels": 6, "kernel_size": 4, "padding": "same", "padding_mode": "reflect"},
    {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1, "dtype": torch.float64},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # PyTorch copies, we do not
@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_a_module_is_pytorchs(arguments):
    """With the same arguments and seed: the same representation, parameters, state dict and outputs."""
    torch.manual_seed(7)
    theirs = nn.Conv1d(**arguments)
    torch.manual_seed(7)
    ours = mt.Conv1d(**arguments)
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, nn.Conv1d)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    x = torch.randn(2, 4, 31, dtype=arguments.get("dtype"))
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours(x[0]), theirs(x[0]))
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):  # noqa: S301  # our own bytes
        assert torch.equal(other(x), ours(x))


def test_a_transposed_module_is_pytorchs():
    """So is `ConvTranspose1d`, with a wanted output size, too."""
    torch.manual_seed(7)
    theirs = nn.ConvTranspose1d(8, 4, 5, stride=3, padding=1, groups=2, dilation=2)
    torch.manual_seed(7)
    ours = mt.ConvTranspose1d(8, 4, 5, stride=3, padding=1, groups=2, dilation=2)
    assert repr(ours) == repr(theirs)
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    x = torch.randn(2, 8, 31)
    torch.testing.assert_close(ours(x), theirs(x))
    length = ours(x).shape[-1] + 2
    torch.testing.assert_close(ours(x, [length]), theirs(x, [length]))
    with pytest.raises(ValueError, match="requested an output size"):
        ours(x, [length + 5])


def test_a_causal_module_takes_mambas_weights():
    """`CausalConv1d` loads the state dict of Mamba's `torch.nn.Conv1d` and gives what Mamba computes with it."""
    theirs = nn.Conv1d(16, 16, 4, groups=16, padding=3)
    ours = mt.CausalConv1d(16, 4, activation="silu")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 16, 50)
    torch.testing.assert_close(ours(x), nn.functional.silu(theirs(x)[..., :50]))
    first, state = ours(x[..., :20], return_final_state=True)
    assert torch.equal(torch.cat([first, ours(x[..., 20:], initial_state=state)], -1), ours(x))


def test_modules_may_be_fast(monkeypatch):
    """`precision` goes from the module to what computes it, through the short way, too, and stands in the repr."""
    told = []
    compute = tensors.forward_sum

    def forward_sum(*operands, is_fast, **named):
        told.append(is_fast)
        return compute(*operands, is_fast=is_fast, **named)

    monkeypatch.setattr(tensors, "forward_sum", forward_sum)
    _short._alike.cache_clear()
    x = torch.randn(2, 8, 50)
    layers = [
        mt.CausalConv1d(8, 20, precision="fast"),
        mt.Conv1d(8, 8, 20, groups=8, precision="fast"),
        mt.Conv1d(8, 4, 3),
    ]
    for layer in layers:
        assert ("precision='fast'" in repr(layer)) == (layer.precision == "fast")
        assert all(torch.equal(layer(x), layer(x)) for _ in range(2))
    assert told == [True, True, False]
    assert torch.nn.utils.skip_init(mt.Conv1d, 8, 8, 20, precision="fast").precision == "fast"
    for copied in (copy.deepcopy(layers[0]), pickle.loads(pickle.dumps(layers[1]))):  # noqa: S301  # our own bytes
        assert copied.precision == "fast"
    swapped = nn.Sequential(nn.Conv1d(8, 8, 20, groups=8))
    mt.replace_conv1d(swapped)
    assert swapped[0].precision is None
    expected, swapped[0].precision = swapped(x), "fast"
    assert torch.equal(swapped(x), expected)
    assert told == [True, True, False, False]  # a layer like the second is remembered


def small_model(name: str):
    """Build a real architecture, small, with random weights: (model, inputs)."""
    transformers = pytest.importorskip("transformers")
    if name == "Wav2Vec2":
        sizes = {"hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
        config = transformers.Wav2Vec2Config(**sizes, conv_dim=(32,) * 7)
        return transformers.Wav2Vec2Model(config), {"input_values": torch.randn(2, 6000)}
    if name == "Whisper encoder":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        sizes = {"d_model": 64, "encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
        config = transformers.WhisperConfig(**sizes, max_source_positions=100)
        return WhisperEncoder(config), {"input_features": torch.randn(1, 80, 200)}
    config = transformers.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2)
    return transformers.MambaModel(config), {"input_ids": torch.randint(0, 50, (2, 40))}


def outputs_and_gradients(model, inputs):
    """Run a model forward and backward."""
    model.zero_grad()
    y = model(**inputs)[0]
    y.square().mean().backward()
    return [y.detach(), *[p.grad.clone() for p in model.parameters() if p.grad is not None]]


def assert_alike(after, before):
    """Compare what a model computes with what it did."""
    for new, old in zip(after, before, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-5 * max(1.0, float(old.abs().max())))


@pytest.mark.filterwarnings("ignore")  # of transformers
@pytest.mark.parametrize(("name", "count"), [("Wav2Vec2", 8), ("Whisper encoder", 2)])
def test_models_keep_their_outputs(name, count, monkeypatch):
    """With every layer swapped, Wav2Vec2 and Whisper's encoder give the outputs and gradients they gave."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, inputs = small_model(name)
    model.eval()
    before, keys = outputs_and_gradients(model, inputs), list(model.state_dict())
    report = mt.replace_conv1d(model)
    assert (len(report.swapped), report.left) == (count, {})
    assert str(report).startswith(f"swapped {count}, left 0\n")
    calls = []
    monkeypatch.setattr(_modules, "conv1d", lambda *operands, **named: calls.append(1) or mt.conv1d(*operands, **named))
    assert_alike(outputs_and_gradients(model, inputs), before)
    assert len(calls) == count
    assert list(model.state_dict()) == keys


@pytest.mark.filterwarnings("ignore")  # of transformers
def test_mamba_takes_our_function(monkeypatch):
    """Mamba gives its layers' weights to a function instead of calling them: ours stands in for that, unchanged."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, inputs = small_model("Mamba")
    from transformers.models.mamba import modeling_mamba

    before = outputs_and_gradients(model, inputs)
    assert list(mt.replace_conv1d(model).swapped) == ["layers.0.mixer.conv1d", "layers.1.mixer.conv1d"]
    calls = []

    def ours(*operands, activation):
        calls.append(1)
        return mt.causal_conv1d(*operands, activation=activation)

    monkeypatch.setattr(modeling_mamba, "causal_conv1d_fn", ours)
    assert_alike(outputs_and_gradients(model, inputs), before)
    assert len(calls) == 2


def test_swapping_keeps_what_hangs_on_a_layer():
    """Hooks, parametrizations, shared layers and optimizers go on as before."""
    shared = nn.Conv1d(4, 4, 3, padding=1)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3, padding=1))
    model = nn.Sequential(shared, normed, shared)
    calls = []
    shared.register_forward_hook(lambda *_: calls.append("hook"))
    x = torch.randn(1, 4, 20)
    expected = model(x)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    report = mt.replace_conv1d(model)
    assert list(report.swapped) == ["0", "1"]
    assert isinstance(shared, mt.Conv1d)
    assert isinstance(normed, mt.Conv1d)
    assert nn.utils.parametrize.is_parametrized(normed)
    y = model(x)
    torch.testing.assert_close(y, expected)
    assert len(calls) == 4
    y.sum().backward()
    optimizer.step()
    assert not torch.equal(model(x), y)


def test_layers_that_are_left():
    """Left, with why: what the filter refuses, someone's own classes, types without kernels, layers that are ours."""

    class Peculiar(nn.Conv1d):
        def forward(self, x):
            return super().forward(x) + 1

    model = nn.ModuleDict(
        {
            "plain": nn.Conv1d(4, 4, 3),
            "peculiar": Peculiar(4, 4, 3),
            "complex": nn.Conv1d(4, 4, 3, dtype=torch.complex64),
            "lazy": nn.LazyConv1d(4, 3),
            "up": nn.ConvTranspose1d(4, 4, 3),
            "ours": mt.Conv1d(4, 4, 3),
            "image": nn.Conv2d(4, 4, 3),
        }
    )
    report = mt.replace_conv1d(model, lambda name, layer: name != "up" and layer.stride == (1,))
    assert report.swapped == {"plain": "Conv1d(4, 4, kernel_size=(3,), stride=(1,))"}
    assert report.left == {
        "peculiar": "its class Peculiar is derived from Conv1d",
        "complex": "its weights are torch.complex64",
        "lazy": "its class LazyConv1d is derived from Conv1d",
        "up": "the filter refused it",
        "ours": "it is ours already",
    }
    again = mt.replace_conv1d(model)
    assert list(again.swapped) == ["up"]
    alone = nn.Conv1d(4, 4, 3)
    assert list(mt.replace_conv1d(alone).swapped) == [""]


def sounds(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw short sounds of four classes: rising, falling, steady and trembling tones, in noise."""
    time = torch.linspace(0, 1, 1024)
    kinds = torch.randint(0, 4, (count,))
    pitch = (20 + 60 * torch.rand(count, 1)) * time
    bend = torch.tensor([40.0, -15.0, 0.0, 0.0])[kinds, None] * time**2
    tremble = torch.where(kinds[:, None] == 3, 1 + torch.sin(2 * pi * 8 * time), torch.ones(()))
    return (torch.sin(2 * pi * (pitch + bend)) * tremble + 0.1 * torch.randn(count, 1024))[:, None], kinds


def classifier() -> nn.Module:
    """Build a network with a strided, a dilated, a depthwise and a transposed layer."""
    return nn.Sequential(
        nn.Conv1d(1, 16, 16, stride=4, padding=6),
        nn.GELU(),
        nn.Conv1d(16, 32, 5, dilation=2, padding=4),
        nn.GELU(),
        nn.Conv1d(32, 32, 7, padding=3, groups=32),
        nn.ConvTranspose1d(32, 16, 4, stride=2, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool1d(8),
        nn.Flatten(),
        nn.Linear(128, 4),
    )


def losses(model: nn.Module) -> list[float]:
    """Train 50 steps under autocast to bfloat16."""
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    curve = []
    for _ in range(50):
        x, kinds = sounds(32)
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x).float(), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


def test_training_goes_the_same_way():
    """Fifty steps in bfloat16 give PyTorch's loss curve within 1 %, and the network learns."""
    torch.manual_seed(5)
    theirs = classifier()
    ours = copy.deepcopy(theirs)
    assert len(mt.replace_conv1d(ours).swapped) == 4
    expected, actual = losses(theirs), losses(ours)
    assert sum(expected[-5:]) < 0.9 * sum(expected[:5])
    assert max(abs(one / other - 1) for one, other in zip(actual, expected, strict=True)) < 0.01
