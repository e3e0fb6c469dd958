"""How we time: side by side in one run, on the same data, medians with spread."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Timing(NamedTuple):
    """Seconds of one call: the median of several rounds, and the 20th and 80th percentiles."""

    median: float
    low: float
    high: float


def summarize(samples: list[float]) -> Timing:
    """Reduce rounds to a `Timing`."""
    ordered = sorted(samples)
    fifth = (len(ordered) - 1) / 5
    return Timing(statistics.median(ordered), ordered[round(fifth)], ordered[round(4 * fifth)])


def time_calls(calls: Mapping[str, Callable[[], Any]], rounds: int = 15, seconds: float = 0.02) -> dict[str, Timing]:
    """Time functions on the host clock, in turns: the summary of `sample_calls`."""
    return {name: summarize(values) for name, values in sample_calls(calls, rounds, seconds).items()}


def sample_calls(
    calls: Mapping[str, Callable[[], Any]], rounds: int = 15, seconds: float = 0.02
) -> dict[str, list[float]]:
    """Time functions on the host clock, in turns, so that a busy moment of the machine meets all of them alike.

    Each round of a function runs it as often as fits `seconds`, at least once. Each round starts with another function:
    what one leaves in the caches and in the allocator meets them alike too.
    """
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(seconds / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(rounds):
        for name in order:
            call = calls[name]
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name])
        order.append(order.pop(0))
    return samples


def paired_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return how many times as long ours took: the median over rounds, each of which met one state of the machine."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def row(case: str, timings: dict[str, Timing], baseline: str) -> dict[str, Any]:
    """Print and return one line of results: microseconds, and how many times the baseline's speed."""
    base = timings[baseline].median
    figures = (f"{name} {1e6 * t.median:.1f} us ({base / t.median:.2f}x)" for name, t in timings.items())
    print(f"{case:30s}", *figures, flush=True)
    return {"case": case, "baseline": baseline, "seconds": {name: t._asdict() for name, t in timings.items()}}
