"""`maxconv filter - -`: raw samples through pipes have the values that files have."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import line_of

import maxconv
from maxconv._filtering import Choice
from maxconv._raw import FORMATS, _decode, _encode, filter_raw

RATE = 8000
SUBTYPES = {"u8": "PCM_U8", "s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "f64": "DOUBLE"}


def through_pipe(content, choice, form, **options):
    """Filter bytes; return the bytes that come out, and the summary."""
    sink = io.BytesIO()
    settings = {"channels": 1, "rate": RATE, "mode": "same", "method": "auto", "device": "cpu", "name": Path("-")}
    summary = filter_raw(io.BytesIO(content), sink, choice, form=form, **{**settings, **options})
    return sink.getvalue(), summary


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pipe_carries_what_a_file_would(run, rng, tmp_path, form, channels):
    """In each format the filtered bytes are those of the same samples in a file."""
    raw = {"format": "RAW", "subtype": SUBTYPES[form], "endian": "LITTLE"}
    soundfile.write(tmp_path / "in.raw", rng.uniform(-0.5, 0.5, (9000, channels)), RATE, **raw)
    content = (tmp_path / "in.raw").read_bytes()
    x = soundfile.read(tmp_path / "in.raw", channels=channels, samplerate=RATE, always_2d=True, **raw)[0]
    soundfile.write(tmp_path / "in.wav", x, RATE, subtype=SUBTYPES[form])
    assert run("filter", tmp_path / "in.wav", tmp_path / "out.wav", "--lowpass", 900)[0] == 0
    written, summary = through_pipe(content, Choice("lowpass", (900.0,)), form, channels=channels)
    assert (summary.layout.samples, summary.clipped, len(summary.taps)) == (9000, 0, 257)
    expected = soundfile.read(tmp_path / "out.wav", always_2d=True)[0]
    (tmp_path / "out.raw").write_bytes(written)
    y = soundfile.read(tmp_path / "out.raw", channels=channels, samplerate=RATE, always_2d=True, **raw)[0]
    # Not the same cost model: a pipe has no length, so sums and FFTs may part by a rounding.
    step = {"u8": 2.0**-7, "s16": 2.0**-15, "s24": 2.0**-23, "s32": 2.0**-30}.get(form, 1e-6)
    assert np.abs(y - expected).max() <= step


@pytest.mark.parametrize("form", [form for form in FORMATS if form[0] != "f"])
def test_integers_survive_a_pipe(rng, form):
    """Each value of an integer format, the extremes too, decodes and encodes to itself."""
    content = bytes(rng.integers(0, 256, 600 * FORMATS[form], np.uint8)) + b"\x00" * FORMATS[form] * 2
    extremes = (
        b"\xff" * FORMATS[form] + b"\x00" * (FORMATS[form] - 1) + b"\x80" + b"\xff" * (FORMATS[form] - 1) + b"\x7f"
    )
    values = _decode(content + extremes, form)
    assert values.min() >= -1
    assert values.max() < 1
    assert _encode(values.reshape(-1, 1), form) == (content + extremes, 0)


def test_what_leaves_full_scale_is_clipped_and_counted():
    """Integers that a format cannot hold become its largest, NaN becomes 0, and how many is told."""
    block = np.array([[2.0], [-2.0], [np.nan], [0.5]])
    for form in ("u8", "s16", "s24", "s32"):
        content, clipped = _encode(block, form)
        assert clipped == 3
        full = 2.0 ** (1 - 8 * FORMATS[form])
        np.testing.assert_array_equal(_decode(content, form), [1 - full, -1, 0, 0.5])


def test_blocks_of_a_pipe_have_no_seams(rng):
    """Direct sums through a pipe are the bits of `convolve` on the whole."""
    x, k = rng.standard_normal(20_000).astype("<f4"), rng.standard_normal(33)
    written, _ = through_pipe(
        x.tobytes(), Choice("lowpass", (900.0,), num_taps=33), "f32", method="direct", mode="full"
    )
    from scipy.signal import firwin

    k = firwin(33, 900, fs=RATE).astype("f4")
    assert written == maxconv.convolve(x, k, "full", "direct").tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "IN: '-' has no samples; expected at least one"),
        (b"\0" * 7, "IN: '-' ends 3 bytes into a sample of 4 bytes"),
    ],
)
def test_a_pipe_that_ends_wrongly_is_refused(content, message):
    """No samples, or a part of one, is an error that says so."""
    with pytest.raises(maxconv.MaxconvError, match=message):
        through_pipe(content, Choice("lowpass", (900.0,)), "s16", channels=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "out.wav", "--lowpass", "9", "--raw", "s16"], "OUT: got 'out.wav' for IN '-'; expected - for both"),
        (["-", "-", "--lowpass", "9"], "--raw: got nothing; raw samples are one of u8, s16, s24, s32, f32, f64"),
        (["-", "-", "--lowpass", "9", "--raw", "s12"], "--raw: got 's12'"),
        (["-", "-", "--lowpass", "9", "--raw", "s16", "--channels", "0"], "--channels: got 0; expected at least 1"),
        (["-", "-", "--lowpass", "9", "--raw", "s16"], "--lowpass: IN carries no sample rate; give --rate HZ"),
        (["-", "-", "--lowpass", "9", "--raw", "s16", "--plot", "a.png"], "--plot: the samples of a pipe"),
        (["-", "-", "--lowpass", "9", "--raw", "s16", "--no-stream"], "--no-stream: a pipe is not held in memory"),
    ],
)
def test_wrong_arguments_of_pipes_are_refused(run, arguments, message):
    """What pipes need, and what they cannot do, is said before a byte is read."""
    code, err = line_of(run("filter", *arguments))
    assert (code, message in err) == (2, True), err


def test_the_command_filters_standard_input():
    """As a process: samples in, filtered samples out, the summary on standard error."""
    program = "import sys; from maxconv.cli import main; sys.exit(main())"
    arguments = ["filter", "-", "-", "--raw", "s16", "--rate", "8000", "--lowpass", "900"]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, input=b"\1\0" * 9000, capture_output=True, env=dict(os.environ), check=True)
    assert len(done.stdout) == 18_000
    assert done.stderr.startswith(b"-: 9000 samples, 1 channel, 8000 Hz, raw s16; 257 taps; ")
