"""Arrays on an NVIDIA GPU: kernels by device events, beside PyTorch and a plain copy; whole calls on the host clock."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import depthwise
import numpy as np
from timing import Timing, row, summarize, time_calls

import maxconv
from maxconv import _plan
from maxconv._engine import native, spectra
from maxconv._problem import part_of_full

if TYPE_CHECKING:
    from collections.abc import Callable

# Lengths of signals, or shapes of many, with lengths of filters.
CASES: dict[str, list[tuple[int | tuple[int, int], int]]] = {
    "float32": [
        *((2**26, 4**power) for power in range(1, 8)),
        *(((1024, 2**16), 4**power) for power in range(1, 8)),
        (2**20, 64),
        (1024, 16),
    ],
    "bfloat16": [(2**26, 4), (2**26, 16), (2**26, 64), ((1024, 2**16), 4)],
    "float16": [(2**26, 4), (2**26, 16)],
    "float64": [(2**26, 4), (2**26, 16), (2**26, 64)],
}
RATES = [(1, 2), (1, 4), (2, 1), (3, 2), (160, 147), (147, 160)]
LONG_LAYER = (8, 768, 8192)
"""Batch, channels, and length of signals and filters."""
LAUNCHES = 5
ROUNDS = 20
SLOW = 2e-3
"""Seconds: a launch that takes more is timed by itself, in fewer rounds."""
FEWEST_FFT_TAPS = 16
MOST_SUMMED_TAPS = 1024
MOST_TAPS_OF_TORCH = 256
"""More take PyTorch's sums longer than its FFTs, 0.2 s a launch."""


