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

    __slots__ = ("check", "computed", "is_recorded", "kept", "kinds", "rest", "sizes")

    def __init__(self, operands: Any, options: Any, problem: LayerProblem, shape: tuple[int, ...]) -> None:
        x, w = operands[:2]
        self.check = _guards.TensorGuards(*operands, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
        self.kinds = [*map(type, options)]
        self.computed, self.rest = tensors.forward_sum(problem, x, shape)
        self.sizes = problem.length, problem.taps, problem.stride, problem.pad_left, problem.dilation, problem.groups
        self.is_recorded = any(operand.requires_grad for operand in operands)
        self.kept = w.requires_grad, x.requires_grad  # each makes the gradient of the other


class _Recorded(torch.autograd.Function):
    """The call with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any, w: Any, bias: Any, call: _Call) -> Any:
        keeps_x, keeps_w = call.kept
        ctx.sizes = call.sizes
        ctx.save_for_backward(x if keeps_x else None, w if keeps_w else None)
        return call.computed(x, w, bias, *call.rest)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return *_operators.convolve_gradients(ctx, gradient), None


# As in `Operator`: the public `apply` looks for transforms, of which the check has found none.
_record: Any = super(torch.autograd.Function, _Recorded).apply


def conv1d(x: Any, w: Any, bias: Any, options: tuple[Any, ...]) -> Any:
    """Compute a layer as a call before did; None if no such call is remembered."""
    try:
        calls = _calls.get((x.shape, w.shape, bias is None, options))
    except (AttributeError, TypeError):  # no tensor, or a list for an option, which has no hash
        return None
    if calls is None or forward_ad._current_level >= 0:  # noqa: SLF001  # no public name
        return None
    operands = (x, w) if bias is None else (x, w, bias)
    for call in calls:
        if call.check(*operands) and call.kinds == [*map(type, options)]:  # True equals 1, but is no stride
            if call.is_recorded and torch.is_grad_enabled():
                return _record(x, w, bias, call)
            return call.computed(x, w, bias, *call.rest)
    return None


def remember(x: Any, w: Any, bias: Any, options: tuple[Any, ...], problem: LayerProblem, y: Any) -> None:
    """Keep a call that the usual way has served with the result y, if this way can serve the next one like it."""
    operands = (x, w) if bias is None else (x, w, bias)
    if not (y.numel() and _operators.are_plain(operands) and all(operand.is_contiguous() for operand in operands)):
        return
    is_watched = torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0  # noqa: SLF001
    if is_watched or torch.is_autocast_enabled(x.device.type) or any(map(_operators.is_left_over, operands)):
        return
    if x.is_cpu and x.dtype not in _NOT_WIDENED:
        return
    key = x.shape, w.shape, bias is None, options
    try:
        alike = _calls.get(key, ())
    except TypeError:
        return
    if len(_calls) >= _MOST:
        _calls.clear()
    _calls[key] = (_Call(operands, options, problem, tuple(y.shape)), *alike[: _MOST_ALIKE - 1])
