"""The front of HuBERT and wav2vec 2.0 as modules of `maxconv.nn`: 7 strided layers, then the positional one.

PyTorch's weights load by their names. `hubert_features.py` compiles the network and compares it.
"""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, TensorValue, Weight, ops
from max.nn import LayerList, Module

from maxconv.nn import Conv1d

LAYERS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # taps and stride
GROUPS, POSITIONS = 16, 128
EPSILON = 1e-5


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
        sizes = [(channels if i else 1, channels, *layer) for i, layer in enumerate(LAYERS)]
        # GELU is fused into the layers; behind the first one the norm comes in between.
        activations = [None, *["gelu"] * 6]
        self.convs = LayerList(
            [Conv1d(*size, bias=False, activation=name) for size, name in zip(sizes, activations, strict=True)]
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
