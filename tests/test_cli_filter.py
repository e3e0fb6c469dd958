"""`maxconv filter`: right numbers in the same format, whatever the recording and the filter."""

from __future__ import annotations

import json

import numpy as np
import pytest
import pywt
import reference
import soundfile
from command import RATE, expected
from scipy.signal import firwin
from tolerances import assert_within_bound

import maxconv
from maxconv import _filtering, cli
from maxconv._filtering import Choice, filter_file
from maxconv.plot import WINDOW, window_starts


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("samples", "taps"), [(1, 1), (50, 1), (50, 2), (50, 31), (32, 31), (31, 31)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_an_npy_is_convolved_as_scipy_does(run, rng, tmp_path, mode, samples, taps, dtype):
    """Every mode gives SciPy's numbers, for one sample, one tap, and taps as long as the recording."""
    x, k = rng.standard_normal((samples, 3)).astype(dtype), rng.standard_normal(taps)
    np.save(tmp_path / "in.npy", x)
    np.save(tmp_path / "taps.npy", k)
    code, out, err = run(
        "filter", tmp_path / "in.npy", tmp_path / "out.npy", "--taps", tmp_path / "taps.npy", "--mode", mode
    )
    assert (code, err) == (0, "")
    y = np.load(tmp_path / "out.npy")
    assert y.dtype == x.dtype
    assert f"{len(y)} sample" in out
    assert_within_bound(y, *expected(x, k, mode), taps + 1)  # one more rounding: taps become float32


@pytest.mark.parametrize("mode", ["full", "same"])
def test_taps_may_be_longer_than_the_recording(run, rng, tmp_path, mode):
    """A recording shorter than the taps is filtered; only 'valid' has nothing to give, and says so."""
    x, k = rng.standard_normal(5), rng.standard_normal(12)
    np.save(tmp_path / "in.npy", x)
    np.save(tmp_path / "taps.npy", k)
    arguments = "filter", tmp_path / "in.npy", tmp_path / "out.npy", "--taps", tmp_path / "taps.npy", "--mode"
    assert run(*arguments, mode)[0] == 0
    full, size = reference.convolve(x, k), reference.magnitude(x, k)
    part = slice(None) if mode == "full" else slice(5, 10)
    assert_within_bound(np.load(tmp_path / "out.npy"), full[part], size[part], 12)
    code, _, err = run(*arguments, "valid", "--force")
    assert (code, err) == (
        2,
        "maxconv: --mode: 'valid' leaves no samples of 5 under 12 taps; expected full or same\n",
    )


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("suffix", "subtype"), [(".wav", "PCM_16"), (".wav", "PCM_24"), (".flac", "PCM_16")])
def test_audio_keeps_its_format_and_is_rounded_once(run, rng, taps_file, tmp_path, channels, suffix, subtype):
    """Rate, channels and subtype stay; each sample is the exact sum, rounded to the nearest step."""
    soundfile.write(tmp_path / f"in{suffix}", rng.uniform(-0.9, 0.9, (300, channels)), 44100, subtype=subtype)
    code, out, err = run("filter", tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", "--taps", taps_file)
    assert (code, err) == (0, "")
    assert f"300 samples, {channels} channel{'s'[: channels > 1]}, 44100 Hz" in out
    found = soundfile.info(tmp_path / f"out{suffix}")
    assert (found.samplerate, found.channels, found.subtype) == (44100, channels, subtype)
    exact, size = expected(soundfile.read(tmp_path / f"in{suffix}")[0], np.loadtxt(taps_file), "same")
    y = soundfile.read(tmp_path / f"out{suffix}", always_2d=True)[0]
    half_step = 2.0 ** -int(subtype[-2:])
    eps = np.finfo(np.float64 if subtype == "PCM_24" else np.float32).eps
    assert np.all(np.abs(y - exact) <= half_step + 10 * eps * size)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
def test_long_filters_of_24_bit_audio_stay_within_a_step(run, rng, tmp_path, suffix):
    """Thousands of taps over loud 24-bit audio end within a step of the float64 sums; in float32 they would not."""
    soundfile.write(tmp_path / f"in{suffix}", rng.uniform(0.5, 0.99, 3000), RATE, subtype="PCM_24")
    taps = rng.uniform(0.5, 1, 4001)
    taps /= taps.sum()
    np.save(tmp_path / "taps.npy", taps)
    out = tmp_path / f"out{suffix}"
    assert run("filter", tmp_path / f"in{suffix}", out, "--taps", tmp_path / "taps.npy")[0] == 0
    exact = np.convolve(soundfile.read(tmp_path / f"in{suffix}")[0], taps)[2000:5000]
    assert np.abs(soundfile.read(out)[0] - exact).max() <= 2.0**-23


def test_a_csv_keeps_header_and_columns(run, rng, tmp_path):
    """The columns of a CSV are filtered one by one, under the same header."""
    x = rng.standard_normal((40, 2))
    np.savetxt(tmp_path / "in.csv", x, delimiter=",", header="left,right", comments="")
    (tmp_path / "taps.csv").write_text("0.5, 0.25,\n-1\n")
    assert run("filter", tmp_path / "in.csv", tmp_path / "out.csv", "--taps", tmp_path / "taps.csv")[0] == 0
    assert (tmp_path / "out.csv").read_text().startswith("left,right\n")
    y = np.loadtxt(tmp_path / "out.csv", delimiter=",", skiprows=1)
    x = np.loadtxt(tmp_path / "in.csv", delimiter=",", skiprows=1)
    assert_within_bound(y, *expected(x, np.array([0.5, 0.25, -1]), "same"), 3)


def test_the_ecg_of_pywavelets_is_low_passed(run, tmp_path):
    """A real recording of integers, low-passed, is what firwin and numpy.convolve make of it."""
    ecg = pywt.data.ecg()
    np.save(tmp_path / "ecg.npy", ecg)
    code, out, err = run(
        "filter", tmp_path / "ecg.npy", tmp_path / "smooth.npy", "--lowpass", 40, "--rate", 360, "--num-taps", 101
    )
    assert (code, err) == (0, "")
    assert "1024 samples, 1 channel, 360 Hz, float64; 101 taps" in out
    taps, y = firwin(101, 40, fs=360), np.load(tmp_path / "smooth.npy")
    assert_within_bound(y, np.convolve(ecg, taps, "same"), np.convolve(np.abs(ecg), np.abs(taps), "same"), 2 * 101)


@pytest.mark.parametrize(
    ("options", "taps"),
    [
        (["--lowpass", "900"], firwin(257, 900, fs=RATE)),
        (["--highpass", "900"], firwin(257, 900, fs=RATE, pass_zero=False)),
        (["--bandpass", "900", "2000"], firwin(257, [900, 2000], fs=RATE, pass_zero=False)),
        (["--bandpass", "900", "2000", "--num-taps", "41"], firwin(41, [900, 2000], fs=RATE, pass_zero=False)),
        (["--highpass", "100"], firwin(529, 100, fs=RATE, pass_zero=False)),
    ],
)
def test_designed_filters_are_those_of_firwin_without_delay(run, recording, options, taps):
    """Each design is firwin's, 257 taps long unless the cut-off needs more, and the output is not delayed."""
    out = recording.with_name("out.npy")
    assert run("filter", recording, out, *options)[0] == 0
    exact, size = expected(soundfile.read(recording)[0], taps, "same")
    assert_within_bound(np.load(out), exact, size, len(taps) + 1)


def test_too_few_taps_for_the_cut_off_are_warned_about(run, recording):
    """A filter that cannot do what its cut-off asks is made, with a warning that says what would do."""
    code, _, err = run("filter", recording, recording.with_name("out.wav"), "--highpass", "20", "--num-taps", "31")
    assert code == 0
    assert err.startswith("maxconv: warning: --highpass: 31 taps change over about 852 Hz, too much for 20 Hz")
    assert err.endswith("; --num-taps 2641 would do\n")


@pytest.mark.parametrize("edge", ["0.01", "1e-300"])
def test_a_cut_off_beyond_any_number_of_taps_gets_no_advice(run, recording, edge):
    """Where more taps than may be asked for would be needed, none are advised."""
    code, _, err = run("filter", recording, recording.with_name("out.wav"), "--lowpass", edge, "--num-taps", "257")
    assert code == 0
    assert err.endswith(f"too much for {edge} Hz at a rate of 8000 Hz; no practical number of taps separates it\n")


@pytest.mark.parametrize("channels", [1, 2])
def test_an_impulse_response_keeps_its_tail(run, rng, recording, channels):
    """A response of one channel serves all, one of two each its own; the result is longer by its tail."""
    response = recording.with_name("room.flac")
    soundfile.write(response, rng.uniform(-0.05, 0.05, (33, channels)), RATE)
    out = recording.with_name("out.npy")
    assert run("filter", recording, out, "--impulse-response", response)[0] == 0
    x, k = soundfile.read(recording)[0], soundfile.read(response, always_2d=True)[0]
    for channel in range(2):
        own = k[:, channel if channels == 2 else 0]
        exact, size = (f(x[:, channel], own) for f in (reference.convolve, reference.magnitude))
        assert_within_bound(np.load(out)[:, channel], exact, size, 34)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("taps", [1, 2, 8, 33])
def test_blocks_give_the_same_bits_as_the_whole(rng, tmp_path, mode, taps):
    """However a recording is cut into blocks, the result has the bits of one call on all of it."""
    x = rng.standard_normal((100, 2)).astype(np.float32)
    k = rng.standard_normal((taps, 2)).astype(np.float32)
    np.save(tmp_path / "in.npy", x)
    np.save(tmp_path / "room.npy", k)
    choice = Choice("impulse-response", file=tmp_path / "room.npy")
    whole = [maxconv.convolve(x[:, c], k[:, c], mode, "direct") for c in range(2)]
    for block in {1, 2, 3, taps - 1, taps, taps + 1, 99, 100, 101, 10**6} - {0}:
        filter_file(tmp_path / "in.npy", tmp_path / "out.npy", choice, mode=mode, block=2 * block, force=True)
        assert np.load(tmp_path / "out.npy").tobytes() == np.stack(whole, axis=1).tobytes(), block


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize(("dtype", "channels", "own"), [("f4", 1, False), ("f4", 2, True), ("f8", 3, False)])
def test_ffts_give_the_same_bits_as_the_whole(rng, tmp_path, mode, dtype, channels, own):
    """By FFT, asked for or chosen, a recording in blocks has the bits of one call of `convolve` on all of it."""
    x = rng.standard_normal((30_011, channels)).astype(dtype)
    k = rng.standard_normal((501, channels if own else 1)).astype(dtype)
    np.save(tmp_path / "in.npy", x)
    np.save(tmp_path / "room.npy", k)
    choice = Choice("impulse-response", file=tmp_path / "room.npy")
    for method in ("fft", "auto"):
        whole = maxconv.convolve(x, k, mode, method, axis=0)
        if method == "fft":
            assert not np.array_equal(whole, maxconv.convolve(x, k, mode, "direct", axis=0))
        for block in (1, 1000 * channels, 7777 * channels, None):
            filter_file(
                tmp_path / "in.npy", tmp_path / "out.npy", choice, mode=mode, method=method, block=block, force=True
            )
            assert np.load(tmp_path / "out.npy").tobytes() == whole.tobytes(), (method, block)


def test_in_memory_and_streamed_files_are_the_same(run, recording, taps_file):
    """--no-stream, which holds the recording in memory, writes the bytes that blocks do."""
    written = []
    for way in ("--stream", "--no-stream"):
        out = recording.with_name(f"out{way}.wav")
        assert run("filter", recording, out, "--taps", taps_file, way, "--method", "fft")[0] == 0
        written.append(out.read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("method", ["auto", "fft"])
def test_nan_stays_local_under_ffts(rng, tmp_path, run, method):
    """A gap marked by NaN reaches only the outputs that the taps connect to it, by FFT, too."""
    x, k = rng.standard_normal(30_000).astype("f4"), rng.standard_normal(801).astype("f4")
    x[12_345] = np.nan
    np.save(tmp_path / "in.npy", x)
    np.save(tmp_path / "taps.npy", k)
    out = tmp_path / "out.npy"
    arguments = "filter", tmp_path / "in.npy", out, "--taps", tmp_path / "taps.npy", "--method", method
    assert run(*arguments)[0] == 0
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(np.load(out))), 12_345 + np.arange(-400, 401))


