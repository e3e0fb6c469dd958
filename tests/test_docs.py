"""Every page of the documentation and README: each code block is run, each link leads somewhere, each name is there.

One mechanism for all pages. What a block is, its first line says:

    python with >>>       a doctest; the blocks of a page share their names
    python without        a program, which must not fail
    console               each `$ command` succeeds and prints what stands below it
    a `--8<--` line       shows a file, or part of one, that another test compiles or runs: `RUN_ELSEWHERE`
    text                  output, or a sketch: not run
    sh                    a command that another test or CI runs: `RUN_BY_CI`
    title="needs a GPU"   run by `pytest -m gpu`;  title="needs PyTorch": where that is installed
"""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import maxconv

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

#: Files whose parts pages show, and the test that runs or compiles each.
RUN_ELSEWHERE = {
    "CHANGELOG.md": "text",
    "examples/tutorial/conv1d.py": "docs/tutorial/4-calling.md runs it",
    "examples/tutorial/conv1d_graph.py": "docs/tutorial/4-calling.md runs it",
    "examples/tutorial/launch.mojo": "docs/tutorial/8-profiling.md compiles it",
    "examples/tutorial/ops/__init__.mojo": "docs/tutorial/3-packaging.md compiles it",
    "examples/tutorial/ops/conv1d.mojo": "docs/tutorial/4-calling.md runs it",
    "examples/tutorial/ops/kernels.mojo": "docs/tutorial/4-calling.md runs it",
}

#: Commands of `sh` blocks, without their comments, and who runs them.
RUN_BY_CI = {
    "pip install uv && uv run poe p15": "test_project.py, by its script",
    "pip install uv && uv run poe test": ".ci/run",
    "uv run poe p15": "test_project.py, by its script",
    "uv run poe bench cpu startup": "by hand: it takes minutes",
    "uv run poe bench layers layers-max": "by hand: it takes PyTorch and minutes",
    "uv run poe bench gpu layers --device gpu": "by hand: it takes a GPU",
    "maxconv compile --target cpu,sm_90a": "docs/howto/ahead-of-time.md runs its CPU part",
}

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    """A fenced block: its language, what follows on that line, its text, and its line on the page."""

    language: str
    title: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """List the fenced blocks of a page."""
    text = page.read_text()
    return [Block(*found.groups(), text[: found.start()].count("\n") + 1) for found in _FENCE.finditer(text)]


def identify(page: Path) -> str:
    """Name a page as the repository does."""
    return page.relative_to(ROOT).as_posix()


def run_doctest(block: Block, page: Path, names: dict) -> None:
    """Run the examples of a block with the names that the page has defined so far."""
    test = doctest.DocTestParser().get_doctest(block.text, names, page.name, str(page), block.line)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=_OPTIONS)
    runner.run(test, out=report.append, clear_globs=False)
    names.update(test.globs)
    assert not runner.failures, "".join(report)


def run_console(block: Block, folder: Path) -> None:
    """Run each command of a block, and compare what it prints."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for piece in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = piece.partition("\n")
        done = subprocess.run(  # noqa: S602  # commands of our own pages
            command.replace("uv run ", ""),
            shell=True,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        printed = done.stdout or "\n"
        assert doctest.OutputChecker().check_output(expected, printed, _OPTIONS), f"{command}\n{printed}"


def run_page(page: Path, folder: Path, *, on_gpu: bool) -> None:
    """Run the blocks of a page from top to bottom, in a folder that shows the repository's examples."""
    (folder / "examples").symlink_to(ROOT / "examples")
    names: dict = {"__name__": "page"}
    for block in blocks_of(page):
        if "--8<--" in block.text or ("needs a GPU" in block.title and not on_gpu):
            continue
        if "needs PyTorch" in block.title:
            pytest.importorskip("torch")
            pytest.importorskip("maxconv.torch")
        if block.language == "python" and ">>> " in block.text:
            run_doctest(block, page, names)
        elif block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)  # noqa: S102  # our own pages
        elif block.language == "console":
            run_console(block, folder)


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_every_block_of_a_page_runs(page, tmp_path, monkeypatch):
    """Each command and program of a page, in order and in an empty folder, does what the page shows."""
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path, on_gpu=False)


@pytest.mark.gpu
@pytest.mark.parametrize("page", [page for page in PAGES if "needs a GPU" in page.read_text()], ids=identify)
def test_blocks_that_need_a_gpu_run_on_one(page, tmp_path, monkeypatch):
    """Where there is a GPU, the marked blocks run, too."""
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path, on_gpu=True)


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_no_block_escapes(page):
    """Every block is of a kind that is run, shows a file that is, or is plain text."""
    for block in blocks_of(page):
        where = f"{identify(page)}:{block.line}"
        if shown := re.findall(r'--8<-- "([^":]+)', block.text):
            assert set(shown) <= set(RUN_ELSEWHERE), where
            continue
        assert block.language in {"python", "console", "sh", "text"}, where
        if block.language == "sh":
            for line in block.text.splitlines():
                assert line.partition("#")[0].strip() in RUN_BY_CI, where


