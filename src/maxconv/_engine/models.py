"""The graph way: the same kernels as MAX models, for every device that has no native build.

All models of a device are compiled in one `max.graph.Module` (sixteen graphs cost what one costs, 25 to 30 s on 2
cores), for all lengths at once, and cached as one `.mef` file that a later process reads in milliseconds.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import _ops_path
from .._errors import DeviceError
from .._problem import KERNEL_DTYPES
from . import cache as disk
from . import devices, toolchain

if TYPE_CHECKING:
    from pathlib import Path

    from .._problem import Problem

_owner = 0
"""The process that loaded the models, 0 before: a forked child would wait for ever in `execute`."""


def run(problem: Problem, dtype: str, device: str, x: Any, k: Any) -> Any:  # max.driver.Buffer
    """Return y as a new `Buffer` on `device`; x and k are Buffers there, of the kernels' element type."""
    import numpy as np

    if _owner not in (0, os.getpid()):
        message = (
            "MAX does not survive fork: this process was forked after MAX models had been loaded; start workers with "
            'multiprocessing.get_context("spawn"), or before the first call'
        )
        raise DeviceError(message)
    padding = np.array([problem.pad_left, problem.pad_right], dtype=np.int64)
    return models(device)[f"direct_{dtype}"].execute(x, k, padding, np.array(problem.flip, dtype=np.int64))[0]


def entry_name(device: str) -> str:
    """Name the cache entry of a device's models by everything its content depends on.

    The host part of a model is compiled for this very processor, hence the digest of its instruction sets.
    """
    architecture = "cpu" if device == "cpu" else devices.accelerator(_index(device)).architecture_name
    host = hashlib.sha256(" ".join(sorted(toolchain.cpu_flags())).encode()).hexdigest()[:8]
    versions = toolchain.versions()
    return f"models-{architecture}-{toolchain.cpu_level()}-{host}-max{versions['max']}-{_ops_path.source_hash()}.mef"


@cache
def models(device: str) -> dict[str, Any]:
    """Return the compiled models of a device by name, from the cache or newly compiled."""
    global _owner  # noqa: PLW0603  # marks the process, see above
    _owner = os.getpid()
    from max.engine import InferenceSession, read  # MAX loads when it is needed

    path = disk.entry(
        entry_name(device),
        lambda target: _compile(device, target),
        f"compiling the MAX models for {device}, once, about 40 s",
    )
    session = InferenceSession(devices=[_handle(device)])
    return dict(session.init_all(read(path)))


def _compile(device: str, target: Path) -> None:
    from max.dtype import DType
    from max.engine import InferenceSession
    from max.graph import DeviceRef, Graph, KernelLibrary, Module, TensorType

    from .. import graph  # loads max.graph

    place = DeviceRef.CPU() if device == "cpu" else DeviceRef.GPU(_index(device))
    library = KernelLibrary()
    library.load_paths([_ops_path.kernels_path()])
    module = Module()
    for name in sorted(set(KERNEL_DTYPES.values())):
        dtype = DType[name]
        inputs = [
            TensorType(dtype, ("samples",), place),
            TensorType(dtype, ("taps",), place),
            TensorType(DType.int64, (2,), DeviceRef.CPU()),
            TensorType(DType.int64, (), DeviceRef.CPU()),
        ]
        with Graph(f"direct_{name}", input_types=inputs, kernel_library=library, module=module) as built:
            x, k, padding, flip = built.inputs
            built.output(graph.direct(x, k, padding, flip, "outputs"))
    session = InferenceSession(devices=[_handle(device)])
    session.compile(module, custom_extensions=library.library_paths()).export_mef(str(target))


def _index(device: str) -> int:
    return int(device.partition(":")[2])


def _handle(device: str) -> Any:
    if device != "cpu":
        return devices.accelerator(_index(device))
    from max.driver import CPU

    return CPU()