def test_json_tells_what_was_done(run, recording, taps_file):
    """--json prints one object: where, how long, how many channels and taps, what was clipped."""
    out = recording.with_name("out.flac")
    code, text, err = run("filter", recording, out, "--taps", taps_file, "--json")
    facts = json.loads(text)
    assert (code, err) == (0, "")
    assert facts.pop("seconds") >= 0
    assert facts == {
        "out": str(out),
        "samples": 1000,
        "channels": 2,
        "rate": RATE,
        "container": "FLAC",
        "subtype": "PCM_16",
        "taps": 9,
        "clipped": 0,
        "warnings": [],
    }


@pytest.mark.parametrize("samples", [1, 700, 1024, 50_000])
def test_the_plot_shows_filter_and_spectrograms(run, rng, tmp_path, samples):
    """--plot writes a picture of the gain and of both recordings, short and long ones."""
    np.save(tmp_path / "in.npy", rng.standard_normal((samples, 2)))
    picture = tmp_path / "what.svg"
    arguments = "--rate", RATE, "--highpass", "900", "--plot", picture
    code, _, err = run("filter", tmp_path / "in.npy", tmp_path / "out.npy", *arguments)
    assert (code, err) == (0, "")
    assert picture.read_text().startswith("<?xml")


def test_the_windows_of_the_plot_are_those_of_the_first_channel(rng, tmp_path, monkeypatch):
    """However a recording is read, its spectrogram is made of evenly spread windows of the first channel."""
    x = rng.standard_normal((20_000, 2))
    np.save(tmp_path / "in.npy", x)
    for block in (1, 3000, 10**6):
        monkeypatch.setattr(_filtering, "BLOCK", block)
        samples, windows = cli._windows(tmp_path / "in.npy")
        assert samples == 20_000
        starts = window_starts(20_000)
        np.testing.assert_array_equal(windows, [x[start : start + WINDOW, 0] for start in starts])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".csv"])
