"""Layers as modules: PyTorch's own, whose sums are ours."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.nn import functional

from ._functional import causal_conv1d, conv1d, conv_transpose1d


class Conv1d(torch.nn.Conv1d):
    """A drop-in for `torch.nn.Conv1d`: the same arguments, parameters, state dict and representation.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        As for `torch.nn.Conv1d`.
    precision : {None, "fast"}
        As for `maxconv.conv1d`; an attribute, which may be set later, too.

    Examples
    --------
    >>> import torch
    >>> import maxconv.torch
    >>> layer = maxconv.torch.Conv1d(16, 33, 3, stride=2)
    >>> layer
    Conv1d(16, 33, kernel_size=(3,), stride=(2,))
    >>> layer(torch.zeros(20, 16, 50)).shape
    torch.Size([20, 33, 24])
    """

    precision: Literal["fast"] | None = None  # of layers that were PyTorch's before

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,  # noqa: FBT002  # PyTorch's order
        padding_mode: Any = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        precision: Literal["fast"] | None = None,
    ) -> None:
        sizes = in_channels, out_channels, kernel_size, stride, padding, dilation, groups
        super().__init__(*sizes, bias, padding_mode, device, dtype)
        self.precision = precision

    def extra_repr(self) -> str:
        """Say what the layer was made of."""
        return f"{super().extra_repr()}{_name_precision(self.precision)}"

    def _conv_forward(self, input: Any, weight: Any, bias: Any) -> Any:  # noqa: A002  # PyTorch's name
        padding = self.padding
        if self.padding_mode != "zeros":
            input, padding = functional.pad(input, self._reversed_padding_repeated_twice, self.padding_mode), 0  # noqa: A001
        options = self.stride, padding, self.dilation, self.groups
        return conv1d(input, weight, bias, *options, precision=self.precision)


class ConvTranspose1d(torch.nn.ConvTranspose1d):
    """A drop-in for `torch.nn.ConvTranspose1d`: the same arguments, parameters, state dict and representation.

    Examples
    --------
    >>> import torch
    >>> import maxconv.torch
    >>> maxconv.torch.ConvTranspose1d(8, 4, 16, stride=8, padding=4)(torch.zeros(1, 8, 100)).shape
    torch.Size([1, 4, 800])
    """

    def forward(self, input: Any, output_size: Any = None) -> Any:  # noqa: A002  # PyTorch's name
        """Apply the layer; `output_size`, if given, says which of the possible lengths is wanted."""
        sizes = self.stride, self.padding, self.kernel_size
        extra = self._output_padding(input, output_size, *sizes, 1, self.dilation)
        options = self.stride, self.padding, extra, self.groups, self.dilation
        return conv_transpose1d(input, self.weight, self.bias, *options)


class CausalConv1d(torch.nn.Conv1d):
    """A causal layer of one filter a channel, as Mamba has it: its state dict is that of its `torch.nn.Conv1d`.

    Parameters
    ----------
    channels : int
        C, the channels of input and output.
    kernel_size : int or tuple of one int
        K, the taps of a filter.
    bias, device, dtype
        As for `torch.nn.Conv1d`.
    activation : {None, "silu", "swish", "relu", "gelu"}
        Applied to the sums before they are rounded.
    precision : {None, "fast"}
        As for `maxconv.causal_conv1d`; an attribute, which may be set later, too.

    Examples
    --------
    >>> import torch
    >>> import maxconv.torch
    >>> layer = maxconv.torch.CausalConv1d(8, 4, activation="silu")
    >>> layer
    CausalConv1d(8, kernel_size=(4,), activation='silu')
    >>> maxconv.torch.CausalConv1d(8, 64, precision="fast")
    CausalConv1d(8, kernel_size=(64,), precision='fast')
    >>> layer(torch.zeros(2, 8, 100)).shape
    torch.Size([2, 8, 100])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Any,
        bias: bool = True,  # noqa: FBT002  # PyTorch's order
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
        precision: Literal["fast"] | None = None,
    ) -> None:
        super().__init__(channels, channels, kernel_size, groups=channels, bias=bias, device=device, dtype=dtype)
        self.activation, self.precision = activation, precision

    def forward(
        self, x: Any, *, initial_state: Any = None, return_final_state: bool = False, seq_idx: Any = None
    ) -> Any:
        """Apply the layer as `causal_conv1d` does."""
        return causal_conv1d(
            x,
            self.weight[:, 0],
            self.bias,
            activation=self.activation,
            initial_state=initial_state,
            return_final_state=return_final_state,
            seq_idx=seq_idx,
            precision=self.precision,
        )

    def extra_repr(self) -> str:
        """Say what the layer was made of."""
        bias = "" if self.bias is not None else ", bias=False"
        activation = "" if self.activation is None else f", activation={self.activation!r}"
        precision = _name_precision(self.precision)
        return f"{self.in_channels}, kernel_size={self.kernel_size}{bias}{activation}{precision}"


def _name_precision(precision: str | None) -> str:
    return "" if precision is None else f", precision={precision!r}"
