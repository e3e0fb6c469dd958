"""How it is done: which algorithm and which device serve a call that leaves the choice to us.

Pure arithmetic on a `Problem`; the constants were measured, and stand in `_costs.json`.
"""

from __future__ import annotations

import math
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ._layer import LayerProblem
    from ._problem import Problem

COSTS = Path(__file__).with_name("_costs.json")
"""What was measured, in nanoseconds and bytes per second, with device, versions and date; `poe bench calibrate` writes
it. Read at the first choice, not at import: loading `json` takes 2 ms."""

_POLYPHASE_NS_PER_BYTE = 0.045
"""Of a multiply-add's elements, at up = 3, down = 2 (header of polyphase_cpu.mojo)."""

FEWEST_FFT_TAPS = 32
"""Below, no block length beats the direct kernel at any length."""
FEWEST_FFT_PRODUCTS = 1 << 14
"""Below, the sums take less than the 11 us that a call with FFTs adds to its transforms; a choice takes 1 us."""

# As in direct_cpu.mojo and overlap_save_cpu.mojo: the distance of paired taps, the work that gets one more thread, and
# the block that many share.
PAIR_BYTES = 64
MULTIPLY_ADDS_PER_WORKER, MULTIPLY_ADDS_OF_AN_OUTPUT = 1 << 22, 8
SAMPLES_PER_WORKER, SHARED_BLOCK = 1 << 17, 1 << 16
_NEAR_BYTES = 2 << 20

LAYER_MARGIN = 0.75
"""As NEAR_MARGIN, for layers: their model knows FFTs of few channels that stay in the cache, and more take longer.
Chosen on causal layers of 1 to 2048 channels and 32 to 2048 taps, timed both ways, of which few get the slower one."""
LAYER_MULTIPLY_ADDS_PER_WORKER = 1 << 20
"""As in depthwise_cpu.mojo."""


FEW_GPU_TAPS = 16
"""So many hide behind the memory's time, by direct_short_gpu.mojo."""

FOLDED_GPU_BLOCKS = range((1 << 12) + 1, 1 << 18)
"""Lengths of block that do not share a transform with their neighbour (block_pair.mojo)."""

MOST_PRODUCT_TAPS = 130
"""So many the tensor cores take, by depthwise_mma_gpu.mojo, in less time than any FFT."""

SHORTEST_GPU_ROW, LONGEST_GPU_ROW = 1 << 9, 1 << 13
"""Samples, and outputs, of a row that is one block of overlap_save_rows_gpu.mojo."""

ROW_SHARE = 0.87
"""Of the time of a whole block, what such a row takes: 8 by 768 rows of 8192 float32 (H200, 2026-11-23)."""

LONGEST_GPU_FFT = 1 << 22
"""Taps that transforms on a GPU serve at most."""


class Choice(NamedTuple):
    """Which method a call takes, and what the model expects of both."""

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


NEAR_MARGIN, FAR_MARGIN = 0.85, 1.15
"""Share of the time of sums that an FFT must promise on the CPU. Where the output stays in the cache, `auto` looks for
NaN and Inf afterwards and its model hopes too much (1000 samples and 150 taps: 15 us expected, 30 measured); where it
does not, the model is too careful (10^6 float32 samples and 70 taps: 880 us expected, 530 to 690 measured)."""


def is_worth_a_choice(problem: Problem) -> bool:
    """Tell whether FFTs may be faster at all: cheaper to ask than `choose`."""
    return problem.taps >= FEWEST_FFT_TAPS and problem.multiply_adds >= FEWEST_FFT_PRODUCTS


@cache
def costs(device: str) -> Any:
    """Return the measured costs of "cpu" or "gpu"."""
    import json

    return json.loads(COSTS.read_text())[device]


@lru_cache(maxsize=256)
def choose(problem: Problem, itemsize: int) -> Choice:
    """Choose between the direct method and overlap-save on the CPU, and the block length of the latter."""
    direct = _direct_ns(problem, itemsize)
    shortest = max(9, (problem.taps - 1).bit_length())
    longest = max(shortest, (problem.outputs + problem.taps - 2).bit_length())
    best, nfft = min((_fft_ns(problem, itemsize, 1 << log2), 1 << log2) for log2 in range(shortest, longest + 1))
    margin = NEAR_MARGIN if _is_near(problem, itemsize) else FAR_MARGIN
    return Choice("fft" if best < margin * direct else "direct", nfft, direct * 1e-9, best * 1e-9)


def takes_ffts(layer: LayerProblem) -> bool:
    """Tell whether FFTs can serve a layer, and may be faster: one filter a channel, dense and not short."""
    return layer.has_one_filter_each and layer.stride == layer.dilation == 1 and layer.taps >= FEWEST_FFT_TAPS


def takes_products(layer: LayerProblem, itemsize: int, *, is_fast: bool) -> bool:
    """Tell whether the tensor cores of a GPU multiply a layer that FFTs can serve: see `is_long_depthwise`."""
    is_half = itemsize == 2  # noqa: PLR2004  # bytes
    return is_half and layer.taps <= MOST_PRODUCT_TAPS and (is_fast or not layer.is_causal)


