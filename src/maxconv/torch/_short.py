"""The shortest way of `conv1d`: a call like one that the usual way has served is one check and one kernel.

PyTorch's compiled code guards what it was traced for by a single call: types, shapes, strides, element types, devices,
whether operands want gradients, and that no mode, transform or autocast watches. The same call tells here whether what
was remembered still holds, in 0.2 us; asking one by one takes the usual way 4 us, as much as a small layer. Everything
else, refusals included, is left to the usual way. The bits are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from .._engine import tensors
from . import _operators

if TYPE_CHECKING:
    from .._layer import LayerProblem

_guards = torch._C._dynamo.guards  # noqa: SLF001

#: Sets of shapes and options that are remembered, and calls for each, which differ in types and memory.
_MOST, _MOST_ALIKE = 1024, 8

#: Element types whose bias the CPU's kernels take as it is.
_NOT_WIDENED = {torch.float32, torch.float64}

_calls: dict[Any, tuple[_Call, ...]] = {}


class _Call:
    """A call of `conv1d` with contiguous operands, and all that it takes to do it again."""

    __slots__ = (
        "check",
        "check_gradient",
        "compute",
        "dilation",
        "gradients",
        "groups",
        "has_input_gradient",
        "has_weight_gradient",
        "is_recorded",
        "padding",
        "sizes",
        "stride",
    )

    def __init__(self, operands: Any, options: Any, problem: LayerProblem, shape: tuple[int, ...]) -> None:
        x, w = operands[:2]
        self.check, self.check_gradient = _guard(operands), None
        self.stride, self.padding, self.dilation, self.groups = options
        self.compute = tensors.forward_sum(problem, x, shape)
        self.gradients = tensors.gradient_sums(problem, x, w)
        self.sizes = problem.length, problem.taps, problem.stride, problem.pad_left, problem.dilation, problem.groups
        self.is_recorded = any(operand.requires_grad for operand in operands)
        self.has_input_gradient, self.has_weight_gradient = x.requires_grad, w.requires_grad

    def has_types_of(self, *options: Any) -> bool:
        """Tell whether options that equal these are of their types: True equals 1, but is no stride."""
        known = self.stride, self.padding, self.dilation, self.groups
        return all(type(one) is type(other) for one, other in zip(options, known, strict=True))


def _guard(operands: Any) -> Any:
    """Return what tells whether others are like these, and PyTorch's modes as they are now."""
    return _guards.TensorGuards(*operands, dynamic_dims_sizes=None, dynamic_dims_strides=None).check


class _Recorded(torch.autograd.Function):
    """The call with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any, bias: Any, call: _Call) -> Any:
        ctx.call = call
        ctx.save_for_backward(x if call.has_weight_gradient else None, w if call.has_input_gradient else None)
        return call.compute(x, w, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        call: _Call = ctx.call
        x, w = saved = ctx.saved_tensors
        needs_x, needs_w, needs_bias, _ = needs = ctx.needs_input_grad
        operands = [operand for operand in (gradient, x, w) if operand is not None]
        is_plain = not torch.is_grad_enabled() and forward_ad._current_level < 0  # noqa: SLF001  # no public name
        if is_plain and call.check_gradient is not None and call.check_gradient(*operands):
            by_x, by_w = call.gradients
            by_bias = _operators.bias_gradient(gradient) if needs_bias else None
            return by_x(gradient, w) if needs_x else None, by_w(x, gradient) if needs_w else None, by_bias, None
        gradients = _operators.convolve_gradients(saved, call.sizes, needs, gradient)
        if is_plain and call.gradients is not None and _is_served(operands):
            call.check_gradient = _guard(operands)
        return *gradients, None


# As in `Operator`: the public `apply` looks for transforms, of which the check has found none.
_record: Any = super(torch.autograd.Function, _Recorded).apply


def conv1d(x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> Any:
    """Compute a layer as a call before did; None if no such call is remembered. Written for few bytecodes."""
    try:
        calls = _calls.get((x.shape, w.shape, bias is None, stride, padding, dilation, groups))
    except (AttributeError, TypeError):  # no tensor, or a list for an option, which has no hash
        return None
    if calls is None or forward_ad._current_level >= 0:  # noqa: SLF001  # no public name
        return None
    for call in calls:
        if not (call.check(x, w) if bias is None else call.check(x, w, bias)):
            continue
        if stride is call.stride and padding is call.padding and dilation is call.dilation and groups is call.groups:
            pass
        elif not call.has_types_of(stride, padding, dilation, groups):
            continue
        if call.is_recorded and torch.is_grad_enabled():
            return _record(x, w, bias, call)
        return call.compute(x, w, bias)
    return None


def remember(x: Any, w: Any, bias: Any, options: tuple[Any, ...], problem: LayerProblem, y: Any) -> None:
    """Keep a call that the usual way has served with the result y, if this way can serve the next one like it."""
    operands = (x, w) if bias is None else (x, w, bias)
    if not y.numel() or forward_ad._current_level >= 0 or not _is_served(operands):  # noqa: SLF001  # no public name
        return
    key = x.shape, w.shape, bias is None, *options
    try:
        alike = _calls.get(key, ())
    except TypeError:
        return
    if len(_calls) >= _MOST:
        _calls.clear()
    _calls[key] = (_Call(operands, options, problem, tuple(y.shape)), *alike[: _MOST_ALIKE - 1])


def _is_served(operands: Any) -> bool:
    """Tell whether operands are what kernels take, and nothing watches what becomes of them."""
    if not (_operators.are_plain(operands) and all(operand.is_contiguous() for operand in operands)):
        return False
    is_transformed = torch._C._functorch.peek_interpreter_stack() is not None  # noqa: SLF001  # no public name
    if is_transformed or torch.is_autocast_enabled(operands[0].device.type):
        return False
    is_cast = operands[0].is_cpu and operands[0].dtype not in _NOT_WIDENED
    return not is_cast and not any(map(_operators.is_left_over, operands))
