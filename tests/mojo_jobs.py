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
    becomes: str = "run"
    """What becomes of it: "run", a test that runs where it is; "code" of its kernels; a "program" for a test to run."""

    def __str__(self) -> str:
        """Name it as tests are named."""
        return f"{self.source.stem}-{self.family}" if self.family else self.source.stem

    def finish(self, scratch: Path) -> list[str]:
        """Do it; return what it prints, the code of each kernel, or the path of the program."""
        target = ["--target-accelerator", self.family] if self.family else []
        arguments = [*target, "-I", str(PACKAGE), str(self.source)]
        if self.becomes == "run":
            return [toolchain.run_mojo("run", *arguments)]
        folder = scratch / str(self)
        folder.mkdir()
        if self.becomes == "program":
            toolchain.run_mojo("build", *arguments, "-o", str(folder / "program"))
            return [str(folder / "program")]
        toolchain.run_mojo("build", "--emit", "asm", *arguments, "-o", str(folder / "host.s"))
        return [path.read_text() for suffix in ("ptx", "amdgcn") for path in sorted(folder.glob(f"*.{suffix}"))]


def kernels_of(source: Path, families: Iterable[str]) -> list[Job]:
    """List the compilations of a source."""
    return [Job(source, family, becomes="code") for family in families]
