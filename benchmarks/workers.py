"""One worker process and two, each with its own GPU: throughput on data that already lies in host memory."""

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
CHUNKS = 16
"""Chunks in the memory of each worker: half a second of work, beside which the scheduler takes little to begin."""
SAMPLES = {"gpu": 1 << 26, "cpu": 1 << 22}
"""Of a chunk: 256 MB for a GPU."""
ROUNDS = 5
THREADS = (1, 2)
"""Threads of a worker: with two, one computes or copies while the other gathers its samples."""


def bench(device: str) -> list[dict[str, Any]]:
    """Measure workers of one thread and of two."""
    return [measure(device, threads) for threads in THREADS]


def measure(device: str, threads: int) -> dict[str, Any]:
    """Time both numbers of workers in turns, through Dask and by plain calls; print throughput and ratios."""
    import dask
    import dask.array as da
    from dask.distributed import Client, LocalCluster, wait

    taps = np.hanning(TAPS).astype("f4")
    chunk = SAMPLES[device]
    settings = {"distributed.scheduler.work-stealing": False}  # of chunks that lie where they are computed
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=threads, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        workers = sorted(client.scheduler_info()["workers"])
        places = sorted(client.run(own_place, device).values())
        print(f"{threads} threads a worker, which compute on {', '.join(places)}", flush=True)
        random = da.random.default_rng()
        halves = [
            client.persist(random.random(CHUNKS * chunk, dtype="f4", chunks=chunk), workers=[worker])
            for worker in workers
        ]
        wait(halves)
        signals = {1: halves[0], 2: da.concatenate(halves)}
        samples: dict[str, list[float]] = {}
        for turn in range(ROUNDS + 1):
            for count, x in signals.items():
                scaled = (turn + 1) * taps  # else Dask would give what it has computed already
                y = maxconv.convolve(x, scaled, "same", device=device)
                works: dict[str, Callable[[], Any]] = {
                    f"dask, {count}": partial(client.persist, y, workers=workers[:count]),
                    f"calls, {count}": partial(
                        submit_calls, client, workers[:count], partial(call_again, chunk, threads, device)
                    ),
                }
                for name, work in works.items():
                    start = time.perf_counter()
                    result = work()
                    wait(result)
                    if turn:  # the first turn loads the kernels
                        samples.setdefault(name, []).append(time.perf_counter() - start)
                    elif name.startswith("dask"):
                        check(x, result, scaled)
                    del result
    timings = {name: summarize(values) for name, values in samples.items()}
    return report(f"{CHUNKS} chunks of {4 * chunk} bytes a worker, K={TAPS}, {threads} threads", timings, places)


def own_place(device: str) -> str:
    """Name the device on which a worker computes."""
    from maxconv._engine import devices

    return devices.own() if device == "gpu" else device


def submit_calls(client: Any, workers: list[str], calls: Callable[[int], None]) -> list[Any]:
    """Let workers make calls at the same time."""
    return [client.submit(calls, number, workers=[worker], pure=False) for number, worker in enumerate(workers)]


def call_again(samples: int, threads: int, device: str, _: int) -> None:
    """Convolve as many chunks as `measure` does, without Dask, in as many threads."""
    from concurrent.futures import ThreadPoolExecutor

    x, taps = np.ones(samples, "f4"), np.hanning(TAPS).astype("f4")
    place = own_place(device)

    def call(_: int) -> None:
        maxconv.convolve(x, taps, "same", device=place)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(call, range(CHUNKS)))


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
    size = 4 * CHUNKS * SAMPLES["gpu" if places[0].startswith("gpu") else "cpu"]
    rates = {name: int(name[-1]) * size / timing.median for name, timing in timings.items()}
    ratios = {work: rates[f"{work}, 2"] / rates[f"{work}, 1"] for work in ("dask", "calls")}
    for work, ratio in ratios.items():
        one, two = rates[f"{work}, 1"] / 1e9, rates[f"{work}, 2"] / 1e9
        print(f"{case}: {work:6s}{one:7.2f} GB/s with one, {two:7.2f} GB/s with two, {ratio:.2f}x", flush=True)
    seconds = {name: timing._asdict() for name, timing in timings.items()}
    return {"case": case, "places": places, "seconds": seconds, "bytes_per_second": rates, "ratio": ratios}
