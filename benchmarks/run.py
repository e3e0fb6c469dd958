"""Time maxconv beside its peers and write `benchmarks/results/<what>-<device>.json`.

    python benchmarks/run.py cpu        calls on NumPy arrays: NumPy, SciPy and maxconv
    python benchmarks/run.py startup    new processes: from the interpreter to the first result
    python benchmarks/run.py gpu        arrays on an NVIDIA GPU: PyTorch, a plain copy and maxconv

Every figure is a median of one run in which all contenders took turns on the same data; results are compared with
float64 before they are timed.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import Timing, summarize, time_calls

import maxconv
from maxconv import _engine
from maxconv._engine import native
from maxconv._problem import part_of_full

RESULTS = Path(__file__).parent / "results"

CPU_CASES = [(10, 3), (100, 16), (1000, 16), (10**4, 64), (10**5, 64), (10**6, 16), (10**6, 64), (10**6, 256), (10**7, 4)]
GPU_CASES = [(2**26, 4), (2**26, 16), (2**26, 64), (2**26, 256), (2**20, 64), (1024, 16)]

STARTUP = {
    "python": "pass",
    "import numpy": "import numpy",
    "import max.engine": "import max.engine",
    "maxconv, first eager result": "import numpy, maxconv; maxconv.convolve(numpy.ones(100), numpy.ones(5))",
    "maxconv, first result through a graph": (
        "import numpy; from maxconv import _engine, _problem;"
        "_engine.run('', _problem.part_of_full(100, 5, 'full', flip=True), numpy.ones(100), numpy.ones(5), 'cpu',"
        " way='graph')"
    ),
}


def check(name: str, result: np.ndarray, x: np.ndarray, k: np.ndarray) -> None:
    """Refuse to time a contender whose result is wrong."""
    expected = np.convolve(x[:4096].astype(np.float64), k.astype(np.float64))[: min(4096, len(x))]
    error = np.abs(result[: len(expected)] - expected).max()
    if not error <= 1e-3 * np.abs(expected).max():
        message = f"{name}: wrong by {error}"
        raise SystemExit(message)


def row(case: str, timings: dict[str, Timing], baseline: str) -> dict[str, Any]:
    """Print and return one line of results: microseconds, and how many times the baseline's speed."""
    base = timings[baseline].median
    print(f"{case:30s}", *(f"{name} {1e6 * t.median:.1f} us ({base / t.median:.2f}x)" for name, t in timings.items()))
    return {"case": case, "baseline": baseline, "seconds": {name: t._asdict() for name, t in timings.items()}}


def bench_cpu() -> list[dict[str, Any]]:
    """Time one call on NumPy arrays."""
    import scipy.signal

    rows = []
    rng = np.random.default_rng()
    for dtype in ("float32", "float64"):
        for n, m in CPU_CASES:
            x, k = rng.standard_normal(n).astype(dtype), rng.standard_normal(m).astype(dtype)
            calls = {
                "numpy.convolve": lambda x=x, k=k: np.convolve(x, k),
                "scipy.signal.convolve": lambda x=x, k=k: scipy.signal.convolve(x, k),
                "scipy.signal.oaconvolve": lambda x=x, k=k: scipy.signal.oaconvolve(x, k),
                "maxconv.convolve": lambda x=x, k=k: maxconv.convolve(x, k),
                "numpy.copy": lambda x=x: x.copy(),
            }
            for name in list(calls)[:-1]:
                check(name, calls[name](), x, k)
            rows.append(row(f"{dtype} N={n} K={m}", time_calls(calls), "numpy.convolve"))
    x, k = rng.standard_normal(1000).astype("float32"), rng.standard_normal(16).astype("float32")
    problem = part_of_full(1000, 16, "full", flip=True)
    ways = {way: lambda way=way: _engine.run("bench", problem, x, k, "cpu", way=way) for way in ("native", "graph")}
    rows.append(row("one call, native and graph", time_calls(ways), "native"))
    return rows


def bench_startup() -> list[dict[str, Any]]:
    """Time whole processes, with everything compiled and cached beforehand."""
    samples: dict[str, list[float]] = {name: [] for name in STARTUP}
    for turn in range(12):
        for name, program in STARTUP.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            if turn:  # the first turn fills the caches
                samples[name].append(time.perf_counter() - start)
    return [row("new process", {name: summarize(values) for name, values in samples.items()}, "import max.engine")]


