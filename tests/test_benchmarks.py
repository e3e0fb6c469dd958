"""What the benchmarks of accuracy and memory promise holds, and the page shows what was measured."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_the_page_shows_the_errors_that_were_measured(load):
    """The tables of docs/accuracy.md are those of the result files, to the last digit."""
    accuracy = load("accuracy")
    _, _, rest = accuracy.PAGE.read_text().partition(accuracy.BEGIN)
    shown, _, _ = rest.partition(accuracy.END)
    assert shown == f"\n{accuracy.tables()}\n"


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("accuracy*.json")), ids=lambda path: path.stem)
def test_no_error_that_was_measured_breaks_its_promise(path):
    """Every row is within its bound; every path is there, and every floating type."""
    results = json.loads(path.read_text())
    rows = results["rows"]
    assert all(row["error"]["rms"] <= row["error"]["max"] <= row["bound"] for row in rows)
    assert {"direct"} <= {row["path"] for row in rows}
    assert {"float16", "bfloat16", "float32", "float64", "int64"} <= {row["dtype"] for row in rows}


@pytest.mark.parametrize(("name", "suffix"), [("layers", ""), ("layers-gpu", " float32")])
def test_the_page_has_a_row_for_each_layer(load, name, suffix):
    """The result files of layers, which the page of performance shows, have every layer of the table."""
    rows = json.loads((BENCHMARKS / f"results/{name}.json").read_text())["rows"]
    cases = [row["case"] for row in rows]
    assert [layer.name + suffix for layer in load("layers").LAYERS] == [each for each in cases if each.endswith(suffix)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("method", "dtype", "taps"),
    [("auto", "f4", 10**4), ("auto", "f4", 16), ("direct", "f8", 100), ("fft", "f8", 1000)],
)
def test_no_copy_of_the_signal_is_made(load, method, dtype, taps):
    """A process that convolves four million samples grows by little more than its input and output."""
    memory = load("memory")
    assert memory.peak_memory(4 * 10**6, taps, dtype, method) < memory.LIMIT
