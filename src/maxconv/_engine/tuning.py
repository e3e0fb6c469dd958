"""Numbers of the way to a GPU and back that were chosen for a device, and what its families have.

Those of the kernels stand in `_ops/shared/tuning_gpu.mojo`, those that `method="auto"` reckons with in `_costs.json`.
"""

from __future__ import annotations

# Host arrays that go to a GPU in blocks (lanes.py), on an H200 with 16 cores, 2026-11-23.

BLOCK_BYTES = 8 << 20
"""Of page-locked memory that a thread has; twice as much on the device. Not measured: of shorter blocks Python's part
is seen."""

FEWEST_BYTES = 8 << 20
"""Smaller arrays go in one piece. Not measured: they are one block."""

MOST_THREADS = 12
"""2^26 float32 there and back: 4 take 28.6 ms, 8 20.5, 12 16.4, 16 15.4."""

ENOUGH_THREADS = 4
"""For page-locked memory, where threads only enqueue: 4 take 6.3 ms, 12 6.5, the copies alone 5.4."""

# FFTs (spectra.py).

SHARED_KB = {"75": 64, "80": 163, "86": 99, "87": 163, "89": 99, "90": 227, "100": 227, "103": 227, "120": 99}
"""Of a block, by compute capability (CUDA C++ Programming Guide, technical specifications)."""

LEAST_SHARED_KB = 64
"""Of a block, for other GPUs: the least of those above."""

WORKSPACE_BYTES = 1 << 30
"""Most that the blocks under way take of the device's memory. So few that they stay in the cache (32 MB on an H200)
are slower: their kernels are too short to fill the device."""
