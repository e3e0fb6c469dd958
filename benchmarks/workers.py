"""One worker process and two, each with its own GPU: throughput on data that already lies in host memory.

From ordinary memory samples are copied into page-locked memory and results out of it, so that two workers ask for as
much as the host's memory gives; page-locked chunks go over each GPU's own bus as they lie. What the host allows is
measured beside: the same copies there and back, without a kernel. Each output is dropped where a store would take it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from timing import Timing, summarize

import maxconv

if TYPE_CHECKING:
    from collections.abc import Callable

TAPS = 4097
CHUNKS = 6
"""Chunks in the memory of each worker."""
PASSES = 6
"""How often a signal has each chunk: so much work that the scheduler takes little to begin beside it."""
SAMPLES = {"gpu": 1 << 27, "cpu": 1 << 22}
"""Of a chunk: 512 MB for a GPU."""
ROUNDS = 3
CASES = {
    "gpu": ((1, False, "fft"), (1, True, "fft"), (1, True, "direct")),
    "cpu": ((1, False, "fft"), (2, False, "fft")),
}
"""Threads of a worker, whether its chunks are page-locked, and the method: sums take a GPU longer than FFTs."""


def bench(device: str) -> list[dict[str, Any]]:
    """Measure workers of one thread and of two, with both kinds of memory, and with both methods."""
    return [measure(device, *case) for case in CASES[device]]


def measure(device: str, threads: int, is_locked: bool, method: str) -> dict[str, Any]:
    """Time both numbers of workers in turns, through Dask and by plain calls; print throughput and ratios."""
    import dask
    from dask.distributed import Client, LocalCluster, wait

    taps = np.hanning(TAPS).astype("f4")
    samples: dict[str, list[float]] = {}
    settings = {"distributed.scheduler.work-stealing": False}  # of chunks that lie where they are computed
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=threads, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        places = sorted(client.run(own_place, device).values())
        print(f"{threads} threads a worker, which compute on {', '.join(places)}", flush=True)
        signals = resident_signals(client, SAMPLES[device], device if is_locked else None)
        for turn in range(ROUNDS + 1):
            for count, (x, chunks) in signals.items():
                scaled = (turn + 1) * taps  # else Dask would give what it has computed already
                y = maxconv.convolve(x, scaled, "same", method, device=device)
                dropped = y.map_blocks(drop, chunks=((1,) * y.numblocks[0],), dtype="f4", meta=np.empty(0, "f4"))
                call = partial(submit_calls, client, chunks, threads, device)
                works: dict[str, Callable[[], Any]] = {
                    f"dask, {count}": partial(client.persist, dropped, workers=list(chunks)),
                    f"calls, {count}": partial(call, method),
                }
                if device == "gpu":
                    works[f"copies, {count}"] = partial(call, "copies")
                for name, work in works.items():
                    start = time.perf_counter()
                    wait(work())
                    if turn:  # the first turn loads the kernels
                        samples.setdefault(name, []).append(time.perf_counter() - start)
                if not turn:
                    check(x, y, scaled)
    timings = {name: summarize(values) for name, values in samples.items()}
    memory = "page-locked" if is_locked else "ordinary"
    size = 4 * SAMPLES[device]
    case = f"{CHUNKS} {memory} chunks of {size} bytes a worker, {PASSES} times, K={TAPS}, {method}, {threads} threads"
    return report(case, timings, places)


def resident_signals(client: Any, chunk: int, device: str | None) -> dict[int, tuple[Any, dict[str, Any]]]:
    """Fill the memory of both workers; return for one and for two of them the signal, and a chunk that each holds."""
    import dask.array as da
    from dask.distributed import futures_of, wait

    make = partial(random_samples, chunk, device)
    options = {"chunks": ((chunk,) * CHUNKS,), "dtype": "f4", "meta": np.empty(0, "f4")}
    workers = sorted(client.scheduler_info()["workers"])
    halves = [client.persist(da.map_blocks(make, **options, name=f"x-{each}"), workers=[each]) for each in workers]
    wait(halves)
    firsts = [(worker, futures_of(half)[0]) for worker, half in zip(workers, halves, strict=True)]
    return {
        count: (da.concatenate([half for half in halves[:count] for _ in range(PASSES)]), dict(firsts[:count]))
        for count in (1, 2)
    }


def random_samples(count: int, device: str | None) -> np.ndarray:
    """Make a chunk, in page-locked memory if a device is named."""
    from maxconv._engine import lanes

    samples = np.resize(np.random.default_rng().random(1 << 20, "f4"), count)
    if device is None:
        return samples
    locked = lanes._empty(samples.shape, samples.dtype, own_place(device), is_locked=True)
    locked[:] = samples
    return locked


def own_place(device: str) -> str:
    """Name the device on which a worker computes."""
    from maxconv._engine import devices

    return devices.own() if device == "gpu" else device


def drop(y: np.ndarray) -> np.ndarray:
    """Take the first sample of a block and let the rest go."""
    first: np.ndarray = y[:1].copy()
    return first


def submit_calls(client: Any, chunks: dict[str, Any], threads: int, device: str, method: str) -> list[Any]:
    """Let workers make calls at the same time, each on a chunk that it holds; a method "copies" computes nothing."""
    return [
        client.submit(call_again, chunk, threads, device, method, workers=[worker], pure=False)
        for worker, chunk in chunks.items()
    ]


def call_again(x: np.ndarray, threads: int, device: str, method: str) -> None:
    """Convolve as many chunks as `measure` does, without Dask, in as many threads."""
    from concurrent.futures import ThreadPoolExecutor

    taps, place = np.hanning(TAPS).astype("f4"), own_place(device)

    def call(_: int) -> None:
        if method == "copies":
            copy_there_and_back(x, place)
        else:
            maxconv.convolve(x, taps, "same", method, device=place)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(call, range(CHUNKS * PASSES)))


def copy_there_and_back(x: np.ndarray, place: str) -> None:
    """Do what a call on a GPU does but for the kernels."""
    from maxconv import _problem
    from maxconv._engine import lanes

    problem = _problem.part_of_full(len(x), TAPS, "same", flip=True)
    lanes.convolve(problem, x, place, lanes.pieces(problem, x.itemsize), lambda *_: None)


def check(x: Any, y: Any, taps: np.ndarray) -> None:
    """Compare outputs at the end of a chunk and at the end of a worker's share with float64."""
    for middle in {x.chunks[0][0], len(x) // 2}:
        begin, end = middle - 1000, middle + 1000
        there = x[begin - TAPS // 2 : end + TAPS // 2].compute().astype(np.float64)
        exact = np.convolve(there, taps.astype(np.float64), "valid")
        error = np.abs(y[begin:end].compute() - exact).max() / np.abs(exact).max()
        if not error < 1e-5:  # noqa: PLR2004  # of float32
            message = f"wrong by {error} around sample {middle}"
            raise SystemExit(message)


def report(case: str, timings: dict[str, Timing], places: list[str]) -> dict[str, Any]:
    """Print and return throughputs in bytes of input a second, and how much more two workers have."""
    size = 4 * CHUNKS * PASSES * SAMPLES["gpu" if places[0].startswith("gpu") else "cpu"]
    rates = {name: int(name[-1]) * size / timing.median for name, timing in timings.items()}
    works = dict.fromkeys(name.partition(",")[0] for name in rates)
    ratios = {work: rates[f"{work}, 2"] / rates[f"{work}, 1"] for work in works}
    for work, ratio in ratios.items():
        one, two = rates[f"{work}, 1"] / 1e9, rates[f"{work}, 2"] / 1e9
        print(f"{case}: {work:6s}{one:7.2f} GB/s with one, {two:7.2f} GB/s with two, {ratio:.2f}x", flush=True)
    seconds = {name: timing._asdict() for name, timing in timings.items()}
    return {"case": case, "places": places, "seconds": seconds, "bytes_per_second": rates, "ratio": ratios}
