"""Recordings come back from a file as they went in, and a bad file is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from maxconv import _recording
from maxconv._errors import ArgumentError
from maxconv._filtering import read_blocks
from maxconv._recording import RecordingError, create_recording, open_recording, output_layout

INTEGER_AUDIO = [
    (".wav", "PCM_U8", 8),
    (".wav", "PCM_16", 16),
    (".wav", "PCM_24", 24),
    (".wav", "PCM_32", 32),
    (".flac", "PCM_S8", 8),
    (".flac", "PCM_16", 16),
    (".flac", "PCM_24", 24),
    (".aiff", "PCM_24", 24),
]


def copy(source, out, block=7):
    """Write a recording again, block by block; return the writer."""
    reader = open_recording(source)
    layout = output_layout(out, reader.layout, reader.layout.samples, reader.layout.rate)
    with create_recording(out, out, layout) as writer:
        while len(samples := reader.read(block)):
            writer.write(samples)
    reader.close()
    return writer


@pytest.mark.parametrize(("suffix", "subtype", "bits"), INTEGER_AUDIO)
def test_every_integer_sample_survives_reading_and_writing(rng, tmp_path, suffix, subtype, bits):
    """Integer audio, its largest and smallest samples included, is copied to the bit and none counts as clipped."""
    limit = 2 ** (bits - 1)
    samples = rng.integers(-limit, limit, (101, 2))
    samples[:4, 0] = -limit, limit - 1, 0, -1
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    soundfile.write(source, (samples << (32 - bits)).astype(np.int32), 8000, subtype=subtype)
    assert copy(source, out).clipped == 0
    assert soundfile.info(out).subtype == subtype
    np.testing.assert_array_equal(soundfile.read(out, dtype="int32")[0], samples << (32 - bits))


def test_samples_are_rounded_to_the_nearest_and_clipped_ones_counted(tmp_path):
    """Between two steps the nearer wins; what full scale cannot hold is its end, NaN is 0, and each is counted."""
    step = 2.0**-15
    values = np.array([0.4, 0.6, -0.4, -0.6, 40000, -40000, 32767.4, np.nan, np.inf]) * step
    np.save(tmp_path / "in.npy", values)
    layout = open_recording(tmp_path / "in.npy").layout
    layout = _recording.output_layout(tmp_path / "out.flac", layout, len(values), 100.0)
    layout = _recording.Layout(**{**vars(layout), "subtype": "PCM_16"})
    with create_recording(tmp_path / "out.flac", tmp_path / "out.flac", layout) as writer:
        writer.write(values[:, np.newaxis])
    stored = soundfile.read(tmp_path / "out.flac", dtype="int16")[0]
    np.testing.assert_array_equal(stored, [0, 1, 0, -1, 32767, -32768, 32767, 0, 32767])
    assert writer.clipped == 4


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_float_audio_is_never_clipped(rng, tmp_path, subtype):
    """Floating-point audio beyond full scale is kept as it is."""
    samples = (100 * rng.standard_normal(50)).astype(np.float32)
    soundfile.write(tmp_path / "in.wav", samples, 8000, subtype=subtype)
    assert copy(tmp_path / "in.wav", tmp_path / "out.wav").clipped == 0
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.wav")[0], samples)


@pytest.mark.parametrize(
    ("source", "suffix", "expected"),
    [
        (("in.wav", "PCM_16"), ".flac", ("FLAC", "PCM_16")),
        (("in.wav", "PCM_U8"), ".flac", ("FLAC", "PCM_S8")),
        (("in.wav", "PCM_32"), ".flac", ("FLAC", "PCM_24")),
        (("in.wav", "FLOAT"), ".flac", ("FLAC", "PCM_24")),
        (("in.wav", "DOUBLE"), ".aif", ("AIFF", "DOUBLE")),
        (("in.wav", "PCM_16"), ".ogg", ("OGG", "VORBIS")),
        (("in.wav", "PCM_16"), ".opus", ("OGG", "OPUS")),
        (("in.ogg", "VORBIS"), ".wav", ("WAV", "PCM_16")),
        (("in.flac", "PCM_24"), ".WAVE", ("WAV", "PCM_24")),
    ],
)
def test_the_suffix_decides_the_container_and_the_subtype_stays_near(rng, tmp_path, source, suffix, expected):
    """A subtype stays where the new container has it, else the nearest that loses least is taken."""
    name, subtype = source
    soundfile.write(tmp_path / name, rng.uniform(-0.5, 0.5, 4800), 48000, subtype=subtype)
    out = tmp_path / f"out{suffix}"
    copy(tmp_path / name, out, block=1000)
    found = soundfile.info(out)
    assert (found.format, found.subtype, found.samplerate) == (*expected, 48000)


def test_a_wav_too_large_for_its_counters_becomes_rf64(rng, tmp_path, monkeypatch):
    """Above 4 GB a .wav is written as RF64, which counts in 64 bits, and stays readable."""
    soundfile.write(tmp_path / "in.wav", rng.uniform(-0.5, 0.5, 100), 8000)
    monkeypatch.setattr(_recording, "_WAV_LIMIT_BYTES", 199)
    copy(tmp_path / "in.wav", tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.wav").format == "RF64"
    monkeypatch.setattr(_recording, "_WAV_LIMIT_BYTES", 200)
    copy(tmp_path / "in.wav", tmp_path / "small.wav")
    assert soundfile.info(tmp_path / "small.wav").format == "WAV"


@pytest.mark.parametrize("dtype", ["f2", ">f2", "f4", "f8", ">f4", "i1", "u2", "i4", "u8"])
@pytest.mark.parametrize("shape", [(20,), (20, 1), (20, 3)])
def test_an_npy_keeps_shape_and_float_type(rng, tmp_path, dtype, shape):
    """Floats keep their width; integers of 8 and 16 bits become float32, wider ones float64; no value changes."""
    values = rng.integers(0, 100, shape).astype(dtype)
    np.save(tmp_path / "in.npy", np.asfortranarray(values))
    copy(tmp_path / "in.npy", tmp_path / "out.npy")
    result = np.load(tmp_path / "out.npy")
    kept = values.dtype.newbyteorder("=")
    assert result.dtype == (kept if kept.kind == "f" else np.result_type(kept, np.float32))
    np.testing.assert_array_equal(result, values)


def test_a_csv_keeps_header_and_every_digit(rng, tmp_path):
    """Numbers are written so that they read back the same; a header is kept, quoted where it must be."""
    values = rng.standard_normal((30, 2)) * 10.0 ** rng.integers(-12, 12, (30, 2))
    text = "\ufeff'left, mV',right\r\n" + "".join(f"{a!r}, {b!r}\r\n" for a, b in values.tolist()) + "\r\n"
    (tmp_path / "in.csv").write_text(text.replace("'", '"'), encoding="utf-8", newline="")
    copy(tmp_path / "in.csv", tmp_path / "out.csv")
    first, *rows = (tmp_path / "out.csv").read_text().splitlines()
    assert first == '"left, mV",right'
    np.testing.assert_array_equal(np.array([row.split(",") for row in rows], float), values)


def test_a_header_may_have_unnamed_columns(tmp_path):
    """One word in the first row makes it a header, the other columns may go without a name."""
    (tmp_path / "in.csv").write_text(",right\n1,2\n")
    copy(tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == ",right\n1.0,2.0\n"


def test_float32_is_written_to_csv_with_its_own_digits(tmp_path):
    """0.1 in float32 is written as 0.1, not with the digits of its float64 neighbour."""
    np.save(tmp_path / "in.npy", np.array([0.1, -2.5e-20, 3.0], np.float32))
    copy(tmp_path / "in.npy", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "0.1\n-2.5e-20\n3.0\n"


BAD_CSV = [
    ("a,b\nc,d\n1,2\n", "line 2: 'c' is not a number"),
    ("1,2\n3\n", "line 2: 1 columns; expected 2"),
    ("a\n1,2\n", "line 2: 2 columns; expected 1"),
    ("time,1\n1,2\n", "line 1: 'time' is not a number"),
    ("1;2\n3;4\n", "line 2: '3;4' is not a number; expected numbers separated by commas"),
    ("1\n\n2,5\n", "line 3: 2 columns; expected 1"),
    ("1,2\n,\n3,4\n", "line 2: '' is not a number"),
    (" ,\n1,2\n", "line 1: ' ' is not a number"),
    ("1_000\n2\n", "line 1: '1_000' is not a number"),
    ("1,2\n3,4_0.5\n", "line 2: '4_0.5' is not a number"),
    ("left,right\n", "has no samples; expected at least one"),
    ("\n\n", "has no samples"),
    (",".join(["0"] * 1025), "has 1025 columns"),
    (b"\xff\xfe\x00\x01,1\n", "is not a text file of comma-separated numbers"),
]


@pytest.mark.parametrize(("content", "message"), BAD_CSV)
def test_a_bad_csv_is_refused_with_its_line(tmp_path, content, message):
    """What is wrong in a CSV is said with the line where it is; only an empty line is no sample."""
    path = tmp_path / "in.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecordingError, match=message):
        open_recording(path)


BAD_NPY = [
    (np.ones((2, 3, 4)), r"has shape \(2, 3, 4\); expected \(samples,\) or \(samples, channels\)"),
    (np.float64(3), r"has shape \(\); expected"),
    (np.ones((5, 0)), r"has shape \(5, 0\)"),
    (np.ones((2, 1025)), r"has shape \(2, 1025\).*1 to 1024 channels"),
    (np.empty(0), "has no samples"),
    (np.empty((0, 2), np.float32), "has no samples"),
    (np.array([1, None]), "has dtype object; expected integers or floats"),
    (np.array(["a"]), "has dtype <U1; expected integers or floats"),
    (np.ones(3, complex), "has dtype complex128"),
    (np.ones(3, bool), "has dtype bool"),
    (np.ones(3, "f4,f4"), "expected integers or floats"),
    (np.ones(3, np.longdouble), "of at most 64 bits"),
]


@pytest.mark.parametrize(("values", "message"), BAD_NPY)
def test_a_bad_npy_is_refused_with_what_it_holds(tmp_path, values, message):
    """Shapes that are no signal and elements that are no real numbers are refused; nothing is ever unpickled."""
    np.save(tmp_path / "in.npy", values, allow_pickle=True)
    with pytest.raises(RecordingError, match=rf"IN: .*in\.npy.*{message}"):
        open_recording(tmp_path / "in.npy")


@pytest.mark.parametrize("keep", [1, 5, 60, 200])
def test_an_npy_cut_anywhere_is_refused(tmp_path, keep):
    """A .npy cut in its magic, its header or its numbers is damaged, and said to be."""
    np.save(tmp_path / "whole.npy", np.ones(100))
    (tmp_path / "in.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:keep])
    with pytest.raises(RecordingError, match=r"damaged|cut short"):
        open_recording(tmp_path / "in.npy")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".npy"])
def test_noise_is_no_recording(rng, tmp_path, suffix):
    """Bytes that mean nothing are refused, whatever the suffix promises."""
    path = tmp_path / f"in{suffix}"
    path.write_bytes(rng.bytes(3000))
    with pytest.raises(RecordingError, match=r"IN: .*(libsndfile says: |is not a \.npy file)"):
        open_recording(path)


def test_a_flac_cut_short_is_an_error(rng, tmp_path):
    """A FLAC that ends before its announced length fails, it does not end quietly."""
    soundfile.write(tmp_path / "whole.flac", rng.uniform(-0.5, 0.5, 50_000), 8000)
    data = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "in.flac").write_bytes(data[: len(data) // 2])
    reader = open_recording(tmp_path / "in.flac")
    with pytest.raises(RecordingError, match=r"in\.flac"):
        list(read_blocks(reader, 1000))


def test_a_decoder_that_gives_too_little_is_an_error(rng, tmp_path, monkeypatch):
    """Fewer samples than the file announces, without an error of the decoder, are an error all the same."""
    soundfile.write(tmp_path / "in.wav", rng.uniform(-0.5, 0.5, 100), 8000)
    reader = open_recording(tmp_path / "in.wav")
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda file, count, **how: read(file, count, **how)[:39])
    with pytest.raises(RecordingError, match=r"in\.wav' ends after 39 of 100 samples"):
        list(read_blocks(reader, 40))


def test_a_recording_without_samples_is_refused(tmp_path):
    """A file with a sound header and nothing behind it has nothing to filter."""
    for suffix in (".wav", ".aiff"):
        soundfile.write(tmp_path / f"in{suffix}", np.zeros(0), 8000)
        with pytest.raises(RecordingError, match="has no samples; expected at least one"):
            open_recording(tmp_path / f"in{suffix}")


def test_a_wav_cut_short_is_read_with_a_warning(rng, tmp_path):
    """What is there of a WAV is read, and that it is less than announced is said; a length unknown is no warning."""
    soundfile.write(tmp_path / "whole.wav", rng.uniform(-0.5, 0.5, 1000), 8000)
    data = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "in.wav").write_bytes(data[:1044])
    reader = open_recording(tmp_path / "in.wav")
    assert reader.layout.samples == 500
    assert "announces 2000 bytes of samples but only 1000 are there" in reader.warnings[0]
    at = data.index(b"data") + 4
    (tmp_path / "piped.wav").write_bytes(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :])
    piped = open_recording(tmp_path / "piped.wav")
    assert (piped.layout.samples, piped.warnings) == (1000, ())


def test_audio_needs_a_whole_sample_rate(tmp_path):
    """Audio cannot be written without a rate, with one that is no whole number, or with one beyond an int32."""
    np.save(tmp_path / "in.npy", np.ones(3))
    layout = open_recording(tmp_path / "in.npy").layout
    with pytest.raises(ArgumentError, match="needs a sample rate and IN has none; give --rate HZ"):
        output_layout(tmp_path / "out.wav", layout, 3, None)
    with pytest.raises(ArgumentError, match=r"a whole number of samples per second, got 0\.5"):
        output_layout(tmp_path / "out.wav", layout, 3, 0.5)
    for rate in (2.0**31, 1e300):
        with pytest.raises(ArgumentError, match=r"takes at most 2147483647 samples per second \(int32\), got"):
            output_layout(tmp_path / "out.wav", layout, 3, rate)
    assert output_layout(tmp_path / "out.npy", layout, 3, 1e12).rate == 1e12


@pytest.mark.parametrize("suffix", ["", ".raw", ".txt", ".npz", ".docx"])
def test_an_unknown_suffix_is_refused_on_both_sides(tmp_path, suffix):
    """Neither a recording nor an output may have a suffix that names no format; .raw says nothing of its samples."""
    path = tmp_path / f"in{suffix}"
    path.write_bytes(b"1")
    with pytest.raises(ArgumentError, match=r"IN: .* unknown suffix; expected \.wav"):
        open_recording(path)
    np.save(tmp_path / "in.npy", np.ones(3))
    with pytest.raises(ArgumentError, match=r"OUT: .* unknown suffix; expected \.wav"):
        output_layout(path, open_recording(tmp_path / "in.npy").layout, 3, 1.0)
