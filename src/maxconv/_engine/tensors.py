"""Runs the sums of a layer on PyTorch's tensors: what `layers.py` does for arrays.

Nothing is copied but strided operands. Results are PyTorch's own memory. On a GPU a sum stands in the order of the
current stream, like PyTorch's own work: it waits for what made its operands, and what uses its result waits for it.
"""

from __future__ import annotations

from functools import cache
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

#: Bytes of the types that sums are not kept in.
_HALF = 2

#: What PyTorch's compiled code makes its results by.
_guards = torch._C._dynamo.guards  # noqa: SLF001

#: CUDA's handle of the default stream, for which PyTorch says 0, and the kernels take 0 for MAX's own.
_DEFAULT_STREAM = 1


def forward(problem: LayerProblem, x: Any, w: Any, bias: Any = None, activation: int = 0) -> Any:
    """Compute y (N, O, L_out) from x (N, C, L) and w (O, C/G, K)."""
    if nfft := _block_of(problem, x):
        kernel, y = _name("depthwise_fft", x.dtype), _empty(x, problem.output_shape)
        return _run(kernel, y, (x, w, bias), problem, activation, nfft)
    if is_depthwise(problem):
        return causal(problem, x, w, bias, activation)
    y = _empty(x, problem.output_shape)
    return _run(_name("conv", x.dtype), y, (x, w, _bias(bias, x)), problem, activation)


def transposed(problem: LayerProblem, y: Any, w: Any, bias: Any = None) -> Any:
    """Compute x (N, C, L) from y (N, O, L_out) and w (O, C/G, K): the input gradient of `forward`, too."""
    layer = mirrored(problem)
    if layer is not None and (not y.is_cuda or w.dtype is not y.dtype or is_channels_last(layer, y)):
        return forward(layer, y, w.flip(-1), bias)  # contiguous ones on a GPU are read backwards where they are
    x = _empty(y, problem.input_shape)
    return _run(_name("conv_transpose", y.dtype), x, (y, w, _bias(bias, y)), problem, 0)


def mirrored(problem: LayerProblem) -> LayerProblem | None:
    """Return the layer that computes x from y, with its filters read backwards; None if that is no depthwise layer.

    One filter a channel, read backwards, is one again, and those kernels are the faster ones.
    """
    pad_left = problem.dilation * (problem.taps - 1) - problem.pad_left
    if problem.groups == problem.in_channels == problem.out_channels and problem.stride == 1 and pad_left >= 0:
        lengths = problem.outputs, problem.length
        return LayerProblem(*problem[:4], *lengths, problem.taps, 1, problem.dilation, pad_left)
    return None


def weight_gradient(problem: LayerProblem, x: Any, y: Any) -> Any:
    """Compute w (O, C/G, K) from x (N, C, L) and y (N, O, L_out), the gradient of the outputs."""
    if not (x.numel() and y.numel()):
        return x.new_zeros(problem.weight_shape)
    if not x.is_cuda and problem.groups == problem.in_channels == problem.out_channels:
        # One filter a channel meets its signal as the gradient of the outputs would, as the longer filter.
        rows = problem.batch * problem.in_channels
        lengths = problem.length, problem.taps, problem.outputs, problem.dilation, problem.stride
        layer = LayerProblem(1, rows, rows, rows, *lengths, problem.pad_left)
        if _block_of(layer, x):
            return forward(layer, x, y).view(problem.batch, *problem.weight_shape).sum(0)
    kernel = _name("weight_gradient", x.dtype)
    operands: tuple[Any, ...] = x, y
    if is_channels_last(problem, x):
        kernel, operands = _name("weight_gradient_last", x.dtype), (_aligned(x.mT), _aligned(y.mT))
    if x.is_cuda:
        size = native.gradient_workspace(kernel, problem)
        operands = *operands, x.new_empty(size, dtype=torch.uint8)
    return _run(kernel, _empty(x, problem.weight_shape), operands, problem)


