"""A Mamba-style causal block: a prompt at once, then token by token with a rolling state, equal to the full pass.

Run it with `uv run python examples/causal_steps.py [channels] [tokens]`.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

import maxconv

TAPS = 4


class Block(NamedTuple):
    """Weights in the layout of Mamba's `in_proj`, `conv1d` and `out_proj`."""

    in_proj: np.ndarray  # (2C, C)
    weight: np.ndarray  # (C, K)
    bias: np.ndarray  # (C)
    out_proj: np.ndarray  # (C, C)

    def enter(self, tokens: np.ndarray) -> Any:
        """Project tokens (N, C, L) to what is convolved and to the gate."""
        return np.split(np.einsum("oc,ncl->nol", self.in_proj, tokens), 2, axis=1)

    def leave(self, y: Any, gate: np.ndarray) -> Any:
        """Gate and project back."""
        return np.einsum("oc,ncl->nol", self.out_proj, y * gate / (1 + np.exp(-gate)))

    def prefill(self, tokens: np.ndarray) -> tuple[Any, Any]:
        """Take a prompt at once; return its outputs and the state for what follows."""
        x, gate = self.enter(tokens)
        y, state = maxconv.causal_conv1d(x, self.weight, self.bias, activation="silu", return_final_state=True)
        return self.leave(y, gate), state

    def step(self, token: np.ndarray, state: Any) -> tuple[Any, Any]:
        """Take the next token (N, C, 1)."""
        x, gate = self.enter(token)
        y, state = maxconv.causal_conv1d_update(x, state, self.weight, self.bias, activation="silu")
        return self.leave(y, gate), state


def random_block(rng: np.random.Generator, channels: int) -> Block:
    """Draw weights that keep the scale of their input."""

    def draw(*shape: int) -> np.ndarray:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(shape[-1]), np.float32)

    return Block(draw(2 * channels, channels), draw(channels, TAPS), draw(channels), draw(channels, channels))


def main(channels: int = 256, tokens: int = 64) -> int:
    """Compare; the exit status says whether the steps are the full pass."""
    rng = np.random.default_rng()
    block = random_block(rng, channels)
    sequence = rng.standard_normal((2, channels, tokens)).astype(np.float32)
    full, _ = block.prefill(sequence)
    prompt = tokens // 2
    outputs, state = block.prefill(sequence[..., :prompt])
    pieces = [outputs]
    for i in range(prompt, tokens):
        output, state = block.step(sequence[..., i : i + 1], state)
        pieces.append(output)
    error = float(np.abs(np.concatenate(pieces, axis=-1) - full).max())
    print(f"{prompt} tokens at once, {tokens - prompt} one by one: largest difference from the full pass {error:.1e}")
    return 0 if error < 1e-5 * float(np.abs(full).max()) else 1


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
