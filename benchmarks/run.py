"""Time maxconv beside its peers and write `benchmarks/results/<what>.json`.

    python benchmarks/run.py cpu        calls on NumPy arrays: NumPy, SciPy, PyTorch and maxconv
    python benchmarks/run.py layers     layers of neural networks: PyTorch and maxconv
    python benchmarks/run.py layers-max the same beside `max.nn.Conv1D`: does it compile, is it right, how fast is it
    python benchmarks/run.py torch      the same through `maxconv.torch`: forward, backward, eager, compiled
    python benchmarks/run.py soak       100000 calls of `maxconv.torch` on changing shapes: memory, compilations
    python benchmarks/run.py startup    new processes: from the interpreter to the first result
    python benchmarks/run.py gpu        arrays on an NVIDIA GPU: PyTorch, CuPy, causal-conv1d, a plain copy and maxconv
    python benchmarks/run.py accuracy   errors of every path beside NumPy's and SciPy's; also writes docs/accuracy.md
    python benchmarks/run.py memory     a new process: peak memory of a long convolution
    python benchmarks/run.py large      a Zarr array of 2 GB (or `--gigabytes 20`), filtered out of core
    python benchmarks/run.py workers    one worker process and two (`--device gpu`: each with its GPU), data in memory
    python benchmarks/run.py stream     an hour of sound (or `--minutes 5`) through `maxconv filter`: memory and bits
    python benchmarks/run.py auto       whether `method="auto"` takes the faster method
    python benchmarks/run.py calibrate  measures what that choice reckons with: src/maxconv/_costs.json

`--only Whisper EnCodec` for layers, layers-max and torch: the layers with such names, printed and not written.
`--device gpu` for layers, torch, soak, accuracy, workers, auto and calibrate on an NVIDIA GPU.

Every figure is a median of one run in which all contenders took turns on the same data; results are compared with
float64 before they are timed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accuracy
import auto
import calibrate
import cpu
import gpu
import large
import layers
import layers_max
import memory
import numpy as np
import stream
import torch_layers
import workers
from timing import row, summarize

from maxconv import _engine

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results"

STARTUP = {
    "python": "pass",
    "import numpy": "import numpy",
    "import max.engine": "import max.engine",
    "maxconv, first eager result": "import numpy, maxconv; maxconv.convolve(numpy.ones(100), numpy.ones(5))",
    "the same without importing numpy": (
        "import numpy, time; start = time.perf_counter(); import maxconv; "
        "maxconv.convolve(numpy.ones(100), numpy.ones(5)); print(time.perf_counter() - start)"
    ),
    "maxconv, first result through a graph": (
        "import numpy; from maxconv import _engine, _problem; problem = _problem.part_of_full(100, 5, 'full', True);"
        "_engine.run('', problem, numpy.ones(100), numpy.ones(5), 'cpu', way='graph')"
    ),
}


def bench_startup() -> list[dict[str, Any]]:
    """Time whole processes, or what they print, with everything compiled and cached beforehand."""
    samples: dict[str, list[float]] = {name: [] for name in STARTUP}
    for turn in range(12):
        for name, program in STARTUP.items():
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
            seconds = float(done.stdout or time.perf_counter() - start)
            if turn:  # the first turn fills the caches
                samples[name].append(seconds)
    timings = {name: summarize(values) for name, values in samples.items()}
    return [row("new process", timings, "import max.engine")]


def about() -> dict[str, Any]:
    """Say on what and when the figures were measured."""
    facts = {key: value for key, value in _engine.report().items() if key not in {"cache", "runs on"}}
    facts |= {"date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(), "numpy": np.__version__}
    with suppress(PackageNotFoundError):
        facts["torch"] = version("torch")
    return {**facts, "scipy": version("scipy"), "system": platform.system()}


def main() -> int:
    """Run the suites that are named and write their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", default=["cpu", "startup"])
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--only", nargs="+", default=[], help="parts of names of layers")
    parser.add_argument("--gigabytes", type=float, default=large.DEFAULT_GIGABYTES, help="size of the array of large")
    parser.add_argument("--minutes", type=float, default=stream.DEFAULT_MINUTES, help="length of the sound of stream")
    options = parser.parse_args()
    chosen = layers.named(options.only)
    suites: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "cpu": cpu.bench,
        "layers": partial(layers.bench if options.device == "cpu" else layers.bench_gpu, chosen),
        "layers-max": partial(layers_max.bench, chosen),
        "torch": partial(torch_layers.bench, options.device, chosen),
        "soak": partial(torch_layers.soak, options.device),
        "startup": bench_startup,
        "gpu": gpu.bench,
        "accuracy": partial(accuracy.bench, options.device),
        "memory": memory.bench,
        "large": partial(large.bench, options.gigabytes),
        "workers": partial(workers.bench, options.device),
        "stream": partial(stream.bench, options.minutes),
        "auto": partial(auto.bench, options.device),
    }
    for name in options.suites:
        if name == "calibrate":
            calibrate.measure(options.device, about())
            continue
        rows = suites[name]()
        if options.only:
            continue
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / (f"{name}.json" if options.device == "cpu" else f"{name}-gpu.json")
        path.write_text(json.dumps({**about(), "rows": rows}, indent=1) + "\n")
        print(f"written: benchmarks/results/{path.name}")
        if name == "accuracy":
            accuracy.write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main())
