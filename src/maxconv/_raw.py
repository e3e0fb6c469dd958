"""Raw samples through pipes: bytes of standard input filtered onto standard output, as they come.

u8 s16 s24 s32     integers, little-endian, channel by channel; fractions of full scale, as in files
f32 f64            floats, little-endian
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ._errors import ArgumentError
from ._filtering import BLOCK, Choice, Summary, convolve_blocks, fft_length, find_taps
from ._recording import Layout, RecordingError, blame, quantize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from ._recording import Block

FORMATS = {"u8": 1, "s16": 2, "s24": 3, "s32": 4, "f32": 4, "f64": 8}
"""Bytes of a sample value."""

_FRAMES = 4096  # read at a time: 85 ms at 48 kHz, and enough for a call to cost more than its overhead
_WIDE = ("s24", "s32", "f64")  # float32 would lose digits of these, or of sums of them


def filter_raw(
    source: BinaryIO,
    sink: BinaryIO,
    choice: Choice,
    *,
    form: str,
    channels: int,
    rate: float | None,
    mode: str,
    method: str,
    device: str,
    name: Path,
) -> Summary:
    """Filter the raw samples of one stream onto another until the first ends.

    Parameters
    ----------
    source, sink : binary file
        What to read and to write; each filtered block is flushed.
    choice, rate, mode, method, device : object
        As for `maxconv._filtering.filter_file`; the device is settled.
    form : str
        One of `FORMATS`, of both streams.
    channels : int
        How many values make a sample.
    name : Path
        What errors call both streams.

    Raises
    ------
    ArgumentError
        Arguments that contradict each other.
    RecordingError
        No samples come, the last one is cut short, or nobody reads the output.
    """
    dtype = np.dtype(np.float64 if form in _WIDE else np.float32)
    layout = Layout(BLOCK // channels, channels, rate, dtype, dtype, container="raw", subtype=form)
    taps, warnings = find_taps(choice, layout, rate)
    nfft = fft_length(layout, taps, mode, method, device)
    samples = clipped = 0
    blocks = _read(source, form, channels, dtype, name)
    for filtered in convolve_blocks(blocks, taps, mode, device=device, count=_FRAMES, nfft=nfft):
        content, beyond = _encode(filtered, form)
        with blame("OUT", name):
            sink.write(content)
            sink.flush()
        samples, clipped = samples + len(filtered), clipped + beyond
    written = Layout(samples, channels, rate, dtype, dtype, container="raw", subtype=form)
    return Summary(written, taps, clipped, warnings)


def check_format(form: str | None, channels: int) -> str:
    """Return the format of raw samples, or raise `ArgumentError` for one that is missing or unknown."""
    if form not in FORMATS:
        came = "nothing" if form is None else f"'{form}'"
        msg = f"--raw: got {came}; raw samples are one of {', '.join(FORMATS)}"
        raise ArgumentError(msg)
    if channels < 1:
        msg = f"--channels: got {channels}; expected at least 1"
        raise ArgumentError(msg)
    return form


def _read(source: BinaryIO, form: str, channels: int, dtype: np.dtype[Any], name: Path) -> Iterator[Block]:
    """Yield blocks of shape (n, channels) until the stream ends."""
    frame = FORMATS[form] * channels
    any_came = False
    while True:
        with blame("IN", name):
            content = source.read(_FRAMES * frame)
        if len(content) % frame:
            msg = f"IN: '{name}' ends {len(content) % frame} bytes into a sample of {frame} bytes"
            raise RecordingError(msg)
        if not content:
            break
        any_came = True
        yield _decode(content, form).astype(dtype, copy=False).reshape(-1, channels)
    if not any_came:
        msg = f"IN: '{name}' has no samples; expected at least one"
        raise RecordingError(msg)


def _decode(content: bytes, form: str) -> npt.NDArray[Any]:
    """Return the values of some bytes, those of integers as fractions of full scale."""
    if form[0] == "f":
        return np.frombuffer(content, f"<f{FORMATS[form]}")
    if form == "u8":
        return (np.frombuffer(content, np.uint8) - 128.0) / 128
    if form == "s24":  # into the upper three bytes of an int32
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0] / 2.0**31
    return np.frombuffer(content, f"<i{FORMATS[form]}") / 2.0 ** (8 * FORMATS[form] - 1)


def _encode(block: Block, form: str) -> tuple[bytes, int]:
    """Return a block as bytes, integers rounded and clipped, and how many values were clipped."""
    if form[0] == "f":
        return block.astype(f"<f{FORMATS[form]}", order="C").tobytes(), 0
    steps, clipped = quantize(block, 8 * FORMATS[form])
    fitted = steps.astype("<i4", copy=False)
    if form == "u8":
        return (fitted + 128).astype(np.uint8).tobytes(), clipped
    if form == "s24":
        return np.ascontiguousarray(fitted[..., None].view(np.uint8)[..., :3]).tobytes(), clipped
    return fitted.astype(f"<i{FORMATS[form]}").tobytes(), clipped
