"""What a layer is: one convolution of neural networks as sizes and shifts, and every check that needs no device.

The arguments are PyTorch's. Below the doors there are x (N, C, L), w (O, C/G, K) and y (N, O, L_out), tied by the terms
`x[n, c, i*stride + j*dilation - pad_left] * w[o, c % (C/G), j]` of `y[n, o, i]`; terms outside `x` are left out.
A transposed convolution is the same problem with its input in the place of y and its output in the place of x.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from ._errors import ArgumentError, DeviceError, DtypeError, ShapeError
from ._problem import integer

#: Element types that layers are made of.
DTYPES = ("float16", "bfloat16", "float32", "float64")

#: Activation -> its constant in _ops/shared/epilogue.mojo.
ACTIVATIONS = {None: 0, "relu": 1, "gelu": 2, "silu": 3, "swish": 3}


_names: dict[Any, str] = {}


class LayerProblem(NamedTuple):
    """One layer, in elements: the fields of _ops/shared/layer_geometry.mojo in its order."""

    batch: int
    """N, how many signals."""
    in_channels: int
    """C, the channels of x."""
    out_channels: int
    """O, the channels of y."""
    groups: int
    """G, a divisor of C and O: channels of one group meet one another alone."""
    length: int
    """L, the samples of a channel of x."""
    outputs: int
    """L_out, the samples of a channel of y."""
    taps: int
    """K, the taps of a filter."""
    stride: int
    """From the window of one output to the next."""
    dilation: int
    """From one tap of a window to the next."""
    pad_left: int
    """How many positions before `x[0]` the first window starts."""

    @property
    def has_one_filter_each(self) -> bool:
        """Whether every channel has one filter, and its own: then any of the three sums has the form of the others."""
        return self.groups == self.in_channels == self.out_channels

    @property
    def is_causal(self) -> bool:
        """Whether outputs are as many as samples, and each sees its own sample last, at stride and dilation 1."""
        return self.pad_left == self.taps - 1 and self.outputs == self.length

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of x."""
        return (self.batch, self.in_channels, self.length)

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        """The shape of w."""
        return (self.out_channels, self.in_channels // self.groups, self.taps)

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """The shape of y."""
        return (self.batch, self.out_channels, self.outputs)


def convolution(
    function: str,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> LayerProblem:
    """Check the arguments of `conv1d` and translate them.

    Examples
    --------
    >>> convolution("conv1d", (1, 80, 3000), (384, 80, 3), (384,), 2, 1, 1, 1).outputs
    1500
    >>> convolution("conv1d", (1, 8, 100), (8, 1, 4), None, 1, "same", 1, 8).pad_left  # the odd one on the right
    1
    """
    batch, channels, length = _signal_shape(function, input_shape)
    out_channels, group_in, taps = _weight_shape(function, weight_shape)
    groups = integer(function, "groups", groups, 1)
    if channels % groups or channels // groups != group_in:
        per_group = f" ({channels // groups} per group)" if channels % groups == 0 else ""
        message = (
            f"{function}: weight has {group_in} input channels per group, but input has {channels} channels "
            f"and groups={groups}{per_group}; shapes {tuple(weight_shape)} and {tuple(input_shape)}"
        )
        raise ShapeError(message)
    if out_channels % groups:
        message = f"{function}: weight has {out_channels} output channels, which groups={groups} does not divide"
        raise ShapeError(message)
    _check_bias(function, bias_shape, out_channels)
    stride, dilation = single(function, "stride", stride, 1), single(function, "dilation", dilation, 1)
    pad_left, pad_right = paddings(function, padding, stride, dilation * (taps - 1))
    room = length + pad_left + pad_right - dilation * (taps - 1) - 1
    if room < 0:
        message = (
            f"{function}: a window of {dilation * (taps - 1) + 1} samples (weight {tuple(weight_shape)}, "
            f"dilation={dilation}) does not fit into the padded input of {length + pad_left + pad_right} samples "
            f"(input {tuple(input_shape)}, padding {pad_left} and {pad_right})"
        )
        raise ShapeError(message)
    sizes = batch, channels, out_channels, groups, length, room // stride + 1
    return LayerProblem(*sizes, taps, stride, dilation, pad_left)


def known_convolution(
    function: str,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    *options: Any,
) -> LayerProblem:
    """Do as `convolution`; a model's layers come again and again, and those of plain numbers are remembered."""
    stride, padding, dilation, groups = options
    numbers = stride, dilation, groups, *(padding if type(padding) is tuple else (padding,))
    if {int}.issuperset(map(type, numbers)):  # what is no int may be equal to one and still be refused
        return _known_convolution(function, input_shape, weight_shape, bias_shape, *options)
    return convolution(function, input_shape, weight_shape, bias_shape, *options)


_known_convolution = lru_cache(maxsize=1024)(convolution)


def transposed_convolution(
    function: str,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: Any,
    dilation: Any,
) -> LayerProblem:
    """Check the arguments of `conv_transpose1d` and translate them: the input is y, the output x.

    Examples
    --------
    >>> transposed_convolution("conv_transpose1d", (1, 512, 100), (512, 256, 16), None, 8, 4, 0, 1, 1).input_shape
    (1, 256, 800)
    """
    batch, channels, outputs = _signal_shape(function, input_shape)
    in_channels, group_out, taps = _weight_shape(function, weight_shape)
    groups = integer(function, "groups", groups, 1)
    if in_channels != channels:
        message = (
            f"{function}: weight has {in_channels} input channels, but input has {channels}; "
            f"shapes {tuple(weight_shape)} and {tuple(input_shape)}"
        )
        raise ShapeError(message)
    if channels % groups:
        message = f"{function}: input has {channels} channels, which groups={groups} does not divide"
        raise ShapeError(message)
    _check_bias(function, bias_shape, group_out * groups)
    stride, dilation = single(function, "stride", stride, 1), single(function, "dilation", dilation, 1)
    padding = single(function, "padding", padding, 0)
    output_padding = single(function, "output_padding", output_padding, 0)
    if output_padding >= max(stride, dilation):
        message = (
            f"{function}: output_padding must be smaller than stride or dilation, "
            f"got output_padding={output_padding}, stride={stride} and dilation={dilation}"
        )
        raise ArgumentError(message)
    length = (outputs - 1) * stride - 2 * padding + dilation * (taps - 1) + output_padding + 1
    if outputs < 1 or length < 0:
        message = (
            f"{function}: the output would have {length} samples (input {tuple(input_shape)}, weight "
            f"{tuple(weight_shape)}, stride={stride}, padding={padding}, output_padding={output_padding}, "
            f"dilation={dilation}); expected input of at least 1 sample, and output of at least 0"
        )
        raise ShapeError(message)
    sizes = batch, group_out * groups, channels, groups, length, outputs
    return LayerProblem(*sizes, taps, stride, dilation, padding)


def causal_convolution(
    function: str,
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
) -> LayerProblem:
    """Check the arguments of `causal_conv1d` and translate them: one filter a channel, no output looks ahead.

    Examples
    --------
    >>> causal_convolution("causal_conv1d", (2, 8, 100), (8, 4), (8,))[4:]
    (100, 100, 4, 1, 1, 3)
    """
    _, channels, _ = _signal_shape(function, input_shape, "x")
    if len(weight_shape) != 2 or weight_shape[0] != channels or weight_shape[1] < 1:  # noqa: PLR2004  # (C, K)
        message = (
            f"{function}: weight has shape {tuple(weight_shape)}, but (C, K) = ({channels}, at least 1) is expected "
            f"for x of shape {tuple(input_shape)}"
        )
        raise ShapeError(message)
    _check_bias(function, bias_shape, channels)
    return causal_problem(input_shape, weight_shape[1])


def causal_problem(input_shape: tuple[int, ...], taps: int) -> LayerProblem:
    """Describe a causal layer of one filter a channel on signals (N, C, L) or (C, L)."""
    batch, channels, length = (1, *input_shape)[-3:]
    return LayerProblem(batch, channels, channels, channels, length, length, taps, 1, 1, taps - 1)


def check_one_device(function: str, devices: dict[str, Any]) -> None:
    """Refuse operands, by argument name, that are not all on one device."""
    (first, device), *others = devices.items()
    for name, other in others:
        if other != device:
            message = f"{function}: {first} is on {device}, but {name} is on {other}; all must be on one device"
            raise DeviceError(message)


def check_shape(function: str, argument: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse an array whose shape is not the one that follows from the others."""
    if tuple(shape) != expected:
        message = f"{function}: {argument} has shape {tuple(shape)}, but {expected} is expected"
        raise ShapeError(message)


def check_dtypes(function: str, operands: dict[str, Any]) -> None:
    """Refuse operands, by argument name, that are not all of one of the floating-point types."""
    kinds = {array.dtype for array in operands.values()}
    if len(kinds) == 1 and dtype_name(kinds.pop()) in DTYPES:
        return
    check_type_names(function, {name: dtype_name(array.dtype) for name, array in operands.items()})


def check_type_names(function: str, types: dict[str, str]) -> None:
    """Refuse operands, by argument name, whose element types have names that do not go together."""
    first = next(iter(types))
    for name, kind in types.items():
        if kind not in DTYPES:
            message = f"{function}: {name} has elements of type {kind}; expected one of {', '.join(DTYPES)}"
            raise DtypeError(message)
        if kind != types[first]:
            message = f"{function}: {name} is {kind}, but {first} is {types[first]}; both must have one dtype"
            raise DtypeError(message)


def check_causal_types(function: str, weight: str, x: str) -> None:
    """Refuse a causal layer whose filters have neither the type of its signals nor that of their sums."""
    if weight != x and not (weight == "float32" and x in {"float16", "bfloat16"}):
        message = (
            f"{function}: weight is {weight}, but x is {x}; expected the dtype of x, or float32 where x is of half "
            "precision"
        )
        raise DtypeError(message)


def check_no_state(function: str, initial_state: Any, return_final_state: bool) -> None:
    """Refuse a state beside the sequence numbers of the samples."""
    if initial_state is not None or return_final_state:
        message = f"{function}: seq_idx says where sequences begin, so it takes no initial_state and gives no final"
        raise ArgumentError(message)


def dtype_name(dtype: Any) -> str:
    """Name an element type; NumPy takes 1.5 us to do so, which is a tenth of a small layer."""
    name = _names.get(dtype)
    if name is None:
        name = _names[dtype] = dtype.name
    return name


def activation_code(function: str, activation: Any) -> int:
    """Translate the name of an activation into the kernels' constant."""
    if not (activation is None or isinstance(activation, str)) or activation not in ACTIVATIONS:
        listed = ", ".join(repr(name) for name in ACTIVATIONS)
        message = f"{function}: activation must be one of {listed}, got {activation!r}"
        raise ArgumentError(message)
    return ACTIVATIONS[activation]


def is_fast(function: str, precision: Any) -> bool:
    """Translate the argument `precision`."""
    if precision is None:
        return False
    if not (isinstance(precision, str) and precision == "fast"):
        message = f"{function}: precision must be None or 'fast', got {precision!r}"
        raise ArgumentError(message)
    return True


def single(function: str, argument: str, value: Any, least: int) -> int:
    """Check an argument that is an integer or, as PyTorch has it, a sequence of one."""
    if isinstance(value, (tuple, list)):
        if len(value) != 1:
            message = f"{function}: {argument} must be one integer or a sequence of one, got {value!r}"
            raise ArgumentError(message)
        value = value[0]
    return integer(function, argument, value, least)


def paddings(function: str, padding: Any, stride: int, halo: Any) -> tuple[Any, Any]:
    """Translate the argument `padding` into zeros on the left and on the right; `halo` may be a symbolic dimension."""
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0
        if padding != "same":
            message = f"{function}: padding must be an integer, a pair of them, 'same' or 'valid', got {padding!r}"
            raise ArgumentError(message)
        if stride != 1:
            message = f"{function}: padding='same' needs stride=1, got stride={stride}"
            raise ArgumentError(message)
        return halo // 2, halo - halo // 2
    if isinstance(padding, (tuple, list)) and len(padding) == 2:  # noqa: PLR2004  # left and right
        return integer(function, "padding", padding[0], 0), integer(function, "padding", padding[1], 0)
    both = single(function, "padding", padding, 0)
    return both, both


def _signal_shape(function: str, shape: tuple[int, ...], argument: str = "input") -> tuple[int, int, int]:
    """Read (N, C, L), or (C, L) as a batch of one."""
    if len(shape) not in {2, 3}:
        message = f"{function}: {argument} has shape {tuple(shape)}, but (N, C, L) or (C, L) is expected"
        raise ShapeError(message)
    batch, channels, length = (1, *shape)[-3:]
    return batch, channels, length


def _weight_shape(function: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3 or 0 in shape:  # noqa: PLR2004  # two kinds of channels, and taps
        message = f"{function}: weight has shape {tuple(shape)}, but three dimensions of at least 1 are expected"
        raise ShapeError(message)
    first, second, taps = shape
    return first, second, taps


def _check_bias(function: str, shape: tuple[int, ...] | None, channels: int) -> None:
    if shape is not None:
        check_shape(function, "bias", shape, (channels,))