def by_events(record: Callable[[Any], Any], events: tuple[Any, Any], call: Callable[[], Any]) -> Timing:
    """Time launches between two device events of one queue."""

    def sample(launches: int) -> float:
        record(events[0])
        for _ in range(launches):
            call()
        record(events[1])
        events[1].synchronize()
        return float(events[0].elapsed_time(events[1])) / 1e3 / launches

    for _ in range(2):
        call()
    launches, rounds = (1, ROUNDS // 3) if sample(1) > SLOW else (LAUNCHES, ROUNDS)
    return summarize([sample(launches) for _ in range(rounds)])


def bench() -> list[dict[str, Any]]:
    """Run every case."""
    from max.driver import Accelerator

    device = Accelerator()
    rows = [bench_kernel(device, dtype, shape, m) for dtype, cases in CASES.items() for shape, m in cases]
    rows += [bench_resampling(device, up, down) for up, down in RATES]
    rows += [bench_long_layer(device, dtype) for dtype in ("float32", "bfloat16")]
    rows += depthwise.bench(by_events)
    return [*rows, bench_resident_call(device), bench_host_arrays()]


def bench_kernel(device: Any, dtype: str, shape: int | tuple[int, int], m: int) -> dict[str, Any]:
    """Time one correlation of resident arrays, "same" mode; refuse a wrong result."""
    import torch
    from max.driver import Buffer, DeviceEvent

    *batch, n = (shape,) if isinstance(shape, int) else shape
    x = torch.randn(shape, device="cuda", dtype=getattr(torch, dtype))
    k = torch.randn(m, device="cuda", dtype=x.dtype)
    target = torch.empty_like(x)
    torch.cuda.synchronize()
    signal, taps = Buffer.from_dlpack(x), Buffer.from_dlpack(k)
    problem = part_of_full(n, m, "same", flip=False)._replace(batch=tuple(batch))
    y = Buffer(signal.dtype, problem.shape, device=device)
    addresses = y._data_ptr(), signal._data_ptr(), taps._data_ptr()
    launches = {}
    if m <= MOST_SUMMED_TAPS:
        launches["maxconv direct"] = partial(
            native.run_on_gpu, problem, dtype, device._device_context_ptr(), *addresses
        )
    if m >= FEWEST_FFT_TAPS:
        nfft = _plan.choose_on_gpu(problem, x.element_size()).nfft
        plan = spectra.of_taps(problem, dtype, "gpu:0", taps, nfft)
        launches["maxconv fft"] = partial(spectra.convolve, problem, dtype, "gpu:0", signal, plan, nfft)
    for launch in launches.values():
        torch.from_dlpack(y).fill_(torch.nan)
        torch.cuda.synchronize()
        result = launch() or y
        device.synchronize()
        for which in (0, -1):
            found = torch.from_dlpack(result).reshape(-1, n)[which]
            check(found, x.reshape(-1, n)[which], k, problem.pad_left)

    on_max = DeviceEvent(device, enable_timing=True), DeviceEvent(device, enable_timing=True)
    on_torch = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    record = torch.cuda.Event.record
    timings = {"copy": by_events(record, on_torch, partial(target.copy_, x))}
    for name, launch in launches.items():
        timings[name] = by_events(device.default_queue.record_event, on_max, launch)
    for name, call in peer_calls(x, k).items():
        timings[name] = by_events(record, on_torch, call)
    rows = "".join(f"rows={count} " for count in batch)
    return row(f"{dtype} {rows}N={n} K={m}", timings, "copy")


def peer_calls(x: Any, k: Any) -> dict[str, Callable[[], Any]]:
    """Return what PyTorch has, and for one signal CuPy, in "same" mode; both use the default stream."""
    import torch

    n, m = x.shape[-1], len(k)
    length = n + m - 1
    calls: dict[str, Callable[[], Any]] = {}
    if m <= MOST_TAPS_OF_TORCH:
        calls["torch conv1d"] = partial(torch.conv1d, x.reshape(-1, 1, n), k[None, None], padding=m // 2)
    if x.dtype not in {torch.float32, torch.float64}:
        return calls
    if m >= FEWEST_FFT_TAPS:
        calls["torch fft"] = lambda: torch.fft.irfft(torch.fft.rfft(x, length) * torch.fft.rfft(k, length), length)
    if x.ndim == 1 and find_spec("cupy") is not None:
        import cupy
        from cupyx.scipy import signal

        there, taps = cupy.from_dlpack(x), cupy.from_dlpack(k)
        calls["cupy.convolve"] = partial(cupy.convolve, there, taps, mode="same")
        calls["cupyx oaconvolve"] = partial(signal.oaconvolve, there, taps, mode="same")
    return calls


def bench_long_layer(device: Any, dtype: str) -> dict[str, Any]:
    """Time a causal layer of one filter a channel as long as the signal, its filters' transforms included.

    PyTorch's FFTs of half precision are of float32, from and to which it converts.
    """
    import torch
    from max.driver import Buffer, DeviceEvent

    batch, channels, n = LONG_LAYER
    kind = getattr(torch, dtype)
    x, w = (torch.randn(shape, device="cuda", dtype=kind) for shape in (LONG_LAYER, (channels, 1, n)))
    target, padded = torch.empty_like(x), torch.nn.functional.pad(x, (n - 1, 0))
    torch.cuda.synchronize()
    operands = Buffer.from_dlpack(x), Buffer.from_dlpack(w)
    launch = partial(maxconv.conv1d, *operands, padding=(n - 1, 0), groups=channels)

    def transform() -> Any:
        product = torch.fft.rfft(x.float(), 2 * n) * torch.fft.rfft(w[:, 0].flip(-1).float(), 2 * n)
        return torch.fft.irfft(product, 2 * n)[..., :n].to(kind)

    launches = {"maxconv": launch}
    if dtype != "float32":
        launches["maxconv fast"] = partial(launch, precision="fast")
    for compute in launches.values():
        y = compute()
        device.synchronize()
        for which in (0, -1):
            check(torch.from_dlpack(y)[which, which], x[which, which], w[which, 0], n - 1)
    on_max = DeviceEvent(device, enable_timing=True), DeviceEvent(device, enable_timing=True)
    on_torch = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    record = torch.cuda.Event.record
    timings = {
        "copy": by_events(record, on_torch, partial(target.copy_, x)),
        **{name: by_events(device.default_queue.record_event, on_max, compute) for name, compute in launches.items()},
        "torch fft": by_events(record, on_torch, transform),
        "torch conv1d": by_events(record, on_torch, partial(torch.conv1d, padded, w, groups=channels)),
    }
    return row(f"depthwise {dtype} B={batch} C={channels} L={n} K={n}", timings, "copy")


def bench_resampling(device: Any, up: int, down: int) -> dict[str, Any]:
    """Time the resampling of a resident signal beside copying as many bytes; refuse a wrong result."""
    import torch
    from max.driver import Buffer, DeviceEvent
    from scipy.signal import upfirdn

    n, m = 2**26 // (up + down) * down, 20 * max(up, down) + 1
    length, start = n // down * up, m // 2 // down
    x, h = (torch.randn(count, device="cuda") for count in (n, m))
    copied = torch.empty((n + length) // 2, device="cuda")
    target = torch.empty_like(copied)
    torch.cuda.synchronize()
    signal, taps = Buffer.from_dlpack(x), Buffer.from_dlpack(h)
    y = Buffer(signal.dtype, (length,), device=device)
    addresses = y._data_ptr(), signal._data_ptr(), taps._data_ptr()
    sizes = n, m, up, down, start, length, 1
    launch = partial(native.resample_on_gpu, "float32", device._device_context_ptr(), addresses, sizes, (0, 0.0))
    torch.from_dlpack(y).fill_(torch.nan)
    torch.cuda.synchronize()
    launch()
    device.synchronize()
    part = 4096
    wide_x, wide_h = (array.double().cpu().numpy() for array in (x[: (start + part) * down // up + 1], h))
    exact = upfirdn(wide_h, wide_x, up, down)[start : start + part]
    error = np.abs(torch.from_dlpack(y)[:part].double().cpu().numpy() - exact).max() / np.abs(exact).max()
    if not error < 1e-4:  # noqa: PLR2004
        message = f"upfirdn {up}/{down}: wrong by {error}"
        raise SystemExit(message)
    on_max = DeviceEvent(device, enable_timing=True), DeviceEvent(device, enable_timing=True)
    on_torch = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    timings = {
        "copy": by_events(torch.cuda.Event.record, on_torch, partial(target.copy_, copied)),
        "maxconv": by_events(device.default_queue.record_event, on_max, launch),
    }
    return row(f"upfirdn float32 {up}/{down} K={m}", timings, "copy")


def check(y: Any, x: Any, k: Any, pad_left: int) -> None:
    """Compare outputs with float64: the first, the last, and some between."""
    part, wide_k = min(len(y), 4096), k.double().cpu().numpy()
    between = int(np.random.default_rng().integers(len(y) - part + 1))
    for first in (0, between, len(y) - part):
        begin, end = first - pad_left, first - pad_left + part + len(k) - 1
        window = x[max(begin, 0) : max(end, 0)].double().cpu().numpy()
        exact = np.correlate(np.pad(window, (max(-begin, 0), max(end - len(x), 0))), wide_k, "valid")
        error = np.abs(y[first : first + part].double().cpu().numpy() - exact).max() / np.abs(exact).max()
        if not error < (2e-2 if y.element_size() == 2 else 1e-4):  # noqa: PLR2004  # bytes of bfloat16
            message = f"{x.dtype} N={len(x)} K={len(k)}: wrong by {error}"
            raise SystemExit(message)


def bench_resident_call(device: Any) -> dict[str, Any]:
    """Time the host's part of a call on small resident arrays."""
    import torch
    from max.driver import Buffer

    rng = np.random.default_rng()
    small, taps = (Buffer.from_numpy(rng.standard_normal(n).astype(np.float32)).to(device) for n in (1024, 16))
    tensor, kernel = torch.randn(1, 1, 1024, device="cuda"), torch.randn(1, 1, 16, device="cuda")
    calls = {
        "torch conv1d": partial(torch.conv1d, tensor, kernel),
        "maxconv.convolve of Buffers": partial(maxconv.convolve, small, taps),
    }
    return row("one resident call, host time", time_calls(calls), "torch conv1d")


def bench_host_arrays() -> dict[str, Any]:
    """Time host arrays on the CPU and by way of the GPU, transfers included, beside others' transfers alone."""
    import torch

    rng = np.random.default_rng()
    x, k = (rng.standard_normal(n).astype(np.float32) for n in (2**26, 64))
    pageable = torch.from_numpy(x)
    locked, target = pageable.pin_memory(), torch.empty(2**26, pin_memory=True)
    there, back = torch.empty(2**26, device="cuda"), torch.empty(2**26, device="cuda")
    streams = torch.cuda.Stream(), torch.cuda.Stream()

    def copy_both_ways() -> None:
        for stream, to, source in zip(streams, (there, target), (locked, back), strict=True):
            with torch.cuda.stream(stream):
                to.copy_(source, non_blocking=True)
        torch.cuda.synchronize()

    fastest = "page-locked torch copies, both ways at once"
    calls: dict[str, Callable[[], Any]] = {
        fastest: copy_both_ways,
        "page-locked maxconv": partial(maxconv.convolve, locked.numpy(), k, device="gpu"),
        "pageable torch copies": lambda: there.copy_(pageable).cpu(),
        "pageable maxconv": partial(maxconv.convolve, x, k, device="gpu"),
        "maxconv on the CPU": partial(maxconv.convolve, x, k, device="cpu"),
    }
    if find_spec("cupy") is not None:
        import cupy

        calls["pageable CuPy copies"] = lambda: cupy.asnumpy(cupy.asarray(x))
    return row("NumPy to NumPy, N=2^26 K=64", time_calls(calls, rounds=9), fastest)
