"""How it is done: which device serves a call that leaves the choice to us.

Pure arithmetic on a `Problem`; the constants were measured, each names its source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._problem import Problem

# Direct kernel on 2 cores of an AMD EPYC with AVX-512, float32, K = 256: 194 GFLOP/s; half of it for float64.
# benchmarks/run.py cpu, 2026-11-22.
_CPU_BYTES_OF_MULTIPLY_ADDS_PER_SECOND = 4 * 97e9
_CPU_BYTES_PER_SECOND = 18e9
# H200: host transfers of 256 MB from and to pageable NumPy memory, launch with synchronisation, and the rate of
# float32 multiply-adds outside tensor cores. 2026-11-22.
_GPU_UPLOAD_BYTES_PER_SECOND = 7.3e9
_GPU_DOWNLOAD_BYTES_PER_SECOND = 1.4e9
_GPU_CALL_SECONDS = 60e-6
_GPU_BYTES_OF_MULTIPLY_ADDS_PER_SECOND = 4 * 25e12


def cpu_seconds(problem: Problem, itemsize: int) -> float:
    """Model the time of a call on the CPU: arithmetic or memory traffic, whichever takes longer."""
    arithmetic = problem.multiply_adds * itemsize / _CPU_BYTES_OF_MULTIPLY_ADDS_PER_SECOND
    traffic = (problem.samples + problem.outputs) * itemsize / _CPU_BYTES_PER_SECOND
    return max(arithmetic, traffic)


def gpu_seconds(problem: Problem, itemsize: int) -> float:
    """Model the time of a call on a GPU for arrays in host memory: transfers one after the other, then arithmetic."""
    upload = (problem.samples + problem.taps) * itemsize / _GPU_UPLOAD_BYTES_PER_SECOND
    download = problem.outputs * itemsize / _GPU_DOWNLOAD_BYTES_PER_SECOND
    arithmetic = problem.multiply_adds * itemsize / _GPU_BYTES_OF_MULTIPLY_ADDS_PER_SECOND
    return _GPU_CALL_SECONDS + upload + download + arithmetic


def prefers_gpu(problem: Problem, itemsize: int) -> bool:
    """Tell whether moving host arrays to a GPU and back is expected to be faster than the CPU.

    Examples
    --------
    >>> from maxconv._plan import prefers_gpu
    >>> from maxconv._problem import part_of_full
    >>> prefers_gpu(part_of_full(1000, 16, "full", flip=True), itemsize=4)
    False
    >>> prefers_gpu(part_of_full(10**7, 4096, "full", flip=True), itemsize=4)
    True
    """
    return gpu_seconds(problem, itemsize) < cpu_seconds(problem, itemsize)
