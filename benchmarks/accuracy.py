"""Errors of every path beside the promised bound and beside NumPy's and SciPy's on the same data.

Errors are relative to what their bound is relative to: for sums to ``sum |x| |k|`` of the very output, for FFTs to
``||x|| ||k||``. Exact results: sums and FFTs in long double, integers without bounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # teaches NumPy the name bfloat16
import numpy as np
import scipy.fft
import scipy.signal
from timing import is_served

import maxconv

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/accuracy.md"
RESULTS = ROOT / "benchmarks/results"
BEGIN, END = "<!-- written by `poe bench accuracy`: begin -->\n", "<!-- end -->\n"

#: dtype -> the type that its sums are kept in.
ACCUMULATORS = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
#: Largest relative error of rounding to a type narrower than its accumulator.
HALF_UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
DIRECT = [(5000, taps) for taps in (1, 16, 256, 4096)]
FFT = [(20_000, 100), (20_000, 4096), (400_000, 1000), (400_000, 100_000)]
UPFIRDN = [(5000, 61, 3, 2), (1000, 3201, 160, 147)]


def draw(dtype: str, length: int) -> np.ndarray:
    """Draw normal numbers; complex ones with both parts normal."""
    rng = np.random.default_rng()
    if dtype.startswith("complex"):
        return (rng.standard_normal(length) + 1j * rng.standard_normal(length)).astype(dtype)
    return rng.standard_normal(length).astype(np.dtype(dtype))


def widen(array: np.ndarray) -> np.ndarray:
    """Return an array in long double."""
    return array.astype(np.clongdouble if array.dtype.kind == "c" else np.longdouble)


def sizes_of_error(result: np.ndarray, exact: np.ndarray, scale: np.ndarray | float) -> dict[str, float]:
    """Return the largest and the root mean square of the relative errors."""
    wide = result.astype(np.float32) if result.dtype.itemsize == 2 else result  # noqa: PLR2004  # NumPy knows no bfloat16
    errors = np.abs(widen(wide) - exact) / scale
    return {"max": float(errors.max()), "rms": float(np.sqrt(np.mean(errors * errors)))}


def direct_bound(dtype: str, products: int) -> float:
    """Return what is promised of a sum: K*u of the accumulator, and one rounding to a narrower type."""
    accumulator = ACCUMULATORS[dtype]
    bound = products * float(np.finfo(accumulator).eps) / 2
    return bound if accumulator == dtype else bound + HALF_UNITS[dtype]


def entry(
    path: str, dtype: str, case: str, bound: float, ours: dict[str, float], peer: str, theirs: dict[str, float]
) -> dict[str, Any]:
    """Print and return one line of results; refuse one that breaks the promise."""
    print(f"{path:8s} {dtype:10s} {case:28s} bound {bound:.1e}  {cells(ours)}  {peer} {cells(theirs)}", flush=True)
    if not ours["max"] <= bound:
        message = f"{path} {dtype} {case}: error {ours['max']} is above the bound {bound}"
        raise SystemExit(message)
    return {
        "path": path,
        "dtype": dtype,
        "case": case,
        "bound": bound,
        "error": ours,
        "peer": peer,
        "peer_error": theirs,
    }


def cells(errors: dict[str, float]) -> str:
    """Format a largest and a root mean square error."""
    return f"{errors['max']:.1e} {errors['rms']:.1e}"


def measure_direct(dtype: str, n: int, m: int, device: str) -> dict[str, Any]:
    """Measure direct sums beside `numpy.convolve`."""
    x, k = draw(dtype, n), draw(dtype, m)
    exact, scale = np.convolve(widen(x), widen(k)), np.convolve(np.abs(widen(x)), np.abs(widen(k)))
    if dtype == "float16":
        scale = np.maximum(scale, 2.0**-14)  # below its smallest normal number rounding errors are absolute
    ours = sizes_of_error(maxconv.convolve(x, k, method="direct", device=device), exact, scale)
    theirs = sizes_of_error(np.convolve(x, k), exact, scale)
    return entry("direct", dtype, f"N={n} K={m}", direct_bound(dtype, m), ours, "numpy.convolve", theirs)


def measure_fft(dtype: str, n: int, m: int, device: str) -> dict[str, Any]:
    """Measure FFTs beside `scipy.signal.oaconvolve`."""
    x, k = draw(dtype, n), draw(dtype, m)
    length = scipy.fft.next_fast_len(n + m - 1)
    exact = scipy.fft.ifft(scipy.fft.fft(widen(x), length) * scipy.fft.fft(widen(k), length))[: n + m - 1]
    exact = exact if dtype.startswith("complex") else exact.real
    scale = float(np.linalg.norm(x) * np.linalg.norm(k))
    ours = sizes_of_error(maxconv.convolve(x, k, method="fft", device=device), exact, scale)
    theirs = sizes_of_error(scipy.signal.oaconvolve(x, k), exact, scale)
    real = {"complex64": "float32", "complex128": "float64"}.get(dtype, dtype)
    choice = maxconv.choose_method(n, m, dtype=real)
    bound = 10 * float(np.finfo(real).eps) * float(np.log2(choice.nfft))
    case = f"N={n} K={m}" + (f" nfft={choice.nfft}" if device == "cpu" else "")
    return entry("fft", dtype, case, bound, ours, "scipy.signal.oaconvolve", theirs)


def measure_upfirdn(dtype: str, n: int, m: int, up: int, down: int) -> dict[str, Any]:
    """Measure `upfirdn` beside SciPy's."""
    x, h = draw(dtype, n), draw(dtype, m)
    stuffed = np.zeros((n - 1) * up + 1, np.longdouble)
    stuffed[::up] = x
    taps = widen(h)
    exact, scale = (np.convolve(a, b)[::down] for a, b in ((stuffed, taps), (np.abs(stuffed), np.abs(taps))))
    met = scale > 0  # an output that meets no sample is exactly zero
    ours = sizes_of_error(maxconv.upfirdn(h, x, up, down)[met], exact[met], scale[met])
    theirs = sizes_of_error(scipy.signal.upfirdn(h, x, up, down)[met], exact[met], scale[met])
    case = f"N={n} K={m} up={up} down={down}"
    return entry("upfirdn", dtype, case, direct_bound(dtype, -(-m // up)), ours, "scipy.signal.upfirdn", theirs)


def measure_integers(dtype: str, n: int, m: int, device: str) -> dict[str, Any]:
    """Compare integers over their whole range with sums modulo 2^64, which NumPy's uint64 keeps."""
    rng = np.random.default_rng()
    bounds = np.iinfo(dtype)
    x, k = (rng.integers(bounds.min, bounds.max, size, dtype, endpoint=True) for size in (n, m))
    exact = np.convolve(x.astype(np.uint64), k.astype(np.uint64)).astype(dtype)
    differ = float(np.count_nonzero(maxconv.convolve(x, k, device=device) != exact))
    theirs = float(np.count_nonzero(np.convolve(x, k) != exact))
    errors = ({"max": value, "rms": value} for value in (differ, theirs))
    return entry("direct", dtype, f"N={n} K={m}", 0.0, next(errors), "numpy.convolve", next(errors))


def bench(device: str) -> list[dict[str, Any]]:
    """Measure every path that the device offers."""
    rows = [measure_direct(dtype, n, m, device) for dtype in ACCUMULATORS for n, m in DIRECT]
    rows += [measure_integers(dtype, 5000, 256, device) for dtype in ("int8", "int16", "int32", "int64", "uint64")]
    by_fft: list[tuple[str, int, int]] = [(dtype, n, m) for dtype in ("float32", "float64") for n, m in FFT]
    if device == "cpu":
        by_fft += [("complex64", *FFT[1]), ("complex128", *FFT[1])]
        rows += [measure_upfirdn(dtype, *case) for dtype in ("float32", "float64") for case in UPFIRDN]
    if is_served(lambda: maxconv.convolve(draw("float32", 100), draw("float32", 50), method="fft", device=device)):
        rows += [measure_fft(dtype, n, m, device) for dtype, n, m in by_fft]
    return rows


def tables() -> str:
    """Return what the page says of the results that lie in `benchmarks/results`, the CPU's and a GPU's."""
    return "\n".join(table(json.loads(path.read_text())) for path in sorted(RESULTS.glob("accuracy*.json")))


def table(results: dict[str, Any]) -> str:
    """Format the results of one device in Markdown."""
    gpus = [f"{gpu['name']}, " for gpu in results["accelerators"]]
    place = f"{''.join(gpus)}{results['cpu']['name']} ({results['cpu']['level']}, {results['cpu']['cores']} cores)"
    made = f"MAX {results['max']}, NumPy {results['numpy']}, SciPy {results['scipy']}, {results['date']}"
    lines = [
        f"{place}; {made}.",
        "",
        "| path | type | sizes | bound | max | RMS | peer | its max | its RMS |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        errors = (f"{row[which][size]:.1e}" for which in ("error", "peer_error") for size in ("max", "rms"))
        ours_max, ours_rms, peer_max, peer_rms = errors
        start = f"| {row['path']} | {row['dtype']} | {row['case']} | {row['bound']:.1e} | {ours_max} | {ours_rms} "
        lines.append(f"{start}| {row['peer']} | {peer_max} | {peer_rms} |")
    return "\n".join([*lines, ""])


def write_page() -> None:
    """Put the tables in their place on the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}")
    print(f"written: {PAGE.relative_to(ROOT)}")