@lru_cache(maxsize=256)
def block_of_layer(layer: LayerProblem, itemsize: int) -> int:
    """Return the length of the blocks whose FFTs serve a layer on the CPU; 0 if sums promise to be faster."""
    if not takes_ffts(layer):
        return 0
    shortest = max(9, (layer.taps - 1).bit_length())
    longest = max(shortest, (layer.outputs + layer.taps - 2).bit_length())
    best, nfft = min((_layer_fft_ns(layer, itemsize, 1 << log2), 1 << log2) for log2 in range(shortest, longest + 1))
    return nfft if best < LAYER_MARGIN * _layer_direct_ns(layer, itemsize) else 0


def _layer_direct_ns(layer: LayerProblem, itemsize: int) -> float:
    """Model the sums of depthwise_cpu.mojo, which skips terms beyond the signal."""
    cost = costs("cpu")["layer"][f"float{8 * itemsize}"]
    rows = layer.batch * layer.in_channels
    first, last = max(0, layer.pad_left), layer.length - layer.taps + layer.pad_left + 1
    inside = max(0, min(layer.outputs, last) - first)
    terms = (inside + (layer.outputs - inside) / 2) * min(layer.taps, layer.length)
    workers = rows * layer.outputs * layer.taps // LAYER_MULTIPLY_ADDS_PER_WORKER
    return _shared(rows * (cost["row"] + terms * cost["multiply_add"]), min(workers, rows))


