"""The op of the tutorial from Python: compiled, kept, run.

Run it with `uv run python examples/tutorial/conv1d.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from conv1d_graph import TAPS, compile_to
from max.driver import CPU, Accelerator, Buffer, Device, accelerator_count
from max.engine import InferenceSession, read


# --8<-- [start:run]
def run(model: Any, device: Device, signal: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Copy the arrays to the device, run the op there, copy the result back."""
    (result,) = model.execute(*(Buffer.from_numpy(array).to(device) for array in (signal, taps)))
    return np.from_dlpack(result.to(CPU()))


# --8<-- [end:run]


def main() -> int:
    """Compile, read, run with several lengths; the exit status says whether all results are right."""
    device = Accelerator() if accelerator_count() else CPU()
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "conv1d.mef"
        compile_to(compiled, device)
        # --8<-- [start:read]
        models = InferenceSession(devices=[device]).init_all(read(compiled))  # milliseconds, in any later process
        # --8<-- [end:read]
    taps = np.arange(TAPS, dtype=np.float32)
    for name, length in (("fifteen", 15), ("any_length", 1), ("any_length", 130), ("any_length", 10_000)):
        signal = np.random.default_rng().standard_normal(length).astype(np.float32)
        expected = np.convolve(signal, taps[::-1])[TAPS - 1 :]
        error = float(np.abs(run(models[name], device, signal, taps) - expected).max())
        print(f"{name}, {length} elements: largest error {error:.1e}")
        if not error < 1e-5:  # noqa: PLR2004  # a NaN is no success either
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
