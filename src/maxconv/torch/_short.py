"""The shortest way of layers on tensors: a call like one that the usual way has served is one check and one kernel.

PyTorch's compiled code guards what it was traced for by a single call: types, shapes, strides, element types, devices,
whether operands want gradients, and that no mode, transform or autocast watches. The same call tells here whether what
was remembered still holds, in 0.2 us; asking one by one takes the usual way 4 us, as much as a small layer. Everything
else, refusals included, is left to the usual way. The bits are the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.autograd import forward_ad

from .._engine import tensors
from . import _operators

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._layer import LayerProblem

_guards = torch._C._dynamo.guards  # noqa: SLF001

#: Sets of shapes and options that are remembered, and calls for each, which differ in types and memory.
_MOST, _MOST_ALIKE = 1024, 8

#: Element types whose bias the CPU's kernels take as it is.
_NOT_WIDENED = {torch.float32, torch.float64}


class _Call(NamedTuple):
    """What it takes to do a call with contiguous operands again."""

    check: Callable[..., bool]
    """Tells whether operands are like those of before, and PyTorch's modes as they were."""
    compute: tensors.Sum
    """Computes the result."""
    record: Callable[..., Any] | None
    """Computes and records it, of operands and `rest`; None if no operand wants a gradient."""
    rest: tuple[Any, ...]
    """What follows the operands."""


class _Layer:
    """What the gradients of `conv1d` are computed by."""

    __slots__ = ("check_gradient", "compute", "gradients", "keeps_input", "keeps_weight", "problem", "shapes", "sizes")

    def __init__(self, compute: tensors.Sum, problem: LayerProblem, x: Any, w: Any) -> None:
        self.compute, self.problem, self.shapes = compute, problem, (tuple(x.shape), tuple(w.shape))
        self.gradients: Any = None
        self.keeps_input, self.keeps_weight = w.requires_grad, x.requires_grad  # each makes the other's gradient
        self.sizes = problem.length, problem.taps, problem.stride, problem.pad_left, problem.dilation, problem.groups
        self.check_gradient: Callable[..., bool] | None = None


class _Recorded(torch.autograd.Function):
    """`conv1d` and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any, bias: Any, layer: _Layer) -> Any:
        ctx.layer = layer
        ctx.save_for_backward(x if layer.keeps_input else None, w if layer.keeps_weight else None)
        return layer.compute(x, w, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        layer: _Layer = ctx.layer
        x, w = saved = ctx.saved_tensors
        needs_x, needs_w, needs_bias, _ = needs = ctx.needs_input_grad
        operands = [operand for operand in (gradient, x, w) if operand is not None]
        is_plain = not torch.is_grad_enabled() and forward_ad._current_level < 0  # noqa: SLF001  # no public name
        if is_plain and layer.check_gradient is not None and layer.check_gradient(*operands):
            by_x, by_w, both = layer.gradients
            by_bias = _operators.bias_gradient(gradient) if needs_bias else None
            if both is not None and needs_x and needs_w:
                return *both(x, gradient, w), by_bias, None
            return by_x(gradient, w) if needs_x else None, by_w(x, gradient) if needs_w else None, by_bias, None
        gradients = _operators.convolve_gradients(saved, layer.sizes, needs, gradient)
        if is_plain and _is_served(operands):
            layer.gradients = tensors.gradient_sums(layer.problem, gradient, *layer.shapes)
            layer.check_gradient = None if layer.gradients is None else _guard(operands)
        return *gradients, None


# As in `Operator`: the public `apply` looks for transforms, of which the check has found none.
_record: Any = super(torch.autograd.Function, _Recorded).apply


@lru_cache(maxsize=_MOST, typed=True)  # True equals 1, but is no stride
def _alike(*_: Any) -> list[_Call]:
    """Return the calls of a function with the same shapes and options."""
    return []


def run(function: str, x: Any, w: Any, bias: Any, *options: Any) -> Any:
    """Compute a layer as a call before did; None if no such call is remembered. Written for few bytecodes."""
    try:
        calls = _alike(function, x.shape, w.shape, bias is None, *options)
    except (AttributeError, TypeError):  # no tensor, or a list for an option, or a symbolic size: they have no hash
        return None
    for call in calls:
        if (call.check(x, w) if bias is None else call.check(x, w, bias)) and forward_ad._current_level < 0:  # noqa: SLF001
            if call.record is not None and torch.is_grad_enabled():
                return call.record(x, w, bias, *call.rest)
            return call.compute(x, w, bias)
    return None


def remember_convolution(
    x: Any, w: Any, bias: Any, options: tuple[Any, ...], problem: LayerProblem, is_fast: bool, y: Any
) -> None:
    """Keep a call of `conv1d` that the usual way has served with the result y, if this way serves the next."""
    operands = _present(x, w, bias)
    if y.numel() and forward_ad._current_level < 0 and _is_served(operands):  # noqa: SLF001
        compute = tensors.forward_sum(problem, x, w, tuple(y.shape), is_fast=is_fast)
        _keep("conv1d", operands, options, compute, _record, _Layer(compute, problem, x, w))


def remember_transposed(y: Any, w: Any, bias: Any, options: tuple[Any, ...], problem: LayerProblem, x: Any) -> None:
    """Do so with a call of `conv_transpose1d`."""
    operands = _present(y, w, bias)
    if x.numel() and forward_ad._current_level < 0 and _is_served(operands):  # noqa: SLF001
        compute = tensors.transposed_sum(problem, y, tuple(x.shape))
        rest = problem.length, problem.stride, problem.pad_left, problem.dilation, problem.groups
        if compute is not None:
            _keep("conv_transpose1d", operands, options, compute, _operators.transpose.recorded, *rest)


def remember_causal(
    x: Any, w: Any, bias: Any, options: tuple[Any, ...], problem: LayerProblem, code: int, is_fast: bool
) -> None:
    """Do so with a call of `causal_conv1d` that has no history."""
    operands = _present(x, w, bias)
    if x.numel() and forward_ad._current_level < 0 and _is_served(operands):  # noqa: SLF001
        compute = tensors.forward_sum(problem, x, w, tuple(x.shape), code, is_causal=True, is_fast=is_fast)
        rest = None, None, code, int(is_fast)
        _keep("causal_conv1d", operands, options, compute, _operators.causal.recorded, *rest)


def _present(x: Any, w: Any, bias: Any) -> tuple[Any, ...]:
    return (x, w) if bias is None else (x, w, bias)


def _keep(function: str, operands: Any, options: Any, compute: tensors.Sum, record: Any, *rest: Any) -> None:
    x, w, *bias = operands
    try:
        calls = _alike(function, x.shape, w.shape, not bias, *options)
    except TypeError:
        return
    wants_gradient = any(operand.requires_grad for operand in operands)
    calls.insert(0, _Call(_guard(operands), compute, record if wants_gradient else None, rest))
    del calls[_MOST_ALIKE:]


def _guard(operands: Any) -> Any:
    """Return what tells whether others are like these, and PyTorch's modes as they are now."""
    return _guards.TensorGuards(*operands, dynamic_dims_sizes=None, dynamic_dims_strides=None).check


def _is_served(operands: Any) -> bool:
    """Tell whether operands are what kernels take, and nothing watches what becomes of them."""
    if not (_operators.are_plain(operands) and all(operand.is_contiguous() for operand in operands)):
        return False
    if _operators.is_transformed() or torch.is_autocast_enabled(operands[0].device.type):
        return False
    is_cast = operands[0].is_cpu and operands[0].dtype not in _NOT_WIDENED
    return not is_cast and not any(map(_operators.is_left_over, operands))
