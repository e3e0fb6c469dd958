"""Pictures show what they say: gains of SciPy, windows of the signal, medians of the results."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import freqz

import maxconv.plot

RESULTS = {
    "cpu": {"name": "a processor", "cores": 2},
    "date": "2026-11-22",
    "rows": [
        {
            "case": f"float32 N={n} K={k}",
            "seconds": {"maxconv": {"median": 1e-6 * n * k}, "other": {"median": 2e-6 * n * k**2}},
        }
        for n in (10, 1000)
        for k in (16, 4)
    ]
    + [{"case": "one call", "seconds": {"native": {"median": 1.0}}}],
}


@pytest.mark.parametrize("taps", [1, 2, 63, 5000])
def test_the_response_is_that_of_freqz(rng, taps):
    """The curve is SciPy's magnitude in dB over 0 to half the rate; the taps stand below."""
    k = rng.standard_normal(taps)
    above, below = maxconv.plot.response(k, fs=360).axes
    frequencies, gain = above.lines[0].get_data()
    exact = 20 * np.log10(np.abs(freqz(k, worN=frequencies, fs=360, include_nyquist=True)[1]))
    audible = exact > exact.max() - 100
    np.testing.assert_allclose(gain[audible], exact[audible], atol=1e-4)
    assert (frequencies[0], frequencies[-1]) == (0, 180)
    np.testing.assert_array_equal(below.lines[0].get_ydata(), k)


@pytest.mark.parametrize("samples", [1, 100, 1024, 5000, 2_000_000])
def test_a_tone_is_a_line_in_the_spectrogram(samples):
    """The strongest frequency of every column is the tone's, for signals short and long."""
    tone = np.sin(2 * np.pi * 0.25 * np.arange(samples) + 0.3)
    figure = maxconv.plot.spectrograms(tone, 0.01 * tone, fs=8000)
    before, after = (axes.images[0].get_array() for axes in figure.axes[:2])
    if samples >= 100:
        assert set(before.argmax(axis=0)) == {256}  # of 513 up to half the rate
    assert before.max() == 0
    np.testing.assert_allclose(after.max(), -40, atol=1e-6)
    assert before.shape[1] <= 1000
    assert figure.axes[0].images[0].get_extent() == [0, samples / 8000, 0, 4000]


def test_lines_are_medians_in_order():
    """Each contender is a line through its medians, from the fewest taps to the most."""
    axes = maxconv.plot.lines(RESULTS, samples=1000).axes[0]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn == {"maxconv": [[4, 4e-3], [16, 1.6e-2]], "other": [[4, 3.2e-2], [16, 0.512]]}
    assert "1 000 samples, a processor, 2 cores, 2026-11-22" in axes.get_title()
    along = maxconv.plot.lines(RESULTS, "samples", taps=4).axes[0]
    assert [x for x, _ in along.lines[0].get_xydata()] == [10, 1000]


def test_the_heat_map_is_a_ratio():
    """Each field says how many times as long the peer took."""
    axes = maxconv.plot.heat_map(RESULTS, "maxconv", "other").axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[3, 3], [5, 5]])  # log2 of 2 K
    assert sorted(text.get_text() for text in axes.texts) == ["32", "32", "8", "8"]


def test_without_a_peer_the_heat_map_takes_the_fastest():
    """Each field is against whichever of the others was fastest there; a copy is none of them."""
    rows = [
        {
            "case": f"float32 N={n} K=4",
            "seconds": {name: {"median": median} for name, median in (("ours", 2.0), ("copy of x", 0.1), *others)},
        }
        for n, others in ((10, [("slow", 8.0), ("slower", 16.0)]), (100, [("slow", 8.0), ("slower", 4.0)]), (1000, []))
    ]
    axes = maxconv.plot.heat_map({**RESULTS, "rows": rows}, "ours").axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[2, 1]])  # log2 of 4 and 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: maxconv.plot.response([]), maxconv.ShapeError, r"plot.response: taps has shape \(0,\)"),
        (lambda: maxconv.plot.response([[1]]), maxconv.ShapeError, r"taps has shape \(1, 1\), but rank 1"),
        (lambda: maxconv.plot.response([1], fs=0), maxconv.ArgumentError, "fs must be positive, got 0"),
        (lambda: maxconv.plot.spectrograms([1], []), maxconv.ShapeError, r"after has shape \(0,\)"),
        (lambda: maxconv.plot.spectrograms([1], [1], fs=-1), maxconv.ArgumentError, "fs must be positive, got -1"),
        (
            lambda: maxconv.plot.lines(RESULTS, "length"),
            maxconv.ArgumentError,
            "along must be one of 'samples', 'taps'",
        ),
        (lambda: maxconv.plot.lines(RESULTS, samples=3), maxconv.ArgumentError, "no row of the results has"),
        (lambda: maxconv.plot.heat_map(RESULTS, "maxconv", "third"), maxconv.ArgumentError, "there are maxconv, other"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    """What cannot be drawn is an error that says what came and what would do."""
    with pytest.raises(error, match=message):
        call()