def test_the_seven_lines_of_the_readme_are_the_jobs():
    """The output that the README shows for `poe p15` is the one that test_project.py checks."""
    from test_project import SEVEN_LINES

    assert f"```text\n{SEVEN_LINES}```" in (ROOT / "README.md").read_text()


def test_ci_runs_the_test_command_of_the_readme():
    """The README's second command ends as the last line of `.ci/run` does."""
    command = next(block.text.splitlines()[1] for block in blocks_of(ROOT / "README.md") if block.language == "sh")
    assert (
        command.partition("#")[0].strip().removeprefix("pip install uv && ")
        == ((ROOT / ".ci/run").read_text().splitlines()[-1])
    )


@pytest.mark.parametrize("task", ["p15", "test", "lint", "bench", "kernels", "docs"])
def test_pixi_has_the_same_tasks(task):
    """Every task of pyproject.toml that the project promises is in pixi.toml under the same name."""
    assert f"[tool.poe.tasks.{task}]" in (ROOT / "pyproject.toml").read_text()
    assert f'\n{task} = "uv run poe {task}"' in (ROOT / "pixi.toml").read_text()


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/large.md", "docs/torch.md"])
def test_links_in_a_checkout_lead_somewhere(document):
    """Relative links of what people read beside the code name files that exist; for the site, test_site.py looks."""
    path = ROOT / document
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
        assert (path.parent / target).exists(), f"{document}: {target}"


def test_the_reference_names_everything_public():
    """Each public name of the package and of its doors has an entry in the reference."""
    text = "\n".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    named = set(re.findall(r"^::: maxconv\.([\w.]+)$", text, re.MULTILINE))
    doors = {"graph": maxconv.graph, "nn": maxconv.nn, "dask": maxconv.dask, "plot": maxconv.plot}
    expected = set(maxconv.__all__) - set(doors)
    for door, module in doors.items():
        expected |= {f"{door}.{name}" for name in module.__all__}
    torch = (ROOT / "src/maxconv/torch/__init__.py").read_text()  # importing it takes PyTorch
    expected |= {f"torch.{name}" for name in re.findall(r'"(\w+)"', torch.partition("__all__")[2])}
    assert named == expected


def test_the_index_for_robots_names_every_page():
    """llms.txt links to every page of the site's navigation, and to nothing else."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads mkdocs.yml, tags and all."""

    Loader.add_multi_constructor("tag:", lambda *_: None)
    navigation = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"]  # noqa: S506  # a safe loader
    pages = {page for section in navigation for pages in section.values() for page in pages}
    assert pages == {page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]}
    linked = re.findall(r"\]\(([^)]+)\)", (ROOT / "docs/llms.txt").read_text())
    assert set(linked) == pages
    assert len(linked) == len(pages)


def test_figures_of_the_readme_were_measured():
    """Each time in the README's tables of signals is that of the result files, to the digits shown."""
    text = (ROOT / "README.md").read_text()

    def shown(cell: str) -> tuple[float, float]:
        number, unit = re.match(r"([\d.]+) (us|ms)", cell.strip()).groups()
        digits = len(number.partition(".")[2])
        scale = {"us": 1e-6, "ms": 1e-3}[unit]
        return float(number) * scale, 0.51 * scale * 10.0**-digits

    def medians(file: str) -> dict[str, dict[str, float]]:
        rows = json.loads((ROOT / f"benchmarks/results/{file}.json").read_text())["rows"]
        return {row["case"]: {name: each["median"] for name, each in row["seconds"].items()} for row in rows}

    checked = 0
    cpu, gpu = medians("cpu"), medians("gpu")
    for samples, taps, *cells in re.findall(
        r"^\| ([\d^]+) samples, (\d+) taps \|" + r" ([^|]+) \|" * 3, text, re.MULTILINE
    ):
        base, _, power = samples.partition("^")
        times = cpu[f"float32 N={int(base) ** int(power or 1)} K={taps}"]
        for cell, name in zip(cells, ("numpy.convolve", "scipy.signal.oaconvolve", "maxconv.convolve"), strict=True):
            value, digit = shown(cell)
            assert abs(times[name] - value) <= digit, (samples, taps, cell)
            checked += 1
    for dtype, taps, *cells in re.findall(r"^\| (\w+), (\d+) taps \|" + r" ([^|]+) \|" * 3, text, re.MULTILINE):
        times = gpu[f"{dtype} N={1 << 26} K={taps}"]
        for cell in cells:
            value, digit = shown(cell)
            assert any(abs(each - value) <= digit for each in times.values()), (dtype, taps, cell)
            checked += 1
    assert checked > 30


def test_drawings_are_what_their_script_draws(monkeypatch):
    """The committed drawings are those of scripts/draw.py, and the picture of speeds has the figures of today."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import draw

    for name, picture in draw.DRAWINGS.items():
        assert (draw.IMAGES / name).read_text() == str(picture()), name

    def words(svg: str) -> list[str]:  # coordinates differ between versions of matplotlib
        return re.findall(r"<text[^>]*>([^<]+)", svg)

    assert words((draw.IMAGES / "speed.svg").read_text()) == words(draw.as_svg(draw.draw_speed()))
