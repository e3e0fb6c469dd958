"""What the tests have the Mojo compiler do: programs that it runs, and kernels that it compiles for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maxconv._engine import toolchain

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/maxconv"


class Job(NamedTuple):
    """A source, and what becomes of it."""

    source: Path
    """The file."""
    family: str = ""
    """The GPUs that it is for, in the compiler's words; none: it is a test."""
    runs: bool = True
    """Whether it is run, where it is; else it is compiled alone."""

    def __str__(self) -> str:
        """Name it as tests are named."""
        return f"{self.source.stem}-{self.family}" if self.family else self.source.stem

    def finish(self, scratch: Path) -> list[str]:
        """Do it; return what it prints, or the code of each kernel."""
        target = ["--target-accelerator", self.family] if self.family else []
        arguments = [*target, "-I", str(PACKAGE), str(self.source)]
        if self.runs:
            return [toolchain.run_mojo("run", *arguments)]
        folder = scratch / str(self)
        folder.mkdir()
        toolchain.run_mojo("build", "--emit", "asm", *arguments, "-o", str(folder / "host.s"))
        return [path.read_text() for suffix in ("ptx", "amdgcn") for path in sorted(folder.glob(f"*.{suffix}"))]


def kernels_of(source: Path, families: Iterable[str]) -> list[Job]:
    """List the compilations of a source."""
    return [Job(source, family, runs=False) for family in families]
