"""A Zarr array larger than its workers may hold, filtered out of core, beside reading and writing it unfiltered."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from workers import CHUNKS, PASSES, submit_calls

import maxconv

TAPS, CHUNK, BLOCK = 4097, 1 << 22, 1 << 24
"""Chunks of 16 MB on the disk, four of them a task: to hand out and to join smaller blocks costs 10 ms each."""
DEFAULT_GIGABYTES = 2
WORKERS, MEMORY = 2, "2GB"
"""Processes of one thread, and what each may hold."""
STRETCHES, FEWEST_BLOCKS = 10, 10
"""Parts of the array that are copied and filtered in turns, so that a busy moment of the machine meets both: so many,
each of so many blocks at least, beside which the two neighbours that filtering reads are few."""


def bench(gigabytes: float = DEFAULT_GIGABYTES) -> list[dict[str, Any]]:
    """Copy and filter stretch by stretch, and print throughput, ratio and memory; the result is checked as a whole."""
    import dask.array as da
    import zarr
    from dask.distributed import Client, LocalCluster, wait

    taps = np.hanning(TAPS).astype("f4")
    seconds: dict[str, list[float]] = {"copy": [], "filter": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        blocks = make(folder / "in.zarr", gigabytes)
        limits = {"n_workers": WORKERS, "threads_per_worker": 1, "memory_limit": MEMORY, "dashboard_address": ":0"}
        with LocalCluster(**limits) as cluster, Client(cluster) as client:
            workers = sorted(client.scheduler_info()["workers"])
            chunks = {worker: client.submit(np.ones, BLOCK, "f4", workers=[worker], pure=False) for worker in workers}
            wait(submit_calls(client, chunks, 1, "cpu", "auto"))  # loads the kernels
            x = da.from_zarr(str(folder / "in.zarr"), chunks=BLOCK)
            out = create(folder / "out.zarr", len(x))
            for number, stretch in enumerate(
                np.array_split(np.arange(blocks), max(1, min(STRETCHES, blocks // FEWEST_BLOCKS)))
            ):
                part = slice(stretch[0], stretch[-1] + 1)
                region = slice(BLOCK * part.start, BLOCK * part.stop)
                copy = create(folder / "copy.zarr", region.stop - region.start)
                works = {
                    "copy": partial(da.store, x.blocks[part], copy, lock=False),
                    "filter": partial(
                        da.store,
                        maxconv.convolve(x, taps, "same").blocks[part],
                        out,
                        regions=(region,),
                        lock=False,
                    ),
                }
                for work in sorted(works, reverse=bool(number % 2)):
                    forget(folder / "in.zarr")
                    start = time.perf_counter()
                    works[work]()
                    os.sync()
                    seconds[work].append(time.perf_counter() - start)
                shutil.rmtree(folder / "copy.zarr")
                print(
                    f"{part.stop} of {blocks} blocks",
                    {work: round(each[-1], 2) for work, each in seconds.items()},
                    flush=True,
                )
            start = time.perf_counter()
            wait(submit_calls(client, chunks, 1, "cpu", "auto"))
            in_memory = WORKERS * CHUNKS * PASSES * 4 * BLOCK / (time.perf_counter() - start)
            peak = max(client.run(peak_memory).values())
            check(x, da.from_zarr(zarr.open(str(folder / "out.zarr"), mode="r")), taps)
    return [report(4 * blocks * BLOCK, seconds, peak, in_memory)]


def create(path: Path, samples: int) -> Any:
    """Create an array for results."""
    import zarr

    return zarr.open(str(path), mode="w", shape=(samples,), chunks=(CHUNK,), dtype="f4")


def make(path: Path, gigabytes: float) -> int:
    """Write noise to a store, block by block; return how many blocks."""
    blocks = max(1, round(gigabytes * 1e9 / 4 / BLOCK))
    store = create(path, blocks * BLOCK)
    rng = np.random.default_rng()
    for begin in range(0, blocks * BLOCK, BLOCK):
        store[begin : begin + BLOCK] = rng.standard_normal(BLOCK, "f4")
    return blocks


def forget(folder: Path) -> None:
    """Let the system drop what it holds of files: each turn reads from the disk."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file() and hasattr(os, "posix_fadvise"):
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def peak_memory() -> int:
    """Return the most bytes that a worker has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check(x: Any, y: Any, taps: np.ndarray) -> None:
    """Compare outputs at both ends and where chunks meet with float64; the spread of every chunk says it is there."""
    wide, half = taps.astype(np.float64), TAPS // 2
    for middle in {0, BLOCK, len(x) // 2 // BLOCK * BLOCK, len(x)}:
        begin, end = max(0, middle - 3000), min(len(x), middle + 3000)
        first, last = max(0, begin - half), min(len(x), end + half)
        there = np.pad(x[first:last].compute().astype(np.float64), (first - begin + half, end + half - last))
        exact = np.convolve(there, wide, "valid")
        error = np.abs(y[begin:end].compute() - exact).max() / np.abs(exact).max()
        if not error < 1e-5:  # noqa: PLR2004  # of float32
            message = f"wrong by {error} around sample {middle}"
            raise SystemExit(message)
    ones = ((1,) * y.numblocks[0],)
    spread = y.map_blocks(lambda block: np.array([block.std(dtype=np.float64)]), chunks=ones, dtype="f8").compute()
    expected = np.sqrt((wide**2).sum())  # of white noise
    if len(y) != len(x) or not np.abs(spread / expected - 1).max() < 0.1:  # noqa: PLR2004  # six standard errors
        message = f"chunks have standard deviations of {spread.min()} to {spread.max()}, expected {expected}"
        raise SystemExit(message)
    print(f"checked: {len(y)} samples, {len(spread)} chunks, spread {spread.min():.2f} to {spread.max():.2f}")


def report(size: int, seconds: dict[str, list[float]], peak: int, in_memory: float) -> dict[str, Any]:
    """Print and return what was measured."""
    for work, each in seconds.items():
        print(f"{work:7s}{size / sum(each) / 1e6:8.0f} MB/s")
    ratio = sum(seconds["copy"]) / sum(seconds["filter"])
    median = statistics.median(copy / filtered for copy, filtered in zip(*seconds.values(), strict=True))
    case = f"float32 {size / 1e9:.1f} GB K={TAPS}, {WORKERS} workers on {len(os.sched_getaffinity(0))} cores"
    print(f"{case}: filtering has {ratio:.2f} of the throughput of copying, {median:.2f} in the median stretch")
    print(f"a worker held at most {peak / 1e9:.2f} GB; in memory {in_memory / 1e6:.0f} MB/s")
    print(f"load of the machine {os.getloadavg()[2]:.1f}")
    figures = {"bytes": size, "seconds": seconds, "peak_bytes": peak, "bytes_per_second_in_memory": in_memory}
    return {"case": case, **figures, "load": os.getloadavg()[2], "ratio": ratio, "median_ratio": median}
