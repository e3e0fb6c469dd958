"""maxconv inside your own MAX graphs: functions of `max.graph` values.

Build the graph with ``custom_extensions=[maxconv.kernels_path()]``. This is the only module that places our ops.
"""

from __future__ import annotations

import itertools
import operator
from typing import Any

import numpy as np
from max.dtype import DType
from max.graph import DeviceRef, StaticDim, TensorType, TensorValue, ops

from ._errors import ArgumentError, DeviceError, DtypeError, ShapeError
from ._problem import BORDERS, KERNEL_DTYPES

__all__ = ["conv1d"]

_numbers = itertools.count()
"""Make the names of output lengths differ: one name in a graph is one length."""


def conv1d(x: TensorValue, weight: TensorValue, padding: int | tuple[int, int] | str = 0) -> TensorValue:
    """Cross-correlate a signal with taps, as `torch.nn.functional.conv1d` does, on tensors of rank 1.

    ``y[i] = sum_j x[i + j - left] * weight[j]`` with zeros outside `x`.

    Parameters
    ----------
    x
        Signal, shape (N); float16, bfloat16, float32, float64 or an integer type. N may be symbolic.
    weight
        Taps, shape (K), of the same dtype on the same device. K may be symbolic.
    padding
        Zeros at either end: an int for both, ``(left, right)``, ``"valid"`` for none, ``"same"`` for K - 1 in all,
        the odd one on the right as PyTorch has it (``1234 -> 0123400`` for K = 4).

    Returns
    -------
    max.graph.TensorValue
        Shape (N + left + right - K + 1), an exact symbolic dimension.

    Raises
    ------
    ShapeError
        If a rank is not 1, or statically known taps are longer than the padded signal.
    ArgumentError
        If `padding` is negative or none of the above.
    DeviceError
        If the tensors are on different devices.
    DtypeError
        If the dtypes differ or no kernel serves them.

    Examples
    --------
    >>> from max.dtype import DType
    >>> from max.graph import DeviceRef, Graph, TensorType
    >>> import maxconv, maxconv.graph
    >>> vector = lambda name: TensorType(DType.float32, (name,), DeviceRef.CPU())
    >>> with Graph("fir", input_types=[vector("n"), vector("k")], custom_extensions=[maxconv.kernels_path()]) as graph:
    ...     y = maxconv.graph.conv1d(*graph.inputs, padding="same")
    ...     print(y.shape)
    ...     graph.output(y)
    [Dim('n')]
    """
    for name, tensor in (("x", x), ("weight", weight)):
        if tensor.rank != 1:
            message = f"conv1d: {name} has shape {_shape(tensor)}, but rank 1 is expected"
            raise ShapeError(message)
    if x.dtype != weight.dtype or x.dtype.name not in KERNEL_DTYPES:
        served = ", ".join(KERNEL_DTYPES)
        message = f"conv1d: x and weight must have one dtype of {served}, got {x.dtype.name} and {weight.dtype.name}"
        raise DtypeError(message)
    if x.device != weight.device:
        message = f"conv1d: x is on {x.device}, but weight is on {weight.device}; both must be on one device"
        raise DeviceError(message)
    samples, taps = x.shape[0], weight.shape[0]
    if padding == "same":
        total = taps - 1
        left = total // 2
        ends = ops.stack([ops.shape_to_tensor([left]), ops.shape_to_tensor([total - left])])
        return _direct_vector(x, weight, ops.reshape(ends, (2,)), samples)
    left, right = _ends(padding)
    if _known(samples) and _known(taps) and int(samples) + left + right < int(taps):
        message = f"conv1d: weight has {taps} taps, but x has {samples} samples and padding adds {left} and {right}"
        raise ShapeError(message)
    ends = ops.constant(np.array([left, right], dtype=np.int64), DType.int64, DeviceRef.CPU())
    outputs = samples + (left + right + 1) - taps
    if _known(samples) and _known(taps):
        return _direct_vector(x, weight, ends, outputs)
    # A negative length would become an allocation of 2^64 bytes. With a name of its own the length comes from the
    # op's shape function, which refuses it in words; `rebind` then tells the graph what the name stands for.
    return _direct_vector(x, weight, ends, f"maxconv_outputs_{next(_numbers)}").rebind([outputs])


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


def _direct_vector(x: TensorValue, k: TensorValue, padding: TensorValue, outputs: Any) -> TensorValue:
    """Correlate one row."""
    correlation = ops.constant(0, DType.int64, DeviceRef.CPU())
    omit = ops.constant(BORDERS.index("omit"), DType.int64, DeviceRef.CPU())
    border = omit, ops.constant(0, x.dtype, DeviceRef.CPU())
    row_x, row_k = (ops.reshape(vector, (1, vector.shape[0])) for vector in (x, k))
    return ops.reshape(direct(row_x, row_k, padding, correlation, border, outputs), (outputs,))


def _ends(padding: object) -> tuple[int, int]:
    """Translate `padding` to (left, right)."""
    if padding == "valid":
        return 0, 0
    ends = padding if isinstance(padding, tuple) else (padding, padding)
    try:
        left, right = (operator.index(end) for end in ends if not isinstance(end, bool))
    except (TypeError, ValueError):
        left, right = -1, -1
    if left >= 0 and right >= 0:
        return left, right
    message = f'conv1d: padding must be an int >= 0, a pair of them, "same" or "valid", got {padding!r}'
    raise ArgumentError(message)


def _known(dimension: object) -> bool:
    return isinstance(dimension, StaticDim)


def _shape(tensor: TensorValue) -> str:
    return f"({', '.join(str(dimension) for dimension in tensor.shape)})"
