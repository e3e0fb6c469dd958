"""Measure the costs that `method="auto"` and `device="auto"` reckon with, and write `src/maxconv/_costs.json`.

Every figure is the least of many runs on one thread, so that a busy machine spoils it least; nanoseconds unless the
name says otherwise.
"""

from __future__ import annotations

import json
import math
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from max.driver import Buffer

import maxconv
from maxconv import _engine, _methods, _plan
from maxconv._engine import devices, native, spectra
from maxconv._problem import part_of_full

if TYPE_CHECKING:
    from collections.abc import Callable

    from maxconv._problem import Problem

FLOATS = ("float32", "float64")
FEW_TAPS = _plan.FEWEST_FFT_TAPS
GPU_FLOATS = ("float16", *FLOATS)
BLOCK_LOG2 = range(9, 23)
LAYER_BLOCK_LOG2 = range(9, 14)
GPU_BLOCKS = *(1 << log2 for log2 in range(9, 15)), spectra.PARTS_BLOCK, *(1 << log2 for log2 in range(18, 23))
LONE_TAPS = 512
"""Of a tile alone on a GPU: about where FFTs begin to win. Per tap, longer filters take less."""
SAMPLES = 10**5
"""Signal that stays in the cache."""
FAR_SAMPLES = 4 * 10**6
"""Signal that does not."""


def least_ns(*calls: Callable[[], Any], seconds: float = 0.2) -> list[float]:
    """Time calls in turns: the shortest run of each, of at least five."""
    least = [math.inf] * len(calls)
    end = time.perf_counter() + seconds * len(calls)
    rounds = 0
    while rounds < 6 or time.perf_counter() < end:  # noqa: PLR2004  # the first warms up
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            least[index] = min(least[index], 1e9 * (time.perf_counter() - start))
        rounds += 1
    return least


def vectors(dtype: str, *lengths: int) -> list[np.ndarray]:
    """Draw random vectors; long ones repeat themselves, since drawing 2^26 samples takes longer than timing them."""
    rng = np.random.default_rng()
    return [np.resize(rng.standard_normal(min(length, 1 << 20)).astype(dtype), length) for length in lengths]


def into_fresh_memory(kernel: partial[Any]) -> None:
    """Call a kernel with a new array in the place of its output."""
    kernel.func(np.empty_like(kernel.args[0]), *kernel.args[1:])


def direct_kernel(dtype: str, n: int, m: int, mode: str, workers: int) -> partial[Any]:
    """Return a call of the direct kernel alone, into memory that is there."""
    x, k = vectors(dtype, n, m)
    problem = part_of_full(n, m, mode, flip=True)
    y = np.empty(problem.outputs, dtype)
    return partial(native._cpu_functions[f"direct_{dtype}"], y, x, k, problem.pad_left, 1, workers)


def direct_costs(dtype: str) -> dict[str, float]:
    """Fit the model of direct sums: windows within the signal, at its ends, and what a call adds to its kernel."""
    taps = np.array([64, 128, 256, 512, 1024, 4096])
    inside = np.array([least_ns(direct_kernel(dtype, SAMPLES, m, "valid", 1))[0] for m in taps])
    edge = np.array([least_ns(direct_kernel(dtype, m, m, "full", 1))[0] for m in taps]) / (2 * taps - 1)
    # Relative errors count: each equation is divided by what it should give.
    slope, base = np.linalg.lstsq(np.stack([taps / edge, 1 / edge], 1), np.ones(len(taps)), rcond=None)[0]

    multiply_add = float(np.median(inside / (taps * (SAMPLES - taps + 1))))
    rest = _plan.PAIR_BYTES // np.dtype(dtype).itemsize
    pairs_ns, longer_ns = least_ns(*(direct_kernel(dtype, SAMPLES, m, "valid", 1) for m in (FEW_TAPS, FEW_TAPS + rest)))

    def output(n: int) -> float:
        (fresh_ns,) = least_ns(partial(into_fresh_memory, direct_kernel(dtype, n, FEW_TAPS, "valid", 1)))
        return max(0.0, fresh_ns / n - FEW_TAPS * multiply_add)

    x, k = vectors(dtype, 64, FEW_TAPS)
    call = partial(maxconv.convolve, x, k, "full", "direct")
    call_ns, kernel_ns = least_ns(call, direct_kernel(dtype, len(x), len(k), "full", 1))
    return {
        "call": max(0.0, call_ns - kernel_ns),
        "multiply_add": multiply_add,
        "rest_multiply_add": max(multiply_add, (longer_ns - pairs_ns) / (rest * SAMPLES)),
        "edge_output": max(0.0, float(base)),
        "edge_multiply_add": max(0.0, float(slope)),
        "near_output": output(SAMPLES),
        "far_output": output(FAR_SAMPLES),
    }


