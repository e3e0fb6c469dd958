"""`maxconv.torch` beside PyTorch: forward alone and with backward, eager and compiled; what a call costs; a soak."""

from __future__ import annotations

import contextlib
import gc
import resource
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu import by_events
from layers import Layer, by_torch
from timing import row, sample_calls, summarize, time_calls

from maxconv._engine import native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from timing import Timing

#: The reproducer of pytorch#192902, the layer of a model that it stands for, and one of many short signals.
REPRODUCERS = [
    Layer("pytorch#192902", 12288, 12288, 4, 16384, groups=12288),
    Layer("pytorch#192902 causal", 12288, 12288, 4, 16384, groups=12288, kind="causal_conv1d"),
    Layer("depthwise, 8 signals", 4096, 4096, 4, 2048, padding=(3, 0), groups=4096, batch=8),
]

#: Seconds of calls in a row: fewer launches than a GPU's queue holds.
CALL_SECONDS = 0.005

SOAK_CALLS = 100_000
SOAK_LENGTHS = 5000


def by_maxconv(layer: Layer, x: Any, w: Any, b: Any) -> Any:
    """Apply a layer by the function of `maxconv.torch`."""
    import maxconv.torch

    if layer.kind == "causal_conv1d":
        return maxconv.torch.causal_conv1d(x, w, b, activation="silu")
    if layer.kind == "conv_transpose1d":
        return maxconv.torch.conv_transpose1d(x, w, b, layer.stride, layer.padding)
    return maxconv.torch.conv1d(x, w, b, layer.stride, layer.padding, layer.dilation, layer.groups)


def bench(device: str, layers: list[Layer]) -> list[dict[str, Any]]:
    """Time layers; refuse a wrong result. On a GPU float32 is without TF32, for both, and eager alone."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    on = "cuda" if device == "gpu" else "cpu"
    rows = bench_call(on)
    for kind in (torch.bfloat16, torch.float32) if device == "gpu" else (torch.float32,):
        for layer in [*REPRODUCERS, *layers] if device == "gpu" else layers:
            if layer.taps == layer.length and kind is torch.bfloat16:
                continue  # its FFT serves no half precision
            rows += bench_layer(layer, kind, on)
    return rows


def bench_layer(layer: Layer, kind: Any, on: str) -> list[dict[str, Any]]:
    """Time one layer."""
    import torch

    torch.compiler.reset()
    shapes = (layer.batch, layer.in_channels, layer.length), layer.weight_shape, (layer.out_channels,)
    operands = [torch.randn(shape, device=on, dtype=kind, requires_grad=True) for shape in shapes]
    with torch.no_grad():
        exact = by_torch(layer, *(operand.double() for operand in operands))
        worst = (by_maxconv(layer, *operands).double() - exact).abs().max().item()
        if not worst <= (1e-2 if kind is torch.bfloat16 else 1e-4) * exact.abs().max().item():
            message = f"{layer.name}: wrong by {worst}"
            raise SystemExit(message)
    gradient = torch.randn_like(exact, dtype=kind)
    del exact
    functions = {"torch": partial(by_torch, layer), "maxconv": partial(by_maxconv, layer)}
    if on == "cpu" or kind is torch.bfloat16:
        functions |= {f"{name} compiled": torch.compile(function) for name, function in functions.items()}

    def forward(function: Callable[..., Any]) -> Any:
        with torch.no_grad():
            return function(*operands)

    def both(function: Callable[..., Any]) -> Any:
        return train(function, operands, gradient)

    rows = []
    for what, run in (("forward", forward), ("forward and backward", both)):
        calls = {name: partial(run, function) for name, function in functions.items()}
        rows.append(row(f"{layer.name} {str(kind)[6:]} {what}", time_on(on, calls), "torch"))
    return rows


def time_on(on: str, calls: Mapping[str, Callable[[], Any]]) -> dict[str, Timing]:
    """Time calls between events of PyTorch's stream, or on the host clock."""
    if on == "cpu":
        # Rests, as in layers.py: the threads of the turn before would wait at full speed on a core of this one's.
        samples = sample_calls(calls, rounds=5, seconds=0.05, rest=0.03)
        return {name: summarize(values) for name, values in samples.items()}
    import torch

    events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    return {name: by_events(torch.cuda.Event.record, events, call) for name, call in calls.items()}


