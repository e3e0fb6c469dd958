"""How we time: side by side in one run, on the same data, medians with spread, results checked before they count."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Timing(NamedTuple):
    """Seconds of one call: the median of several rounds, and the 20th and 80th percentiles."""

    median: float
    low: float
    high: float


def summarize(samples: list[float]) -> Timing:
    """Reduce rounds to a `Timing`."""
    ordered = sorted(samples)
    at = (len(ordered) - 1) / 5
    return Timing(statistics.median(ordered), ordered[round(at)], ordered[round(4 * at)])


def time_calls(calls: dict[str, Callable[[], object]], rounds: int = 15, round_seconds: float = 0.02) -> dict[str, Timing]:
    """Time functions on the host clock, in turns, so that a busy moment of the machine meets all of them alike.

    Each round of a function runs it as often as fits `round_seconds`, at least once.
    """
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(round_seconds / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name])
    return {name: summarize(values) for name, values in samples.items()}
