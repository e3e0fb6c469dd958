"""Runs the sums of a layer on the CPU: forward, transposed, with a history, and the gradient of the weights.

Arrays are NumPy's, of one floating-point type and in any memory layout, and have passed the checks of `_layer.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._layer import dtype_name
from . import native
from .buffers import compact

if TYPE_CHECKING:
    from .._layer import LayerProblem

#: Filters per channel from which the matrix product serves depthwise layers better: it reads a sample for all of them.
_FILTERS_OF_A_PRODUCT = 4


def forward(
    problem: LayerProblem, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, activation: int = 0
) -> np.ndarray:
    """Compute y (N, O, L_out) from x (N, C, L) and w (O, C/G, K)."""
    if problem.groups == problem.in_channels and problem.out_channels < _FILTERS_OF_A_PRODUCT * problem.in_channels:
        return causal(problem, x, w, bias, activation)
    y = np.empty(problem.output_shape, x.dtype)
    arrays = y, compact(x), compact(w), _in_accumulator(bias, x.dtype)
    native.run_layer_on_cpu(f"conv_{dtype_name(x.dtype)}", arrays, problem, activation)
    return y


def transposed(
    problem: LayerProblem, y: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, activation: int = 0
) -> np.ndarray:
    """Compute x (N, C, L) from y (N, O, L_out) and w (O, C/G, K): the input gradient of `forward`, too."""
    x = np.empty(problem.input_shape, y.dtype)
    arrays = x, compact(y), compact(w), _in_accumulator(bias, y.dtype)
    native.run_layer_on_cpu(f"conv_transpose_{dtype_name(y.dtype)}", arrays, problem, activation)
    return x


def weight_gradient(problem: LayerProblem, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Compute w (O, C/G, K) from x (N, C, L) and y (N, O, L_out), the gradient of the outputs."""
    w = np.empty(problem.weight_shape, x.dtype)
    native.run_layer_on_cpu(f"weight_gradient_{dtype_name(x.dtype)}", (w, compact(x), compact(y)), problem)
    return w


def causal(
    problem: LayerProblem,
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    activation: int,
    state: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
) -> np.ndarray:
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
    """
    y = np.empty(problem.output_shape, x.dtype)
    state = np.empty(0, x.dtype) if state is None else compact(state)
    numbers = np.empty(0, np.int32) if numbers is None else compact(numbers)
    arrays = y, compact(x), _in_accumulator(w, x.dtype), _in_accumulator(bias, x.dtype), state, numbers
    native.run_layer_on_cpu(f"depthwise_{dtype_name(x.dtype)}", arrays, problem, activation)
    return y


def _in_accumulator(array: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """Return a small operand in the type that sums of `dtype` are kept in; empty if there is none."""
    wide = np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)  # noqa: PLR2004  # bytes of float64
    return np.empty(0, wide) if array is None else compact(array.astype(wide, copy=False))