def test_every_format_has_the_same_bytes_in_any_blocks(rng, tmp_path, suffix):
    """Audio and text are the same file to the byte, however the recording is cut into blocks."""
    if suffix == ".csv":
        np.savetxt(tmp_path / "in.csv", rng.standard_normal(500), delimiter=",")
    else:
        soundfile.write(tmp_path / f"in{suffix}", rng.uniform(-0.5, 0.5, 500), RATE)
    results = set()
    for block in (7, 64, 499, 500, 10**6):
        out = tmp_path / f"out{suffix}"
        filter_file(
            tmp_path / f"in{suffix}", out, Choice("lowpass", (900.0,)), rate=RATE, mode="full", block=block, force=True
        )
        results.add(out.read_bytes())
    assert len(results) == 1


def test_the_device_is_handed_on(run, recording, taps_file, monkeypatch):
    """--device reaches every call of `maxconv.convolve`; without it the library's own default does."""
    convolve, devices = maxconv.convolve, []

    def note(*arguments, device, **options):
        devices.append(device)
        return convolve(*arguments, **options)

    monkeypatch.setattr(maxconv, "convolve", note)
    monkeypatch.setattr(maxconv, "get_default_device", lambda: "gpu:2")
    for chosen in ("cpu", "gpu:1", None):
        devices.clear()
        options = [] if chosen is None else ["--device", chosen]
        assert (
            run("filter", recording, recording.with_name("out.wav"), "--taps", taps_file, "--force", *options)[0] == 0
        )
        assert set(devices) == {chosen or "gpu:2"}


