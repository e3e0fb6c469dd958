"""The README's commands print what it shows; Python blocks, docs/large.md's too, are doctests (see pyproject.toml)."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def console_commands() -> list[tuple[str, str]]:
    """Pair each command of the README's console blocks with the output that it shows."""
    pairs = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = piece.partition("\n")
            pairs.append((command, output))
    return pairs


def test_console_blocks_print_what_they_show(tmp_path):
    """Each command, in order and in an empty folder, succeeds and prints the text behind it."""
    commands = console_commands()
    assert len(commands) >= 3
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command, expected in commands:
        done = subprocess.run(  # noqa: S602  # commands of our own README
            command.removeprefix("uv run "),
            shell=True,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert doctest.OutputChecker().check_output(expected, done.stdout, doctest.ELLIPSIS), done.stdout


def test_the_seven_lines_of_the_readme_are_the_jobs():
    """The output that the README shows for `poe p15` is the one that test_project.py checks."""
    from test_project import SEVEN_LINES

    assert f"```text\n{SEVEN_LINES}```" in README


@pytest.mark.parametrize("task", ["p15", "test", "lint", "bench", "kernels"])
def test_pixi_has_the_same_tasks(task):
    """Every task of pyproject.toml that the project promises is in pixi.toml under the same name."""
    assert f"[tool.poe.tasks.{task}]" in (ROOT / "pyproject.toml").read_text()
    assert f'\n{task} = "uv run poe {task}"' in (ROOT / "pixi.toml").read_text()


def test_links_lead_somewhere():
    """Relative links of the README, CONTRIBUTING and the pages name files that exist."""
    for document in ("README.md", "CONTRIBUTING.md", "docs/large.md", "docs/torch.md"):
        path = ROOT / document
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{document}: {target}"
