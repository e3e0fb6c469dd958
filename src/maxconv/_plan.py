"""How it is done: which algorithm and which device serve a call that leaves the choice to us.

Pure arithmetic on a `Problem`; the constants were measured, each names its source.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

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


# Nanoseconds on one core of an AMD EPYC with AVX-512, 2026-11-22. Direct: per multiply-add. FFT: per element of a block
# by log2 of its length, from 2^9 on (headers of direct_cpu.mojo and overlap_save_cpu.mojo).
_DIRECT_NS = {4: 0.0186, 8: 0.0377}
_POLYPHASE_NS_PER_BYTE = 0.045  # of a multiply-add's elements, at up = 3, down = 2 (header of polyphase_cpu.mojo)
_FFT_NS = {
    4: (0.75, 0.72, 0.78, 0.82, 0.9, 1.1, 1.0, 1.0, 1.25, 1.2, 1.25, 1.4, 1.5),
    8: (1.3, 1.3, 1.5, 1.6, 2.0, 1.9, 1.9, 2.1, 2.3, 2.4, 2.8, 3.0, 3.2),
}
_PREPARE_NS = {4: 1.4, 8: 2.0}  # per element of the block, to transform the taps
_PREPARE_CALL_NS = 8e3  # the Python around it included
FEWEST_FFT_TAPS = 32
"""Below, no block length beats the direct kernel at any length."""

_DIRECT_WORKER_NS, _FFT_WORKER_NS = 25e3, 100e3  # work that is worth one more thread
_REGION_NS = 25e3  # to start and join threads
# What no thread shares, per output and 4 bytes: the check for NaN and Inf, and fresh memory, in and out of the cache.
_SERIAL_NS, _SERIAL_FAR_NS, _NEAR_BYTES = 0.25, 0.6, 2 << 20


class Choice(NamedTuple):
    """Which method a call takes on the CPU, and what the model expects of both."""

    method: str
    """ "direct" or "fft"."""
    nfft: int
    """The block length that the FFT would take."""
    direct_seconds: float
    """Modelled time of the direct method."""
    fft_seconds: float
    """Modelled time of the FFT method, the taps transformed anew."""

    def __str__(self) -> str:
        slower, faster = sorted((self.direct_seconds, self.fft_seconds), reverse=True)
        return (
            f"{self.method}: {1e6 * self.direct_seconds:.3g} us expected of direct sums, "
            f"{1e6 * self.fft_seconds:.3g} us of FFTs in blocks of {self.nfft}; a factor of {slower / faster:.2g}"
        )


@lru_cache(maxsize=256)
def choose(problem: Problem, itemsize: int) -> Choice:
    """Choose between the direct method and overlap-save on the CPU, and the block length of the latter."""
    if problem.border == "omit":
        # Windows that reach beyond the signal take the masked path of the kernel, at half the rate.
        edges = min(problem.outputs, 2 * min(problem.taps, problem.samples))
        meeting = problem.rows * (problem.outputs + edges) * min(problem.taps, problem.samples)
    else:
        meeting = problem.multiply_adds
    direct = meeting * _DIRECT_NS[itemsize]
    shortest = max(9, (problem.taps - 1).bit_length())
    longest = max(shortest, (problem.outputs + problem.taps - 2).bit_length())
    best, nfft = min((_fft_ns(problem, itemsize, 1 << log2), 1 << log2) for log2 in range(shortest, longest + 1))
    if (workers := _workers(direct, _DIRECT_WORKER_NS)) > 1:
        direct = direct / workers + _REGION_NS
    return Choice("fft" if best < direct else "direct", nfft, direct * 1e-9, best * 1e-9)


def _fft_ns(problem: Problem, itemsize: int, nfft: int) -> float:
    """Model overlap-save with one block length."""
    table = _FFT_NS[itemsize]
    blocks = problem.rows * -(-problem.outputs // (nfft - problem.taps + 1))
    transforms = blocks * nfft * table[min(nfft.bit_length() - 10, len(table) - 1)]
    size = problem.rows * problem.outputs * itemsize
    serial = size / 4 * (_SERIAL_NS if size < _NEAR_BYTES else _SERIAL_FAR_NS)
    prepare = _PREPARE_CALL_NS + problem.tap_rows * nfft * _PREPARE_NS[itemsize]
    return transforms / _workers(transforms, _FFT_WORKER_NS) + serial + prepare


def _workers(nanoseconds: float, worth: float) -> float:
    """Model how many cores share some work, of which each takes at least `worth`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1.0, min(cores, nanoseconds / worth))


def cpu_seconds(problem: Problem, itemsize: int, method: str) -> float:
    """Model the time of a call on the CPU: arithmetic or memory traffic, whichever takes longer."""
    arithmetic = problem.multiply_adds * itemsize / _CPU_BYTES_OF_MULTIPLY_ADDS_PER_SECOND
    if method == "auto" and itemsize in _DIRECT_NS:
        arithmetic = min(arithmetic, choose(problem, itemsize).fft_seconds)
    traffic = (problem.samples + problem.outputs) * itemsize / _CPU_BYTES_PER_SECOND
    return max(arithmetic, traffic)


def gpu_seconds(problem: Problem, itemsize: int) -> float:
    """Model the time of a call on a GPU for arrays in host memory: transfers one after the other, then arithmetic."""
    upload = (problem.samples + problem.taps) * itemsize / _GPU_UPLOAD_BYTES_PER_SECOND
    download = problem.outputs * itemsize / _GPU_DOWNLOAD_BYTES_PER_SECOND
    arithmetic = problem.multiply_adds * itemsize / _GPU_BYTES_OF_MULTIPLY_ADDS_PER_SECOND
    return _GPU_CALL_SECONDS + upload + download + arithmetic


def prefers_gpu(problem: Problem, itemsize: int, method: str = "direct") -> bool:
    """Tell whether moving host arrays to a GPU and back is expected to be faster than the CPU.

    The GPU sums directly; the CPU may take the FFT if `method` is "auto".

    Examples
    --------
    >>> from maxconv._plan import prefers_gpu
    >>> from maxconv._problem import part_of_full
    >>> prefers_gpu(part_of_full(1000, 16, "full", flip=True), itemsize=4)
    False
    >>> prefers_gpu(part_of_full(10**7, 4096, "full", flip=True), itemsize=4, method="direct")
    True
    """
    return gpu_seconds(problem, itemsize) < cpu_seconds(problem, itemsize, method)


def resampling_prefers_gpu(samples: int, outputs: int, multiply_adds: int, itemsize: int) -> bool:
    """Tell whether resampling host arrays on a GPU, both transfers included, is expected to be faster than the CPU."""
    upload = samples * itemsize / _GPU_UPLOAD_BYTES_PER_SECOND
    download = outputs * itemsize / _GPU_DOWNLOAD_BYTES_PER_SECOND
    cpu = multiply_adds * itemsize * _POLYPHASE_NS_PER_BYTE
    return _GPU_CALL_SECONDS + upload + download < cpu / _workers(cpu, _DIRECT_WORKER_NS) * 1e-9
