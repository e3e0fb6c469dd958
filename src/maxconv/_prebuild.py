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
_CPU_KINDS, _GPU_KINDS, _GPU_LAYERS = ("cpu", "cpu_layers"), ("gpu", "gpu_fft"), "gpu_layers"

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
        oldest = native.GPU_BASELINE
        if (family := re.match(r"sm_(\d+)", target)) and int(family[1]) < int(oldest.removeprefix("sm_")):
            message = f"--target: got '{target}'; NVIDIA GPUs are served from {oldest} on"
            raise ArgumentError(message)


def steps(targets: list[str], *, with_models: bool) -> list[tuple[str, str]]:
    """List what to build, as (kind, target), each thing once: one build of a kind serves every NVIDIA GPU."""
    found: dict[str, tuple[str, str]] = {}
    for target in targets:
        if target == CPU:
            kinds: tuple[str, ...] = _CPU_KINDS
        elif (family := re.match(r"sm_(\d+)", target)) is not None:
            has_layers = int(family[1]) >= int(native.LAYERS_GPU_BASELINE.removeprefix("sm_"))
            kinds = (*_GPU_KINDS, _GPU_LAYERS) if has_layers else _GPU_KINDS
        else:
            kinds = ()
        for kind in kinds:
            found.setdefault(kind, (kind, target))
        if with_models or not kinds:
            found[f"models {target}"] = ("models", target)
    return list(found.values())


def build(kind: str, target: str) -> dict[str, Any]:
    """Build one thing into the cache unless it is there; say what, where, and how long it took."""
    start = time.perf_counter()
    before = set(cache.entries())
    path = _build_models(target) if kind == "models" else native.built(kind)
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