def bench_gpu() -> list[dict[str, Any]]:
    """Time kernels by device events, and calls on resident arrays on the host clock."""
    import torch
    from max.driver import Accelerator, Buffer, DeviceEvent

    device = Accelerator()
    queue = device.default_queue
    rng = np.random.default_rng()
    rows = []

    def by_events(start: Any, stop: Any, call: Any, elapsed: Any) -> Timing:
        for _ in range(3):
            call()
        samples = []
        for _ in range(20):
            start()
            for _ in range(5):
                call()
            stop()
            samples.append(elapsed() / 5e3)
        return summarize(samples)

    def on_max(call: Any) -> Timing:
        events = DeviceEvent(device, enable_timing=True), DeviceEvent(device, enable_timing=True)
        starts = [lambda event=event: queue.record_event(event) for event in events]

        def elapsed() -> float:
            events[1].synchronize()
            return float(events[0].elapsed_time(events[1]))

        return by_events(*starts, call, elapsed)

    def on_torch(call: Any) -> Timing:
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def elapsed() -> float:
            events[1].synchronize()
            return float(events[0].elapsed_time(events[1]))

        return by_events(events[0].record, events[1].record, call, elapsed)

    for dtype in ("float32", "bfloat16", "float64"):
        for n, m in GPU_CASES if dtype == "float32" else GPU_CASES[:3]:
            x = torch.randn(n, device="cuda", dtype=getattr(torch, dtype))
            k = torch.randn(m, device="cuda", dtype=x.dtype)
            target = torch.empty_like(x)
            torch.cuda.synchronize()
            signal, taps = Buffer.from_dlpack(x), Buffer.from_dlpack(k)
            problem = part_of_full(n, m, "same", flip=False)
            y = Buffer(signal.dtype, (n,), device=device)
            context = device._device_context_ptr()
            addresses = y._data_ptr(), signal._data_ptr(), taps._data_ptr()

            def kernel(problem: Any = problem, dtype: str = dtype, context: int = context, at: Any = addresses) -> None:
                native.run_on_gpu(problem, dtype, context, *at)

            timings = {
                "copy": on_torch(lambda target=target, x=x: target.copy_(x)),
                "maxconv kernel": on_max(kernel),
                "torch conv1d": on_torch(lambda x=x, k=k, m=m: torch.conv1d(x[None, None], k[None, None], padding=m // 2)),
            }
            kernel()
            device.synchronize()
            part = min(n, 4096)  # outputs that are compared
            exact = np.correlate(x[: part + m].double().cpu().numpy(), k.double().cpu().numpy(), "full")
            exact = exact[m - 1 - problem.pad_left :][:part]
            error = np.abs(torch.from_dlpack(y)[:part].double().cpu().numpy() - exact).max() / np.abs(exact).max()
            if not error < (2e-2 if dtype == "bfloat16" else 1e-4):
                message = f"{dtype} N={n} K={m}: wrong by {error}"
                raise SystemExit(message)
            rows.append(row(f"{dtype} N={n} K={m}", timings, "copy"))
    small = Buffer.from_numpy(rng.standard_normal(1024).astype(np.float32)).to(device)
    taps = Buffer.from_numpy(rng.standard_normal(16).astype(np.float32)).to(device)
    ts, tk = torch.randn(1, 1, 1024, device="cuda"), torch.randn(1, 1, 16, device="cuda")
    calls = {
        "torch conv1d": lambda: torch.conv1d(ts, tk),
        "maxconv.convolve of Buffers": lambda: maxconv.convolve(small, taps),
    }
    rows.append(row("one resident call, host time", time_calls(calls), "torch conv1d"))
    host = rng.standard_normal(2**26).astype(np.float32), rng.standard_normal(64).astype(np.float32)
    calls = {
        "cpu": lambda: maxconv.convolve(*host, device="cpu"),
        "gpu": lambda: maxconv.convolve(*host, device="gpu"),
    }
    rows.append(row("NumPy to NumPy, N=2^26 K=64", time_calls(calls, rounds=5), "cpu"))
    return rows


def main() -> int:
    """Run one suite and write its results."""
    suites = {"cpu": bench_cpu, "startup": bench_startup, "gpu": bench_gpu}
    wanted = sys.argv[1:] or ["cpu", "startup"]
    for name in wanted:
        rows = suites[name]()
        about = _engine.report()
        del about["cache"]  # names folders of this machine
        machine = about["accelerators"] if name == "gpu" else about["cpu"]
        environment = {
            "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
            "numpy": np.__version__,
            "platform": platform.platform(),
            "cores": os.cpu_count(),
        }
        RESULTS.mkdir(exist_ok=True)
        target = RESULTS / f"{name}.json"
        target.write_text(json.dumps({**environment, **about, "machine": machine, "rows": rows}, indent=1) + "\n")
        print(f"written: {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
