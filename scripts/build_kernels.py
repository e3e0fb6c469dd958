"""Build what can be built ahead of time into `build/kernels`: the op package, the native extensions, GPU code too."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from maxconv import kernels_path
from maxconv._engine import native, toolchain

if TYPE_CHECKING:
    from collections.abc import Callable

OUTPUT = Path(__file__).parents[1] / "build/kernels"

#: GPU families that must compile: the baseline that serves every NVIDIA GPU, and Hopper, on which we measure.
GPU_TARGETS = (native.GPU_BASELINE, "sm_90a")


def timed(name: str, build: Callable[[Path], object]) -> None:
    """Build one file and print its size and how long it took."""
    start = time.perf_counter()
    build(OUTPUT / name)
    print(
        f"{name:40s} {(OUTPUT / name).stat().st_size / 1024:7.0f} KiB {time.perf_counter() - start:6.1f} s", flush=True
    )


def main() -> int:
    """Build everything."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    timed("maxconv.mojoc", lambda target: toolchain.run_mojo("precompile", str(kernels_path()), "-o", str(target)))
    for kind in ("cpu", "cpu_layers"):
        timed(f"{kind}-{toolchain.cpu_level()}.so", lambda target, kind=kind: native.build(kind, target))  # type: ignore[misc]
    for gpu in GPU_TARGETS:
        timed(f"gpu-{gpu}.so", lambda target, gpu=gpu: native.build("gpu", target, gpu=gpu))  # type: ignore[misc]
    for gpu in (native.LAYERS_GPU_BASELINE, GPU_TARGETS[-1]):
        timed(f"gpu_layers-{gpu}.so", partial(native.build, "gpu_layers", gpu=gpu))
    return 0


if __name__ == "__main__":
    sys.exit(main())
