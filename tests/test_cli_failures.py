"""`maxconv filter`: one clear line for whatever goes wrong, and nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import RATE, files, line_of

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
    (["--lowpass", "100", "--method", "sums"], "--method: got 'sums'; expected auto, direct or fft"),
    (["--lowpass", "100", "--method", "fft", "--device", "gpu:0"], "--method: fft is served on the cpu"),
    (["--lowpass", "100", "--raw", "s16"], "--raw: only pipes carry raw samples"),
    (["--lowpass", "100", "--plot", "what.txt"], "--plot: 'what.txt' has an unknown suffix; expected .png, .svg, .pdf"),
    (["--lowpass", "100", "--plot", "no/what.png"], "--plot: folder 'no' does not exist"),
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
