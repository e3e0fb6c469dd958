"""The command line: right numbers in the same format, one clear line for what goes wrong, and no half-written file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import pywt
import reference
import soundfile
from scipy.signal import firwin
from tolerances import assert_within_bound

import maxconv
from maxconv import _filtering, cli
from maxconv._filtering import Choice, filter_file

RATE = 8000


@pytest.fixture
def run(capsys):
    """Run the command with arguments; return exit code, stdout and stderr."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def recording(tmp_path, rng):
    """Make a stereo .wav of 1000 samples, in a folder that holds nothing else."""
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "in.wav"
    soundfile.write(path, rng.uniform(-0.2, 0.2, (1000, 2)), RATE)
    return path


@pytest.fixture
def taps_file(tmp_path, rng):
    """Write a file of nine taps, which together amplify by at most 1."""
    path = tmp_path / "taps.txt"
    np.savetxt(path, rng.uniform(-0.1, 0.1, 9), header="nine taps")
    return path


def files(folder):
    """Return the names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def run_python(program, *arguments, cwd=None):
    """Run a program in a new Python process."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=dict(os.environ),  # what Python knows: Mojo's own additions would hide the virtual environment
        capture_output=True,
        text=True,
        check=True,
    )


def expected(x, taps, mode):
    """Convolve each channel as the reference does; also return what its error is measured against."""
    columns = x.reshape(len(x), -1).astype(np.float64).T
    exact = np.stack([reference.convolve(column, taps, mode) for column in columns], axis=1)
    size = np.stack([reference.magnitude(column, taps, mode) for column in columns], axis=1)
    return exact, size


# ---- values


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
    assert devices == [device] * 10  # twice 3 blocks of 300 stereo samples, one of 100 and one of zeros
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


# ---- what goes wrong


def line_of(result):
    """Return the one line on stderr of a failed run that printed nothing else; and its exit code."""
    code, out, err = result
    assert out == ""
    assert err.startswith("maxconv: ")
    assert err.count("\n") == 1
    return code, err


BAD_ARGUMENTS = [
    ([], "filter: expected one of --lowpass, --highpass, --bandpass, --taps, --impulse-response; got none"),
    (["--lowpass", "100", "--highpass", "50"], "got --lowpass and --highpass"),
    (["--lowpass", "4000"], "--lowpass: got 4000 Hz; expected more than 0 and less than half the rate, 4000 Hz"),
    (["--highpass", "0"], "--highpass: got 0 Hz; expected more than 0"),
    (["--highpass", "-5"], "--highpass: got -5 Hz"),
    (["--lowpass", "nan"], "--lowpass: got nan Hz"),
    (["--lowpass", "loud"], "'--lowpass'"),
    (["--bandpass", "900", "4000.5"], "--bandpass: got 4000.5 Hz"),
    (["--bandpass", "900", "900"], "--bandpass: got LO = 900 and HI = 900 Hz; expected LO < HI"),
    (["--bandpass", "900", "300"], "--bandpass: got LO = 900 and HI = 300 Hz; expected LO < HI"),
    (["--bandpass", "900"], "--bandpass"),
    (["--lowpass", "100", "--num-taps", "256"], "--num-taps: got 256; expected an odd number from 3 to 1048577"),
    (["--lowpass", "100", "--num-taps", "-1"], "--num-taps: got -1; expected an odd number"),
    (["--lowpass", "100", "--num-taps", "2000000001"], "--num-taps: got 2000000001; expected an odd number from 3 to"),
    (["--lowpass", "5e-324"], "--lowpass: got 4.94065645841e-324 Hz; expected more than 0"),
    (["--lowpass", "100", "--rate", "44100"], "--rate: got 44100 Hz, but IN says 8000 Hz"),
    (["--lowpass", "100", "--rate", "0"], "--rate: got 0 Hz; expected a positive number"),
    (["--lowpass", "100", "--rate", "inf"], "--rate: got inf Hz"),
    (["--lowpass", "100", "--mode", "ful"], "--mode: got 'ful'; expected full, same or valid"),
    (["--lowpass", "100", "--device", "tpu"], "--device: got 'tpu'; expected cpu, gpu, gpu:0, ... or auto"),
    (["--lowpass", "100", "--loud"], "--loud"),
    (["--taps", "taps.txt", "--num-taps", "9"], "--num-taps: only a designed filter"),
]