def causal(
    problem: LayerProblem, x: Any, w: Any, bias: Any, activation: int, state: Any = None, numbers: Any = None
) -> Any:
    """Compute y of a depthwise layer, which may have a history: see `layers.causal`."""
    if state is None and numbers is None and is_channels_last(problem, x):
        y = empty_like(problem, x, problem.output_shape)
        kernel = _name("depthwise_last", x.dtype, w.dtype)
        _run(kernel, y.mT, (_aligned(x.mT), w, bias), problem, activation)
        return y
    y = _empty(x, problem.output_shape)
    if x.is_cuda:
        kernel = _name("depthwise", x.dtype, w.dtype)
    else:
        kernel, w = _name("depthwise", x.dtype), _widened(w, x)
    return _run(kernel, y, (x, w, _bias(bias, x), state, numbers), problem, activation)


def _block_of(problem: LayerProblem, x: Any) -> int:
    """Return the length of the blocks whose FFTs serve a layer on the CPU; 0 if sums do."""
    return 0 if x.is_cuda or x.element_size() == _HALF else _plan.block_of_layer(problem, x.element_size())


def is_channels_last(problem: LayerProblem, x: Any) -> bool:
    """Tell whether a layer takes, and gives, signals that lie in memory as (N, L, C): see depthwise_last_gpu.mojo.

    The answer decides the strides of results, so it is the same for tensors without memory.
    """
    if x.device.type != "cuda" or x.dtype is torch.float64 or problem.taps > _SHORT or x.is_contiguous():
        return False
    is_single = problem.groups == problem.in_channels == problem.out_channels
    is_dense = problem.stride == problem.dilation == 1
    return is_single and is_dense and problem.in_channels * x.element_size() % _VECTOR == 0 and x.mT.is_contiguous()


def empty_like(problem: LayerProblem, x: Any, shape: tuple[int, ...]) -> Any:
    """Make a result of a layer in the memory layout that the kernels give it."""
    if is_channels_last(problem, x):
        return x.new_empty((*shape[:-2], shape[-1], shape[-2])).mT
    return x.new_empty(shape)


def _empty(x: Any, shape: tuple[int, int, int]) -> Any:
    """Make a contiguous result in the memory that x is in.

    As PyTorch's compiled code does: `new_empty` goes through the dispatcher twice, 4.5 us on an H200 (2026-11-23).
    """
    if 0 in shape or (x.is_cuda and x.get_device() != torch._C._cuda_getDevice()):  # noqa: SLF001
        return x.new_empty(shape)
    make = _guards._empty_strided_cuda if x.is_cuda else _guards._empty_strided_cpu  # noqa: SLF001
    return make(shape, (shape[1] * shape[2], shape[2], 1), x.dtype)


def _aligned(signals: Any) -> Any:
    """Return contiguous signals that begin where a vector may; views of a tensor's middle need not."""
    there = signals.contiguous()
    return there if there.data_ptr() % _VECTOR == 0 else there.clone()


def _run(kernel: str, result: Any, operands: tuple[Any, ...], problem: LayerProblem, *options: int) -> Any:
    """Fill a result; PyTorch reuses the memory of temporary copies in the order of the stream, too."""
    if not result.numel():
        return result
    there = [None if operand is None else operand.contiguous() for operand in operands]
    addresses = (result.data_ptr(), *[0 if operand is None else operand.data_ptr() for operand in there])
    if result.is_cuda:
        _launch(kernel, result.get_device(), addresses, problem, *options)
    else:
        native.run_layer_on_cpu(kernel, addresses, problem, *options)
    return result


def _launch(kernel: str, device: int, addresses: tuple[int, ...], problem: LayerProblem, *options: int) -> None:
    """Enqueue a sum on the current stream of a device.

    That takes 7.4 us of the host; on a queue of MAX's own, tied to the stream by events, 12.3 (H200, 2026-11-22).
    """
    stream = torch._C._cuda_getCurrentRawStream(device)  # noqa: SLF001  # cheaper than the stream as an object
    queue = _context(device), stream or _DEFAULT_STREAM
    if device == torch._C._cuda_getDevice():  # noqa: SLF001  # cheaper than the public name
        native.run_layer_on_gpu(kernel, queue, addresses, problem, *options)
    else:
        with torch.cuda.device(device):  # what MAX makes current, PyTorch would take for the user's choice
            native.run_layer_on_gpu(kernel, queue, addresses, problem, *options)


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