@pytest.mark.parametrize(
    ("faster", "accelerators", "device"), [(True, 1, "gpu:0"), (True, 0, "cpu"), (False, 1, "cpu")]
)
def test_auto_is_one_device_for_all_blocks(
    run, recording, taps_file, tmp_path, monkeypatch, faster, accelerators, device
):
    """--device auto, or auto by default, is decided once per file: CPU and GPU do not give the same bits."""
    convolve, problems, devices = maxconv.convolve, [], []

    def note(*arguments, device, **options):
        devices.append(device)
        return convolve(*arguments, **options)

    def decide(problem, itemsize, method):
        assert method == "direct"
        problems.append((problem.samples, problem.taps, itemsize))
        return faster

    monkeypatch.setattr(maxconv, "convolve", note)
    monkeypatch.setattr(maxconv, "get_default_device", lambda: "auto")
    monkeypatch.setattr(_filtering, "prefers_gpu", decide)
    monkeypatch.setattr(_filtering.devices, "accelerator_count", lambda: accelerators)
    monkeypatch.setattr(_filtering, "BLOCK", 600)
    for options in (["--device", "auto"], []):
        out = tmp_path / "out.wav"
        assert run("filter", recording, out, "--taps", taps_file, "--force", *options)[0] == 0
    assert devices == [device] * 8  # twice 3 blocks of 300 stereo samples and one of 100
    assert problems == [(2 * 300 + 8, 9, 4)] * 2


def test_nan_in_a_recording_stays_local(rng, tmp_path, run):
    """A gap marked by NaN reaches only the outputs that the taps connect to it."""
    x = rng.standard_normal(60)
    x[30] = np.nan
    np.save(tmp_path / "in.npy", x)
    np.save(tmp_path / "taps.npy", np.ones(5))
    assert run("filter", tmp_path / "in.npy", tmp_path / "out.npy", "--taps", tmp_path / "taps.npy")[0] == 0
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(np.load(tmp_path / "out.npy"))), np.arange(28, 33))


def test_clipped_samples_are_counted(run, rng, tmp_path):
    """Integer audio that leaves full scale is clipped there, and how often is said in a warning."""
    soundfile.write(tmp_path / "in.wav", rng.uniform(-1, 1, 500), RATE)
    (tmp_path / "taps.txt").write_text("3")
    code, _, err = run("filter", tmp_path / "in.wav", tmp_path / "out.wav", "--taps", tmp_path / "taps.txt")
    tripled = 3 * soundfile.read(tmp_path / "in.wav", dtype="int16")[0].astype(int)
    count = np.count_nonzero((tripled > 32767) | (tripled < -32768))
    assert (code, err) == (
        0,
        f"maxconv: warning: OUT: {count} of 500 sample values clipped to the range of '{tmp_path / 'out.wav'}'\n",
    )
    written = soundfile.read(tmp_path / "out.wav", dtype="int16")[0]
    np.testing.assert_array_equal(written, np.clip(tripled, -32768, 32767))
