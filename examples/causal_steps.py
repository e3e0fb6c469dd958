"""A Mamba-style causal block: a prompt at once, then token by token with a rolling state, equal to the full pass.

Run it with `uv run python examples/causal_steps.py [channels] [tokens]`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import maxconv

TAPS = 4


def draw_weights(rng: np.random.Generator, channels: int) -> list[np.ndarray]:
    """Draw Mamba's `in_proj`, the weights and biases of its `conv1d`, and `out_proj`, which keep the scale of input."""
    shapes = (2 * channels, channels), (channels, TAPS), (channels,), (channels, channels)
    return [np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), np.float32) for shape in shapes]


def run(tokens: np.ndarray, weights: list[np.ndarray], state: Any = None) -> tuple[Any, Any]:
    """Take tokens (N, C, L) through the block; return its outputs, and the state for what follows."""
    in_proj, weight, bias, out_proj = weights
    x, gate = np.split(np.einsum("oc,ncl->nol", in_proj, tokens), 2, axis=1)
    if state is None:  # a prompt
        y, state = maxconv.causal_conv1d(x, weight, bias, activation="silu", return_final_state=True)
    else:
        y, state = maxconv.causal_conv1d_update(x, state, weight, bias, activation="silu")
    return np.einsum("oc,ncl->nol", out_proj, y * gate / (1 + np.exp(-gate))), state


def main(channels: int = 256, tokens: int = 64) -> int:
    """Compare; the exit status says whether the steps are the full pass."""
    rng = np.random.default_rng()
    weights = draw_weights(rng, channels)
    sequence = rng.standard_normal((2, channels, tokens)).astype(np.float32)
    full, _ = run(sequence, weights)
    prompt = tokens // 2
    outputs, state = run(sequence[..., :prompt], weights)
    pieces = [outputs]
    for i in range(prompt, tokens):
        output, state = run(sequence[..., i : i + 1], weights, state)
        pieces.append(output)
    error = float(np.abs(np.concatenate(pieces, axis=-1) - full).max())
    print(f"{prompt} tokens at once, {tokens - prompt} one by one: largest difference from the full pass {error:.1e}")
    return 0 if error < 1e-5 * float(np.abs(full).max()) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
