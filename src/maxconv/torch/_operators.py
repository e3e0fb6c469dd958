"""The sums of a layer as operators of PyTorch: registered, traceable, differentiable as often as one likes.

Three sums are the derivatives of one form, ``sum y[n, o, i] * x[n, c, i*stride + j*dilation - padding] * w[o, c, j]``:
by y `convolve`, by x `transpose`, by w `correlate`. So each is the gradient of the others, and sizes, strides and
paddings are the same in all.

An operator costs 5 to 30 us in PyTorch's dispatcher, more than a small layer. A call on plain tensors that nothing
watches, so that the dispatcher had nothing to do, goes past it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from .._engine import tensors
from .._layer import ACTIVATIONS, LayerProblem, causal_problem

if TYPE_CHECKING:
    from collections.abc import Callable

_library = torch.library.Library("maxconv", "DEF")

_PLAIN = {torch.Tensor, torch.nn.Parameter}


class Operator:
    """A function of tensors and numbers, as an operator and, where that is the same, without one.

    Parameters
    ----------
    schema
        Name and arguments, as PyTorch writes them; those that are tensors come first.
    kernel
        Computes the result; tensors are on the CPU or on a CUDA device.
    fake
        Makes an empty result.
    save
        Takes (ctx, inputs, output) and keeps in `ctx` what `backward` needs.
    backward
        Takes (ctx, gradient); returns as many gradients as there are arguments.
    vmap
        Takes (info, dimensions, *arguments); returns the results of all, and the dimension that they lie along. None
        if the operator does not serve `torch.vmap`.
    """

    def __init__(
        self,
        schema: str,
        kernel: Callable[..., Any],
        fake: Callable[..., Any],
        save: Callable[..., None],
        backward: Callable[..., Any],
        vmap: Callable[..., Any] | None = None,
    ) -> None:
        _library.define(schema)
        name = schema.partition("(")[0]
        for key in ("CPU", "CUDA"):
            _library.impl(name, kernel, key)
        torch.library.register_fake(f"maxconv::{name}", fake, lib=_library)
        torch.library.register_autograd(f"maxconv::{name}", backward, setup_context=save, lib=_library)
        self.operator = getattr(torch.ops.maxconv, name).default
        self.kernel = kernel
        self.tensors = schema.count("Tensor") - 1  # the last is the result

        def forward(ctx: Any, *arguments: Any) -> Any:
            save(ctx, arguments, None)
            return kernel(*arguments)

        # A `setup_context` of its own costs 25 us a call, and the transforms of `torch.func` take no function without.
        # Those differentiate no operator registered from Python, either.
        function = (torch.autograd.Function,)
        methods = {"backward": staticmethod(backward)}
        differentiable: Any = type(name, function, {"forward": staticmethod(forward), **methods})
        # The public `apply` takes 2 us more, to find transforms and what they left: `__call__` has seen to that.
        self.recorded: Any = super(torch.autograd.Function, differentiable).apply  # type: ignore[misc]  # has no types
        methods |= {"forward": staticmethod(self.operator), "setup_context": staticmethod(save)}
        if vmap is not None:
            methods |= {"setup_context": staticmethod(self._save_primals(save)), "jvp": staticmethod(self._jvp)}
            methods["vmap"] = staticmethod(vmap)
        self.transformable: Any = type(name, function, methods)

    def __call__(self, *arguments: Any) -> Any:
        """Compute the result."""
        if torch.compiler.is_compiling():
            return self.operator(*arguments)
        if is_transformed():
            return self.transformable.apply(*arguments)
        operands = arguments[: self.tensors]
        if not are_plain(operands):
            return self.operator(*arguments)
        needs_gradient = False
        for operand in operands:
            needs_gradient = needs_gradient or (operand is not None and operand.requires_grad)
        try:
            return self.recorded(*arguments) if needs_gradient and torch.is_grad_enabled() else self.kernel(*arguments)
        except RuntimeError:
            if any(map(is_left_over, operands)):  # so rare that it is asked afterwards
                return self.operator(*arguments)
            raise

    def _save_primals(self, save: Callable[..., None]) -> Callable[..., None]:
        """Extend what is kept by what the derivative forwards needs."""

        def save_all(ctx: Any, inputs: Any, output: Any) -> None:
            save(ctx, inputs, output)
            ctx.save_for_forward(*inputs[:2])
            ctx.numbers = inputs[self.tensors :]

        return save_all

    def _jvp(self, ctx: Any, first: Any, second: Any, *others: Any) -> Any:
        """Return the derivative along tangents: the sums are linear in either operand, and add the bias."""
        operands = ctx.saved_tensors
        bias, none = (others[:1], (None,)) if self.tensors > 2 else ((), ())  # noqa: PLR2004  # two operands
        return self(first, operands[1], *bias, *ctx.numbers) + self(operands[0], second, *none, *ctx.numbers)


def is_transformed() -> bool:
    """Tell whether a transform of `torch.func`, or a derivative forwards, sees what is called."""
    levels = torch._C._functorch.peek_interpreter_stack()  # noqa: SLF001  # no public name
    return levels is not None or forward_ad._current_level >= 0  # noqa: SLF001


def are_plain(operands: Any) -> bool:
    """Tell whether the dispatcher would do nothing for operands, which no transform sees, but call a kernel."""
    if torch._C._len_torch_dispatch_stack() > 0 or torch.jit.is_tracing():  # noqa: SLF001  # no public name
        return False
    for operand in operands:
        if operand is None:
            continue
        if type(operand) not in _PLAIN or not (operand.is_cuda or operand.is_cpu) or operand.is_neg():
            return False
    return True


def is_left_over(operand: Any) -> bool:
    """Tell whether an operand has left a transform of `torch.func`: it is a plain tensor, but has no memory."""
    return operand is not None and bool(torch._C._functorch.is_functorch_wrapped_tensor(operand))  # noqa: SLF001


def _describe(
    x_shape: Any, w_shape: Any, outputs: int, stride: int, padding: int, dilation: int, groups: int
) -> LayerProblem:
    """Describe a layer by the shapes of x, (N, C, L) or (C, L), and w; sizes may be symbols, which have no hash."""
    batch, channels, length = (1, *x_shape)[-3:]
    return LayerProblem(batch, channels, w_shape[0], groups, length, outputs, w_shape[2], stride, dilation, padding)


_known = lru_cache(maxsize=1024)(_describe)
"""The same of sizes that are numbers, made once."""


def _batched(shape: Any, channels: int, length: int) -> tuple[int, ...]:
    """Return the shape of a result beside an operand with or without a batch."""
    return (*shape[:-2], channels, length)


_SUMMED_BY_ONE = 1 << 15
"""Elements from which PyTorch sums on all its threads (at::internal::GRAIN_SIZE)."""


def bias_gradient(gradient: Any) -> Any:
    """Sum over everything but the channels.

    On a CPU that is the gradient by a filter of one tap, where PyTorch would set its threads to work: they wait for
    more at full speed, and our next kernel for its own behind them (512 channels, K = 2, 199 samples, forward and
    backward on two cores: 3.6 ms instead of 6.4).
    """
    if gradient.is_cuda or torch.compiler.is_compiling() or gradient.numel() < _SUMMED_BY_ONE:
        return gradient.sum((0, 2) if gradient.dim() == 3 else 1)  # noqa: PLR2004  # (N, O, L_out)
    ones = gradient.new_ones((*gradient.shape[:-2], 1, gradient.shape[-1]))
    return correlate(ones, gradient, 1, 1, 0, 1, 1).flatten()


def _convolve(
    input: Any,  # noqa: A002  # PyTorch's name
    weight: Any,
    bias: Any,
    fast: int,
    outputs: int,
    *geometry: int,
) -> Any:
    problem = _known(input.shape, weight.shape, outputs, *geometry)
    y = tensors.forward(problem, input, weight, bias, is_fast=bool(fast))
    return y if input.dim() == 3 else y[0]  # noqa: PLR2004  # (N, C, L)


def _convolve_fake(input: Any, weight: Any, bias: Any, fast: int, outputs: int, *geometry: int) -> Any:  # noqa: A002, ARG001
    problem = _describe(input.shape, weight.shape, outputs, *geometry)
    return tensors.empty_like(problem, input, _batched(input.shape, weight.shape[0], outputs))


def _save(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG001
    """Keep of the two operands of a sum, each of which makes the other's gradient, those that will be needed."""
    first, second = inputs[:2]
    ctx.sizes = first.shape[-1], second.shape[-1], *inputs[-4:]
    by_first, by_second, *_ = ctx.needs_input_grad
    ctx.save_for_backward(first if by_second else None, second if by_first else None)


