"""Runs the sums of a layer on PyTorch's tensors: what `layers.py` does for arrays.

Nothing is copied but strided operands. Results are PyTorch's own memory. On a GPU a sum stands in the order of the
current stream, like PyTorch's own work: it waits for what made its operands, and what uses its result waits for it.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import torch

from .. import _plan
from .._errors import DeviceError
from .._layer import LayerProblem
from . import devices, native
from .layers import is_depthwise

#: Element types of layers, and the names that kernels have for them.
NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "float64"}


#: Taps up to which the channels-last kernels serve, and the bytes of their vectors.
_SHORT, _VECTOR = 16, 16

#: Taps of the causal layers whose gradients one kernel computes together.
_TAPS_OF_BOTH = 4

#: Bytes of the types that sums are not kept in.
_HALF = 2

#: What PyTorch's compiled code makes its results by.
_torch: Any = torch._C  # noqa: SLF001
_guards = _torch._dynamo.guards  # noqa: SLF001

#: CUDA's handle of the default stream, for which PyTorch says 0, and the kernels take 0 for MAX's own.
_DEFAULT_STREAM = 1

#: Strides of bytes.
_ONE = (1,)


class Sum:
    """A sum on operands of known sizes, type and device: what does not change from one call to the next.

    Parameters
    ----------
    kernel
        A function of gpu_layers.mojo or cpu_layers.mojo.
    problem, options
        What it takes behind the arrays.
    shape, dtype, device
        Of the result, which has elements; a device is CUDA's index, or -1 for the CPU.
    """

    __slots__ = (
        "device",
        "dtype",
        "has_history",
        "kernel",
        "launch",
        "layer",
        "options",
        "problem",
        "shape",
        "strides",
        "workspace",
    )

    def __init__(
        self, kernel: str, problem: LayerProblem, options: tuple[int, ...], shape: Any, dtype: Any, device: int
    ) -> None:
        self.kernel, self.problem, self.options = kernel, problem, options
        self.shape, self.dtype, self.device = shape, dtype, device
        self.strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        self.has_history = kernel.startswith("depthwise") and not kernel.startswith(("depthwise_last", "depthwise_fft"))
        self.workspace: tuple[int, ...] | None = None
        if device >= 0:
            _context(device)  # refuses what is no NVIDIA GPU
            self.launch, self.layer = native.layer_kernel_on_gpu(kernel), native.layer_on_gpu(problem, *options)
            if kernel.startswith("weight_gradient"):
                self.workspace = (native.gradient_workspace(kernel, problem),)

    def __call__(self, first: Any, second: Any, third: Any = None, state: Any = None, numbers: Any = None) -> Any:
        """Compute the result of contiguous operands, None for those that are not there; on a GPU, enqueue it.

        Memory comes as PyTorch's compiled code gets it: `new_empty` goes through the dispatcher twice, 2.5 us on an
        H200's host, where this takes 1.1 (2026-11-23).
        """
        device = self.device
        if device < 0:
            result = _guards._empty_strided_cpu(self.shape, self.strides, self.dtype)  # noqa: SLF001
        elif device == _torch._cuda_getDevice():  # noqa: SLF001  # cheaper than the public name
            result = _guards._empty_strided_cuda(self.shape, self.strides, self.dtype)  # noqa: SLF001
            if self.workspace is not None:
                third = _guards._empty_strided_cuda(self.workspace, _ONE, torch.uint8)  # noqa: SLF001
        else:
            with torch.cuda.device(device):  # what MAX makes current, PyTorch would take for the user's choice
                return self(first, second, third, state, numbers)
        last = 0 if third is None else third.data_ptr()
        addresses: tuple[int, ...] = result.data_ptr(), first.data_ptr(), second.data_ptr(), last
        if self.has_history:
            history = 0 if state is None else state.data_ptr(), 0 if numbers is None else numbers.data_ptr()
            addresses += history
        if device < 0:
            native.run_layer_on_cpu(self.kernel, addresses, self.problem, *self.options)
        else:
            stream = _torch._cuda_getCurrentRawStream(device)  # noqa: SLF001  # cheaper than the stream as an object
            self.launch(_queue(device, stream), addresses, self.layer)
        return result


known_sum = lru_cache(maxsize=4096)(Sum)
"""The same, made once."""


class Gradients:
    """Both gradients of a layer on a GPU in one pass over that of its outputs.

    Parameters
    ----------
    problem
        A layer of which `has_both_gradients` holds.
    shape
        Of the signals, with or without a batch.
    dtype, device
        Of all operands; a device is CUDA's index.
    """

    __slots__ = ("device", "dtype", "launch", "layer", "shapes", "strides", "workspace")

    def __init__(self, problem: LayerProblem, shape: tuple[int, ...], dtype: Any, device: int) -> None:
        self.shapes, self.dtype, self.device = (shape, problem.weight_shape), dtype, device
        _context(device)
        name = NAMES[dtype]
        self.launch, self.layer = native.layer_kernel_on_gpu(f"gradients_{name}"), native.layer_on_gpu(problem)
        self.workspace = (native.gradient_workspace(f"weight_gradient_{name}", problem),)
        rows = problem.in_channels * problem.length, problem.length, 1
        self.strides = rows[-len(shape) :], (problem.taps, problem.taps, 1)

    def __call__(self, x: Any, gradient: Any, w: Any) -> tuple[Any, Any]:
        """Enqueue the gradients by x and by w of contiguous operands."""
        device = self.device
        if device != _torch._cuda_getDevice():  # noqa: SLF001  # as in `Sum`
            with torch.cuda.device(device):
                return self(x, gradient, w)
        make = _guards._empty_strided_cuda  # noqa: SLF001
        by_x, by_w = (
            make(shape, strides, self.dtype) for shape, strides in zip(self.shapes, self.strides, strict=True)
        )
        workspace = make(self.workspace, _ONE, torch.uint8)
        arrays = by_x, by_w, x, gradient, w, workspace
        stream = _torch._cuda_getCurrentRawStream(device)  # noqa: SLF001
        self.launch(_queue(device, stream), tuple([array.data_ptr() for array in arrays]), self.layer)
        return by_x, by_w


known_gradients = lru_cache(maxsize=1024)(Gradients)
"""The same, made once."""


def has_both_gradients(problem: LayerProblem, gradient: Any) -> bool:
    """Tell whether one kernel computes both gradients: of causal layers, a filter of four taps for every channel.

    Operands are to be contiguous, and of one type.
    """
    is_causal = problem.taps == _TAPS_OF_BOTH == problem.pad_left + 1 and problem.outputs == problem.length
    is_dense = problem.stride == problem.dilation == 1 and problem.length * gradient.element_size() % _VECTOR == 0
    return is_causal and is_dense and problem.has_one_filter_each and gradient.is_cuda and gradient.numel() > 0


def forward_sum(
    problem: LayerProblem,
    x: Any,
    w: Any,
    shape: tuple[int, ...],
    activation: int = 0,
    *,
    is_causal: bool = False,
    is_fast: bool = False,
) -> Sum:
    """Return what `forward`, or `causal`, does for contiguous operands that the kernels take as they are.

    The result, y, has the shape.
    """
    kernel = _depthwise_name(x, w) if is_depthwise(problem) else _name("conv", x.dtype)
    options = _options(x, activation, is_ordered=problem.is_causal and is_depthwise(problem) and not is_fast)
    if not is_causal and (nfft := _block_of(problem, x)):
        kernel, options = _name("depthwise_fft", x.dtype), (activation, nfft)
    return known_sum(kernel, problem, options, shape, x.dtype, x.get_device())


def transposed_sum(problem: LayerProblem, y: Any, shape: tuple[int, ...]) -> Sum | None:
    """Return what `transposed` does for contiguous operands; None where it makes other operands of them."""
    if not y.is_cuda and mirrored(problem) is not None:
        return None
    return known_sum(_name("conv_transpose", y.dtype), problem, (0,), shape, y.dtype, y.get_device())


def gradient_sums(
    problem: LayerProblem, y: Any, x_shape: tuple[int, ...], w_shape: tuple[int, ...]
) -> tuple[Sum, Sum, Gradients | None] | None:
    """Return what `transposed` and `weight_gradient` do for contiguous operands; None where these are made first.

    The third does both, if a kernel does.
    """
    by_input = None if 0 in x_shape else transposed_sum(problem, y, x_shape)
    if by_input is None or (problem.has_one_filter_each and not y.is_cuda):
        return None
    by_weight = known_sum(_name("weight_gradient", y.dtype), problem, (), w_shape, y.dtype, y.get_device())
    both = known_gradients(problem, x_shape, y.dtype, y.get_device()) if has_both_gradients(problem, y) else None
    return by_input, by_weight, both


def forward(
    problem: LayerProblem, x: Any, w: Any, bias: Any = None, activation: int = 0, *, is_fast: bool = False
) -> Any:
    """Compute y (N, O, L_out) from x (N, C, L) and w (O, C/G, K)."""
    if nfft := _block_of(problem, x):
        return _run(_name("depthwise_fft", x.dtype), problem, problem.output_shape, x, (x, w, bias), activation, nfft)
    if is_depthwise(problem):
        return causal(problem, x, w, bias, activation, is_fast=is_fast or not problem.is_causal)
    return _run(_name("conv", x.dtype), problem, problem.output_shape, x, (x, w, _bias(bias, x)), activation)


def transposed(problem: LayerProblem, y: Any, w: Any, bias: Any = None) -> Any:
    """Compute x (N, C, L) from y (N, O, L_out) and w (O, C/G, K): the input gradient of `forward`, too."""
    if not y.is_cuda or w.dtype is not y.dtype or not y.is_contiguous():
        layer = _known_mirrored(problem)
        if layer is not None and (not y.is_cuda or w.dtype is not y.dtype or is_channels_last(layer, y)):
            return forward(layer, y, w.flip(-1), bias)  # contiguous ones on a GPU are read backwards where they are
    return _run(_name("conv_transpose", y.dtype), problem, problem.input_shape, y, (y, w, _bias(bias, y)), 0)


def mirrored(problem: LayerProblem) -> LayerProblem | None:
    """Return the layer that computes x from y, with its filters read backwards; None if that is no depthwise layer.

    One filter a channel, read backwards, is one again, and those kernels are the faster ones.
    """
    pad_left = problem.dilation * (problem.taps - 1) - problem.pad_left
    if problem.has_one_filter_each and problem.stride == 1 and pad_left >= 0:
        lengths = problem.outputs, problem.length
        return LayerProblem(*problem[:4], *lengths, problem.taps, 1, problem.dilation, pad_left)
    return None


_known_mirrored = lru_cache(maxsize=1024)(mirrored)
"""The same of sizes that are numbers."""


def weight_gradient(problem: LayerProblem, x: Any, y: Any) -> Any:
    """Compute w (O, C/G, K) from x (N, C, L) and y (N, O, L_out), the gradient of the outputs."""
    if not (x.numel() and y.numel()):
        return x.new_zeros(problem.weight_shape)
    if not x.is_cuda and problem.has_one_filter_each:
        # One filter a channel meets its signal as the gradient of the outputs would, as the longer filter.
        rows = problem.batch * problem.in_channels
        lengths = problem.length, problem.taps, problem.outputs, problem.dilation, problem.stride
        layer = LayerProblem(1, rows, rows, rows, *lengths, problem.pad_left)
        if _block_of(layer, x):
            return forward(layer, x, y).view(problem.batch, *problem.weight_shape).sum(0)
    if is_channels_last(problem, x):
        kernel, operands = _name("weight_gradient_last", x.dtype), (_aligned(x.mT), _aligned(y.mT))
    else:
        kernel, operands = _name("weight_gradient", x.dtype), (x, y)
    return _run(kernel, problem, problem.weight_shape, x, operands)


def causal(
    problem: LayerProblem,
    x: Any,
    w: Any,
    bias: Any,
    activation: int,
    state: Any = None,
    numbers: Any = None,
    *,
    is_fast: bool = False,
) -> Any:
    """Compute y of a depthwise layer, which may have a history: see `layers.causal`."""
    if state is None and numbers is None and is_channels_last(problem, x):
        shape = problem.batch, problem.outputs, problem.out_channels
        kernel = _name("depthwise_last", x.dtype, w.dtype)
        return _run(kernel, problem, shape, x, (_aligned(x.mT), w, bias), activation).mT
    kernel = _depthwise_name(x, w)
    operands = x, w if x.is_cuda else _widened(w, x), _bias(bias, x), state, numbers
    return _run(kernel, problem, problem.output_shape, x, operands, *_options(x, activation, is_ordered=not is_fast))


def _options(x: Any, activation: int, *, is_ordered: bool) -> tuple[int, ...]:
    """Return what a depthwise kernel takes behind the arrays; sums on the CPU are ordered always."""
    return (activation, 1) if is_ordered and x.is_cuda else (activation,)


def _depthwise_name(x: Any, w: Any) -> str:
    """Name the function of depthwise layers; on the CPU filters are widened before."""
    return _name("depthwise", x.dtype, w.dtype) if x.is_cuda else _name("depthwise", x.dtype)


def _block_of(problem: LayerProblem, x: Any) -> int:
    """Return the length of the blocks whose FFTs serve a layer on the CPU; 0 if sums do."""
    return 0 if x.is_cuda or x.element_size() == _HALF else _plan.block_of_layer(problem, x.element_size())


def is_channels_last(problem: LayerProblem, x: Any) -> bool:
    """Tell whether a layer takes, and gives, signals that lie in memory as (N, L, C): see depthwise_last_gpu.mojo.

    The answer decides the strides of results, so it is the same for tensors without memory.
    """
    if x.device.type != "cuda" or x.dtype is torch.float64 or problem.taps > _SHORT or x.is_contiguous():
        return False
    is_dense = problem.stride == problem.dilation == 1
    return (
        problem.has_one_filter_each
        and is_dense
        and problem.in_channels * x.element_size() % _VECTOR == 0
        and x.mT.is_contiguous()
    )


def empty_like(problem: LayerProblem, x: Any, shape: tuple[int, ...]) -> Any:
    """Make a result of a layer in the memory layout that the kernels give it."""
    if is_channels_last(problem, x):
        return x.new_empty((*shape[:-2], shape[-1], shape[-2])).mT
    return x.new_empty(shape)


def _aligned(signals: Any) -> Any:
    """Return contiguous signals that begin where a vector may; views of a tensor's middle need not."""
    there = signals.contiguous()
    return there if there.data_ptr() % _VECTOR == 0 else there.clone()


