"""What a compiled thing depends on outside our sources: versions, processor, the compiler itself."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from .._errors import CompileError

# Flags of /proc/cpuinfo that make an x86-64 level (x86-64 psABI, "Microarchitecture levels").
_V2 = frozenset({"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"abm", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
_V4 = _V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_X86_LEVELS = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2}


@cache
def versions() -> dict[str, str]:
    """Return the installed versions of `max` and of its Mojo compiler."""
    return {"max": version("max"), "mojo": version("mojo-compiler")}


@cache
def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this processor as /proc/cpuinfo names them; empty where there is none."""
    try:
        with Path("/proc/cpuinfo").open() as lines:
            for line in lines:
                if line.startswith(("flags", "Features")):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


@cache
def cpu_level() -> str:
    """Return the widest CPU target that this machine runs, in the compiler's words.

    Levels instead of exact models, so that one build serves a whole fleet; a build for a level above the processor's
    own kills the process, one far below is up to 100 times slower (no fused multiply-add).
    """
    if platform.machine() in {"x86_64", "AMD64"}:
        return next((level for level, flags in _X86_LEVELS.items() if flags <= cpu_flags()), "x86-64")
    return "apple-m1" if sys.platform == "darwin" else "neoverse-n1"


def library_folder() -> Path:
    """Return the folder of the Mojo runtime libraries in this environment."""
    spec = importlib.util.find_spec("modular")
    for location in (spec.submodule_search_locations or []) if spec else []:
        if (folder := Path(location) / "lib").is_dir():
            return folder
    message = "the Mojo runtime libraries are missing; reinstall with: pip install 'max==26.7.0'"
    raise CompileError(message)


def run_mojo(*arguments: str) -> str:
    """Run the Mojo compiler that comes with `max`; return what it, or the program that it runs, prints.

    Raises
    ------
    CompileError
        With the compiler's own words, if it fails.
    """
    from mojo.run import subprocess_run_mojo  # needed only where something is built

    done = subprocess_run_mojo(list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        message = f"mojo {' '.join(arguments)} failed:\n{done.stdout}"
        raise CompileError(message)
    return str(done.stdout)
