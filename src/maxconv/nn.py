"""maxconv in MAX models: `max.nn` modules whose weights have PyTorch's names and layouts.

A PyTorch state dict loads unchanged. Build the graph with ``custom_extensions=[maxconv.kernels_path()]``.
"""

from __future__ import annotations

from typing import Any, Literal

from max.dtype import DType
from max.graph import DeviceRef, TensorValue, Weight
from max.nn import Module

from . import _layer, graph
from ._errors import ArgumentError
from ._problem import integer

__all__ = ["CausalConv1d", "Conv1d", "ConvTranspose1d"]


class Conv1d(Module):
    """A convolutional layer with the arguments and weights of `torch.nn.Conv1d`.

    Parameters
    ----------
    in_channels, out_channels : int
        C and O, the channels of input and output.
    kernel_size : int or tuple of one int
        K, the taps of a filter.
    stride, padding, dilation, groups
        As for `maxconv.graph.conv1d`.
    bias : bool
        Whether each output channel has a bias.
    padding_mode : {"zeros"}
        What stands outside the signals.
    device : max.graph.DeviceRef, optional
        Where the weights are; the CPU if not given.
    dtype : max.dtype.DType, optional
        Of weights and signals; float32 if not given.
    activation : {None, "relu", "gelu", "silu", "swish"}
        Applied to the sums before they are rounded.
    precision : {None, "fast"}
        As for `maxconv.conv1d`.

    Attributes
    ----------
    weight : max.graph.Weight
        Shape (O, C/groups, K).
    bias : max.graph.Weight or None
        Shape (O).

    Raises
    ------
    ArgumentError
        If sizes are not positive integers, `groups` does not divide the channels, or an option is none of the above.

    Examples
    --------
    >>> import numpy as np
    >>> import maxconv
    >>> layer = maxconv.nn.Conv1d(16, 33, 3, stride=2)
    >>> layer.load_state_dict({"weight": np.zeros((33, 16, 3), np.float32), "bias": np.zeros(33, np.float32)})
    >>> {name: list(map(int, weight.shape)) for name, weight in layer.raw_state_dict().items()}
    {'weight': [33, 16, 3], 'bias': [33]}
    """

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
        padding_mode: str = "zeros",
        device: DeviceRef | None = None,
        dtype: DType | None = None,
        *,
        activation: str | None = None,
        precision: Literal["fast"] | None = None,
    ) -> None:
        super().__init__()
        taps, groups = _check_sizes("Conv1d", in_channels, out_channels, kernel_size, groups, padding_mode)
        _layer.activation_code("Conv1d", activation)
        _layer.is_fast("Conv1d", precision)
        stride = _layer.single("Conv1d", "stride", stride, 1)
        dilation = _layer.single("Conv1d", "dilation", dilation, 1)
        _layer.paddings("Conv1d", padding, stride, dilation * (taps - 1))
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.activation, self.precision = activation, precision
        self.weight = _weight("weight", (out_channels, in_channels // groups, taps), device, dtype)
        self.bias = _weight("bias", (out_channels,), device, dtype) if bias else None

    def __call__(self, x: TensorValue) -> TensorValue:
        """Apply the layer to signals (N, C, L) or (C, L)."""
        options = self.stride, self.padding, self.dilation, self.groups
        return graph.conv1d(x, self.weight, self.bias, *options, activation=self.activation, precision=self.precision)


class ConvTranspose1d(Module):
    """A transposed convolutional layer with the arguments and weights of `torch.nn.ConvTranspose1d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, bias, padding_mode, device, dtype, activation
        As for `Conv1d`.
    stride, padding, output_padding, groups, dilation
        As for `maxconv.graph.conv_transpose1d`.

    Attributes
    ----------
    weight : max.graph.Weight
        Shape (C, O/groups, K).
    bias : max.graph.Weight or None
        Shape (O).

    Raises
    ------
    ArgumentError
        As for `Conv1d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,  # noqa: FBT002  # PyTorch's order
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: DeviceRef | None = None,
        dtype: DType | None = None,
        *,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        name = "ConvTranspose1d"
        taps, groups = _check_sizes(name, in_channels, out_channels, kernel_size, groups, padding_mode)
        _layer.activation_code(name, activation)
        self.stride = _layer.single(name, "stride", stride, 1)
        self.padding = _layer.single(name, "padding", padding, 0)
        self.output_padding = _layer.single(name, "output_padding", output_padding, 0)
        self.dilation = _layer.single(name, "dilation", dilation, 1)
        self.groups, self.activation = groups, activation
        self.weight = _weight("weight", (in_channels, out_channels // groups, taps), device, dtype)
        self.bias = _weight("bias", (out_channels,), device, dtype) if bias else None

    def __call__(self, x: TensorValue) -> TensorValue:
        """Apply the layer to signals (N, C, L) or (C, L)."""
        options = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return graph.conv_transpose1d(x, self.weight, self.bias, *options, activation=self.activation)


class CausalConv1d(Module):
    """A causal layer of one filter a channel, as Mamba has it: the weights are those of its `torch.nn.Conv1d`.

    Parameters
    ----------
    channels : int
        C, the channels of input and output.
    kernel_size : int or tuple of one int
        K, the taps of a filter.
    bias, device, dtype, activation, precision
        As for `Conv1d`.

    Attributes
    ----------
    weight : max.graph.Weight
        Shape (C, 1, K): that of ``torch.nn.Conv1d(C, C, K, groups=C)``.
    bias : max.graph.Weight or None
        Shape (C).

    Raises
    ------
    ArgumentError
        As for `Conv1d`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Any,
        bias: bool = True,  # noqa: FBT002  # PyTorch's order
        device: DeviceRef | None = None,
        dtype: DType | None = None,
        *,
        activation: str | None = None,
        precision: Literal["fast"] | None = None,
    ) -> None:
        super().__init__()
        taps, _ = _check_sizes("CausalConv1d", channels, channels, kernel_size, 1, "zeros")
        _layer.activation_code("CausalConv1d", activation)
        _layer.is_fast("CausalConv1d", precision)
        self.activation, self.precision = activation, precision
        self.weight = _weight("weight", (channels, 1, taps), device, dtype)
        self.bias = _weight("bias", (channels,), device, dtype) if bias else None

    def __call__(
        self,
        x: TensorValue,
        *,
        initial_state: TensorValue | None = None,
        return_final_state: bool = False,
        seq_idx: TensorValue | None = None,
    ) -> Any:
        """Apply the layer as `maxconv.graph.causal_conv1d` does."""
        channels, _, taps = self.weight.shape
        return graph.causal_conv1d(
            x,
            self.weight.reshape((channels, taps)),
            self.bias,
            activation=self.activation,
            initial_state=initial_state,
            return_final_state=return_final_state,
            seq_idx=seq_idx,
            precision=self.precision,
        )


def _check_sizes(
    layer: str, in_channels: Any, out_channels: Any, kernel_size: Any, groups: Any, padding_mode: str
) -> tuple[int, int]:
    """Check the arguments that the shapes of weights follow from; return taps and groups."""
    groups = integer(layer, "groups", groups, 1)
    for argument, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if integer(layer, argument, value, 1) % groups:
            message = f"{layer}: {argument}={value} is not divisible by groups={groups}"
            raise ArgumentError(message)
    if padding_mode != "zeros":
        message = f"{layer}: padding_mode must be 'zeros', got {padding_mode!r}"
        raise ArgumentError(message)
    return _layer.single(layer, "kernel_size", kernel_size, 1), groups


def _weight(name: str, shape: tuple[int, ...], device: DeviceRef | None, dtype: DType | None) -> Weight:
    return Weight(name, dtype or DType.float32, shape, device or DeviceRef.CPU())
