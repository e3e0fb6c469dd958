"""What the site takes from the rest of the repository when MkDocs builds it: figures, and pictures drawn from them.

`{{ name }}` on a page becomes a table or a number of `benchmarks/results`, so that no figure is typed by hand.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from draw import as_svg
from mkdocs.structure.files import File, Files

from maxconv import plot

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[1] / "benchmarks/results"


@cache
def results(name: str) -> Any:
    """Read a file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text())


PICTURES: dict[str, Callable[[], Figure]] = {
    "cpu-taps": lambda: plot.lines(results("cpu"), dtype="float32", samples=10**6),
    "gpu-taps": lambda: plot.lines(results("gpu"), dtype="float32", samples=1 << 26),
    "auto-fft": lambda: plot.heat_map(results("auto"), "fft", "direct", dtype="float32"),
}

FIGURES: dict[str, Callable[[], str]] = {
    "measured on cpu": lambda: measured_on("cpu"),
    "measured on gpu": lambda: measured_on("gpu"),
    "measured on layers": lambda: measured_on("layers"),
    "measured on layers gpu": lambda: measured_on("layers-gpu"),
    "table cpu": lambda: table("cpu", lambda case: "N=" in case),
    "table one call": lambda: table("cpu", lambda case: case == "one call"),
    "table gpu": lambda: table("gpu"),
    "table startup": lambda: table("startup"),
    "table tiny": lambda: table("tiny"),
    "measured on tiny": lambda: measured_on("tiny"),
    "table layers": lambda: table("layers"),
    "table layers gpu": lambda: table("layers-gpu"),
    "stream": lambda: hour_of_sound("stream"),
    "auto cpu": lambda: hits("auto"),
    "auto gpu": lambda: hits("auto-gpu"),
}


def on_files(files: Files, config: Any) -> Files:
    """Add every file of results, and the pictures of the pages that explain."""
    for path in sorted(RESULTS.glob("*.json")):
        files.append(File.generated(config, f"results/{path.name}", content=path.read_text()))
    for name, draw in PICTURES.items():
        files.append(File.generated(config, f"images/{name}.svg", content=as_svg(draw())))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in figures; let links to the result files, which work in a checkout, lead to their copies in the site."""
    filled = re.sub(r"\{\{ (.+?) \}\}", lambda found: FIGURES[found[1]](), markdown)
    return filled.replace("](../benchmarks/results/", "](results/")


def measured_on(name: str) -> str:
    """Say where and when, with which versions."""
    found = results(name)
    device = (
        found["accelerators"][0]["name"]
        if found["accelerators"]
        else f"{found['cpu']['name']} ({found['cpu']['level']})"
    )
    return f"{device}, {found['cpu']['cores']} cores, MAX {found['max']}, NumPy {found['numpy']}, {found['date']}"


def table(name: str, keep: Callable[[str], bool] = lambda _: True) -> str:
    """Lay out median times, a row a case and a column a contender."""
    rows = [row for row in results(name)["rows"] if keep(row["case"])]
    contenders = list(dict.fromkeys(contender for row in rows for contender in row["seconds"]))
    lines = [f"| | {' | '.join(contenders)} |", "|---" * (len(contenders) + 1) + "|"]
    for row in rows:
        cells = [readable(row["seconds"][each]["median"]) if each in row["seconds"] else "" for each in contenders]
        lines.append(f"| {row['case'].replace(' ', '&nbsp;')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readable(seconds: float) -> str:
    """Write a time with three digits."""
    factor, unit = next((f, u) for f, u in ((1e6, "us"), (1e3, "ms"), (1, "s")) if seconds * f < 1000 or u == "s")  # noqa: PLR2004
    return f"{seconds * factor:.3g} {unit}"


def hits(name: str) -> str:
    """Say how often "auto" was nearly as fast as its better method, and how far off it was at worst."""
    ratios = []
    for row in results(name)["rows"]:
        times = {method: timing["median"] for method, timing in row["seconds"].items()}
        ratios.append(times.pop("auto") / min(times.values()))
    close = sum(ratio <= 1.25 for ratio in ratios)  # noqa: PLR2004  # the target of benchmarks/auto.py
    return f"{close} of {len(ratios)} points within 1.25 times the better method, at worst {max(ratios):.2f} times"


def hour_of_sound(name: str) -> str:
    """Say what an hour of sound took."""
    row = results(name)["rows"][0]
    streamed, whole = (
        f"{row['seconds'][way]:.0f} s and {row['bytes_above_start'][way] / 1e6:.0f} MB" for way in row["seconds"]
    )
    return (
        f"Measured by `uv run poe bench stream` ([stream.json](../results/stream.json)), {row['case']}: {streamed} "
        f"above start-up by streaming, {whole} in memory, the same bytes; {measured_on(name)}."
    )