def _layer_fft_ns(layer: LayerProblem, itemsize: int, nfft: int) -> float:
    """Model overlap-save of one filter a channel, whose spectra are made where they are used."""
    cost = costs("cpu")["layer"][f"float{8 * itemsize}"]
    sample = cost["sample"][min(nfft.bit_length() - 10, len(cost["sample"]) - 1)]  # from blocks of 512 on
    blocks = layer.batch * -(-layer.outputs // (nfft - layer.taps + 1))  # of a channel
    work = layer.in_channels * nfft * (blocks + cost["filter_blocks"]) * sample
    return float(cost["fft_call"] + _shared(work, layer.in_channels * (blocks + 1) * nfft // SAMPLES_PER_WORKER))


def _direct_ns(problem: Problem, itemsize: int) -> float:
    """Model direct sums: windows within the signal, and windows that reach beyond it, on the kernel's slower path."""
    cost = costs("cpu")["direct"][f"float{8 * itemsize}"]
    meeting = min(problem.taps, problem.samples)
    rest = meeting % (2 * PAIR_BYTES // itemsize)
    first, last = max(0, problem.pad_left), problem.samples - problem.taps + problem.pad_left + 1
    inside = max(0, min(problem.outputs, last) - first)
    edges = problem.outputs - inside
    sums = inside * ((meeting - rest) * cost["multiply_add"] + rest * cost["rest_multiply_add"])
    sums += edges * (cost["edge_output"] + meeting * cost["edge_multiply_add"])
    outputs = problem.outputs * cost["near_output" if _is_near(problem, itemsize) else "far_output"]
    work = problem.rows * (sums + outputs)
    shared = problem.multiply_adds + problem.rows * problem.outputs * MULTIPLY_ADDS_OF_AN_OUTPUT
    return float(cost["call"] + _shared(work, shared // MULTIPLY_ADDS_PER_WORKER))


def _fft_ns(problem: Problem, itemsize: int, nfft: int) -> float:
    """Model overlap-save with one block length, the taps transformed anew."""
    cost = costs("cpu")["fft"][f"float{8 * itemsize}"]
    log2 = min(nfft.bit_length() - 1, 8 + len(cost["sample"]))
    blocks = problem.rows * -(-problem.outputs // (nfft - problem.taps + 1))
    workers = blocks * nfft // SAMPLES_PER_WORKER
    if nfft < SHARED_BLOCK:
        workers = min(workers, blocks)
    work = blocks * nfft * cost["sample" if _is_near(problem, itemsize) else "far_sample"][log2 - 9]
    prepare = problem.tap_rows * (nfft * cost["prepare"][log2 - 9] + problem.taps * cost["prepare_tap"])
    prepared = _shared(prepare, problem.tap_rows * nfft // SAMPLES_PER_WORKER)
    return float(cost["call"] + prepared + _shared(work, workers))


def _is_near(problem: Problem, itemsize: int) -> bool:
    """Tell whether the output stays in the cache, in memory that the allocator had before."""
    return problem.rows * problem.outputs * itemsize < _NEAR_BYTES


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shared(nanoseconds: float, wanted: int) -> float:
    """Model some work on as many threads as it wants and the machine has."""
    workers = min(wanted, cores())
    if workers < 2:  # noqa: PLR2004  # no thread is started
        return nanoseconds
    threads = costs("cpu")["threads"]
    return float(nanoseconds / (1 + (workers - 1) * threads["efficiency"]) + threads["region"])


@lru_cache(maxsize=256)
def choose_on_gpu(problem: Problem, itemsize: int) -> Choice:
    """Choose between the direct method and overlap-save for arrays on a GPU, and the block length of the latter."""
    cost = costs("gpu")["direct"][f"float{8 * itemsize}"]
    meeting = min(problem.taps, problem.samples)
    lone_tile = meeting * cost["lone_tap"]
    summed = meeting if problem.taps > FEW_GPU_TAPS else 0
    many_tiles = problem.rows * problem.outputs * (cost["output"] + summed * cost["multiply_add"])
    direct = cost["call"] + max(lone_tile, many_tiles)
    lengths = [int(length) for length in costs("gpu")["fft"][f"float{8 * itemsize}"]["blocks"]]
    usable = [nfft for nfft in lengths if problem.taps <= nfft]
    if not usable:
        return Choice("direct", 0, direct * 1e-9, math.inf)
    fft, nfft = min((_gpu_fft_ns(problem, itemsize, nfft), nfft) for nfft in usable)
    return Choice("fft" if fft < direct else "direct", nfft, direct * 1e-9, fft * 1e-9)


def _gpu_fft_ns(problem: Problem, itemsize: int, nfft: int) -> float:
    """Model overlap-save on a GPU with one block length, the taps transformed anew."""
    cost = costs("gpu")["fft"][f"float{8 * itemsize}"]
    call, sample = cost["blocks"][str(nfft)]
    together = 1 if nfft in FOLDED_GPU_BLOCKS else 2
    blocks = problem.rows * together * -(-problem.outputs // (together * (nfft - problem.taps + 1)))
    return float(call + (problem.tap_rows - 1) * cost["filter"] + blocks * nfft * sample)


def row_block_on_gpu(problem: Problem, itemsize: int, nfft: int) -> int:
    """Return the length of the block that a whole row of a layer makes, half of it zeros; 0 if `nfft` is faster."""
    row = max(problem.samples, problem.outputs, SHORTEST_GPU_ROW)
    if row > LONGEST_GPU_ROW:
        return 0
    block = 2 << (row - 1).bit_length()
    blocks = costs("gpu")["fft"][f"float{8 * itemsize}"]["blocks"]
    filters = problem.tap_rows / 2  # a transform one way
    by_rows = (problem.rows + filters) * block * blocks[str(block)][1] * ROW_SHARE
    return block if by_rows < _gpu_fft_ns(problem, itemsize, nfft) + filters * nfft * blocks[str(nfft)][1] else 0


def cpu_seconds(problem: Problem, itemsize: int, method: str) -> float:
    """Model the time of a call on the CPU: arithmetic or memory traffic, whichever takes longer."""
    cost = costs("cpu")
    arithmetic = problem.multiply_adds * itemsize / cost["multiply_add_bytes_per_second"]
    if method != "direct" and f"float{8 * itemsize}" in cost["fft"]:
        fft = choose(problem, itemsize).fft_seconds
        arithmetic = fft if method == "fft" else min(arithmetic, fft)
    traffic = (problem.samples + problem.outputs) * itemsize / cost["bytes_per_second"]
    return float(max(arithmetic, traffic))


def gpu_seconds(problem: Problem, itemsize: int, method: str) -> float:
    """Model the time of a call on a GPU for arrays in host memory: transfers one after the other, and arithmetic."""
    cost = costs("gpu")
    upload = (problem.samples + problem.taps) * itemsize / cost["upload_bytes_per_second"]
    download = problem.outputs * itemsize / cost["download_bytes_per_second"]
    choice = choose_on_gpu(problem, max(2, itemsize))
    arithmetic = {
        "direct": choice.direct_seconds,
        "fft": choice.fft_seconds,
        "auto": min(choice.direct_seconds, choice.fft_seconds),
    }
    return float(1e-9 * cost["host_call"] + upload + download + arithmetic[method])


def prefers_gpu(problem: Problem, itemsize: int, method: str) -> bool:
    """Tell whether moving host arrays to a GPU and back is expected to be faster than the CPU.

    Examples
    --------
    >>> from maxconv._plan import prefers_gpu
    >>> from maxconv._problem import part_of_full
    >>> prefers_gpu(part_of_full(1000, 16, "full", flip=True), itemsize=4, method="auto")
    False
    >>> prefers_gpu(part_of_full(10**7, 4096, "full", flip=True), itemsize=4, method="direct")
    True
    """
    return gpu_seconds(problem, itemsize, method) < cpu_seconds(problem, itemsize, method)


def resampling_prefers_gpu(samples: int, outputs: int, multiply_adds: int, itemsize: int) -> bool:
    """Tell whether resampling host arrays on a GPU, both transfers included, is expected to be faster than the CPU."""
    there = costs("gpu")
    upload = samples * itemsize / there["upload_bytes_per_second"]
    download = outputs * itemsize / there["download_bytes_per_second"]
    here = _shared(multiply_adds * itemsize * _POLYPHASE_NS_PER_BYTE, multiply_adds // MULTIPLY_ADDS_PER_WORKER)
    return float(1e-9 * there["host_call"] + upload + download) < 1e-9 * here
