"""A Zarr array larger than a worker may hold, filtered out of core, beside reading and writing it unfiltered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TAPS, CHUNK = 4097, 1 << 22
"""Chunks of 16 MB."""
DEFAULT_GIGABYTES = 2

#: Filters, or only copies, in a process of its own, and prints seconds and the peak memory in bytes. The kernels are
#: loaded and the libraries imported before the clock starts.
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import numpy, zarr, dask.array as da, maxconv, maxconv.dask
source, out, work = sys.argv[1:]
taps = numpy.hanning({taps}).astype("f4")
maxconv.convolve(numpy.ones(10**5, "f4"), taps)
x = da.from_zarr(source)
start = time.perf_counter()
y = maxconv.dask.convolve(x, taps, "same") if work == "filter" else x
stored = zarr.open(out, mode="w", shape=y.shape, chunks=({chunk},), dtype="f4")
da.store(y, stored, lock=False, scheduler="threads")
print(json.dumps([time.perf_counter() - start, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def make(path: Path, gigabytes: float) -> int:
    """Write noise to a store, chunk by chunk; return how many bytes."""
    import numpy as np
    import zarr

    samples = max(1, round(gigabytes * 1e9 / 4 / CHUNK)) * CHUNK
    store: Any = zarr.open(str(path), mode="w", shape=(samples,), chunks=(CHUNK,), dtype="f4")
    rng = np.random.default_rng()
    for begin in range(0, samples, CHUNK):
        store[begin : begin + CHUNK] = rng.standard_normal(CHUNK, "f4")
    return 4 * samples


def bench(gigabytes: float = DEFAULT_GIGABYTES) -> list[dict[str, Any]]:
    """Measure both works in turns, twice each after a first turn, and print throughput, ratio and memory."""
    import json

    figures: dict[str, list[tuple[float, int]]] = {"copy": [], "filter": []}
    with tempfile.TemporaryDirectory() as folder:
        size = make(Path(folder) / "in.zarr", gigabytes)
        for turn in range(3):
            for work, measured in figures.items():
                program = PROGRAM.format(taps=TAPS, chunk=CHUNK)
                paths = str(Path(folder) / "in.zarr"), str(Path(folder) / "out.zarr")
                command = [sys.executable, "-c", program, *paths, work]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                if turn:  # the first turn fills the caches
                    measured.append(tuple(json.loads(done.stdout)))
                shutil.rmtree(paths[1])
    seconds = {work: min(each for each, _ in measured) for work, measured in figures.items()}
    peak = {work: max(each for _, each in measured) for work, measured in figures.items()}
    for work in figures:
        print(f"{work:7s}{size / seconds[work] / 1e6:8.0f} MB/s, peak {peak[work] / 1e9:.2f} GB")
    ratio = seconds["copy"] / seconds["filter"]
    print(f"{size / 1e9:.1f} GB float32, {TAPS} taps: filtering has {ratio:.2f} of the throughput of copying")
    case = f"float32 {size / 1e9:.1f} GB K={TAPS}, one worker of {len(os.sched_getaffinity(0))} cores"
    return [{"case": case, "bytes": size, "seconds": seconds, "peak_bytes": peak, "ratio": ratio}]