def bench_call(on: str) -> list[dict[str, Any]]:
    """Time what a call costs the host, on tensors so small that the sums do not count; on a GPU those do not wait."""
    import torch

    import maxconv.torch

    batch, channels, length, outputs = (2, 64, 500, 128) if on == "cuda" else (1, 8, 64, 8)
    x = torch.randn(batch, channels, length, device=on)
    rows = []
    for name, shape, padding, groups in (
        ("dense", (outputs, channels, 3), 0, 1),
        ("depthwise", (channels, 1, 4), 3, channels),
    ):
        w = torch.randn(shape, device=on)
        trained = [x.clone().requires_grad_(), w.clone().requires_grad_()]
        functions = {
            library: partial(function, padding=padding, groups=groups)
            for library, function in (("torch", torch.nn.functional.conv1d), ("maxconv", maxconv.torch.conv1d))
        }
        gradient = torch.randn_like(functions["torch"](x, w))
        streams = {"": contextlib.nullcontext()} | ({", side stream": side_stream()} if on == "cuda" else {})
        for where, stream in streams.items():
            calls = {library: partial(function, x, w) for library, function in functions.items()}
            with stream:
                rows.append(row(f"one {name} call{where}", time_calls(calls, seconds=CALL_SECONDS), "torch"))
        calls = {library: partial(function, x, trained[1]) for library, function in functions.items()}
        timings = time_calls(calls, seconds=CALL_SECONDS)
        rows.append(row(f"one {name} call, recorded for backward", timings, "torch"))
        calls = {library: partial(train, function, trained, gradient) for library, function in functions.items()}
        timings = time_calls(calls, seconds=CALL_SECONDS)
        rows.append(row(f"one {name} call and its backward", timings, "torch"))
    return rows


def side_stream() -> Any:
    """Make a stream of CUDA current."""
    import torch

    return torch.cuda.stream(torch.cuda.Stream())


def train(function: Callable[..., Any], operands: list[Any], gradient: Any) -> Any:
    """Compute a layer and the gradients of its operands."""
    import torch

    return torch.autograd.grad(function(*operands), operands, gradient)


def soak(device: str) -> list[dict[str, Any]]:
    """Call layers of ever other shapes, with gradients; note what that leaves in memory, and what it compiles."""
    import torch

    import maxconv.torch

    on = "cuda" if device == "gpu" else "cpu"
    w = torch.randn(8, 8, 3, device=on, requires_grad=True)
    built = []
    build = native.build
    native.build = lambda kind, *arguments, **options: (built.append(kind), build(kind, *arguments, **options))  # type: ignore[assignment,func-returns-value]

    def work(calls: int) -> None:
        for turn in range(calls):
            x = torch.zeros(1 + turn % 3, 8, 3 + turn % SOAK_LENGTHS, device=on)
            torch.autograd.grad(maxconv.torch.conv1d(x, w, padding=turn % 7).sum(), w)

    def used() -> dict[str, int]:
        gc.collect()
        if on == "cuda":
            torch.cuda.synchronize()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        allocated = torch.cuda.memory_allocated() if on == "cuda" else 0
        taken = torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0] if on == "cuda" else 0
        return {"host": pages * resource.getpagesize(), "device": allocated, "device, pools included": taken}

    work(SOAK_LENGTHS * 2)  # builds, and fills every pool
    built.clear()
    before, start = used(), time.perf_counter()
    work(SOAK_CALLS)
    after, seconds = used(), time.perf_counter() - start
    native.build = build
    growth = {name: after[name] - count for name, count in before.items()}
    print(f"{SOAK_CALLS} calls in {seconds:.0f} s, bytes before: {before}, growth: {growth}, built: {built}")
    facts = {"seconds": seconds, "bytes before": before, "growth in bytes": growth, "built": len(built)}
    return [{"case": f"{SOAK_CALLS} calls", **facts}]
