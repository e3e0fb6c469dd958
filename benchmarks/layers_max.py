"""MAX's own `max.nn.Conv1D` beside ours: whether it compiles, whether it is right, how long it takes."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from layers import MOST_ERROR, Layer, by_maxconv, by_torch
from timing import time_calls

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

SECONDS_TO_COMPILE = 60
"""Patience with one layer: a graph of one op takes 25 to 30 s on 2 cores, and less once others were compiled."""

REST = 0.5
"""Seconds after which PyTorch's threads have stopped to wait for work."""


def bench(layers: list[Layer]) -> list[dict[str, Any]]:
    """Try every convolution, one after another in a process of their own, which is stopped if one takes too long.

    Left out are transposed layers, which have a class of their own, and filters as long as their signal.
    """
    rows = []
    there: tuple[Any, Connection] | None = None
    for layer in layers:
        if layer.kind == "conv_transpose1d" or layer.taps == layer.length:
            continue
        process, connection = there = there or start()
        connection.send(layer)
        if connection.poll(SECONDS_TO_COMPILE):
            row = connection.recv()
        else:
            process.kill()
            there = None
            row = {"case": layer.name, "outcome": f"does not compile in {SECONDS_TO_COMPILE} s", "seconds": {}}
        rows.append(row)
        times = {name: f"{1e6 * timing['median']:.1f} us" for name, timing in row["seconds"].items()}
        print(f"{row['case']:30s} {row['outcome']}", times, flush=True)
    if there:
        there[1].send(None)
    return rows


def start() -> tuple[Any, Connection]:
    """Start a process that measures layers."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there,), daemon=True)
    process.start()
    return process, here


def serve(connection: Connection) -> None:
    """Measure the layers that come, until None does."""
    while layer := connection.recv():
        connection.send(measure(layer))


def measure(layer: Layer) -> dict[str, Any]:
    """Compile a layer, compare it with PyTorch's in float64, and time it beside ours on host memory.

    PyTorch is timed by the suite "layers": the threads of three libraries, waiting at full speed, disturb one another.
    """
    import torch

    rng = np.random.default_rng()
    shapes = (1, layer.in_channels, layer.length), layer.weight_shape, (layer.out_channels,)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    try:
        model = compiled(layer, w, b)
    except Exception as error:  # noqa: BLE001  # whatever MAX raises is the outcome
        text = str(error.__cause__ or error).strip().splitlines()[-1]
        return {"case": layer.name, "outcome": f"does not compile: {text}", "seconds": {}}
    calls = {"maxconv": partial(by_maxconv, layer, x, w, b), "max.nn.Conv1D": partial(model, x)}
    with torch.no_grad():
        exact = by_torch(layer, *(torch.from_numpy(array).double() for array in (x, w, b))).numpy()
        errors = {
            name: float(np.abs(np.from_dlpack(call()) - exact).max() / np.abs(exact).max())
            for name, call in calls.items()
        }
        right = errors["max.nn.Conv1D"] <= MOST_ERROR
    time.sleep(REST)
    timings = time_calls(calls, rounds=7, seconds=0.1)
    return {
        "case": layer.name,
        "outcome": "right" if right else f"wrong by {errors['max.nn.Conv1D']:.1e} of the largest output",
        "errors": errors,
        "baseline": "maxconv",
        "seconds": {name: timing._asdict() for name, timing in timings.items()},
    }


def compiled(layer: Layer, w: np.ndarray, b: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Compile a layer for one shape."""
    from max.driver import CPU, Buffer
    from max.dtype import DType
    from max.engine import InferenceSession
    from max.graph import DeviceRef, Graph, TensorType, ops
    from max.nn import Conv1D

    is_causal = layer.kind == "causal_conv1d"
    conv = Conv1D(
        layer.taps,
        layer.in_channels,
        layer.out_channels,
        DType.float32,
        layer.stride,
        (layer.taps - 1, 0) if is_causal else layer.padding,
        layer.dilation,
        layer.groups,
        DeviceRef.CPU(),
        has_bias=True,
        permute=True,
    )
    conv.load_state_dict({"weight": w[:, np.newaxis] if is_causal else w, "bias": b})
    kind = TensorType(DType.float32, (1, layer.in_channels, layer.length), DeviceRef.CPU())
    with Graph("layer", input_types=[kind]) as graph:
        y = conv(graph.inputs[0].tensor)
        graph.output(ops.silu(y) if is_causal else y)
    model = InferenceSession(devices=[CPU()]).load(graph, weights_registry=conv.state_dict())
    return lambda x: model.execute(Buffer.from_numpy(x))[0]
