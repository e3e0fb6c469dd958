"""Check Mojo sources: format, documentation of every declaration, no warnings. `--fix` rewrites the format."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mojo.run import subprocess_run_mojo

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("src", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.mojo")
)
PACKAGE = ROOT / "src/maxconv"
OP_PACKAGES = [PACKAGE / "_ops", ROOT / "examples/tutorial/ops"]  # a unit each: their files import each other


def mojo(*arguments: str | Path) -> bool:
    """Run the compiler that comes with `max`; print what it says if it fails."""
    done = subprocess_run_mojo(
        [str(argument) for argument in arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        print(done.stdout)
    return bool(done.returncode == 0)


def is_formatted(source: Path) -> bool:
    """Tell whether the formatter would leave a file as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / source.name
        shutil.copy(source, copy)
        if mojo("format", "--quiet", "--line-length", "120", copy) and copy.read_bytes() == source.read_bytes():
            return True
    print(f"{source.relative_to(ROOT)}: not formatted; run `poe format`")
    return False


def is_documented(source: Path) -> bool:
    """Tell whether every declaration of a file is documented and nothing in it warns."""
    imports = ("-I", PACKAGE, "-I", PACKAGE / "_native", "-I", ROOT / "examples/tutorial")
    return mojo("doc", "--diagnose-missing-doc-strings", "--Werror", *imports, "-o", "/dev/null", source)


def main() -> int:
    """Lint or fix; the exit status says whether all is well."""
    if "--fix" in sys.argv[1:]:
        return 0 if mojo("format", "--quiet", "--line-length", "120", *SOURCES) else 1
    formatted = [is_formatted(source) for source in SOURCES]
    units = [*OP_PACKAGES, *(path for path in SOURCES if not any(each in path.parents for each in OP_PACKAGES))]
    documented = [is_documented(unit) for unit in units]
    print(f"{len(SOURCES)} Mojo files: {sum(formatted)} formatted; {sum(documented)} of {len(units)} units documented")
    return 0 if all(formatted + documented) else 1


if __name__ == "__main__":
    sys.exit(main())
