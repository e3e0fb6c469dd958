"""A stand-in for an NVIDIA GPU: the library of `tests/emulator`, in the place of its driver's, executes PTX on the CPU.

`uv run poe emulate COMMAND ...` runs a command with it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from maxconv._engine import toolchain
from maxconv._engine.cache import cache_folder

SOURCES = Path(__file__).parent / "emulator"

#: What each library is made of; MAX's runtime asks for both by these names.
LIBRARIES = {
    "libcuda.so.1": (
        "arithmetic.cpp",
        "conversions.cpp",
        "driver.cpp",
        "driver_absent.cpp",
        "memory.cpp",
        "parser.cpp",
        "text.cpp",
        "warp_wide.cpp",
        "warps.cpp",
    ),
    "libnvidia-ml.so.1": ("nvml.cpp",),
}

#: A product and a sum of PTX are one instruction only where it says so, hence no contraction.
FLAGS = ("-std=c++20", "-O2", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden")


def missing() -> str:
    """Say what the machine lacks to emulate a GPU; nothing: an empty string."""
    if not sys.platform.startswith("linux"):
        return "MAX looks for NVIDIA's driver on Linux"
    return "" if _compiler() else "no C++ compiler on this machine"


def _compiler() -> str | None:
    return shutil.which("c++") or shutil.which("g++")


@cache
def libraries() -> Path:
    """Return the folder of the libraries, building them first if no run has built them from these sources."""
    level = toolchain.cpu_level()
    target = [f"-march={level}"] if level.startswith("x86") else [f"-mcpu={level}"]
    digest = hashlib.sha256(" ".join([*FLAGS, *target]).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.read_bytes())
    folder = cache_folder() / f"emulator-{digest.hexdigest()[:12]}"
    if not folder.exists():
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
            built = Path(scratch) / "built"
            built.mkdir()
            _build(built, [*FLAGS, *target])
            if not folder.exists():  # another process may have been faster
                built.rename(folder)
    return folder


def _build(folder: Path, flags: list[str]) -> None:
    """Compile every source, two at a time, and link the libraries."""
    compiler = _compiler() or "c++"

    def compiled(source: str) -> Path:
        target = folder.parent / f"{source}.o"
        subprocess.run([compiler, *flags, "-c", SOURCES / source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        for library, sources in LIBRARIES.items():
            objects = pool.map(compiled, sources)
            subprocess.run([compiler, "-shared", *objects, "-o", folder / library], check=True)


def environment(*, order: str = "", strict: str = "", memory: int | None = None) -> dict[str, str]:
    """Return the environment of a process whose GPU is emulated.

    Parameters
    ----------
    order
        Of warps between barriers: as they are numbered, "reverse" or "random".
    strict
        "races": accesses of two warps without a barrier between, and reads of device memory that nobody wrote, are
        errors; "all": and reads of shared memory that nobody wrote, which vectors of some kernels do beyond their use.
    memory
        Of the device, in MiB: little where little is needed, as MAX takes most of it, which is filled.
    """
    options = {"EMULATOR_ORDER": order, "EMULATOR_STRICT": strict, "EMULATOR_MEMORY": str(memory or "")}
    folders = [str(libraries()), str(toolchain.library_folder()), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders)),
        **{name: value for name, value in options.items() if value},
    }


def run(
    program: Path | str, *arguments: str, order: str = "", strict: str = "", memory: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that computes on a GPU; return how it ended and what it printed, errors included."""
    return subprocess.run(
        [program, *arguments],
        env=environment(order=order, strict=strict, memory=memory),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    os.execvpe(sys.argv[1], sys.argv[1:], environment())  # noqa: S606  # the command is the user's own
