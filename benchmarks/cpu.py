"""Calls on NumPy arrays, from the tiniest to 10^7 samples, beside every peer that is installed.

The limits of the direct kernel stand beside it: a matrix product of NumPy's BLAS for the rate of its sums, `copyto` for
that of its bytes. Between their turns the machine rests: OpenBLAS's threads wait for more work at full speed for 2^26
ticks of the processor's clock, some 30 ms, and would take a core from who comes next.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from calibrate import direct_kernel
from timing import paired_ratio, row, sample_calls, summarize, time_calls

from maxconv import _bench, _engine
from maxconv._problem import part_of_full

TINY = [(10, 3), (1000, 16)]
SAMPLES = [10**2, 10**3, 10**4, 10**5, 10**6, 10**7]
TAPS = [4, 16, 64, 256, 1024, 4096]
MATRIX = 2048
REST = 0.1
"""Seconds between the turns of `limits`."""


def bench() -> list[dict[str, Any]]:
    """Time every point for both types; print where a peer is faster."""
    rows = []
    for dtype in ("float32", "float64"):
        for n, m in [*TINY, *((samples, taps) for samples in SAMPLES for taps in (*TAPS, samples))]:
            rows += list(map(told, _bench.compare(n, [m], dtype, None, ["numpy", "scipy", "torch"])))
    ratios = sorted((entry["ratio"], entry["case"]) for entry in rows)
    mean = math.exp(sum(math.log(ratio) for ratio, _ in ratios) / len(ratios))
    slower = [f"{case} ({ratio:.2f}x)" for ratio, case in ratios if ratio < 1]
    print(f"best peer / maxconv: geometric mean {mean:.2f}; a peer is faster at {len(slower)} of {len(rows)} points")
    print(*slower, sep="\n")
    return rows + [limits(dtype, kind) for dtype in ("float32", "float64") for kind in ("sums", "bytes")] + [ways()]


def told(entry: dict[str, Any]) -> dict[str, Any]:
    """Print a row, and return it."""
    times = ", ".join(f"{name} {1e6 * timing['median']:.1f} us" for name, timing in entry["seconds"].items())
    print(f"{entry['case']}: {entry['ratio']:.2f} times as fast as {entry['best']}; {times}", flush=True)
    return entry


def limits(dtype: str, kind: str) -> dict[str, Any]:
    """Time the direct kernel, into memory that is there, beside what bounds it; print its share of that rate."""
    rng = np.random.default_rng()
    n, m = (10**6, 256) if kind == "sums" else (10**7, 4)
    kernel = direct_kernel(dtype, n, m, "same", 0)
    x = rng.standard_normal(n).astype(dtype)
    if kind == "sums":
        peer, matrix = "matrix product", rng.standard_normal((MATRIX, MATRIX)).astype(dtype)
        product, work = partial(np.matmul, matrix, matrix, out=np.zeros_like(matrix)), n * m / MATRIX**3
    else:
        peer, product, work = "numpy.copyto", partial(np.copyto, np.zeros_like(x), x), 1.0
    samples = sample_calls({"direct kernel": kernel, peer: product}, rest=REST)
    share = work * paired_ratio(samples[peer], samples["direct kernel"])
    print(f"{dtype} N={n} K={m}: {share:.2f} of the rate of {peer}")
    timings = {name: summarize(values) for name, values in samples.items()}
    return {**row(f"{dtype}, {kind} at N={n}, K={m}", timings, peer), "share": share}


def ways() -> dict[str, Any]:
    """Time one small call by the native extension and by a graph."""
    rng = np.random.default_rng()
    x, k = rng.standard_normal(1000).astype("float32"), rng.standard_normal(16).astype("float32")
    run = partial(_engine.run, "bench", part_of_full(1000, 16, "full", flip=True), x, k, "cpu")
    return row("one call", time_calls({way: partial(run, way=way) for way in ("native", "graph")}), "native")