def convolve_gradients(operands: Any, sizes: Any, needs: Any, gradient: Any) -> tuple[Any, Any, Any]:
    """Return the gradients by input, weight and bias, None for those that none needs.

    `operands` are input and weight, or None for what is in none of those; `sizes` are (L, K, stride, padding, dilation,
    groups).
    """
    (x, w), (length, taps, *geometry) = operands, sizes
    if needs[0] and needs[1] and (both := both_gradients(x, w, gradient, *geometry)):
        return *both, bias_gradient(gradient) if needs[2] else None
    by_input = transpose(gradient, w, None, length, *geometry) if needs[0] else None
    by_weight = correlate(x, gradient, taps, *geometry) if needs[1] else None
    return by_input, by_weight, bias_gradient(gradient) if needs[2] else None


def both_gradients(x: Any, w: Any, gradient: Any, *geometry: int) -> tuple[Any, Any] | None:
    """Return the gradients by x and w (O, C/G, K) that one kernel computes; None where none does, or is watched."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or not x.is_cuda:
        return None
    if is_transformed() or not are_plain((x, w, gradient)):
        return None
    problem = _known(x.shape, w.shape, gradient.shape[-1], *geometry)
    are_alike = x.dtype is w.dtype is gradient.dtype
    if not (are_alike and tensors.has_both_gradients(problem, gradient)):
        return None
    if not (x.is_contiguous() and w.is_contiguous() and gradient.is_contiguous()):
        return None
    return tensors.known_gradients(problem, tuple(x.shape), x.dtype, x.get_device())(x, gradient, w)


def _convolve_backward(ctx: Any, gradient: Any) -> Any:
    gradients = convolve_gradients(ctx.saved_tensors, ctx.sizes, ctx.needs_input_grad, gradient)
    return *gradients, None, None, None, None, None, None


def _transpose(output: Any, weight: Any, bias: Any, length: int, *geometry: int) -> Any:
    problem = _known(*_transposed(output, weight, length, *geometry))
    x = tensors.transposed(problem, output, weight, bias)
    return x if output.dim() == 3 else x[0]  # noqa: PLR2004  # (N, O, L_out)


def _transposed(output: Any, weight: Any, length: int, *geometry: int) -> Any:
    """Return what describes the layer of which an operand is the result."""
    batch, _, outputs = (1, *output.shape)[-3:]
    return (batch, weight.shape[1] * geometry[-1], length), weight.shape, outputs, *geometry


def _transpose_fake(output: Any, weight: Any, bias: Any, length: int, *geometry: int) -> Any:  # noqa: ARG001
    shape = _batched(output.shape, weight.shape[1] * geometry[-1], length)
    layer = tensors.mirrored(_describe(*_transposed(output, weight, length, *geometry)))
    return output.new_empty(shape) if layer is None else tensors.empty_like(layer, output, shape)


def _transpose_backward(ctx: Any, gradient: Any) -> Any:
    (y, w), (outputs, taps, *geometry) = ctx.saved_tensors, ctx.sizes
    by_output = convolve(gradient, w, None, 0, outputs, *geometry) if ctx.needs_input_grad[0] else None
    by_weight = correlate(gradient, y, taps, *geometry) if ctx.needs_input_grad[1] else None
    by_bias = bias_gradient(gradient) if ctx.needs_input_grad[2] else None
    return by_output, by_weight, by_bias, None, None, None, None, None


def _correlate(input: Any, output: Any, taps: int, *geometry: int) -> Any:  # noqa: A002
    channels, group_in = output.shape[-2], input.shape[-2] // geometry[-1]
    problem = _known(input.shape, (channels, group_in, taps), output.shape[-1], *geometry)
    return tensors.weight_gradient(problem, input, output)


def _correlate_fake(input: Any, output: Any, taps: int, *geometry: int) -> Any:  # noqa: A002
    return input.new_empty((output.shape[-2], input.shape[-2] // geometry[-1], taps))


def _correlate_backward(ctx: Any, gradient: Any) -> Any:
    (x, y), (length, outputs, *geometry) = ctx.saved_tensors, ctx.sizes
    by_input = transpose(y, gradient, None, length, *geometry) if ctx.needs_input_grad[0] else None
    by_output = convolve(x, gradient, None, 0, outputs, *geometry) if ctx.needs_input_grad[1] else None
    return by_input, by_output, None, None, None, None, None


def _convolve_vmap(info: Any, dimensions: Any, *arguments: Any) -> Any:
    return _layers_side_by_side(convolve, info.batch_size, dimensions, *arguments)


def _transpose_vmap(info: Any, dimensions: Any, *arguments: Any) -> Any:
    return _layers_side_by_side(transpose, info.batch_size, dimensions, *arguments)


def _layers_side_by_side(
    operator: Operator, count: int, dimensions: Any, signal: Any, weight: Any, bias: Any, *sizes: int
) -> Any:
    """Apply a layer to several signals as one batch; several layers as groups of one."""
    if dimensions[1] is None and dimensions[2] is None:
        signals = signal.movedim(dimensions[0], 0)
        if signals.dim() == 3:  # noqa: PLR2004  # (count, C, L)
            return operator(signals, weight, bias, *sizes), 0
        return operator(signals.flatten(0, 1), weight, bias, *sizes).unflatten(0, signals.shape[:2]), 0
    weights = _stacked(weight, dimensions[1], count)
    biases = None if bias is None else _stacked(bias, dimensions[2], count).flatten()
    whole = operator(
        _in_channels(signal, dimensions[0], count), weights.flatten(0, 1), biases, *sizes[:-1], count * sizes[-1]
    )
    return whole.unflatten(-2, (count, -1)), whole.dim() - 2


def _correlate_vmap(info: Any, dimensions: Any, input: Any, output: Any, *sizes: int) -> Any:  # noqa: A002
    count = info.batch_size
    x, y = _in_channels(input, dimensions[0], count), _in_channels(output, dimensions[1], count)
    return correlate(x, y, *sizes[:-1], count * sizes[-1]).unflatten(0, (count, -1)), 0


def _stacked(operand: Any, dimension: int | None, count: int) -> Any:
    """Return several operands along the first dimension; one that is the same for all, as often as it is needed."""
    return operand.expand(count, *operand.shape) if dimension is None else operand.movedim(dimension, 0)


def _in_channels(operand: Any, dimension: int | None, count: int) -> Any:
    """Return the channels of several signals as those of one."""
    return _stacked(operand, dimension, count).movedim(0, -3).flatten(-3, -2)


def _causal(
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any,
    state: Any,
    numbers: Any,
    activation: int,
    fast: int,
) -> Any:
    problem = causal_problem(input.shape, weight.shape[1])
    y = tensors.causal(problem, input, weight, bias, activation, state, numbers, is_fast=bool(fast))
    return y if input.dim() == 3 else y[0]  # noqa: PLR2004  # (N, C, L)


def _causal_fake(input: Any, weight: Any, bias: Any, state: Any, numbers: Any, *_: Any) -> Any:  # noqa: A002, ARG001
    if state is not None or numbers is not None:
        return input.new_empty(input.shape)
    return tensors.empty_like(causal_problem(input.shape, weight.shape[1]), input, input.shape)


def _causal_save(ctx: Any, inputs: Any, output: Any) -> None:  # noqa: ARG001
    *operands, ctx.activation, ctx.fast = inputs
    ctx.save_for_backward(*operands)


def _causal_backward(ctx: Any, gradient: Any) -> Any:
    x, w, b, state, numbers = ctx.saved_tensors
    if ctx.activation:  # computing its argument again costs less than keeping it
        gradient = _ACTIVATION_GRADIENTS[ctx.activation](gradient, causal(x, w, b, state, numbers, 0, ctx.fast))
    if numbers is not None:
        by_x, by_weight, by_state = *_sequences_backward(ctx, gradient, x, w, numbers), None
        gradient = gradient * (numbers >= 0).unsqueeze(-2)  # what padding yields is 0 whatever the bias
    else:
        channels, taps = w.shape
        whole, padding = (x, taps - 1) if state is None else (torch.cat([state, x], -1), 0)
        geometry = 1, padding, 1, channels
        by_x = by_state = by_weight = None
        both = None
        if state is None and ctx.needs_input_grad[0] and ctx.needs_input_grad[1]:
            both = both_gradients(x, w.unsqueeze(1), gradient, *geometry)
        if both is not None:
            by_x, by_weight = both[0], both[1].squeeze(1)
        elif ctx.needs_input_grad[0] or ctx.needs_input_grad[3]:
            by_x = transpose(gradient, w.unsqueeze(1), None, whole.shape[-1], *geometry)
        if state is not None and by_x is not None:
            by_state, by_x = by_x.split([taps - 1, x.shape[-1]], -1)
        if both is None and ctx.needs_input_grad[1]:
            by_weight = correlate(whole.to(w.dtype), gradient.to(w.dtype), taps, *geometry).squeeze(1)
    by_bias = bias_gradient(gradient).to(b.dtype) if ctx.needs_input_grad[2] else None
    return by_x, by_weight, by_bias, by_state, None, None, None


def _sequences_backward(ctx: Any, gradient: Any, x: Any, w: Any, numbers: Any) -> tuple[Any, Any]:
    """Return the gradients by x and w of a layer whose samples belong to sequences: it is causal backwards, too."""
    by_x = by_weight = None
    if ctx.needs_input_grad[0]:
        by_x = causal(gradient.flip(-1), w, None, None, numbers.flip(-1), 0, 0).flip(-1)
    if ctx.needs_input_grad[1]:
        channels, taps = w.shape
        columns = []
        for lag in reversed(range(taps)):
            met = max(0, x.shape[-1] - lag)
            later = numbers[..., numbers.shape[-1] - met :]
            is_met = (numbers[..., :met] == later) & (later >= 0)
            samples, gradients = x[..., :met] * is_met.unsqueeze(-2), gradient[..., gradient.shape[-1] - met :]
            columns.append(correlate(samples.to(w.dtype), gradients.to(w.dtype), 1, 1, 0, 1, channels))
        by_weight = torch.cat(columns, -1).squeeze(1)
    return by_x, by_weight


def _silu_gradient(gradient: Any, sums: Any) -> Any:
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward(gradient, sums)
    gate = torch.sigmoid(sums)  # PyTorch's function has no derivative of its own
    return gradient * gate * (1 + sums * (1 - gate))


_ACTIVATION_GRADIENTS = {
    ACTIVATIONS["relu"]: lambda gradient, sums: torch.ops.aten.threshold_backward(gradient, sums, 0),
    ACTIVATIONS["gelu"]: torch.ops.aten.gelu_backward,
    ACTIVATIONS["silu"]: _silu_gradient,
}
"""Activation -> gradient by the sums it is applied to, from that of its results."""

_GEOMETRY = "int stride, int padding, int dilation, int groups) -> Tensor"

convolve = Operator(
    f"conv1d(Tensor input, Tensor weight, Tensor? bias, int fast, SymInt outputs, {_GEOMETRY}",
    _convolve,
    _convolve_fake,
    _save,
    _convolve_backward,
    _convolve_vmap,
)
"""y (N, O, L_out) of x (N, C, L) and w (O, C/G, K), or both without N."""

transpose = Operator(
    f"conv_transpose1d(Tensor output, Tensor weight, Tensor? bias, SymInt length, {_GEOMETRY}",
    _transpose,
    _transpose_fake,
    _save,
    _transpose_backward,
    _transpose_vmap,
)
"""x (N, C, L) of y (N, O, L_out) and w (O, C/G, K), or both without N."""

correlate = Operator(
    f"conv1d_weight(Tensor input, Tensor output, SymInt taps, {_GEOMETRY}",
    _correlate,
    _correlate_fake,
    _save,
    _correlate_backward,
    _correlate_vmap,
)
"""w (O, C/G, K) of x (N, C, L) and y (N, O, L_out), or both without N."""

causal = Operator(
    "causal_conv1d(Tensor input, Tensor weight, Tensor? bias, Tensor? state, Tensor? numbers, int activation,"
    " int fast) -> Tensor",
    _causal,
    _causal_fake,
    _causal_save,
    _causal_backward,
)
"""y (N, C, L) of x (N, C, L), w (C, K), the K - 1 samples before x, or the numbers (N, L) of sequences, int32."""
