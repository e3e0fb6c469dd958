"""Fill the cache ahead of time: `maxconv compile`, for this machine's processor and for GPUs that need not be here."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ._engine import cache, models, native
from ._errors import ArgumentError, CompileError

CPU = "cpu"
_FAMILY = re.compile(r"sm_(\d+)a?|gfx\w+")
_CPU_KINDS = ("cpu", "cpu_layers")

# In a process of its own: which devices MAX pretends to have is settled before anything else loads it.
_FOR_A_VIRTUAL_DEVICE = """
import os, sys
from max import driver
api, architecture = sys.argv[1:]
driver.set_virtual_device_api(api)
driver.set_virtual_device_target_arch(architecture)
driver.set_virtual_device_count(1)
from maxconv._engine import models
print(models.compiled("gpu:0"), flush=True)
os._exit(0)  # MAX ends such a process by an abort
"""


def check_targets(targets: list[str]) -> None:
    """Raise `ArgumentError` for a target that nothing can be built for."""
    for target in targets:
        if target != CPU and not _FAMILY.fullmatch(target):
            message = f"--target: got '{target}'; expected cpu, or a GPU such as sm_80, sm_90a or gfx942"
            raise ArgumentError(message)
        oldest = min(native.GPU_FAMILIES["gpu"])
        if (capability := _capability(target)) is not None and capability < oldest:
            message = f"--target: got '{target}'; NVIDIA GPUs are served from sm_{oldest} on"
            raise ArgumentError(message)


def _capability(target: str) -> int | None:
    """Return the compute capability that an NVIDIA GPU's name tells."""
    family = re.match(r"sm_(\d+)", target)
    return int(family[1]) if family else None


def steps(targets: list[str], *, with_models: bool) -> list[tuple[str, str]]:
    """List what to build, as (kind, target), each thing once: builds of a kind serve several NVIDIA GPUs."""
    found: dict[tuple[str, int | str], tuple[str, str]] = {}
    for target in targets:
        capability = _capability(target)
        if target == CPU:
            found |= {(kind, CPU): (kind, CPU) for kind in _CPU_KINDS}
        elif capability is not None:
            for kind, families in native.GPU_FAMILIES.items():
                if capability >= min(families):
                    found.setdefault((kind, native.family(kind, capability)), (kind, target))
        if with_models or (target != CPU and capability is None):
            found["models", target] = ("models", target)
    return list(found.values())


def build(kind: str, target: str) -> dict[str, Any]:
    """Build one thing into the cache unless it is there; say what, where, and how long it took."""
    start = time.perf_counter()
    before = set(cache.entries())
    path = _build_models(target) if kind == "models" else native.built(kind, capability=_capability(target))
    return {
        "kind": kind,
        "target": target,
        "file": path.name,
        "bytes": path.stat().st_size,
        "built": path.parent == cache.cache_folder() and path not in before,
        "seconds": round(time.perf_counter() - start, 2),
    }


def _build_models(target: str) -> Path:
    if target == CPU:
        return models.compiled(CPU)
    api = "cuda" if target.startswith("sm_") else "hip"
    arguments = [sys.executable, "-c", _FOR_A_VIRTUAL_DEVICE, api, target]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        message = f"the MAX models for {target} could not be compiled: {reason}"
        raise CompileError(message)
    return Path(lines[-1])
