"""`maxconv.graph.conv1d` in a MAX graph: PyTorch's values and lengths, errors while the graph is built."""

from __future__ import annotations

import arrays
import numpy as np
import pytest
import raw_ops
import reference
import tolerances
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType

import maxconv.graph
from maxconv import ArgumentError, DeviceError, DtypeError, ShapeError

HOST = DeviceRef.CPU()


def expected(x: np.ndarray, k: np.ndarray, left: int, right: int) -> np.ndarray:
    """Correlate a zero-padded signal in float64."""
    return reference.correlate(np.pad(x, (left, right)), k, "valid")


@pytest.mark.parametrize("name", raw_ops.PADDINGS)
@pytest.mark.parametrize(("n", "m"), [(20, 1), (20, 6), (300, 41), (6, 6)])
def test_symbolic_lengths_give_pytorchs_values(ops_on_device, rng, name, n, m):
    """One compiled graph per padding is right for all lengths; "same" puts the odd zero on the right."""
    x, k = (arrays.random_array(rng, length, np.dtype(np.float32)) for length in (n, m))
    total = m - 1
    left, right = {
        "valid": (0, 0),
        "none": (0, 0),
        "both": (3, 3),
        "uneven": (5, 2),
        "same": (total // 2, total - total // 2),
    }[name]
    actual = ops_on_device.run(f"conv1d_{name}", x, k)
    tolerances.assert_within_bound(actual, expected(x, k, left, right), expected(abs(x), abs(k), left, right), m)


def test_static_lengths_give_a_static_shape(ops_on_device, rng):
    """With lengths known to the graph the output's length is known too, and right."""
    x, k = rng.standard_normal(20), rng.standard_normal(6)
    actual = ops_on_device.run("conv1d_static", x, k)
    tolerances.assert_within_bound(actual, expected(x, k, 1, 4), expected(abs(x), abs(k), 1, 4), 6)


def test_taps_longer_than_the_padded_signal_are_refused_at_run_time(ops_on_device):
    """With symbolic lengths the kernel itself refuses what cannot be computed."""
    with pytest.raises(ValueError, match="6 taps do not fit on 3 samples padded by 0 and 0"):
        ops_on_device.run("conv1d_none", np.ones(3, np.float32), np.ones(6, np.float32))


BAD_GRAPHS = [
    (
        TensorType(DType.float32, (8,), HOST),
        TensorType(DType.float32, (3,), DeviceRef.GPU()),
        0,
        DeviceError,
        "x is on cpu:0, but weight is on gpu:0",
    ),
    (TensorType(DType.float32, (8,), HOST), TensorType(DType.float32, (3,), HOST), True, ArgumentError, "got True"),
    (
        TensorType(DType.float32, (2, 8), HOST),
        TensorType(DType.float32, (3,), HOST),
        0,
        ShapeError,
        r"x has shape \(2, 8\)",
    ),
    (
        TensorType(DType.float32, (8,), HOST),
        TensorType(DType.float32, (1, 3), HOST),
        0,
        ShapeError,
        r"weight has shape \(1, 3\)",
    ),
    (
        TensorType(DType.float32, (8,), HOST),
        TensorType(DType.float64, (3,), HOST),
        0,
        DtypeError,
        "got float32 and float64",
    ),
    (TensorType(DType.bool, (8,), HOST), TensorType(DType.bool, (3,), HOST), 0, DtypeError, "got bool and bool"),
    (
        TensorType(DType.float32, (8,), HOST),
        TensorType(DType.float32, (3,), HOST),
        -1,
        ArgumentError,
        "padding must be .*got -1",
    ),
    (TensorType(DType.float32, (8,), HOST), TensorType(DType.float32, (3,), HOST), "left", ArgumentError, "got 'left'"),
    (
        TensorType(DType.float32, (8,), HOST),
        TensorType(DType.float32, (3,), HOST),
        (1, 2, 3),
        ArgumentError,
        r"got \(1, 2, 3\)",
    ),
    (
        TensorType(DType.float32, (2,), HOST),
        TensorType(DType.float32, (6,), HOST),
        (1, 2),
        ShapeError,
        "6 taps, but x has 2 samples",
    ),
]


@pytest.mark.parametrize(("x", "weight", "padding", "kind", "text"), BAD_GRAPHS)
def test_bad_graphs_are_refused_while_they_are_built(x, weight, padding, kind, text):
    """Wrong ranks, types, paddings and known lengths raise before anything is compiled."""
    with (
        pytest.raises(kind, match=f"conv1d: .*{text}"),
        Graph("bad", input_types=[x, weight], custom_extensions=[]) as graph,
    ):
        graph.output(maxconv.graph.conv1d(*graph.inputs, padding=padding))
