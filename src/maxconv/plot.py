"""Pictures by matplotlib (extra `plot`): what a filter does, a recording before and after, what a benchmark measured.

Each function returns a `matplotlib.figure.Figure`; `figure.savefig("name.svg")` writes it. Nothing touches pyplot's
state, so they work in threads and without a display.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ._bench import COPY
from ._errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    Results = Mapping[str, Any]

__all__ = ["heat_map", "lines", "response", "spectrograms"]

_LOWEST_DB = 160.0  # what float64 taps can suppress; below is rounding
_POINTS = 4096  # of a response: more than any picture is wide
WINDOW, _MOST_COLUMNS = 1024, 1000
_CASE = re.compile(r"(?P<dtype>\w+) N=(?P<samples>\d+) K=(?P<taps>\d+)")
_NAMES = {"samples": "samples (N)", "taps": "taps (K)"}


def response(taps: Any, fs: float = 1.0) -> Figure:
    """Draw the taps of a filter, and by how much it passes each frequency.

    Parameters
    ----------
    taps : array_like
        Filter coefficients, shape (K), real.
    fs : float
        Samples per second; frequencies are in its unit.

    Returns
    -------
    matplotlib.figure.Figure
        The magnitude in dB from 0 to `fs` / 2 above, the taps below.

    Raises
    ------
    ShapeError
        (a ValueError) If `taps` is empty or not of rank 1.
    ArgumentError
        (a ValueError) If `fs` is not positive.

    Notes
    -----
    The magnitude is that of `scipy.signal.freqz(taps, fs=fs)`.

    Examples
    --------
    >>> import maxconv.plot
    >>> figure = maxconv.plot.response([0.25, 0.5, 0.25], fs=360)
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['frequency (Hz)', 'tap']
    """
    k = _vector("plot.response", "taps", taps).astype(np.float64)
    _check_rate("plot.response", fs)
    figure = _figure(height=5.0)
    above, below = figure.subplots(2, 1)
    _draw_gain(above, k, fs)
    below.plot(k, linewidth=1, marker="." if k.size <= 64 else "", markersize=4)  # noqa: PLR2004  # dots that touch
    below.set(xlabel="tap", ylabel="value")
    below.grid(alpha=0.3)
    return figure


def _draw_gain(axes: Any, taps: np.ndarray, fs: float) -> None:
    points = max(_POINTS, 1 << (taps.size - 1).bit_length())
    gain = _decibels(np.abs(np.fft.rfft(taps, points)) ** 2)
    axes.plot(np.fft.rfftfreq(points, 1 / fs), gain, linewidth=1)
    axes.set(xlabel=_frequency_label(fs), ylabel="gain (dB)", xlim=(0, fs / 2))
    axes.set_ylim(gain.min() - 3, gain.max() + 6)
    axes.grid(alpha=0.3)


def spectrograms(before: Any, after: Any, fs: float = 1.0) -> Figure:
    """Draw two signals as spectrograms, one above the other, in the same colours.

    Parameters
    ----------
    before, after : array_like
        Signals, shape (N); the two need not be equally long.
    fs : float
        Samples per second.

    Returns
    -------
    matplotlib.figure.Figure
        Power over time and frequency in dB below the strongest of both.

    Raises
    ------
    ShapeError
        (a ValueError) If a signal is empty or not of rank 1.
    ArgumentError
        (a ValueError) If `fs` is not positive.

    Notes
    -----
    Hann windows of 1024 samples, at most 1000 of them, spread evenly over a long signal.
    """
    _check_rate("plot.spectrograms", fs)
    pictures = []
    for name, signal in (("before", before), ("after", after)):
        x = _vector("plot.spectrograms", name, signal)
        starts = window_starts(len(x))
        pictures.append((name, len(x), power([x[start : start + WINDOW] for start in starts])))
    figure = _figure(height=5.0)
    _draw_spectrograms(figure, pictures, fs)
    return figure


def _vector(function: str, argument: str, value: Any) -> np.ndarray:
    """Take an array of rank 1 that is not empty."""
    array = np.asarray(value)
    if array.ndim != 1 or not array.size:
        message = f"{function}: {argument} has shape {array.shape}, but rank 1 and at least one element are expected"
        raise ShapeError(message)
    return array


def _check_rate(function: str, fs: float) -> None:
    if not fs > 0:
        message = f"{function}: fs must be positive, got {fs!r}"
        raise ArgumentError(message)


def window_starts(samples: int) -> np.ndarray:
    """Return where the windows of a spectrogram begin, in samples."""
    count = min(_MOST_COLUMNS, max(1, 2 * samples // WINDOW))
    return np.linspace(0, max(0, samples - WINDOW), count).astype(np.int64)


def power(windows: list[np.ndarray]) -> np.ndarray:
    """Return the power of windows of at most 1024 samples, shape (frequencies, windows)."""
    length = max(map(len, windows))
    shaped = [
        np.pad(window.astype(np.float64) * np.hanning(len(window)), (0, length - len(window))) for window in windows
    ]
    return np.asarray(np.abs(np.fft.rfft(shaped, WINDOW)).T ** 2)


def draw_filtering(taps: np.ndarray, pictures: list[tuple[str, int, np.ndarray]], fs: float) -> Figure:
    """Draw the gain of a filter above what `power` returned, each with a name and the samples that it covers."""
    figure = _figure(height=7.5)
    parts: Any = figure.subfigures(2, 1, height_ratios=[1, 2])
    above, below = parts
    _draw_gain(above.subplots(), np.asarray(taps, np.float64), fs)
    _draw_spectrograms(below, pictures, fs)
    return figure


def _draw_spectrograms(figure: Any, pictures: list[tuple[str, int, np.ndarray]], fs: float) -> None:
    levels = [_decibels(values) for _, _, values in pictures]
    strongest = max(float(level.max()) for level in levels)
    rows = figure.subplots(len(pictures), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, samples, _), level in zip(rows, pictures, levels, strict=True):
        extent = (0.0, samples / fs, 0.0, fs / 2)
        image = axes.imshow(
            level - strongest, origin="lower", aspect="auto", extent=extent, vmin=-100, vmax=0, cmap="magma"
        )
        axes.set(title=name, ylabel=_frequency_label(fs))
    rows[-1].set_xlabel("time (s)" if fs != 1 else "time (samples)")
    figure.colorbar(image, ax=list(rows), label="dB")


def lines(results: Results, along: str = "taps", **only: Any) -> Figure:
    """Draw the times of a benchmark as lines, one for each contender.

    Parameters
    ----------
    results : mapping
        What `maxconv bench --json` prints, or a file of `benchmarks/results` read by `json.load`.
    along : {"taps", "samples"}
        What the horizontal axis counts.
    **only
        Rows to keep, by `dtype`, `samples` or `taps`.

    Returns
    -------
    matplotlib.figure.Figure
        Seconds of one call, medians, both axes logarithmic.

    Raises
    ------
    ArgumentError
        (a ValueError) If `along` is unknown, or no row is left.
    """
    rows = _rows("plot.lines", results, along, only)
    points: dict[str, list[tuple[int, float]]] = {}
    for case, row in rows:
        for name, timing in row["seconds"].items():
            points.setdefault(name, []).append((case[along], timing["median"]))
    figure = _figure()
    axes = figure.subplots()
    for name, line in points.items():
        ours = name.startswith("maxconv")
        axes.plot(*zip(*sorted(line), strict=True), marker=".", label=name, linewidth=2.4 if ours else 1.2)
    axes.set(
        xscale="log", yscale="log", xlabel=_NAMES[along], ylabel="seconds of one call", title=_title(results, only)
    )
    axes.grid(which="both", alpha=0.2)
    axes.legend(fontsize="small")
    return figure


def heat_map(results: Results, ours: str, peer: str | None = None, **only: Any) -> Figure:
    """Draw how many times as fast one contender was as another, over samples and taps.

    Parameters
    ----------
    results : mapping
        As for `lines`.
    ours : str
        A contender of its rows.
    peer : str, optional
        Another; by default the fastest of the others in each row. A copy is a bound, and counts as none.
    **only
        Rows to keep, by `dtype`, `samples` or `taps`.

    Returns
    -------
    matplotlib.figure.Figure
        ``seconds of peer / seconds of ours`` in each field: blue where `ours` is faster.

    Raises
    ------
    ArgumentError
        (a ValueError) If no row with both is left.
    """
    rows = [(case, row["seconds"]) for case, row in _rows("plot.heat_map", results, "taps", only)]
    ratios = {}
    for case, seconds in rows:
        others = [name for name in seconds if (name == peer if peer else name not in {ours, COPY})]
        if others and ours in seconds:
            least = min(seconds[name]["median"] for name in others)
            ratios[case["samples"], case["taps"]] = least / seconds[ours]["median"]
    if not ratios:
        rival = repr(peer) if peer else "another contender"
        found = ", ".join(sorted({name for _, seconds in rows for name in seconds}))
        message = f"plot.heat_map: no row has both {ours!r} and {rival}; there are {found}"
        raise ArgumentError(message)
    across, down = (sorted({key[axis] for key in ratios}) for axis in (0, 1))
    field = np.array([[ratios.get((n, k), np.nan) for n in across] for k in down])
    figure = _figure(height=0.9 + 0.42 * len(down))
    axes = figure.subplots()
    bound = max(1.0, float(np.nanmax(np.abs(np.log2(field)))))
    image = axes.imshow(np.log2(field), origin="lower", aspect="auto", cmap="RdBu", vmin=-bound, vmax=bound)
    for (row, column), value in np.ndenumerate(field):
        if np.isfinite(value):
            dark = abs(np.log2(value)) > 0.6 * bound  # there black could not be read
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", color="white" if dark else "black", size=8)
    axes.set_xticks(range(len(across)), [f"{n:g}" for n in across])
    axes.set_yticks(range(len(down)), [f"{k:g}" for k in down])
    axes.set(xlabel=_NAMES["samples"], ylabel=_NAMES["taps"], title=_title(results, only))
    bar = figure.colorbar(image, label=f"time of {peer or 'the fastest other'} / time of {ours}")
    bar.ax.yaxis.set_major_formatter(lambda power, _: f"{2.0**power:.3g}")
    return figure


def _rows(function: str, results: Results, along: str, only: Mapping[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """Pair the cases that were asked for with their rows."""
    if along not in _NAMES:
        message = f"{function}: along must be one of {', '.join(map(repr, sorted(_NAMES)))}, got {along!r}"
        raise ArgumentError(message)
    found = []
    for row in results["rows"]:
        if (match := _CASE.fullmatch(row["case"])) is None:
            continue
        case = {"dtype": match["dtype"], "samples": int(match["samples"]), "taps": int(match["taps"])}
        if all(case.get(name) == wanted for name, wanted in only.items()):
            found.append((case, row))
    if not found:
        message = f"{function}: no row of the results has {dict(only)}; cases read such as 'float32 N=1000 K=16'"
        raise ArgumentError(message)
    return found


def _title(results: Results, only: Mapping[str, Any]) -> str:
    """Say what was measured, and on what."""
    accelerators = results.get("accelerators") or []
    device = accelerators[0]["name"] if accelerators else f"{results['cpu']['name']}, {results['cpu']['cores']} cores"
    kept = ", ".join(
        f"{value:,}".replace(",", " ") + f" {name}" if isinstance(value, int) else str(value)
        for name, value in only.items()
    )
    return ", ".join(part for part in (kept, device, results["date"]) if part)


def _decibels(squares: np.ndarray) -> np.ndarray:
    """Return 10 log10, with a floor in place of the logarithm of 0."""
    return np.asarray(10 * np.log10(np.maximum(squares, squares.max() * 10 ** (-_LOWEST_DB / 10) + 1e-300)))


def _frequency_label(fs: float) -> str:
    return "frequency (Hz)" if fs != 1 else "frequency (cycles a sample)"


def _figure(height: float = 4.0) -> Figure:
    from matplotlib.figure import Figure  # takes 0.3 s, and only pictures need it

    return Figure(figsize=(8.0, height), layout="constrained")