@pytest.mark.parametrize(("options", "message"), BAD_ARGUMENTS)
def test_wrong_arguments_exit_with_2_and_write_nothing(run, recording, options, message):
    """Arguments that contradict each other or the recording are refused in one line that names them."""
    code, err = line_of(run("filter", recording, recording.with_name("out.wav"), *options))
    assert code == 2
    assert message in err
    assert files(recording.parent) == ["in.wav"]


BAD_TAPS = [
    ("taps.txt", b"", "is empty (0 bytes)"),
    ("taps.txt", b"\n# nothing\n", "holds no taps; expected at least one number"),
    ("taps.txt", b"1\ntwo\n", "line 2: 'two' is not a number"),
    ("taps.csv", b"1,2\n3,,4x\n", "line 2: '4x' is not a number"),
    ("taps.txt", b"1\n\n1_000\n", "line 3: '1_000' is not a number"),
    ("taps.txt", b"1\nnan\n", "--taps: tap 1 is nan; expected finite float32 numbers"),
    ("taps.txt", b"1 -inf", "--taps: tap 1 is -inf"),
    ("taps.txt", b"1e39", "--taps: tap 0 is 1e+39; expected finite float32 numbers"),
    ("taps.txt", b"\xff\xfe1", "is not a text file"),
    ("taps.npy", b"1,2,3", "is not a .npy file"),
    ("taps.npy", np.ones((3, 2)), "has shape (3, 2); expected (taps,)"),
    ("taps.npy", np.ones(0), "holds no taps"),
    ("taps.npy", np.array([None]), "has dtype object"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_TAPS)
def test_bad_taps_are_refused(run, recording, tmp_path, name, content, message):
    """Taps that are missing, no numbers, not finite or no vector are refused in one line."""
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    code, err = line_of(run("filter", recording, recording.with_name("out.wav"), "--taps", path))
    assert (code, "--taps" in err, message in err) == (1, True, True), err
    assert files(recording.parent) == ["in.wav"]


@pytest.mark.parametrize("option", ["IN", "--taps", "--impulse-response"])
def test_files_that_cannot_be_opened_are_named(run, recording, tmp_path, monkeypatch, option):
    """A file that is missing, a folder, empty, a device or forbidden is one line that names its argument."""
    bad = tmp_path / "bad.npy"

    def attempt():
        chosen = ["--lowpass", "100"] if option == "IN" else [option, bad]
        source = bad if option == "IN" else recording
        code, err = line_of(run("filter", source, recording.with_name("out.wav"), *chosen))
        assert code == 1
        assert files(recording.parent) == ["in.wav"]
        return err

    assert attempt() == f"maxconv: {option}: '{bad}' does not exist\n"
    bad.mkdir()
    assert f"{option}: '{bad}' is a directory; expected a file" in attempt()
    bad.rmdir()
    bad.touch()
    assert f"{option}: '{bad}' is empty (0 bytes)" in attempt()
    bad.unlink()
    bad.symlink_to("/dev/null")
    assert f"{option}: '{bad}' is not a regular file" in attempt()
    bad.unlink()
    np.save(bad, np.ones(3))
    opened = Path.open

    def forbid(path, *arguments, **options):  # a superuser, as in a container, may open everything
        if path == bad:
            raise PermissionError
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", forbid)
    assert attempt() == f"maxconv: {option}: no permission to open '{bad}'\n"


def test_a_response_that_does_not_fit_is_refused(run, rng, recording, tmp_path):
    """A response of another rate, or of neither one nor IN's channels, is refused with both numbers."""
    cases = [(1, 44100, "has 44100 Hz; expected the 8000 Hz of IN"), (3, RATE, "has 3 channels; expected 1 or 2")]
    for channels, rate, message in cases:
        soundfile.write(tmp_path / "room.wav", rng.uniform(-0.1, 0.1, (9, channels)), rate)
        code, err = line_of(run("filter", recording, tmp_path / "out.wav", "--impulse-response", tmp_path / "room.wav"))
        assert code == 1
        assert f"--impulse-response: '{tmp_path / 'room.wav'}' {message}" in err
        assert not (tmp_path / "out.wav").exists()


def test_a_design_needs_a_sample_rate(run, tmp_path):
    """For a recording without a rate a designed filter asks for --rate."""
    np.save(tmp_path / "in.npy", np.ones(9))
    arguments = "filter", tmp_path / "in.npy", tmp_path / "out.npy", "--lowpass", "2"
    assert line_of(run(*arguments)) == (2, "maxconv: --lowpass: IN carries no sample rate; give --rate HZ\n")
    assert run(*arguments, "--rate", "9.5")[0] == 0


def test_a_rate_beyond_audio_is_refused(run, tmp_path):
    """A rate that no audio file can hold is one line with the largest it takes; a .npy holds none, so any will do."""
    np.save(tmp_path / "in.npy", np.ones(9))
    options = "--lowpass", "2e11", "--rate", "1000000000000"
    code, err = line_of(run("filter", tmp_path / "in.npy", tmp_path / "out.wav", *options))
    assert (code, "takes at most 2147483647 samples per second (int32), got 1e+12" in err) == (2, True), err
    assert run("filter", tmp_path / "in.npy", tmp_path / "out.npy", *options)[0] == 0


def test_a_corrupt_recording_is_refused(run, rng, tmp_path):
    """Noise in a file named .wav is one line with libsndfile's reason."""
    (tmp_path / "in.wav").write_bytes(rng.bytes(999))
    code, err = line_of(run("filter", tmp_path / "in.wav", tmp_path / "out.wav", "--lowpass", "9"))
    assert (code, err.startswith(f"maxconv: IN: '{tmp_path / 'in.wav'}': libsndfile says: ")) == (1, True)


def test_an_output_that_libsndfile_refuses_is_named(run, rng, tmp_path):
    """A layout that the format cannot hold, here nine channels of FLAC, is an error of OUT that leaves nothing."""
    np.save(tmp_path / "in.npy", rng.standard_normal((20, 9)))
    code, err = line_of(run("filter", tmp_path / "in.npy", tmp_path / "out.flac", "--lowpass", "9", "--rate", "99"))
    assert (code, f"OUT: '{tmp_path / 'out.flac'}': libsndfile says: " in err) == (1, True)
    assert files(tmp_path) == ["in.npy"]


# ---- the output file


def test_an_existing_output_is_replaced_only_by_force(run, recording, taps_file, monkeypatch):
    """Without --force nothing is computed and the file stays; with it a new one takes its place and permissions."""
    out = recording.with_name("out.wav")
    out.write_text("precious")
    out.chmod(0o640)
    with monkeypatch.context() as patch:
        patch.setattr(maxconv, "convolve", None)
        code, err = line_of(run("filter", recording, out, "--taps", taps_file))
    assert (code, err) == (1, f"maxconv: OUT: '{out}' already exists; --force overwrites it\n")
    assert out.read_text() == "precious"
    assert run("filter", recording, out, "--taps", taps_file, "--force")[0] == 0
    assert soundfile.info(out).frames == 1000
    assert out.stat().st_mode & 0o777 == 0o640
    assert files(out.parent) == ["in.wav", "out.wav"]


def test_an_output_is_never_an_input(run, recording, taps_file):
    """IN, by its own or another name, and the taps are not overwritten, even by force."""
    before = recording.read_bytes()
    alias = recording.with_name("alias.wav")
    alias.symlink_to(recording)
    os.link(taps_file, recording.with_name("taps.csv"))
    for out in (recording, alias, recording.with_name("taps.csv")):
        code, err = line_of(run("filter", recording, out, "--taps", taps_file, "--force"))
        assert (code, err) == (2, f"maxconv: OUT: '{out}' is also an input; expected another file\n")
    assert recording.read_bytes() == before


def test_an_output_path_that_cannot_be_is_refused(run, recording, taps_file, monkeypatch):
    """A folder, a missing or forbidden folder, a device, and links that lead nowhere are refused as OUT."""
    folder = recording.parent
    (folder / "out.wav").mkdir()
    (folder / "null.wav").symlink_to("/dev/null")
    (folder / "loop.wav").symlink_to(folder / "pool.wav")
    (folder / "pool.wav").symlink_to(folder / "loop.wav")
    nowhere = folder / "no" / "there.wav"
    (folder / "link.wav").symlink_to(nowhere)
    cases = [
        (folder / "out.wav", f"OUT: '{folder / 'out.wav'}' is a directory; expected a file name"),
        (folder / "no" / "out.wav", f"OUT: folder '{folder / 'no'}' does not exist"),
        (folder / "null.wav", "is not a regular file"),
        (folder / "loop.wav", f"OUT: '{folder / 'loop.wav'}' is a link that leads back to itself"),
        (
            folder / "link.wav",
            f"OUT: '{folder / 'link.wav'}' is a link to '{nowhere}', whose folder does not exist",
        ),
    ]
    for out, message in cases:
        code, err = line_of(run("filter", recording, out, "--taps", taps_file, "--force"))
        assert (code, message in err) == (1, True), err
    monkeypatch.setattr(Path, "touch", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
    code, err = line_of(run("filter", recording, folder / "new.wav", "--taps", taps_file))
    assert (code, err) == (1, f"maxconv: OUT: no permission to open '{folder / 'new.wav'}'\n")


def test_an_output_link_is_followed(run, recording, taps_file, tmp_path):
    """A link to a file that does not exist yet, in a folder that does, stays a link; the file is made."""
    link = recording.with_name("link.wav")
    link.symlink_to(tmp_path / "out.wav")
    assert run("filter", recording, link, "--taps", taps_file)[0] == 0
    assert (link.is_symlink(), soundfile.info(tmp_path / "out.wav").frames) == (True, 1000)
    assert files(recording.parent) == ["in.wav", "link.wav"]


def test_the_output_is_on_the_disk_before_it_has_its_name(run, recording, taps_file, monkeypatch):
    """The whole file is flushed under its temporary name, so that a power cut leaves it or nothing."""
    out, sync, synced = recording.with_name("out.wav"), os.fsync, []

    def note(descriptor):
        synced.append((os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size, files(out.parent)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    assert run("filter", recording, out, "--taps", taps_file)[0] == 0
    (inode, size, names) = synced[-1]
    assert (inode, size) == (out.stat().st_ino, out.stat().st_size)
    assert [name for name in names if not name.endswith(".part")] == ["in.wav"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="a superuser may write to every folder")
def test_a_folder_without_permission_is_refused(run, recording, taps_file):
    """An output folder that may not be written is one line."""
    recording.parent.chmod(0o500)
    code, err = line_of(run("filter", recording, recording.with_name("out.wav"), "--taps", taps_file))
    recording.parent.chmod(0o700)
    assert (code, "OUT: no permission" in err) == (1, True)


FAILURES = [
    (maxconv.DeviceError("convolve: no gpu; see `maxconv info`"), 1, "convolve: no gpu; see `maxconv info`"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (ZeroDivisionError("two\nlines"), 1, "unexpected ZeroDivisionError: two lines (--debug shows where)"),
]


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("suffix", [".wav", ".npy", ".csv"])
@pytest.mark.parametrize(("failure", "code", "line"), FAILURES)
def test_a_failure_in_the_middle_leaves_no_trace(
    run, recording, taps_file, monkeypatch, existing, suffix, failure, code, line
):
    """When the third block fails or Ctrl-C comes, OUT is as before and nothing else is in the folder."""
    out = recording.with_name(f"out{suffix}")
    if existing:
        out.write_text("precious")
    convolve, calls, folder_meanwhile = maxconv.convolve, [], []

    def fail_late(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            folder_meanwhile.extend(files(out.parent))
            raise failure
        return convolve(*arguments, **options)

    monkeypatch.setattr(maxconv, "convolve", fail_late)
    monkeypatch.setattr(_filtering, "BLOCK", 200)
    assert line_of(run("filter", recording, out, "--taps", taps_file, "--force")) == (code, f"maxconv: {line}\n")
    assert any(name.endswith(".part") for name in folder_meanwhile)
    assert files(out.parent) == (["in.wav", out.name] if existing else ["in.wav"])
    assert not existing or out.read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere SIGTERM cannot be caught")
def test_a_terminated_run_leaves_no_trace(recording, taps_file):
    """SIGTERM in the middle ends the process with 143, one line, and no file."""
    program = """if True:
        import sys, time, maxconv
        from maxconv.cli import main
        def wait(*_, **__):
            print("waiting", flush=True)
            time.sleep(60)
        maxconv.convolve = wait
        sys.exit(main(["filter", "in.wav", "out.wav", "--taps", sys.argv[1]]))
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, taps_file],
        cwd=recording.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "waiting\n"
        assert len(files(recording.parent)) == 2
        process.terminate()
        assert process.communicate() == ("", "maxconv: terminated\n")
    assert process.returncode == 143
    assert files(recording.parent) == ["in.wav"]


@pytest.mark.parametrize("own", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_the_handler_of_sigterm_is_put_back(run, recording, taps_file, monkeypatch, own):
    """Only the default of SIGTERM is replaced, only while filtering, and after a failure too it is as before."""
    convolve, during = maxconv.convolve, []

    def note(*arguments, **options):
        during.append(signal.getsignal(signal.SIGTERM))
        return convolve(*arguments, **options)

    monkeypatch.setattr(maxconv, "convolve", note)
    before = signal.signal(signal.SIGTERM, own)
    try:
        for source, code in ((recording, 0), (recording.with_name("no.wav"), 1)):
            assert run("filter", source, recording.with_name("out.wav"), "--taps", taps_file, "--force")[0] == code
            assert signal.getsignal(signal.SIGTERM) is own
        assert (during[0] is own) == (own is not signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_filtering_works_in_a_thread(recording, taps_file):
    """Outside the main thread, where Python sets no handlers, the command does without."""
    arguments = ["filter", str(recording), str(recording.with_name("out.wav")), "--taps", str(taps_file)]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(cli.main, arguments).result() == 0


def test_an_output_that_appears_meanwhile_is_not_overwritten(run, recording, taps_file, monkeypatch):
    """A file that somebody else makes under OUT's name during the run is theirs."""
    out, convolve = recording.with_name("out.wav"), maxconv.convolve

    def be_late(*arguments, **options):
        out.write_text("precious")
        return convolve(*arguments, **options)

    monkeypatch.setattr(maxconv, "convolve", be_late)
    code, err = line_of(run("filter", recording, out, "--taps", taps_file))
    assert (code, "already exists" in err, out.read_text()) == (1, True, "precious")
    assert files(out.parent) == ["in.wav", "out.wav"]
    out.unlink()
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    code, err = line_of(run("filter", recording, out, "--taps", taps_file))
    assert (code, "already exists" in err, out.read_text()) == (1, True, "precious")


def test_without_hard_links_the_output_is_renamed(run, recording, taps_file, monkeypatch):
    """On a file system without hard links the output still appears at once and alone."""
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no hard links here")))
    assert run("filter", recording, recording.with_name("out.wav"), "--taps", taps_file)[0] == 0
    assert files(recording.parent) == ["in.wav", "out.wav"]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX's")
def test_a_full_disk_leaves_no_trace(rng, taps_file, tmp_path):
    """When the disk takes no more, in every format, that is one line about OUT, and no file is left."""
    work = tmp_path / "work"
    work.mkdir()
    np.save(work / "in.npy", rng.uniform(-1, 1, 20_000))
    program = """if True:
        import resource, sys
        from maxconv.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        for out in ("out.npy", "out.csv", "out.wav", "out.flac"):
            print(main(["filter", "in.npy", out, "--rate", "8000", "--taps", sys.argv[1]]))
    """
    done = run_python(program, taps_file, cwd=work)
    assert done.stdout.split() == ["1"] * 4
    assert [line.split(":")[:3] for line in done.stderr.splitlines()] == [
        ["maxconv", " OUT", f" 'out{suffix}'"] for suffix in (".npy", ".csv", ".wav", ".flac")
    ]
    assert files(work) == ["in.npy"]


# ---- the rest of the command


def test_progress_is_shown_only_on_a_terminal_and_only_for_long_recordings(run, recording, taps_file, monkeypatch):
    """A pipe gets no progress bar, a terminal does once the recording is longer than a block."""
    out = recording.with_name("out.wav")
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: True))
    assert run("filter", recording, out, "--taps", taps_file)[2] == ""
    monkeypatch.setattr(_filtering, "BLOCK", 100)
    assert "Filtering" in run("filter", recording, out, "--taps", taps_file, "--force")[2]
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: False))
    assert run("filter", recording, out, "--taps", taps_file, "--force")[2] == ""


def test_debug_shows_the_traceback(recording):
    """--debug, anywhere, raises the error itself."""
    with pytest.raises(maxconv.MaxconvError, match="does not exist"):
        cli.main(["filter", str(recording.with_name("no.wav")), "out.wav", "--lowpass", "9", "--debug"])


def test_version_and_help_are_printed(run):
    """--version gives one line; without arguments, and with --help, there is help."""
    assert run("--version") == (0, f"maxconv {installed_version('maxconv')}\n", "")
    for arguments in ([], ["--help"]):
        code, out, _ = run(*arguments)
        assert (code, "filter" in out, "demo" in out, "info" in out) == (0, True, True, True)
    assert line_of(run("fliter"))[0] == 2


def test_info_is_readable_and_its_json_parses(run):
    """Info shows every fact as text; --json gives the same as one JSON object."""
    code, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert (code, facts["maxconv"]) == (0, installed_version("maxconv"))
    code, out, _ = run("info")
    assert code == 0
    for name, value in facts.items():
        assert name in out
        for inner in value if isinstance(value, dict) else ():
            assert inner in out


def test_info_shows_nested_lists_and_dicts(run, monkeypatch):
    """Whatever the engine reports is laid out, accelerators one by one, and long paths are not folded in a pipe."""
    facts = {
        "accelerators": [{"id": 0, "name": "first"}, {"id": 1, "name": "second"}],
        "cache": {"folder": "/x" * 200, "entries": ["a", "b"], "none": []},
        "empty": {},
    }
    monkeypatch.setattr("maxconv._engine.report", lambda: facts)
    lines = [line.split() for line in run("info")[1].splitlines()]
    for line in (["-", "id", "1"], ["name", "second"], ["folder", "/x" * 200], ["b"], ["none", "none"]):
        assert line in lines


@pytest.mark.parametrize(("ending", "code"), [(None, 0), (SystemExit(), 0), (SystemExit(3), 3), (SystemExit("bad"), 1)])
def test_demo_exits_as_the_example_does(run, monkeypatch, ending, code):
    """`maxconv demo` runs examples/p15.py, which the package carries as `_p15`, exit code included."""

    def example(module, run_name):
        sys.stdout.write(f"{module} {run_name} {Path(find_spec(module).origin).resolve().name}")
        if ending is not None:
            raise ending

    monkeypatch.setattr("runpy.run_module", example)
    assert run("demo") == (code, "maxconv._p15 __main__ p15.py", "bad\n" if code == 1 else "")


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("typer", ["info"]),
        ("rich.console", ["info"]),
        ("soundfile", ["filter", "IN", "OUT.wav", "--taps", "TAPS"]),
        ("scipy.signal", ["filter", "IN", "OUT.npy", "--lowpass", "9"]),
    ],
)
def test_a_missing_extra_is_one_line(run, recording, taps_file, monkeypatch, missing, arguments):
    """Without the packages of the extra, the command says how to install them."""
    monkeypatch.setitem(sys.modules, missing, None)
    names = {"IN": recording, "TAPS": taps_file, "OUT.wav": recording.with_name("out.wav")}
    if missing == "scipy.signal":
        np.save(recording.with_name("in.npy"), np.ones(3))
        names |= {"IN": recording.with_name("in.npy"), "OUT.npy": recording.with_name("out.npy")}
        arguments = [*arguments, "--rate", "99"]
    code, err = line_of(run(*(names.get(word, word) for word in arguments)))
    assert (code, err) == (1, f"maxconv: the command line needs {missing}: pip install 'maxconv[cli]'\n")


def test_importing_the_module_loads_nothing_of_the_extra():
    """`import maxconv.cli` is cheap: neither Typer, Rich, SciPy nor soundfile is loaded."""
    program = "import sys, maxconv.cli; print({'typer', 'rich', 'scipy', 'soundfile', 'max'} & set(sys.modules))"
    assert run_python(program).stdout == "set()\n"
