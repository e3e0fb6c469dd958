"""What is here and what would run where: the content of `maxconv info`."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from .. import _ops_path
from .._plan import cores
from . import cache, devices, native, toolchain


def report() -> dict[str, object]:
    """Describe versions, devices, the cache, and which way serves which arrays, as JSON-ready values."""
    accelerators = []
    for index in range(devices.accelerator_count()):
        handle = devices.accelerator(index)
        accelerators.append({"id": index, "name": handle.model_name, "architecture": handle.architecture_name})
    kept = cache.entries()
    default = devices.get_default_device()
    return {
        "maxconv": version("maxconv"),
        "python": platform.python_version(),
        **toolchain.versions(),
        "cpu": {"name": _cpu_name(), "level": toolchain.cpu_level(), "cores": cores()},
        "accelerators": accelerators,
        "cache": {
            "folder": str(cache.cache_folder()),
            "entries": [path.name for path in kept],
            "bytes": sum(path.stat().st_size for path in kept),
            "native cpu kernels": _origin(cache.find(native.entry_name("cpu"))),
        },
        "runs on": {
            "host arrays": default,
            "accelerator arrays": "their own device",
            "MAX graphs": "the graph's device",
        },
    }


def _origin(entry: Path | None) -> str:
    """Say where the file of an extension comes from."""
    if entry is None:
        return "built at the first call"
    return "brought along by the package" if entry.parent == _ops_path.prebuilt_path() else "built"


def _cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open() as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
