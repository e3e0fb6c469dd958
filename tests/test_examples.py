"""Every example runs: scripts by a test that says where, the notebook from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"

#: Example -> the test that runs it.
SCRIPTS = {
    "causal_steps.py": "test_graph_layers.py",
    "hubert.py": "test_graph_layers.py, by hubert_features.py",
    "hubert_features.py": "test_graph_layers.py",
    "p15.py": "test_project.py",
    "tutorial/conv1d.py": "test_docs.py, by docs/tutorial/4-calling.md",
    "tutorial/conv1d_graph.py": "test_docs.py, by conv1d.py",
}


def test_no_script_is_left_out():
    """Each script of examples/ is known to be run, by a test that names it."""
    assert {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.py")} == set(SCRIPTS)
    for script, where in SCRIPTS.items():
        test = (Path(__file__).parent / where.partition(",")[0]).read_text()
        assert Path(script).stem in test, script


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # of Jupyter, whose kernel is another process; its cells assert
def test_the_notebook_runs(path):
    """Every cell runs, and what the cells assert holds; what is stored was shown by these very cells."""
    notebook = nbformat.read(path, as_version=4)
    stored = [cell.get("execution_count") for cell in notebook.cells if cell.cell_type == "code"]
    assert stored == list(range(1, len(stored) + 1))
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
