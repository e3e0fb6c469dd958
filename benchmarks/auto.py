"""How good the choice of `method="auto"` is: its time beside those of the methods that it chooses from.

Each call gets a filter that it has not seen: the transform of the taps is part of its time. Methods that the model
expects to be `HOPELESS` times slower than the best are not timed. The ratio is the median over rounds of `auto` beside
each method, the larger of the two: where `auto` is the better method itself, noise alone is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from timing import is_served, paired_ratio, row, sample_calls, summarize

import maxconv
from maxconv import _plan
from maxconv._engine import native
from maxconv._problem import part_of_full

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES = [10**2, 10**3, 10**4, 10**5, 10**6, 10**7]
TAPS = [1, 10, 32, 50, 70, 100, 150, 250, 500, 10**3, 10**4, 10**5]
HOPELESS = 20
TARGET = 1.25


def bench(device: str) -> list[dict[str, Any]]:
    """Time every pair of lengths; print how far `auto` is from the best."""
    rows = []
    for dtype in ("float32", "float64"):
        for n in SAMPLES:
            rows += [bench_lengths(dtype, n, m, device) for m in TAPS if m <= n]
    ratios = sorted((float(entry["ratio"]), str(entry["case"])) for entry in rows)
    missed = sum(ratio > TARGET for ratio, _ in ratios)
    print(f"auto / best: median {ratios[len(ratios) // 2][0]:.2f}, {missed} of {len(rows)} above {TARGET}; the worst:")
    for ratio, case in ratios[:-6:-1]:
        print(f"  {ratio:.2f}  {case}")
    return rows


def bench_lengths(dtype: str, n: int, m: int, device: str) -> dict[str, Any]:
    """Time the methods for one pair of lengths."""
    rng = np.random.default_rng()
    x, k = (rng.standard_normal(length).astype(dtype) for length in (n, m))
    choose = _plan.choose if device == "cpu" else _plan.choose_on_gpu
    choice = choose(part_of_full(n, m, "full", flip=True), x.itemsize)
    seconds = {"direct": choice.direct_seconds, "fft": choice.fft_seconds}
    least = min(seconds.values())
    methods = ["auto", *(method for method in seconds if seconds[method] < HOPELESS * least)]
    call = caller(x, k, device)
    calls = {method: call(method) for method in methods if is_served(call(method))}
    samples = sample_calls(calls, rounds=min(21, max(5, round(1 / least))))
    ratio = max(paired_ratio(samples["auto"], samples[method]) for method in calls if method != "auto")
    entry = row(f"{dtype} N={n} K={m}", {method: summarize(samples[method]) for method in calls}, "auto")
    return {**entry, "ratio": ratio, "modelled_seconds": seconds}


def caller(x: np.ndarray, k: np.ndarray, device: str) -> Callable[[str], Callable[[], Any]]:
    """Return what makes calls of a method: of host arrays on the CPU, of resident ones, to their end, on a GPU."""
    if device == "cpu":

        def on_host(method: str) -> Callable[[], Any]:
            def call() -> None:
                native._plan.cache_clear()
                maxconv.convolve(x, k, method=method)

            return call

        return on_host

    from max.driver import Accelerator, Buffer

    handle = Accelerator()
    signal, taps = (Buffer.from_numpy(array).to(handle) for array in (x, k))

    def on_device(method: str) -> Callable[[], Any]:
        def call() -> None:
            maxconv.convolve(signal, taps, method=method)
            handle.synchronize()

        return call

    return on_device
