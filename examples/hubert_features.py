"""The network of `hubert.py` as one MAX graph, beside the same by `maxconv`'s eager functions in float64.

Run it with `uv run python examples/hubert_features.py [channels] [samples]`; HuBERT has 512 channels.
"""

from __future__ import annotations

import sys

import numpy as np
from hubert import EPSILON, GROUPS, LAYERS, POSITIONS, Features
from max.driver import CPU
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType

from maxconv import causal_conv1d, conv1d, kernels_path

TOLERANCE = 1e-4  # eight layers of float32, relative to the largest feature


def evaluate(x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """Evaluate the network eagerly; a causal layer of one tap, which is 1, applies the activation alone."""
    one = np.ones((w["norm.bias"].size, 1))
    for i, (_, stride) in enumerate(LAYERS):
        x = conv1d(x, w[f"convs.{i}.weight"], stride=stride)
        if i == 0:
            normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
            x = normal * w["norm.weight"][:, np.newaxis] + w["norm.bias"][:, np.newaxis]
        x = causal_conv1d(x, one, activation="gelu")
    y = conv1d(x, w["positions.weight"], w["positions.bias"], padding=POSITIONS // 2, groups=GROUPS)
    return np.asarray(x + causal_conv1d(y, one, activation="gelu")[..., :-1])


def main(channels: int = 512, samples: int = 16000) -> int:
    """Compare; the exit status says whether both agree."""
    rng, network = np.random.default_rng(), Features(channels)
    state = {}
    for name, weight in network.raw_state_dict().items():  # random, but they keep the scale of their input
        shape = tuple(map(int, weight.shape))
        state[name] = np.float32(rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])))
    network.load_state_dict(state)
    sound = TensorType(DType.float32, ("batch", 1, "samples"), DeviceRef.CPU())  # of any length
    with Graph("hubert_features", input_types=[sound], custom_extensions=[kernels_path()]) as graph:
        graph.output(network(graph.inputs[0].tensor))
    model = InferenceSession(devices=[CPU()]).load(graph, weights_registry=network.state_dict())
    x = rng.standard_normal((1, 1, samples)).astype(np.float32)
    y = np.asarray(np.from_dlpack(model.execute(x)[0]))
    exact = evaluate(x.astype(np.float64), {name: weight.astype(np.float64) for name, weight in state.items()})
    error = float(np.abs(y - exact).max() / np.abs(exact).max())
    print(f"{y.shape[-1]} features of {channels} channels; largest error from float64: {error:.1e}")
    return 0 if error < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
