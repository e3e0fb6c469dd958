"""How we time, and `maxconv bench`: one size, side by side with what is installed, in one run, on the same data."""

from __future__ import annotations

import datetime as dt
import os
import statistics
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import maxconv

from ._errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PEERS = ("numpy", "scipy", "torch", "cupy")
_DTYPES = ("float32", "float64")
COPY = "copy of x"  # a bound, no peer
_CHECKED = 4096  # outputs compared with float64 sums before anything is timed
_MOST_PRODUCTS = 2 * 10**9  # above, what adds up products itself takes seconds, and transforms take milliseconds
_ROUNDS = 15
_LONG, _FEW_ROUNDS = 0.1, 5  # calls of more seconds vary little, and are repeated as often
_TOLERANCE = 1e-3
_WITHOUT_TRANSFORMS = {"numpy.convolve", "torch conv1d"}


class Timing(NamedTuple):
    """Seconds of one call: the median of several rounds, and the 20th and 80th percentiles."""

    median: float
    low: float
    high: float


def summarize(samples: list[float]) -> Timing:
    """Reduce rounds to a `Timing`."""
    ordered = sorted(samples)
    fifth = (len(ordered) - 1) / 5
    return Timing(statistics.median(ordered), ordered[round(fifth)], ordered[round(4 * fifth)])


def time_calls(
    calls: Mapping[str, Callable[[], Any]], rounds: int = _ROUNDS, seconds: float = 0.02
) -> dict[str, Timing]:
    """Time functions on the host clock, in turns: the summary of `sample_calls`."""
    return {name: summarize(values) for name, values in sample_calls(calls, rounds, seconds).items()}


def sample_calls(
    calls: Mapping[str, Callable[[], Any]], rounds: int = _ROUNDS, seconds: float = 0.02, rest: float = 0.0
) -> dict[str, list[float]]:
    """Time functions on the host clock, in turns, so that a busy moment of the machine meets all of them alike.

    Each round of a function runs it as often as fits `seconds`, at least once. Each round starts with another function:
    what one leaves in the caches and in the allocator meets them alike too. Before each turn the machine rests for so
    many seconds: threads of a library that wait at full speed after its last call are then asleep.
    """
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(seconds / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(rounds):
        for name in order:
            call = calls[name]
            time.sleep(rest)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name])
        order.append(order.pop(0))
    return samples


def paired_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return how many times as long ours took: the median over rounds, each of which met one state of the machine."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def compare(
    samples: int, taps: list[int], dtype: str, device: str | None, peers: list[str] | None
) -> Iterator[dict[str, Any]]:
    """Time one full convolution of host arrays by maxconv and its peers, for each number of taps.

    Parameters
    ----------
    samples, taps, dtype
        The sizes and the element type.
    device
        Where maxconv computes, as in `maxconv.convolve`.
    peers
        Some of `PEERS`; None for those that are installed.

    Yields
    ------
    dict
        A row of results, as in `benchmarks/results`, with the fastest peer as "best" and how many times as long it took
        as "ratio". Peers without transforms take no part where they would take seconds.

    Raises
    ------
    ArgumentError
        A size below 1, an unknown type or peer, or one that is not installed.
    """
    if dtype not in _DTYPES:
        message = f"--dtype: got '{dtype}'; expected {' or '.join(_DTYPES)}"
        raise ArgumentError(message)
    if samples < 1 or min(taps) < 1:
        message = f"--samples, --taps: got {samples} and {min(taps)}; expected at least 1"
        raise ArgumentError(message)
    ours = "maxconv.convolve"
    # A keyword more would be a twentieth of the tiniest call.
    convolve = maxconv.convolve if device is None else partial(maxconv.convolve, device=device)
    functions: dict[str, Callable[..., Any]] = {ours: convolve}
    functions |= _functions(_present(peers))
    rng = np.random.default_rng()
    for count in taps:
        x, k = (rng.standard_normal(length).astype(dtype) for length in (samples, count))
        is_long = samples * count > _MOST_PRODUCTS
        calls = {
            name: partial(function, x, k)
            for name, function in functions.items()
            if not (is_long and name in _WITHOUT_TRANSFORMS)
        }
        begin = time.perf_counter()
        for name, call in calls.items():
            _check(name, np.asarray(call()), x, k)
        rounds = _FEW_ROUNDS if time.perf_counter() - begin > _LONG * len(calls) else _ROUNDS
        samples_of = sample_calls({**calls, COPY: x.copy}, rounds)
        timings = {name: summarize(values) for name, values in samples_of.items()}
        row: dict[str, Any] = {"case": f"{dtype} N={samples} K={count}", "baseline": ours}
        if rivals := [name for name in calls if name != ours]:
            best = min(rivals, key=lambda name: timings[name].median)
            row |= {"best": best, "ratio": paired_ratio(samples_of[best], samples_of[ours])}
        yield row | {"seconds": {name: timing._asdict() for name, timing in timings.items()}}


