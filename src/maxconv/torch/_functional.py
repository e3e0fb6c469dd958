"""`conv1d` and its kin on tensors: PyTorch's arguments become sizes and shifts, after every check."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch

from .. import _layer
from .._engine.tensors import NAMES
from .._errors import DeviceError, DtypeError
from . import _operators, _short

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where tensors may be; "meta" is nowhere, but has shapes.
_DEVICES = {"cpu", "cuda", "meta"}

#: Layers whose checks are remembered: they cost as much as a small layer.
_REMEMBERED = 1024

#: Shape, dtype and device of no tensor.
_NOTHING = None, None, None


def conv1d(
    input: torch.Tensor,  # noqa: A002  # PyTorch's name
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    precision: Literal["fast"] | None = None,
) -> torch.Tensor:
    """Apply a convolutional layer: a drop-in for `torch.nn.functional.conv1d`.

    Parameters
    ----------
    input : torch.Tensor
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64, on a CPU or an NVIDIA GPU.
    weight : torch.Tensor
        Filters, shape (O, C/groups, K), of the same dtype on the same device.
    bias : torch.Tensor, optional
        Added to each output channel, shape (O).
    stride, padding, dilation, groups, precision
        As for `maxconv.conv1d`, with a pair (left, right) as `padding`, too.

    Returns
    -------
    torch.Tensor
        Shape (N, O, L_out) or (O, L_out), ``L_out = (L + left + right - dilation*(K - 1) - 1) // stride + 1``.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `maxconv.conv1d`.

    Notes
    -----
    Cost and accuracy are those of `maxconv.conv1d`, the sums on a GPU being direct always. The gradients are sums of
    the same kind, differentiable again. Under autocast, operands are cast as PyTorch casts those of its own `conv1d`.
    On a GPU the work goes onto the current stream.

    Examples
    --------
    >>> import torch
    >>> import maxconv.torch
    >>> x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    >>> maxconv.torch.conv1d(x, torch.tensor([[[1.0, 1.0]]]), padding="same")
    tensor([[[3., 5., 7., 4.]]])
    """
    if not torch.compiler.is_compiling():
        y = _short.run("conv1d", input, weight, bias, stride, padding, dilation, groups, precision)
        if y is not None:
            return y
    is_fast = _layer.is_fast("conv1d", precision)
    options = stride, padding, dilation, groups
    x, w, b = _operands("conv1d", input, weight, bias)
    problem = _checked(_layer.convolution, "conv1d", x, w, b, *options)
    geometry = problem.stride, problem.pad_left, problem.dilation, problem.groups
    y = _operators.convolve(x, w, b, int(is_fast), problem.outputs, *geometry)
    if not torch.compiler.is_compiling():
        _short.remember_convolution(x, w, b, (*options, precision), problem, is_fast, y)
    return y


def conv_transpose1d(
    input: torch.Tensor,  # noqa: A002  # PyTorch's name
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> torch.Tensor:
    """Apply a transposed convolutional layer: a drop-in for `torch.nn.functional.conv_transpose1d`.

    Parameters
    ----------
    input : torch.Tensor
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64, on a CPU or an NVIDIA GPU.
    weight : torch.Tensor
        Filters, shape (C, O/groups, K), of the same dtype on the same device.
    bias : torch.Tensor, optional
        Added to each output channel, shape (O).
    stride, padding, output_padding, groups, dilation
        As for `maxconv.conv_transpose1d`.

    Returns
    -------
    torch.Tensor
        Shape (N, O, L_out) or (O, L_out) with
        ``L_out = (L - 1)*stride - 2*padding + dilation*(K - 1) + output_padding + 1``.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `maxconv.conv_transpose1d`.

    Notes
    -----
    As for `conv1d`.

    Examples
    --------
    >>> import torch
    >>> import maxconv.torch
    >>> maxconv.torch.conv_transpose1d(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[[1.0, 0.5]]]), stride=2)
    tensor([[1.0000, 0.5000, 2.0000, 1.0000, 3.0000, 1.5000]])
    """
    options = stride, padding, output_padding, groups, dilation
    if not torch.compiler.is_compiling():
        x = _short.run("conv_transpose1d", input, weight, bias, *options)
        if x is not None:
            return x
    y, w, b = _operands("conv_transpose1d", input, weight, bias)
    problem = _checked(_layer.transposed_convolution, "conv_transpose1d", y, w, b, *options)
    geometry = problem.stride, problem.pad_left, problem.dilation, problem.groups
    x = _operators.transpose(y, w, b, problem.length, *geometry)
    if not torch.compiler.is_compiling():
        _short.remember_transposed(y, w, b, options, problem, x)
    return x


def causal_conv1d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    activation: str | None = None,
    initial_state: torch.Tensor | None = None,
    return_final_state: bool = False,
    seq_idx: torch.Tensor | None = None,
    precision: Literal["fast"] | None = None,
) -> Any:
    """Apply one filter to each channel, so that no output depends on a later sample.

    Parameters
    ----------
    x : torch.Tensor
        Signals, shape (N, C, L) or (C, L), of float16, bfloat16, float32 or float64, on a CPU or an NVIDIA GPU.
    weight : torch.Tensor
        Filters, shape (C, K), of the dtype of `x`, or float32 where `x` is of half precision.
    bias : torch.Tensor, optional
        Added to each channel, shape (C), of the dtype of `weight`.
    activation, initial_state, return_final_state, seq_idx, precision
        As for `maxconv.causal_conv1d`.

    Returns
    -------
    torch.Tensor, or a pair of them
        Of the shape of `x`; with `return_final_state` also the state, the last K - 1 samples.

    Raises
    ------
    ShapeError, ArgumentError, DtypeError, DeviceError
        As for `maxconv.causal_conv1d`.

    Notes
    -----
    Follows Dao-AILab's `causal_conv1d_fn`, for any number of taps; long filters are summed, fast ones too. States have
    gradients. Under autocast the signals are cast, filters are used as they are: those of float32 are not fast.

    Examples
    --------
    >>> import torch
    >>> import maxconv.torch
    >>> maxconv.torch.causal_conv1d(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 1.0]]))
    tensor([[1.0000, 2.5000, 4.0000]])
    """
    function = "causal_conv1d"
    has_history = initial_state is not None or seq_idx is not None or return_final_state
    is_short = not has_history and not torch.compiler.is_compiling()
    if is_short:
        y = _short.run(function, x, weight, bias, activation, precision)
        if y is not None:
            return y
    operands = {"x": x, "weight": weight, "bias": bias, "initial_state": initial_state, "seq_idx": seq_idx}
    _check_tensors(function, operands)
    _check_devices(function, {name: None if operand is None else operand.device for name, operand in operands.items()})
    if kind := _autocast_dtype(x):
        x, initial_state = _cast(x, kind), _cast(initial_state, kind)
    _check_dtypes(function, {"x": x.dtype} | ({} if initial_state is None else {"initial_state": initial_state.dtype}))
    _check_dtypes(function, {"weight": weight.dtype} | ({} if bias is None else {"bias": bias.dtype}))
    _layer.check_causal_types(function, NAMES[weight.dtype], NAMES[x.dtype])
    bias_shape = None if bias is None else bias.shape
    problem = _layer.causal_convolution(function, x.shape, weight.shape, bias_shape)
    code, is_fast = _layer.activation_code(function, activation), _layer.is_fast(function, precision)
    state_shape = (*x.shape[:-1], problem.taps - 1)
    if seq_idx is not None:
        _layer.check_no_state(function, initial_state, return_final_state)
        if seq_idx.is_floating_point() or seq_idx.dtype is torch.bool:
            message = f"{function}: seq_idx has elements of type {seq_idx.dtype}; expected integers"
            raise DtypeError(message)
        _layer.check_shape(function, "seq_idx", seq_idx.shape, (*x.shape[:-2], x.shape[-1]))
        seq_idx = seq_idx.to(torch.int32)
    if initial_state is not None:
        _layer.check_shape(function, "initial_state", initial_state.shape, state_shape)
    y = _operators.causal(x, weight, bias, initial_state, seq_idx, code, int(is_fast))
    if is_short:
        _short.remember_causal(x, weight, bias, (activation, precision), problem, code, is_fast)
    if not return_final_state:
        return y
    before = x.new_zeros(state_shape) if initial_state is None else initial_state
    return y, torch.cat([before, x], -1)[..., x.shape[-1] :]


def _operands(function: str, x: Any, w: Any, b: Any) -> tuple[Any, Any, Any]:
    """Refuse what is no tensor; cast tensors as autocast does."""
    if not (isinstance(x, torch.Tensor) and isinstance(w, torch.Tensor) and (b is None or isinstance(b, torch.Tensor))):
        _check_tensors(function, {"input": x, "weight": w, "bias": b})
    if kind := _autocast_dtype(x):
        return _cast(x, kind), _cast(w, kind), _cast(b, kind)
    return x, w, b


def _check_tensors(function: str, operands: dict[str, Any]) -> None:
    """Refuse operands, by argument name, that are no tensors; None is none at all."""
    for name, operand in operands.items():
        if operand is not None and not isinstance(operand, torch.Tensor):
            message = f"{function}: {name} must be a torch.Tensor, got {type(operand).__name__}"
            raise DtypeError(message)


def _check_devices(function: str, devices: dict[str, Any]) -> None:
    """Refuse operands that are not all on one device, or that are where no kernel is."""
    first, device = next(iter(devices.items()))
    if device.type not in _DEVICES:
        message = f"{function}: layers are served by CPUs and NVIDIA GPUs, but {first} is on {device}"
        raise DeviceError(message)
    _layer.check_one_device(function, {name: place for name, place in devices.items() if place is not None})


def _check_dtypes(function: str, dtypes: dict[str, Any]) -> None:
    """Refuse operands that are not all of one of the floating-point types."""
    present = {name: dtype for name, dtype in dtypes.items() if dtype is not None}
    _layer.check_type_names(function, {name: NAMES.get(dtype, str(dtype)) for name, dtype in present.items()})


def _autocast_dtype(x: Any) -> Any:
    """Return the type that autocast computes a tensor in; None where it is off."""
    kind = "cuda" if x.is_cuda else x.device.type  # the quicker question
    return torch.get_autocast_dtype(kind) if kind != "meta" and torch.is_autocast_enabled(kind) else None


def _cast(operand: Any, dtype: Any) -> Any:
    """Cast an operand where autocast does: floating-point types but float64."""
    if operand is None or operand.dtype is torch.float64 or not operand.is_floating_point():
        return operand
    return operand.to(dtype)


def _checked(check: Callable[..., Any], function: str, x: Any, w: Any, b: Any, *options: Any) -> _layer.LayerProblem:
    """Run the checks of a layer, once for each set of shapes, types, devices and options."""
    first, second = (x.shape, x.dtype, x.device), (w.shape, w.dtype, w.device)
    third = _NOTHING if b is None else (b.shape, b.dtype, b.device)
    if not torch.compiler.is_compiling():
        try:
            return _remembered(check, function, first, second, third, *options)  # type: ignore[no-any-return]
        except TypeError:  # a list, which PyTorch takes for a tuple, or a symbolic size: they have no hash
            pass
    problem: _layer.LayerProblem = _check(check, function, first, second, third, *options)
    return problem


def _check(
    check: Callable[..., Any],
    function: str,
    x: tuple[Any, ...],
    w: tuple[Any, ...],
    b: tuple[Any, ...],
    *options: Any,
) -> Any:
    """Check operands that are given as shape, dtype and device."""
    shapes, dtypes, devices = zip(x, w, b, strict=True)
    names = "input", "weight", "bias"
    _check_devices(function, dict(zip(names, devices, strict=True)))
    _check_dtypes(function, dict(zip(names, dtypes, strict=True)))
    return check(function, *shapes, *options)


_remembered = lru_cache(maxsize=_REMEMBERED, typed=True)(_check)
