"""What the site takes from the rest of the repository when MkDocs builds it: figures, and pictures drawn from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from draw import as_svg
from mkdocs.structure.files import File, Files

from maxconv import plot

RESULTS = Path(__file__).parents[1] / "benchmarks/results"


def on_files(files: Files, config: Any) -> Files:
    """Add every file of results, and the pictures of the page about performance."""
    for path in sorted(RESULTS.glob("*.json")):
        files.append(File.generated(config, f"results/{path.name}", content=path.read_text()))
    for name, picture in pictures().items():
        files.append(File.generated(config, f"images/{name}.svg", content=as_svg(picture)))
    return files


def pictures() -> dict[str, Any]:
    """Draw what was measured."""
    cpu, gpu, auto = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("cpu", "gpu", "auto"))
    return {
        "cpu-taps": plot.lines(cpu, dtype="float32", samples=10**6),
        "gpu-taps": plot.lines(gpu, dtype="float32", samples=1 << 26),
        "auto-fft": plot.heat_map(auto, "fft", "direct", dtype="float32"),
    }


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to the result files, which work in a checkout, lead to their copies in the site."""
    return markdown.replace("](../benchmarks/results/", "](results/")
