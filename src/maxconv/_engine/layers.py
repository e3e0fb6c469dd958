"""Runs the sums of a layer: forward, transposed, with a history, and the gradient of the weights.

Arrays have passed the checks of `_layer.py`. They are NumPy's, of one floating-point type and in any memory layout; for
a `device` that is not the CPU also `max.driver.Buffer`s there, contiguous. Results are like the first operand.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _plan
from .._layer import dtype_name
from . import blame_memory, devices, like, native
from .buffers import compact, upload

if TYPE_CHECKING:
    from .._layer import LayerProblem
    from .._problem import Problem

#: Filters per channel from which the matrix product serves depthwise layers better: it reads a sample for all of them.
_FILTERS_OF_A_PRODUCT = 4

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def is_depthwise(problem: LayerProblem) -> bool:
    """Tell whether the depthwise kernels serve a layer: one input channel a group, and few filters for it."""
    return problem.groups == problem.in_channels and problem.out_channels < _FILTERS_OF_A_PRODUCT * problem.in_channels


def forward(
    problem: LayerProblem,
    x: Any,
    w: Any,
    bias: Any = None,
    activation: int = 0,
    device: str = "cpu",
    *,
    is_fast: bool = False,
) -> Any:
    """Compute y (N, O, L_out) from x (N, C, L) and w (O, C/G, K)."""
    if device == "cpu" and (nfft := _plan.block_of_layer(problem, _accumulator(x.dtype).itemsize)):
        wide = _accumulator(x.dtype)
        y = np.empty(problem.output_shape, wide)
        arrays = y, *(compact(each.astype(wide, copy=False)) for each in (x, w)), _in_accumulator(bias, x.dtype)
        native.run_layer_on_cpu(f"depthwise_fft_{wide.name}", arrays, problem, activation, nfft)
        return y.astype(x.dtype, copy=False)
    if is_depthwise(problem):
        return causal(problem, x, w, bias, activation, device=device, is_fast=is_fast or not problem.is_causal)
    return _run_product("conv", problem, problem.output_shape, x, w, bias, activation, device)


def transposed(
    problem: LayerProblem, y: Any, w: Any, bias: Any = None, activation: int = 0, device: str = "cpu"
) -> Any:
    """Compute x (N, C, L) from y (N, O, L_out) and w (O, C/G, K): the input gradient of `forward`, too."""
    return _run_product("conv_transpose", problem, problem.input_shape, y, w, bias, activation, device)


def _run_product(
    kernel: str, problem: LayerProblem, shape: tuple[int, ...], x: Any, w: Any, bias: Any, activation: int, device: str
) -> Any:
    """Compute a result of signals, filters and bias."""
    if device != "cpu":
        return _run_on_gpu(kernel, problem, device, shape, (x, w, bias), activation)
    y = np.empty(shape, x.dtype)
    arrays = y, compact(x), compact(w), _in_accumulator(bias, x.dtype)
    native.run_layer_on_cpu(f"{kernel}_{dtype_name(x.dtype)}", arrays, problem, activation)
    return y


def weight_gradient(problem: LayerProblem, x: Any, y: Any, device: str = "cpu") -> Any:
    """Compute w (O, C/G, K) from x (N, C, L) and y (N, O, L_out), the gradient of the outputs."""
    if device != "cpu":
        from max.driver import Buffer
        from max.dtype import DType

        size = native.gradient_workspace(f"weight_gradient_{x.dtype.name}", problem)
        with blame_memory(size, "uint8", device):
            workspace = Buffer(DType.uint8, (size,), device=devices.handle(device))
        return _run_on_gpu("weight_gradient", problem, device, problem.weight_shape, (x, y, workspace))
    w = np.empty(problem.weight_shape, x.dtype)
    native.run_layer_on_cpu(f"weight_gradient_{dtype_name(x.dtype)}", (w, compact(x), compact(y)), problem)
    return w


def causal(
    problem: LayerProblem,
    x: Any,
    w: Any,
    bias: Any,
    activation: int,
    state: Any = None,
    numbers: Any = None,
    device: str = "cpu",
    *,
    is_fast: bool = False,
) -> Any:
    """Compute y of a depthwise layer, which may have a history.

    Parameters
    ----------
    problem
        A layer with one input channel a group.
    x, w, bias
        As for `forward`; w and bias may be float32 where x is of half precision.
    activation
        A value of `_layer.ACTIVATIONS`.
    state
        The K - 1 samples before each channel, (N, C, K - 1), of the type of x.
    numbers
        The sequence of each sample, (N, L), int32.
    device
        "cpu" or "gpu:<id>".
    is_fast
        Whether pieces of signals in half precision need not have the bits of the whole; on the CPU they have.
    """
    if device != "cpu":
        operands = x, w, bias, state, numbers
        return _run_on_gpu("depthwise", problem, device, problem.output_shape, operands, activation, int(not is_fast))
    y = np.empty(problem.output_shape, x.dtype)
    state = np.empty(0, x.dtype) if state is None else compact(state)
    numbers = np.empty(0, np.int32) if numbers is None else compact(numbers)
    arrays = y, compact(x), _in_accumulator(w, x.dtype), _in_accumulator(bias, x.dtype), state, numbers
    native.run_layer_on_cpu(f"depthwise_{dtype_name(x.dtype)}", arrays, problem, activation)
    return y


def by_fft(problem: LayerProblem, rows: Problem, x: Any, w: Any, bias: Any, nfft: int, device: str) -> Any:
    """Compute y of a layer of one filter a channel on a GPU by overlap-save; `rows` is the problem of one signal."""
    from max.driver import Buffer

    from . import spectra  # loads MAX

    kind = x.dtype.name
    with blame_memory(math.prod(problem.input_shape) + math.prod(problem.output_shape), kind, device):
        there = upload(x, device) if isinstance(x, np.ndarray) else x
        nfft = spectra.served(nfft, rows.taps, kind, device)
        taps = spectra.of_taps(rows, kind, device, compact(w) if isinstance(w, np.ndarray) else w, nfft)
        y = Buffer(there.dtype, problem.output_shape, device=devices.handle(device))
        if nfft < spectra.LONG_NFFT:  # rows of one filter one after the other
            together = rows._replace(batch=(problem.batch, *rows.batch))
            spectra.convolve(together, kind, device, there, taps, nfft, y)
        else:
            for n in range(problem.batch):
                spectra.convolve(rows, kind, device, there[n, :, :], taps, nfft, y[n, :, :])
        if bias is not None:
            channels, alone = problem.out_channels, problem._replace(length=problem.outputs, taps=1, pad_left=0)
            operands = y, _ones(channels, kind, device), bias, None, None  # no history
            y = _run_on_gpu("depthwise", alone, device, problem.output_shape, operands, 0)
        return like(x, y, x.dtype)


def by_rows(problem: Problem, x: Any, w: Any, bias: Any, block: int, device: str, *, is_fast: bool) -> Any:
    """Compute y of such a layer with one FFT for each row; None if a device lacks the shared memory for the block.

    Parameters
    ----------
    problem
        That of all rows, batch (N, C).
    x, w, bias
        As for `forward`.
    block
        What `_plan.row_block_on_gpu` gave.
    device
        "gpu:<id>".
    is_fast
        Whether half precision may have the accuracy of overlap_save_mma_gpu.mojo.
    """
    from max.driver import Buffer

    from . import spectra  # loads MAX

    kind = x.dtype.name
    if spectra.served(block, 1, kind, device) != block:
        return None
    with blame_memory(problem.rows * (problem.samples + problem.outputs), kind, device):
        signals, taps, offsets = (
            upload(each, device) if isinstance(each, np.ndarray) else each for each in (x, w, bias)
        )
        y = Buffer(signals.dtype, problem.shape, device=devices.handle(device))
        spectra.convolve_rows(problem, kind, device, y, signals, taps, offsets, is_fast=is_fast)
        return like(x, y, x.dtype)


@lru_cache(maxsize=16)
def _ones(channels: int, dtype: str, device: str) -> Any:
    """Make filters of one tap that change nothing."""
    return upload(np.ones((channels, 1), dtype), device)


def _in_accumulator(array: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """Return a small operand in the type that sums of `dtype` are kept in; empty if there is none."""
    wide = _accumulator(dtype)
    return np.empty(0, wide) if array is None else compact(array.astype(wide, copy=False))


def _accumulator(dtype: np.dtype) -> np.dtype:
    """Return the type that sums of a type are kept in."""
    return _FLOAT64 if dtype.itemsize == _FLOAT64.itemsize else _FLOAT32


def _run_on_gpu(
    kernel: str, problem: LayerProblem, device: str, shape: tuple[int, ...], operands: tuple[Any, ...], *options: int
) -> Any:
    """Enqueue a sum; operands that are None, or have no elements, are not there."""
    x, w = operands[0], operands[1]
    kind = x.dtype.name
    name = f"{kernel}_{kind}" if kernel != "depthwise" else f"{kernel}_{kind}_{w.dtype.name}"
    try:
        result = _enqueue(name, problem, device, shape, operands, options)
    except ValueError:
        with blame_memory(sum(map(_size, operands)) + math.prod(shape), kind, device):
            raise
    return like(x, result, x.dtype) if isinstance(x, np.ndarray) else result


def _enqueue(
    name: str,
    problem: LayerProblem,
    device: str,
    shape: tuple[int, ...],
    operands: tuple[Any, ...],
    options: tuple[int, ...],
) -> Any:
    from max.driver import Buffer
    from max.dtype import DType

    handle, x = devices.handle(device), operands[0]
    result = Buffer(DType[x.dtype.name] if isinstance(x, np.ndarray) else x.dtype, shape, device=handle)
    if result.num_elements:
        there, addresses = [], [result._data_ptr()]  # noqa: SLF001  # MAX has no public name for addresses
        for operand in operands:
            array = operand
            if isinstance(array, np.ndarray):
                array = upload(array, device) if array.size else None
                there.append(array)  # it must live until the launch
            addresses.append(array._data_ptr() if array is not None and array.num_elements else 0)  # noqa: SLF001
        queue = native.queue_on_gpu(handle._device_context_ptr())  # noqa: SLF001
        native.layer_kernel_on_gpu(name)(queue, tuple(addresses), native.layer_on_gpu(problem, *options))
    return result


def _size(array: Any) -> int:
    """Count the elements of an operand."""
    return 0 if array is None else math.prod(array.shape)
