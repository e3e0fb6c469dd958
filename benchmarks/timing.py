"""How we time: side by side in one run, on the same data, medians with spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maxconv._bench import Timing, paired_ratio, sample_calls, summarize, time_calls
from maxconv._errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timing", "is_served", "paired_ratio", "row", "sample_calls", "summarize", "time_calls"]


def row(case: str, timings: dict[str, Timing], baseline: str) -> dict[str, Any]:
    """Print and return one line of results: microseconds, and how many times the baseline's speed."""
    base = timings[baseline].median
    figures = (f"{name} {1e6 * t.median:.1f} us ({base / t.median:.2f}x)" for name, t in timings.items())
    print(f"{case:30s}", *figures, flush=True)
    return {"case": case, "baseline": baseline, "seconds": {name: t._asdict() for name, t in timings.items()}}


def is_served(call: Callable[[], Any]) -> bool:
    """Tell whether a method is offered on the device."""
    try:
        call()
    except ArgumentError:
        return False
    return True
