"""Depthwise layers on an NVIDIA GPU through `maxconv.torch`, beside PyTorch, causal-conv1d and a plain copy.

Everything runs as a captured graph: device time alone, whatever the host does. causal-conv1d (Dao-AILab) takes part
where it is installed; it has kernels of 2 to 4 taps.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from timing import row

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TAPS_OF_CAUSAL_CONV1D = 4
MOST_SHORT_TAPS = 16
"""Of layers that `precision="fast"` makes no faster."""


class Layer(NamedTuple):
    """Sizes of a layer, and what of it is timed."""

    batch: int
    channels: int
    length: int
    taps: int
    is_last: bool = False
    """Whether neighbouring channels lie side by side in memory."""
    is_causal: bool = True
    """Or centred."""
    is_trained: bool = False
    """Whether gradients of signals and filters are computed, too."""

    @property
    def arrays(self) -> int:
        """How many arrays of the signal's size must move: x and y; then x and dy again, and dx."""
        return 5 if self.is_trained else 2


LAYERS = [
    Layer(1, 12288, 16384, 4),
    Layer(1, 12288, 16384, 4, is_last=True),
    Layer(8, 4096, 2048, 4),
    Layer(8, 4096, 2048, 4, is_last=True),
    Layer(8, 4096, 2048, 4, is_trained=True),
    Layer(8, 4096, 2048, 4, is_last=True, is_trained=True),
    Layer(8, 768, 8192, 128),
    Layer(8, 768, 8192, 128, is_causal=False),
]


def bench(by_events: Callable[..., Any]) -> list[dict[str, Any]]:
    """Time every layer in bfloat16, the second also in float16 and float32; refuse a wrong result."""
    cases = [*((layer, "bfloat16") for layer in LAYERS), (LAYERS[2], "float16"), (LAYERS[2], "float32")]
    return [bench_layer(layer, dtype, by_events) for layer, dtype in cases]


def bench_layer(layer: Layer, dtype: str, by_events: Callable[..., Any]) -> dict[str, Any]:
    """Time one layer."""
    import torch

    import maxconv.torch

    x = draw(layer, dtype).requires_grad_(layer.is_trained)
    w = torch.randn(layer.channels, layer.taps, device="cuda", dtype=x.dtype, requires_grad=layer.is_trained)
    gradient = draw(layer, dtype)
    exact = by_torch if layer.is_causal else by_torch_centred
    centred = partial(maxconv.torch.conv1d, padding="same", groups=layer.channels)
    functions: dict[str, Callable[..., Any]] = {
        "maxconv": maxconv.torch.causal_conv1d if layer.is_causal else lambda x, w: centred(x, w[:, None]),
        "torch conv1d": exact,
    }
    if layer.is_causal and layer.taps <= MOST_TAPS_OF_CAUSAL_CONV1D and find_spec("causal_conv1d") is not None:
        from causal_conv1d import causal_conv1d_fn

        functions["causal-conv1d"] = causal_conv1d_fn
    if layer.is_causal and layer.taps > MOST_SHORT_TAPS:
        functions["maxconv fast"] = partial(maxconv.torch.causal_conv1d, precision="fast")
    source = torch.randn(layer.arrays * x.numel() // 2, device="cuda", dtype=x.dtype)
    target = torch.empty_like(source)
    events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    timings = {"copy": by_events(torch.cuda.Event.record, events, partial(target.copy_, source))}
    for name, function in functions.items():
        graph, results = capture(function, x, w, gradient)
        for result in results:
            result.fill_(torch.nan)
        graph.replay()
        check(f"{name}, {layer}", exact, results, x.detach(), w.detach(), gradient)
        timings[name] = by_events(torch.cuda.Event.record, events, graph.replay)
    sizes = f"B={layer.batch} C={layer.channels} L={layer.length} K={layer.taps}"
    what = (
        ("" if layer.is_causal else ", centred")
        + (", channels last" if layer.is_last else "")
        + (", with backward" if layer.is_trained else "")
    )
    return row(f"depthwise {dtype} {sizes}{what}", timings, "copy")


def draw(layer: Layer, dtype: str) -> Any:
    """Draw a signal of the layer's shape, in its layout."""
    import torch

    shape = layer.batch, layer.channels, layer.length
    if not layer.is_last:
        return torch.randn(shape, device="cuda", dtype=getattr(torch, dtype))
    return torch.randn(shape[0], shape[2], shape[1], device="cuda", dtype=getattr(torch, dtype)).transpose(1, 2)


def by_torch(x: Any, w: Any) -> Any:
    """Apply a causal layer as models write it."""
    from torch.nn import functional

    return functional.conv1d(x, w[:, None], padding=w.shape[1] - 1, groups=len(w))[..., : x.shape[-1]]


def by_torch_centred(x: Any, w: Any) -> Any:
    """Apply a layer whose windows reach as far to both sides."""
    from torch.nn import functional

    return functional.conv1d(x, w[:, None], padding="same", groups=len(w))


def capture(function: Callable[..., Any], x: Any, w: Any, gradient: Any) -> tuple[Any, list[Any]]:
    """Capture a layer, with its gradients where the operands want them; return the graph and what it writes."""
    import torch

    def run() -> list[Any]:
        y = function(x, w)
        return [y.detach(), *(torch.autograd.grad(y, [x, w], gradient) if x.requires_grad else ())]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()
    return graph, results


def check(what: str, layer: Callable[..., Any], results: list[Any], x: Any, w: Any, gradient: Any) -> None:
    """Compare channels, the first, the last and one between, with float64."""
    import torch

    between = int(np.random.default_rng().integers(len(w)))
    for channel in {0, between, len(w) - 1}:
        part = slice(channel, channel + 1)
        operands = [x[:, part].double(), w[part].double()]
        operands = [operand.requires_grad_() for operand in operands]
        exact = [layer(*operands)]
        exact += torch.autograd.grad(exact[0], operands, gradient[:, part].double())
        found = [result[part] if result.ndim == w.ndim else result[:, part] for result in results]
        for actual, expected in zip(found, exact[: len(found)], strict=True):
            error = (actual.double() - expected).abs().max().item() / expected.abs().max().item()
            if not error < (1e-4 if x.dtype is torch.float32 else 2e-2):
                message = f"{what}: wrong by {error}"
                raise SystemExit(message)