def about() -> dict[str, Any]:
    """Say on what and when figures were measured, as the files of `benchmarks/results` do."""
    from ._engine import report

    facts = {key: value for key, value in report().items() if key not in {"cache", "runs on"}}
    return facts | {"date": dt.datetime.now(tz=dt.timezone.utc).date().isoformat(), "numpy": np.__version__}


def _present(peers: list[str] | None) -> list[str]:
    """Return the peers to time; refuse those that cannot be."""
    if peers is None:
        return [name for name in PEERS if find_spec(name)]
    for name in peers:
        if name not in PEERS:
            message = f"--compare: got '{name}'; expected some of {', '.join(PEERS)}"
            raise ArgumentError(message)
        if not find_spec(name):
            message = f"--compare: {name} is not installed: pip install {name}"
            raise ArgumentError(message)
    return peers


def _functions(peers: list[str]) -> dict[str, Callable[..., Any]]:
    """Name the functions of the peers that convolve two host arrays in full."""
    found: dict[str, Callable[..., Any]] = {}
    if "numpy" in peers:
        found["numpy.convolve"] = np.convolve
    if "scipy" in peers:
        import scipy.fft
        import scipy.signal

        def with_workers(function: Callable[..., Any]) -> Callable[..., Any]:
            def convolve(x: np.ndarray, k: np.ndarray) -> Any:
                with scipy.fft.set_workers(os.cpu_count() or 1):
                    return function(x, k)

            return convolve

        found |= {
            "scipy.signal.convolve": scipy.signal.convolve,
            "scipy.signal.fftconvolve": with_workers(scipy.signal.fftconvolve),
            "scipy.signal.oaconvolve": with_workers(scipy.signal.oaconvolve),
        }
    if "torch" in peers:
        import scipy.fft
        import torch

        def convolve_by_torch(x: np.ndarray, k: np.ndarray) -> Any:
            signal, taps = torch.from_numpy(x)[None, None], torch.from_numpy(k).flip(0)[None, None]
            return torch.nn.functional.conv1d(signal, taps, padding=len(k) - 1)[0, 0].numpy()

        def transform_by_torch(x: np.ndarray, k: np.ndarray) -> Any:
            count = len(x) + len(k) - 1
            nfft = scipy.fft.next_fast_len(count, real=True)
            spectra = torch.fft.rfft(torch.from_numpy(x), nfft) * torch.fft.rfft(torch.from_numpy(k), nfft)
            return torch.fft.irfft(spectra, nfft)[:count].numpy()

        found |= {"torch conv1d": convolve_by_torch, "torch FFT": transform_by_torch}
    if "cupy" in peers:
        import cupy
        import cupyx.scipy.signal

        def convolve_by_cupy(x: np.ndarray, k: np.ndarray) -> Any:
            return cupy.asnumpy(cupyx.scipy.signal.oaconvolve(cupy.asarray(x), cupy.asarray(k)))

        found["cupyx oaconvolve"] = convolve_by_cupy
    return found


def _check(name: str, result: np.ndarray, x: np.ndarray, k: np.ndarray) -> None:
    """Refuse to time a contender whose first outputs are wrong."""
    exact = np.convolve(x[:_CHECKED].astype(np.float64), k[:_CHECKED].astype(np.float64))[: min(_CHECKED, len(x))]
    error = float(np.abs(result[: len(exact)] - exact).max())
    if not error <= _TOLERANCE * float(np.abs(exact).max()):
        message = f"{name} is wrong by {error:.3g}; it is not timed"
        raise RuntimeError(message)
