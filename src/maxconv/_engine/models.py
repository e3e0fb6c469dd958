"""The graph way: the same kernels as MAX models, for every device that has no native build.

All models of a device are compiled in one `max.graph.Module` (sixteen graphs cost what one costs, 25 to 30 s on 2
cores), for all lengths at once, and cached as one `.mef` file that a later process reads in milliseconds.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

from .. import _ops_path
from .._problem import BORDERS, KERNEL_DTYPES
from . import cache as disk
from . import devices, toolchain

if TYPE_CHECKING:
    from pathlib import Path

    from .._problem import Problem

_loading = threading.Lock()
_models: dict[str, dict[str, Any]] = {}


def run(problem: Problem, dtype: str, device: str, x: Any, k: Any) -> Any:
    """Return y as a new `Buffer` on `device`; x and k are Buffers there, of a type the `dtype` kernels take."""
    import numpy as np
    from max.driver import Buffer
    from max.dtype import DType

    devices.handle(device)  # refuses a process that was forked from one in which MAX ran
    padding = np.array([problem.pad_left, problem.pad_right], dtype=np.int64)
    signals = x.view(DType[dtype], (problem.rows, problem.samples))
    taps = k.view(DType[dtype], (problem.tap_rows, problem.taps))
    flip, border = (np.array(number, dtype=np.int64) for number in (problem.flip, BORDERS.index(problem.border)))
    value = Buffer.scalar(problem.cval, DType[dtype])
    y = models(device)[f"direct_{dtype}"].execute(signals, taps, padding, flip, border, value)[0]
    return y.view(x.dtype, problem.shape)


def entry_name(device: str) -> str:
    """Name the cache entry of a device's models by everything its content depends on.

    The host part of a model is compiled for this very processor, hence the digest of its instruction sets.
    """
    place = "cpu"
    if device != "cpu":
        place = f"gpu{devices.index_of(device)}-{devices.handle(device).architecture_name}"
    host = hashlib.sha256(" ".join(sorted(toolchain.cpu_flags())).encode()).hexdigest()[:8]
    versions = toolchain.versions()
    return f"models-{place}-{toolchain.cpu_level()}-{host}-max{versions['max']}-{_ops_path.source_hash()}.mef"


def models(device: str) -> dict[str, Any]:
    """Return the compiled models of a device by name, from the cache or newly compiled."""
    with _loading:
        if device not in _models:
            _models[device] = _load(device)
        return _models[device]


def _load(device: str) -> dict[str, Any]:
    from max.engine import InferenceSession, read  # MAX loads when it is needed

    session = InferenceSession(devices=[devices.handle(device)])
    return dict(session.init_all(read(compiled(device))))


def compiled(device: str) -> Path:
    """Return the file of a device's compiled models, compiling them first if it is not in the cache."""
    note = f"compiling the MAX models for {device}, once, about 40 s"
    return disk.entry(entry_name(device), lambda target: _compile(device, target), note)


def _compile(device: str, target: Path) -> None:
    from max.dtype import DType
    from max.engine import InferenceSession
    from max.graph import DeviceRef, Graph, KernelLibrary, Module, TensorType

    from .. import graph  # loads max.graph

    place = DeviceRef.CPU() if device == "cpu" else DeviceRef.GPU(devices.index_of(device))
    library = KernelLibrary()
    library.load_paths([_ops_path.kernels_path()])
    module = Module()
    for name in sorted(set(KERNEL_DTYPES.values())):
        dtype = DType[name]
        inputs = [
            TensorType(dtype, ("rows", "samples"), place),
            TensorType(dtype, ("tap_rows", "taps"), place),
            TensorType(DType.int64, (2,), DeviceRef.CPU()),
            TensorType(DType.int64, (), DeviceRef.CPU()),
            TensorType(DType.int64, (), DeviceRef.CPU()),
            TensorType(dtype, (), DeviceRef.CPU()),
        ]
        with Graph(f"direct_{name}", input_types=inputs, kernel_library=library, module=module) as built:
            x, k, padding, flip, *border = built.inputs
            built.output(graph.direct(x, k, padding, flip, border, "outputs"))
    session = InferenceSession(devices=[devices.handle(device)])
    session.compile(module, custom_extensions=library.library_paths()).export_mef(str(target))
