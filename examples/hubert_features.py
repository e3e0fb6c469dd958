"""The front of HuBERT and wav2vec 2.0 as one MAX graph of `maxconv.nn`: 7 strided layers, then the positional one.

Random weights in a state dict with PyTorch's layouts; the same network by `maxconv`'s eager functions in float64, and
by PyTorch where it is installed, says whether the graph is right.

Run it with `uv run python examples/hubert_features.py [channels] [samples]`; HuBERT has 512 and 768 channels.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from max.driver import CPU
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType, TensorValue, Weight, ops
from max.nn import LayerList, Module

import maxconv
from maxconv.nn import Conv1d

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
GROUPS, POSITIONS = 16, 128
EPSILON = 1e-5

TOLERANCE = 1e-4  # eight layers of float32, relative to the largest feature


class ChannelNorm(Module):
    """`torch.nn.GroupNorm` with one channel a group: each over its own time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = Weight("weight", DType.float32, (channels,), DeviceRef.CPU())
        self.bias = Weight("bias", DType.float32, (channels,), DeviceRef.CPU())

    def __call__(self, x: TensorValue) -> TensorValue:
        """Normalize (N, C, L) along L."""
        centred = x - ops.mean(x, axis=-1)
        # The weight joins the deviation first: what MAX 26.7 takes for a layer norm, with weights along L, fails.
        scale = ops.unsqueeze(self.weight, -1) * ops.rsqrt(ops.mean(centred * centred, axis=-1) + EPSILON)
        return centred * scale + ops.unsqueeze(self.bias, -1)


class Features(Module):
    """Sound (N, 1, L) to features, their positions added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sizes = zip((1, *[channels] * 6), KERNELS, STRIDES, strict=True)
        # GELU is fused into the layers; behind the first one the norm comes in between.
        self.convs = LayerList(
            [
                Conv1d(before, channels, taps, stride, bias=False, activation="gelu" if i else None)
                for i, (before, taps, stride) in enumerate(sizes)
            ]
        )
        self.norm = ChannelNorm(channels)
        self.positions = Conv1d(channels, channels, POSITIONS, padding=POSITIONS // 2, groups=GROUPS, activation="gelu")

    def __call__(self, x: TensorValue) -> TensorValue:
        """Apply the network."""
        first, *others = self.convs
        x = ops.gelu(self.norm(first(x)))
        for conv in others:
            x = conv(x)
        return x + self.positions(x)[:, :, :-1]  # an even number of taps makes one output too many


def random_state(rng: np.random.Generator, channels: int) -> dict[str, np.ndarray]:
    """Draw weights that keep the scale of their input; fold the positional layer's weight norm, as exporters do."""
    state = {}
    for i, taps in enumerate(KERNELS):
        terms = taps * (channels if i else 1)
        state[f"convs.{i}.weight"] = rng.standard_normal((channels, channels if i else 1, taps)) * np.sqrt(2 / terms)
    state["norm.weight"] = 1 + 0.1 * rng.standard_normal(channels)
    state["norm.bias"] = 0.1 * rng.standard_normal(channels)
    direction = rng.standard_normal((channels, channels // GROUPS, POSITIONS))
    length = 1 + rng.random(POSITIONS)  # torch's weight_norm(conv, dim=2): one length for each tap
    state["positions.weight"] = direction * length / np.linalg.norm(direction, axis=(0, 1))
    state["positions.bias"] = 0.1 * rng.standard_normal(channels)
    return {name: np.ascontiguousarray(weight, np.float32) for name, weight in state.items()}


def gelu(x: Any) -> Any:
    """Apply the activation by a kernel of ours: a causal layer of one tap that is 1."""
    ones = np.ones((x.shape[-2], 1), x.dtype)
    return maxconv.causal_conv1d(x, ones, activation="gelu")


def evaluate(x: Any, state: dict[str, np.ndarray], conv1d: Any) -> Any:
    """Evaluate the network in float64 with some library's `conv1d`."""
    w = {name: weight.astype(np.float64) for name, weight in state.items()}
    for i, stride in enumerate(STRIDES):
        x = conv1d(x, w[f"convs.{i}.weight"], None, stride)
        if i == 0:
            centred = x - x.mean(-1, keepdims=True)
            normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
            x = normal * w["norm.weight"][:, np.newaxis] + w["norm.bias"][:, np.newaxis]
        x = gelu(x)
    y = conv1d(x, w["positions.weight"], w["positions.bias"], 1, POSITIONS // 2, 1, GROUPS)
    return x + gelu(y)[..., :-1]


def compile_and_run(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """Load the state dict into the modules, compile one graph for sounds of any length, run it."""
    model = Features(state["positions.bias"].size)
    model.load_state_dict(state)
    sound = TensorType(DType.float32, ("batch", 1, "samples"), DeviceRef.CPU())
    with Graph("hubert_features", input_types=[sound], custom_extensions=[maxconv.kernels_path()]) as graph:
        graph.output(model(graph.inputs[0].tensor))
    session = InferenceSession(devices=[CPU()])
    (features,) = session.load(graph, weights_registry=model.state_dict()).execute(x)
    return np.asarray(np.from_dlpack(features))


def main(channels: int = 512, samples: int = 16000) -> int:
    """Compare; the exit status says whether all agree."""
    rng = np.random.default_rng()
    state, x = random_state(rng, channels), rng.standard_normal((1, 1, samples)).astype(np.float32)
    y = compile_and_run(x, state)
    peers: dict[str, Any] = {"maxconv": maxconv.conv1d}
    try:
        import torch
    except ImportError:
        pass
    else:

        def torch_conv1d(*arguments: Any) -> np.ndarray:
            operands = (torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arguments)
            return np.asarray(torch.nn.functional.conv1d(*operands))

        peers["torch"] = torch_conv1d
    errors = []
    for name, conv1d in peers.items():
        exact = evaluate(x.astype(np.float64), state, conv1d)
        errors.append(float(np.abs(y - exact).max() / np.abs(exact).max()))
        print(f"{y.shape[-1]} features of {channels} channels; largest error from {name} in float64: {errors[-1]:.1e}")
    return 0 if max(errors) < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
