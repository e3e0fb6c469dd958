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
    for kind, families in native.GPU_FAMILIES.items():
        for gpu in (*(f"sm_{family}" for family in families), "sm_90a"):
            timed(f"{kind}-{gpu}.so", partial(native.build, kind, gpu=gpu))
    return 0


if __name__ == "__main__":
    sys.exit(main())
