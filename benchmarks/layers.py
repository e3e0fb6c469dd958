"""The convolutional layers that people ship, by name: timed beside PyTorch here, checked in tests."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

import maxconv


class Layer(NamedTuple):
    """One layer of a published model on a signal of usual length."""

    name: str
    in_channels: int
    out_channels: int
    taps: int
    length: int
    stride: int = 1
    padding: int | tuple[int, int] = 0
    dilation: int = 1
    groups: int = 1
    kind: str = "conv1d"
    """ "conv1d", "conv_transpose1d" or "causal_conv1d"."""
    batch: int = 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the weights as the function of this kind takes them."""
        if self.kind == "causal_conv1d":
            return (self.in_channels, self.taps)
        if self.kind == "conv_transpose1d":
            return (self.in_channels, self.out_channels // self.groups, self.taps)
        return (self.out_channels, self.in_channels // self.groups, self.taps)


MOST_ERROR = 1e-4
"""Of a right result in float32, as a share of the largest output."""

LAYERS = [
    Layer("Whisper conv1", 80, 384, 3, 3000, padding=1),
    Layer("Whisper conv2", 384, 384, 3, 3000, stride=2, padding=1),
    Layer("wav2vec2 layer 0", 1, 512, 10, 16000, stride=5),
    Layer("wav2vec2 layer 1", 512, 512, 3, 3199, stride=2),
    Layer("wav2vec2 layer 4", 512, 512, 3, 399, stride=2),
    Layer("wav2vec2 layer 5", 512, 512, 2, 199, stride=2),
    Layer("wav2vec2 layer 6", 512, 512, 2, 99, stride=2),
    Layer("HuBERT pos_conv", 768, 768, 128, 250, padding=64, groups=16),
    Layer("HiFi-GAN resblock 256", 256, 256, 11, 800, padding=25, dilation=5),
    Layer("HiFi-GAN resblock 32", 32, 32, 11, 8192, padding=25, dilation=5),
    Layer("HiFi-GAN upsampler 512", 512, 256, 16, 100, stride=8, padding=4, kind="conv_transpose1d"),
    Layer("HiFi-GAN upsampler 128", 128, 64, 4, 6400, stride=2, padding=1, kind="conv_transpose1d"),
    Layer("WaveNet dilation 1", 64, 128, 2, 8192, padding=(1, 0)),
    Layer("WaveNet dilation 512", 64, 128, 2, 8192, padding=(512, 0), dilation=512),
    Layer("EnCodec first", 1, 32, 7, 24000, padding=(6, 0)),
    Layer("EnCodec stride 2", 32, 64, 4, 24000, stride=2, padding=(2, 0)),
    Layer("EnCodec stride 8", 256, 512, 16, 600, stride=8, padding=(8, 0)),
    Layer("EnCodec upsampler 8", 512, 256, 16, 75, stride=8, kind="conv_transpose1d"),
    Layer("Conformer depthwise", 512, 512, 31, 1000, padding=15, groups=512),
    Layer("Mamba", 1536, 1536, 4, 2048, groups=1536, kind="causal_conv1d"),
    Layer("Hyena", 768, 768, 2048, 2048, padding=(2047, 0), groups=768),
]


def named(parts: list[str]) -> list[Layer]:
    """Return the layers whose names contain one of the parts; all if there is none."""
    return [layer for layer in LAYERS if not parts or any(part in layer.name for part in parts)]


def bench(layers: list[Layer]) -> list[dict[str, Any]]:
    """Time layers in float32 beside PyTorch; refuse a wrong result."""
    import torch
    from timing import row, sample_calls, summarize  # tests read this file from another folder

    rng = np.random.default_rng()
    rows = []
    for layer in layers:
        x = rng.standard_normal((layer.batch, layer.in_channels, layer.length)).astype(np.float32)
        w = rng.standard_normal(layer.weight_shape).astype(np.float32)
        b = rng.standard_normal(layer.out_channels).astype(np.float32)
        tensors = [torch.from_numpy(array) for array in (x, w, b)]
        with torch.no_grad():
            exact = by_torch(layer, *(tensor.double() for tensor in tensors)).numpy()
            worst = np.abs(by_maxconv(layer, x, w, b) - exact).max()
            if not worst <= MOST_ERROR * np.abs(exact).max():
                message = f"{layer.name}: wrong by {worst}"
                raise SystemExit(message)
            calls = {
                "torch": lambda layer=layer, tensors=tensors: by_torch(layer, *tensors),
                "maxconv": lambda layer=layer, arrays=(x, w, b): by_maxconv(layer, *arrays),
            }
            # Rests: for some milliseconds after its last call each library's threads wait at full speed.
            samples = sample_calls(calls, rounds=15, seconds=0.08, rest=0.03)
            rows.append(row(layer.name, {name: summarize(values) for name, values in samples.items()}, "torch"))
    return rows


def bench_gpu(layers: list[Layer]) -> list[dict[str, Any]]:
    """Time layers on resident tensors beside PyTorch, float32 without and with TF32; refuse a wrong result.

    Device time between two events of a queue: PyTorch's calls between its own, our launches between MAX's.
    """
    import torch
    from gpu import by_events
    from max.driver import Accelerator, Buffer, DeviceEvent
    from timing import row

    device = Accelerator()
    on_torch = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    on_max = DeviceEvent(device, enable_timing=True), DeviceEvent(device, enable_timing=True)
    rows = []
    for kind in ("float32", "bfloat16", "float16", "float64"):
        for layer in layers:
            shapes = (layer.batch, layer.in_channels, layer.length), layer.weight_shape, (layer.out_channels,)
            tensors = [torch.randn(shape, device="cuda", dtype=getattr(torch, kind)) for shape in shapes]
            torch.cuda.synchronize()
            buffers = [Buffer.from_dlpack(tensor) for tensor in tensors]
            device.synchronize()
            with torch.no_grad():
                exact = by_torch(layer, *(tensor.double() for tensor in tensors))
                actual = by_maxconv(layer, *buffers)
                device.synchronize()
                worst = (torch.from_dlpack(actual).double() - exact).abs().max().item()
                if not worst <= (1e-2 if "16" in kind else MOST_ERROR) * exact.abs().max().item():
                    message = f"{layer.name} {kind}: wrong by {worst}"
                    raise SystemExit(message)
                ours = partial(by_maxconv, layer, *buffers)
                timings = {"maxconv": by_events(device.default_queue.record_event, on_max, ours)}
                for name in ("torch", "torch TF32") if kind == "float32" else ("torch",):
                    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "torch TF32"
                    if "16" in kind and layer.taps == layer.length:
                        continue  # its FFT serves no half precision
                    call = partial(by_torch, layer, *tensors)
                    timings[name] = by_events(torch.cuda.Event.record, on_torch, call)
            rows.append(row(f"{layer.name} {kind}", timings, "torch" if "torch" in timings else "maxconv"))
    return rows


def by_maxconv(layer: Layer, x: Any, w: Any, b: Any) -> Any:
    """Apply a layer by the public function."""
    if layer.kind == "causal_conv1d":
        return maxconv.causal_conv1d(x, w, b, activation="silu")
    if layer.kind == "conv_transpose1d":
        return maxconv.conv_transpose1d(x, w, b, layer.stride, layer.padding)
    return maxconv.conv1d(x, w, b, layer.stride, layer.padding, layer.dilation, layer.groups)


def by_torch(layer: Layer, x: Any, w: Any, b: Any) -> Any:
    """Apply a layer as its model's PyTorch code does."""
    from torch.nn import functional

    sums = sums_by_torch(layer, x, w, b)
    return functional.silu(sums) if layer.kind == "causal_conv1d" else sums


def sums_by_torch(layer: Layer, x: Any, w: Any, b: Any) -> Any:
    """Apply a layer without its activation."""
    import torch
    from torch.nn import functional

    if layer.kind == "causal_conv1d":
        wide = functional.conv1d(x, w.unsqueeze(1), b, padding=layer.taps - 1, groups=layer.groups)
        return wide[..., : layer.length]
    if layer.kind == "conv_transpose1d":
        return functional.conv_transpose1d(x, w, b, layer.stride, layer.padding)
    if layer.taps == layer.length:  # Hyena's own code goes through FFTs
        size = 2 * layer.length
        product = torch.fft.rfft(x, size) * torch.fft.rfft(w[:, 0].flip(-1), size)
        return torch.fft.irfft(product, size)[..., : layer.length] + b[:, None]
    if isinstance(layer.padding, tuple):
        x, padding = functional.pad(x, layer.padding), 0
    else:
        padding = layer.padding
    return functional.conv1d(x, w, b, layer.stride, padding, layer.dilation, layer.groups)