def _run(
    kernel: str, problem: LayerProblem, shape: tuple[int, int, int], x: Any, operands: tuple[Any, ...], *options: int
) -> Any:
    """Compute a result like x; PyTorch reuses the memory of temporary copies in the order of the stream, too."""
    if 0 in shape:
        return x.new_empty(shape)
    there = [None if operand is None else operand.contiguous() for operand in operands]
    return known_sum(kernel, problem, options, shape, x.dtype, x.get_device())(*there)


@lru_cache(maxsize=256)
def _queue(device: int, stream: int) -> Any:
    """Return what to enqueue on for a stream of PyTorch."""
    return native.queue_on_gpu(_context(device), stream or _DEFAULT_STREAM)


@cache
def _context(device: int) -> int:
    """Return the address of MAX's context of a device, which is PyTorch's, too: the primary one."""
    place = devices.handle(f"gpu:{device}")
    if place.api != "cuda":
        message = f"layers are served by CPUs and NVIDIA GPUs, but gpu:{device} is neither"
        raise DeviceError(message)
    address: int = place._device_context_ptr()  # noqa: SLF001  # MAX has no public name for addresses
    return address


@cache
def _name(kernel: str, *dtypes: Any) -> str:
    """Name the function of a kernel for element types; remembered, since a small layer takes no longer than that."""
    return "_".join([kernel, *(NAMES[dtype] for dtype in dtypes)])


def _bias(bias: Any, x: Any) -> Any:
    """Return a bias as the kernels take it: on the CPU in the type of the sums."""
    return bias if bias is None or x.is_cuda else _widened(bias, x)


def _widened(operand: Any, x: Any) -> Any:
    """Return an operand in the type that sums of the type of `x` are kept in."""
    return operand.to(torch.float64 if x.dtype is torch.float64 else torch.float32)
