"""maxconv inside your own MAX graphs: functions of `max.graph` values.

Build the graph with ``custom_extensions=[maxconv.kernels_path()]``. This is the only module that places our ops.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

from max.dtype import DType
from max.graph import DeviceRef, Dim, StaticDim, TensorType, TensorValue, ops

from . import _layer
from ._errors import ArgumentError, DtypeError, ShapeError
from ._problem import BORDERS, KERNEL_DTYPES, integer

__all__ = ["causal_conv1d", "conv1d", "conv_transpose1d"]

_RANK = 3
"""Of x and y in the ops of layers: (N, C, L)."""

_LONG = 1 << 40
"""A length that every window fits into and no padding exhausts."""

_numbers = itertools.count()
"""Make the names of output lengths differ: one name in a graph is one length."""


def conv1d(
    x: TensorValue,
    weight: TensorValue,
    bias: TensorValue | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    precision: Literal["fast"] | None = None,
) -> TensorValue:
    """Apply a convolutional layer, as `torch.nn.functional.conv1d` does, or correlate a vector with taps.

    ``y[n, o, i] = activation(bias[o] + sum_{c, j} x[n, c, i*stride + j*dilation - left] * weight[o, c, j])``, and of
    vectors ``y[i] = sum_j x[i + j - left] * weight[j]``; outside `x` there are zeros.

    Parameters
    ----------
    x
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64; or a vector, shape (L), of these
        or an integer type. Each dimension may be symbolic.
    weight
        Filters, shape (O, C/groups, K), or a vector of taps, shape (K), of the same dtype on the same device.
    bias
        Added to each output channel, shape (O), of the same dtype on the same device.
    stride, dilation, groups
        As for `maxconv.conv1d`.
    padding
        Zeros at either end: an int for both, ``(left, right)``, ``"valid"`` for none, ``"same"`` for
        ``dilation*(K - 1)`` in all, the odd one on the right as PyTorch has it (``1234 -> 0123400`` for K = 4).
    activation : {None, "relu", "gelu", "silu", "swish"}
        Applied to the sums before they are rounded.
    precision : {None, "fast"}
        As for `maxconv.conv1d`.

    Returns
    -------
    max.graph.TensorValue
        Shape (N, O, L_out), (O, L_out) or (L_out), an exact dimension, symbolic where it must be:
        ``L_out = (L + left + right - dilation*(K - 1) - 1) // stride + 1``.

    Raises
    ------
    ShapeError
        If ranks or dimensions do not fit together; of symbolic ones the op says so when it runs.
    ArgumentError
        If an argument is none of the above, or vectors come with another than `padding`.
    DeviceError
        If the tensors are on different devices.
    DtypeError
        If the dtypes differ or no kernel serves them.

    Notes
    -----
    The bits of `maxconv.conv1d`, but for long filters, which are summed directly here.

    Examples
    --------
    >>> from max.dtype import DType
    >>> from max.graph import DeviceRef, Graph, TensorType
    >>> import maxconv, maxconv.graph
    >>> tensor = lambda *shape: TensorType(DType.float32, shape, DeviceRef.CPU())
    >>> inputs = [tensor("n", 80, "l"), tensor(384, 80, 3), tensor(384)]
    >>> with Graph("stem", input_types=inputs, custom_extensions=[maxconv.kernels_path()]) as graph:
    ...     y = maxconv.graph.conv1d(*graph.inputs, padding=1, activation="gelu")
    ...     print(y.shape)
    ...     graph.output(y)
    [Dim('n'), Dim(384), Dim('l')]
    """
    is_fast = _layer.is_fast("conv1d", precision)
    if 1 in {x.rank, weight.rank}:
        if bias is not None or activation is not None or (stride, dilation, groups) != (1, 1, 1):
            message = "conv1d: vectors take no other argument than padding; a layer has x (N, C, L) or (C, L)"
            raise ArgumentError(message)
        return _correlate_vector(x, weight, padding)
    operands = _present(x=x, weight=weight, bias=bias)
    _layer.check_dtypes("conv1d", operands)
    _check_devices("conv1d", operands)
    code = _layer.activation_code("conv1d", activation)
    groups = integer("conv1d", "groups", groups, 1)
    channels = _size([(x, -2)], groups * _size([(weight, 1)], 1))
    filters = _size([(weight, 0), (bias, 0)], groups)
    problem = _layer.convolution(
        "conv1d",
        _stand_ins(x, 1, channels, _LONG),
        _stand_ins(weight, filters, channels // groups, 1),
        None if bias is None else _stand_ins(bias, filters),
        stride,
        padding,
        dilation,
        groups,
    )
    stride, dilation = problem.stride, problem.dilation
    halo = (weight.shape[2] - 1) * dilation
    left, right = (Dim(end) for end in _layer.paddings("conv1d", padding, stride, halo))
    room = x.shape[-1] + left + right - halo - 1
    outputs = room + 1 if stride == 1 else room // stride + 1
    ends = ops.shape_to_tensor([left, right])
    options = ends, *map(_scalar, (stride, dilation, groups, code))
    return _place_layer("maxconv_conv1d_layer", x, weight, bias, options, (weight.shape[0], outputs), _named(is_fast))


def conv_transpose1d(
    x: TensorValue,
    weight: TensorValue,
    bias: TensorValue | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
    *,
    activation: str | None = None,
) -> TensorValue:
    """Apply a transposed convolutional layer, as `torch.nn.functional.conv_transpose1d` does.

    ``y[n, o, i*stride + j*dilation - padding] += x[n, c, i] * weight[c, o, j]`` for all c, i and j, then bias and
    activation.

    Parameters
    ----------
    x
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64. Each dimension may be symbolic.
    weight
        Filters, shape (C, O/groups, K), of the same dtype on the same device.
    bias, activation
        As for `conv1d`.
    stride, padding, output_padding, groups, dilation
        As for `maxconv.conv_transpose1d`.

    Returns
    -------
    max.graph.TensorValue
        Shape (N, O, L_out) or (O, L_out), exact, symbolic where it must be:
        ``L_out = (L - 1)*stride - 2*padding + dilation*(K - 1) + output_padding + 1``.

    Raises
    ------
    ShapeError, ArgumentError, DeviceError, DtypeError
        As for `conv1d`.

    Examples
    --------
    >>> from max.dtype import DType
    >>> from max.graph import DeviceRef, Graph, TensorType
    >>> import maxconv, maxconv.graph
    >>> tensor = lambda *shape: TensorType(DType.float32, shape, DeviceRef.CPU())
    >>> inputs = [tensor(512, 100), tensor(512, 256, 16)]
    >>> with Graph("up", input_types=inputs, custom_extensions=[maxconv.kernels_path()]) as graph:
    ...     y = maxconv.graph.conv_transpose1d(*graph.inputs, stride=8, padding=4)
    ...     print(y.shape)
    ...     graph.output(y)
    [Dim(256), Dim(800)]
    """
    function = "conv_transpose1d"
    operands = _present(x=x, weight=weight, bias=bias)
    _layer.check_dtypes(function, operands)
    _check_devices(function, operands)
    code = _layer.activation_code(function, activation)
    groups = integer(function, "groups", groups, 1)
    channels = _size([(x, -2), (weight, 0)], groups)
    group_out = _size([(weight, 1)], _size([(bias, 0)], groups) // groups)
    problem = _layer.transposed_convolution(
        function,
        _stand_ins(x, 1, channels, _LONG),
        _stand_ins(weight, channels, group_out, _LONG),
        None if bias is None else _stand_ins(bias, group_out * groups),
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )
    stride, dilation, padding = problem.stride, problem.dilation, problem.pad_left
    output_padding = _layer.single(function, "output_padding", output_padding, 0)
    halo = (weight.shape[2] - 1) * dilation
    outputs = (x.shape[-1] - 1) * stride + halo + (output_padding + 1 - 2 * padding)
    options = tuple(map(_scalar, (stride, padding, output_padding, dilation, groups, code)))
    return _place_layer("maxconv_conv_transpose1d", x, weight, bias, options, (weight.shape[1] * groups, outputs))


def causal_conv1d(
    x: TensorValue,
    weight: TensorValue,
    bias: TensorValue | None = None,
    *,
    activation: str | None = None,
    initial_state: TensorValue | None = None,
    return_final_state: bool = False,
    seq_idx: TensorValue | None = None,
    precision: Literal["fast"] | None = None,
) -> Any:
    """Apply one filter to each channel, so that no output depends on a later sample.

    ``y[n, c, i] = activation(bias[c] + sum_j x[n, c, i + j - (K - 1)] * weight[c, j])``

    Parameters
    ----------
    x
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64. Each dimension may be symbolic.
    weight
        Filters, shape (C, K), of the dtype of `x`, or float32 where `x` is of half precision.
    bias
        Added to each channel, shape (C), of the dtype of `weight`.
    activation, return_final_state, precision
        As for `maxconv.causal_conv1d`.
    initial_state
        The samples before `x`, shape (N, C, K - 1) or (C, K - 1), of the dtype of `x`.
    seq_idx
        The sequence that each sample belongs to, shape (N, L) or (L), of an integer type.

    Returns
    -------
    max.graph.TensorValue, or a pair of them
        Of the shape of `x`; with `return_final_state` also the state, of the shape of `initial_state`.

    Raises
    ------
    ShapeError, ArgumentError, DeviceError, DtypeError
        As for `conv1d`; ArgumentError also if `seq_idx` comes together with a state.

    Notes
    -----
    The bits of `maxconv.causal_conv1d`, but for long fast filters, which are summed directly here.

    Examples
    --------
    >>> from max.dtype import DType
    >>> from max.graph import DeviceRef, Graph, TensorType
    >>> import maxconv, maxconv.graph
    >>> tensor = lambda *shape: TensorType(DType.float32, shape, DeviceRef.CPU())
    >>> inputs = [tensor("n", 1536, "l"), tensor(1536, 4)]
    >>> with Graph("mamba", input_types=inputs, custom_extensions=[maxconv.kernels_path()]) as graph:
    ...     y, state = maxconv.graph.causal_conv1d(*graph.inputs, activation="silu", return_final_state=True)
    ...     print(y.shape, state.shape)
    ...     graph.output(y, state)
    [Dim('n'), Dim(1536), Dim('l')] [Dim('n'), Dim(1536), Dim(3)]
    """
    function = "causal_conv1d"
    parameters = _present(weight=weight, bias=bias)
    signals = _present(x=x, initial_state=initial_state)
    _layer.check_dtypes(function, signals)
    _layer.check_dtypes(function, parameters)
    _check_devices(function, signals | parameters | _present(seq_idx=seq_idx))
    _layer.check_causal_types(function, weight.dtype.name, x.dtype.name)
    code, is_fast = _layer.activation_code(function, activation), _layer.is_fast(function, precision)
    channels = _size([(x, -2), (weight, 0), (bias, 0)], 1)
    bias_shape = None if bias is None else _stand_ins(bias, channels)
    _layer.causal_convolution(function, _stand_ins(x, 1, channels, 1), _stand_ins(weight, channels, 1), bias_shape)
    before = weight.shape[1] - 1
    state, numbers = _nothing(_RANK, x.dtype, x.device), _nothing(2, DType.int32, x.device)
    if seq_idx is not None:
        _layer.check_no_state(function, initial_state, return_final_state)
        if not seq_idx.dtype.is_integral():
            message = f"{function}: seq_idx has elements of type {seq_idx.dtype.name}; expected integers"
            raise DtypeError(message)
        _check_shape(function, "seq_idx", seq_idx, [*x.shape[:-2], x.shape[-1]])
        numbers = _batched(seq_idx, 2).cast(DType.int32)
    if initial_state is not None:
        _check_shape(function, "initial_state", initial_state, [*x.shape[:-1], before])
        state = _batched(initial_state)
    biases = _nothing(1, weight.dtype, x.device) if bias is None else bias
    operands = [_batched(x), weight, biases, state, numbers, _scalar(code)]
    y = ops.custom("maxconv_causal_conv1d", x.device, operands, [operands[0].type], _named(is_fast))[0].tensor
    result = y if x.rank == _RANK else ops.squeeze(y, 0)
    if not return_final_state:
        return result
    kind = TensorType(x.dtype, (*operands[0].shape[:-1], before), x.device)
    final = ops.custom("maxconv_causal_state", x.device, [operands[0], state], [kind])[0].tensor
    return result, final if x.rank == _RANK else ops.squeeze(final, 0)


def direct(
    x: TensorValue,
    k: TensorValue,
    padding: TensorValue,
    flip: TensorValue,
    border: tuple[TensorValue, TensorValue],
    outputs: Any,
) -> TensorValue:
    """Place op `maxconv_direct`: all numbers are run-time values, so one model serves every length.

    Parameters
    ----------
    x, k
        Signals (rows, N) and taps, (1, K) or (rows, K).
    padding
        int64 (2) on the host: how far windows reach beyond either end of x.
    flip
        int64 scalar on the host: 1 for convolution, 0 for correlation.
    border
        How signals go on beyond their ends, scalars on the host: an int64, the place in `BORDERS`, and what
        "constant" puts there, of x's dtype.
    outputs
        The length of an output row; a new name if only the run-time values determine it.

    Returns
    -------
    max.graph.TensorValue
        Shape (rows, outputs).
    """
    kind = TensorType(x.dtype, (x.shape[0], outputs), x.device)
    return ops.custom("maxconv_direct", x.device, [x, k, padding, flip, *border], [kind])[0].tensor


def _correlate_vector(x: TensorValue, weight: TensorValue, padding: Any) -> TensorValue:
    """Correlate a vector with taps; either may be of an integer type."""
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.rank != 1:
            message = f"conv1d: {name} has shape {_shape(tensor)}, but rank 1 is expected"
            raise ShapeError(message)
    if x.dtype != weight.dtype or x.dtype.name not in KERNEL_DTYPES:
        served = ", ".join(KERNEL_DTYPES)
        message = f"conv1d: x and weight must have one dtype of {served}, got {x.dtype.name} and {weight.dtype.name}"
        raise DtypeError(message)
    _check_devices("conv1d", {"x": x, "weight": weight})
    samples, taps = x.shape[0], weight.shape[0]
    left, right = (Dim(end) for end in _layer.paddings("conv1d", padding, 1, taps - 1))
    outputs = samples + left + right - (taps - 1)
    if _known(outputs) and int(outputs) < 1:
        message = f"conv1d: weight has {taps} taps, but x has {samples} samples and padding adds {left} and {right}"
        raise ShapeError(message)
    ends = ops.shape_to_tensor([left, right])
    if _known(outputs):
        return _direct_vector(x, weight, ends, outputs)
    return _direct_vector(x, weight, ends, _new_length()).rebind([outputs])


def _direct_vector(x: TensorValue, k: TensorValue, padding: TensorValue, outputs: Any) -> TensorValue:
    """Correlate one row."""
    correlation = ops.constant(0, DType.int64, DeviceRef.CPU())
    omit = ops.constant(BORDERS.index("omit"), DType.int64, DeviceRef.CPU())
    border = omit, ops.constant(0, x.dtype, DeviceRef.CPU())
    row_x, row_k = (ops.reshape(vector, (1, vector.shape[0])) for vector in (x, k))
    return ops.reshape(direct(row_x, row_k, padding, correlation, border, outputs), (outputs,))


def _place_layer(
    op: str,
    x: TensorValue,
    weight: TensorValue,
    bias: TensorValue | None,
    options: tuple[TensorValue, ...],
    shape: tuple[Any, Any],
    parameters: dict[str, Any] | None = None,
) -> TensorValue:
    """Place the op of a layer whose outputs have this shape, (O, L_out)."""
    signals = _batched(x)
    channels, outputs = shape
    length = outputs if _known(outputs) else _new_length()
    operands = [signals, weight, _nothing(1, x.dtype, x.device) if bias is None else bias, *options]
    kind = TensorType(x.dtype, (signals.shape[0], channels, length), x.device)
    placed = ops.custom(op, x.device, operands, [kind], parameters)[0].tensor
    y = placed.rebind([signals.shape[0], channels, outputs])
    return y if x.rank == _RANK else ops.squeeze(y, 0)


def _named(is_fast: bool) -> dict[str, Any] | None:
    """Return the parameters of an op: none where its defaults serve, as it is compiled anew for others."""
    return {"is_fast": True} if is_fast else None


def _batched(tensor: TensorValue, rank: int = _RANK) -> TensorValue:
    """Give a tensor without N a batch of one."""
    return tensor if tensor.rank == rank else ops.unsqueeze(tensor, 0)


def _nothing(rank: int, dtype: DType, device: DeviceRef) -> TensorValue:
    """Make the empty tensor that tells an op of an operand that is not there."""
    nothing: list[Any] = []
    for _ in range(rank - 1):
        nothing = [nothing]
    return ops.constant(nothing, dtype, DeviceRef.CPU()).to(device)


def _scalar(number: int) -> TensorValue:
    return ops.constant(number, DType.int64, DeviceRef.CPU())


def _new_length() -> str:
    """Name a length that the op's shape function tells; `rebind` then tells the graph what the name stands for.

    A negative length would become an allocation of 2^64 bytes; the shape function refuses it in words.
    """
    return f"maxconv_outputs_{next(_numbers)}"


class _StandIn(int):
    """A size in the place of a symbolic dimension, whose name messages show."""

    name: str

    def __repr__(self) -> str:
        return self.name


def _stand_ins(tensor: TensorValue, *sizes: int) -> tuple[int, ...]:
    """Return a shape for the checks of `_layer`: in the place of symbolic dimensions `sizes`, which pass them all."""
    shape = []
    fitting = (1,) * (tensor.rank - len(sizes)) + sizes[max(0, len(sizes) - tensor.rank) :]
    for dimension, size in zip(tensor.shape, fitting, strict=True):
        stand_in = _StandIn(int(dimension) if _known(dimension) else size)
        stand_in.name = str(dimension)
        shape.append(stand_in)
    return tuple(shape)


def _size(places: list[tuple[TensorValue | None, int]], default: int) -> int:
    """Return the first known one of some dimensions that must be equal."""
    for tensor, index in places:
        if tensor is not None and -tensor.rank <= index < tensor.rank and _known(tensor.shape[index]):
            return int(tensor.shape[index])
    return default


def _present(**operands: TensorValue | None) -> dict[str, TensorValue]:
    return {name: operand for name, operand in operands.items() if operand is not None}


def _check_devices(function: str, operands: dict[str, TensorValue]) -> None:
    """Refuse operands, by argument name, that are not all on one device."""
    _layer.check_one_device(function, {name: operand.device for name, operand in operands.items()})


def _check_shape(function: str, argument: str, tensor: TensorValue, expected: list[Dim]) -> None:
    """Refuse a tensor whose known dimensions are not those that follow from the others."""
    pairs = zip(tensor.shape, expected, strict=False)
    if tensor.rank != len(expected) or any(_known(a) and _known(b) and a != b for a, b in pairs):
        message = (
            f"{function}: {argument} has shape {_shape(tensor)}, but ({', '.join(map(str, expected))}) is expected"
        )
        raise ShapeError(message)


def _known(dimension: object) -> bool:
    return isinstance(dimension, StaticDim)


def _shape(tensor: TensorValue) -> str:
    return f"({', '.join(str(dimension) for dimension in tensor.shape)})"