def overlap_save_kernel(dtype: str, outputs: int, nfft: int, workers: int) -> tuple[partial[Any], partial[Any]]:
    """Return calls that transform a few taps, and that compute outputs with them."""
    x, k = vectors(dtype, outputs + FEW_TAPS - 1, FEW_TAPS)
    y = np.empty(outputs, dtype)
    functions = native._cpu_functions
    plan = np.empty(functions[f"plan_length_{dtype}"](nfft), dtype)
    prepare = partial(functions[f"prepare_{dtype}"], plan, k, 1, nfft, 1)
    return prepare, partial(functions[f"overlap_save_{dtype}"], y, x, plan, (FEW_TAPS, 1, 0, nfft, 0, 0.0), workers)


def fft_costs(dtype: str, door: float) -> dict[str, Any]:
    """Fit the model of overlap-save: by block length, the taps, and what a call adds to its kernels.

    `door` is what a call adds to any kernel.
    """
    sample, far_sample, prepare = [], [], []
    for log2 in BLOCK_LOG2:
        nfft = 1 << log2
        hop = nfft - FEW_TAPS + 1
        blocks, far_blocks = max(2, min(16, (1 << 20) // nfft)), max(2, FAR_SAMPLES // nfft)
        prepare_ns, near_ns = least_ns(*overlap_save_kernel(dtype, blocks * hop, nfft, 1))
        prepare_far, far = overlap_save_kernel(dtype, far_blocks * hop, nfft, 1)
        prepare_far()
        (far_ns,) = least_ns(partial(into_fresh_memory, far))
        prepare.append(prepare_ns / nfft)
        sample.append(near_ns / (blocks * nfft))
        far_sample.append(far_ns / (far_blocks * nfft))

    (many,) = vectors(dtype, 1 << 13)
    few = many[:FEW_TAPS].copy()
    plan = np.empty(native._cpu_functions[f"plan_length_{dtype}"](1 << 14), dtype)
    transform = native._cpu_functions[f"prepare_{dtype}"]
    many_ns, few_ns = least_ns(*(partial(transform, plan, k, 1, 1 << 14, 1) for k in (many, few)))

    x, k = vectors(dtype, 400, FEW_TAPS)
    problem = part_of_full(len(x), len(k), "valid", flip=True)

    def whole_call() -> None:
        native._plan.cache_clear()
        _methods.fft_mended("calibrate", problem, x, k, 512)

    kernels = overlap_save_kernel(dtype, 400 - FEW_TAPS + 1, 512, 1)
    call_ns, prepare_ns, blocks_ns = least_ns(whole_call, *kernels)
    return {
        "call": door + max(0.0, call_ns - prepare_ns - blocks_ns),
        "sample": sample,
        "far_sample": far_sample,
        "prepare": prepare,
        "prepare_tap": max(0.0, many_ns - few_ns) / len(many),
    }


def layer_kernel(dtype: str, channels: int, outputs: int, nfft: int) -> partial[Any]:
    """Return a call of the kernel of a layer with 64 taps a channel on one thread: direct, or in blocks of an FFT."""
    x, w = vectors(dtype, channels * (outputs + 63), channels * 64)
    y, nothing = np.empty(channels * outputs, dtype), np.empty(0, dtype)
    sizes = (1, channels, channels, channels, outputs + 63, outputs, 64, 1, 1, 0)
    if nfft:
        return partial(native._layer_functions[f"depthwise_fft_{dtype}"], (y, x, w, nothing), sizes, 0, nfft, 1)
    arrays = y, x, w, nothing, nothing, np.empty(0, np.int32)
    return partial(native._layer_functions[f"depthwise_{dtype}"], arrays, sizes, 0, 1)


def layer_costs(dtype: str) -> dict[str, Any]:
    """Fit the model of layers with one filter a channel: sums, and blocks of an FFT with the spectra of the filters."""
    channels, hop = 8, 1024
    short, long = least_ns(*(layer_kernel(dtype, channels, count * hop, 0) for count in (1, 5)))
    blocks, filters, calls = [], [], []
    for log2 in LAYER_BLOCK_LOG2:
        nfft = 1 << log2
        one, five, lone = least_ns(
            *(layer_kernel(dtype, channels, count * (nfft - 63), nfft) for count in (1, 5)),
            layer_kernel(dtype, 1, nfft - 63, nfft),
        )
        block = (five - one) / (4 * channels)
        blocks.append(block / nfft)
        filters.append(max(0.0, (one - lone) / ((channels - 1) * block) - 1))
        calls.append(max(0.0, lone - (one - lone) / (channels - 1)))
    return {
        "multiply_add": (long - short) / (4 * channels * hop * 64),
        "row": max(0.0, (5 * short - long) / (4 * channels)),
        "fft_call": min(calls),
        "filter_blocks": float(np.median(filters)),
        "sample": blocks,
    }


def thread_costs() -> dict[str, float]:
    """Measure what each thread after the first brings, and what it costs to start and join threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Longer than the rest: a quiet moment of all cores is needed.
    kernels = (direct_kernel("float32", 10**6, 256, "valid", workers) for workers in (1, 0))
    one, every = least_ns(*kernels, seconds=2)
    efficiency = max(0.01, one / every - 1) / max(1, cores - 1)
    kernels = (direct_kernel("float32", SAMPLES, FEW_TAPS, "valid", workers) for workers in (1, 2))
    one, two = least_ns(*kernels, seconds=2)
    return {"efficiency": efficiency, "region": max(0.0, two - one / (1 + efficiency))}


def cpu_costs() -> dict[str, Any]:
    """Measure the CPU."""
    maxconv.convolve([1.0], [1.0])  # loads the kernels
    (x,) = vectors("float32", 10**7)
    copy_ns, sums_ns = least_ns(x.copy, direct_kernel("float32", 10**6, 256, "valid", 0), seconds=2)
    direct = {dtype: direct_costs(dtype) for dtype in FLOATS}
    return {
        "direct": direct,
        "fft": {dtype: fft_costs(dtype, direct[dtype]["call"]) for dtype in FLOATS},
        "layer": {dtype: layer_costs(dtype) for dtype in FLOATS},
        "threads": thread_costs(),
        "bytes_per_second": 1e9 * 2 * x.nbytes / copy_ns,
        "multiply_add_bytes_per_second": 1e9 * 4 * 10**6 * 256 / sums_ns,
    }


def resident(call: Callable[..., Any], n: int, m: int, dtype: str) -> float:
    """Time a call on arrays that lie on a GPU, until the GPU is done."""
    handle = devices.accelerator(0)
    x, k = (Buffer.from_numpy(array).to(handle) for array in vectors(dtype, n, m))

    def complete() -> None:
        call(x, k)
        handle.synchronize()

    return least_ns(complete)[0]


def gpu_direct_costs(dtype: str) -> dict[str, float]:
    """Fit the model of direct sums on a GPU: one tile alone, and many that share the device."""
    direct = partial(maxconv.convolve, mode="same", method="direct")
    call = resident(direct, 64, 1, dtype)
    few, many = 64, 512
    n = 1 << 25
    few_ns, many_ns = (resident(direct, n, m, dtype) - call for m in (few, many))
    multiply_add = (many_ns - few_ns) / (n * (many - few))
    return {
        "call": call,
        "lone_tap": (resident(direct, 4096, LONE_TAPS, dtype) - call) / LONE_TAPS,
        "output": max(0.0, few_ns / n - few * multiply_add),
        "multiply_add": multiply_add,
    }


def gpu_fft_costs(dtype: str) -> dict[str, Any]:
    """Fit the model of overlap-save on a GPU: calls with one block, and with many."""
    blocks = {}
    for nfft in GPU_BLOCKS:
        if (nfft, dtype) == (spectra.PARTS_BLOCK, "float64"):
            continue
        times = []
        pairs = (1, max(2, (1 << 26) // (2 * nfft)))
        for count in pairs:
            n = count * 2 * (nfft - FEW_TAPS + 1)
            problem = part_of_full(n, FEW_TAPS, "same", flip=True)

            def run(x: Any, k: Any, problem: Problem = problem, nfft: int = nfft) -> Any:
                return _engine.run_fft("calibrate", problem, x, k, nfft, "gpu:0")

            times.append(resident(run, n, FEW_TAPS, dtype))
        sample = (times[1] - times[0]) / ((pairs[1] - pairs[0]) * 2 * nfft)
        blocks[str(nfft)] = [times[0], sample]
    rows, n = 256, 4096
    problem = part_of_full(n, FEW_TAPS, "same", flip=True)._replace(batch=(rows,))

    def with_filters(count: int) -> float:
        def run(x: Any, k: Any) -> Any:
            return _engine.run_fft("calibrate", problem._replace(tap_rows=count), x, k, 1024, "gpu:0")

        return resident(run, rows * n, count * FEW_TAPS, dtype)

    return {"filter": max(0.0, (with_filters(rows) - with_filters(1)) / (rows - 1)), "blocks": blocks}


def gpu_costs() -> dict[str, Any]:
    """Measure the transfers of host arrays to a GPU and back, a call, and the arithmetic of the kernels."""
    (x,) = vectors("float32", 1 << 26)
    there = _engine.upload(x, "gpu:0")
    small = vectors("float32", 64, 16)
    (call_ns,) = least_ns(partial(maxconv.convolve, small[0], small[1], device="gpu"))
    up_ns, down_ns = least_ns(partial(_engine.upload, x, "gpu:0"), partial(_engine.download, there))
    return {
        "host_call": call_ns,
        "upload_bytes_per_second": 1e9 * x.nbytes / up_ns,
        "download_bytes_per_second": 1e9 * x.nbytes / down_ns,
        "direct": {dtype: gpu_direct_costs(dtype) for dtype in GPU_FLOATS},
        "fft": {dtype: gpu_fft_costs(dtype) for dtype in GPU_FLOATS},
    }


def measure(device: str, about: dict[str, Any]) -> None:
    """Measure a device and enter it in the costs, the other device's left as they were."""
    table = json.loads(_plan.COSTS.read_text())
    table[device] = {**about, **rounded(gpu_costs() if device == "gpu" else cpu_costs())}
    _plan.COSTS.write_text(json.dumps(table, indent=1) + "\n")


def rounded(value: Any) -> Any:
    """Round every number of a table to three digits: no more is known of it."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.3g}")
