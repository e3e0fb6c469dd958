"""Recordings: sampled signals in files, read and written block by block.

    .wav .flac .ogg .aiff ...   whatever libsndfile handles; integer samples are read as fractions of full scale
    .npy                        (samples,) or (samples, channels), real numbers; carries no sample rate
    .csv                        one row per sample, one column per channel, a header row if the first row is words

A block is an array of shape (samples, channels). Every error names the command-line argument that brought the file.
Reading and writing share a file, long as it is, because the two halves of each format must agree.
"""

from __future__ import annotations

import csv
import re
import stat
from array import array
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ._errors import ArgumentError, MaxconvError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt

    Block = npt.NDArray[np.floating[Any]]

_MAX_RANK = 2
_MAX_ITEM_BYTES = 8
MAX_CHANNELS = 1024  # libsndfile's own limit; a longer second axis is nearly always (channels, samples) by mistake
_WAV_LIMIT_BYTES = 2**32 - 2**16  # a WAV counts its bytes in 32 bits; the margin is for its headers
_SUFFIX_ALIASES = {"AIF": "AIFF", "AIFC": "AIFF", "OGA": "OGG", "OPUS": "OGG", "SND": "AU", "WAVE": "WAV"}
_SAMPLE_BITS = re.compile(r"(?:PCM|ALAC|DWVW)_[SU]?(\d+)")
_CUT_SHORT = re.compile(r"^(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_LENGTH_UNKNOWN = 0x7FFF0000  # a recorder that wrote to a pipe could not go back, and left the largest length there is
# float32 cannot hold these samples, or (20 and 24 bits) not their sums: long filters would be off by several steps.
_WIDE_SUBTYPES = ("ALAC_20", "ALAC_24", "DWVW_24", "PCM_24", "PCM_32", "ALAC_32", "DOUBLE")
_MOST_AUDIO_RATE = 2**31 - 1  # libsndfile counts samples per second in an int32
_NEAREST_SUBTYPES = {
    "PCM_S8": ("PCM_U8", "PCM_16"),
    "PCM_U8": ("PCM_S8", "PCM_16"),
    "PCM_24": ("PCM_32", "FLOAT"),
    "PCM_32": ("DOUBLE", "PCM_24"),
    "FLOAT": ("DOUBLE", "PCM_24"),
    "DOUBLE": ("FLOAT", "PCM_24"),
}


class RecordingError(MaxconvError, RuntimeError):
    """A file that cannot be read or written, or holds something else than was expected."""


@dataclass(frozen=True)
class Layout:
    """All that a file says about its samples, apart from the samples.

    Attributes
    ----------
    samples, channels
        Length of the signal, and how many run side by side; both at least 1.
    rate
        Samples per second, None where the format has no place for it.
    dtype
        What a block is made of: float64 if float32, or sums in it, would lose digits of the file, else float32.
    stored
        What a `.npy` of these samples is made of; `dtype`, or float16.
    flat
        A `.npy` of them has the shape (samples,), not (samples, 1).
    container, subtype
        libsndfile's names, such as "WAV" and "PCM_16"; empty for `.npy` and `.csv`.
    header
        Header row of a `.csv`; empty if there is none.
    """

    samples: int
    channels: int
    rate: float | None
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    flat: bool = False
    container: str = ""
    subtype: str = ""
    header: tuple[str, ...] = ()


class Reader(Protocol):
    """A recording that is open for reading, from its first sample to its last."""

    layout: Layout
    warnings: tuple[str, ...]

    def read(self, count: int) -> Block:
        """Return the next `count` samples, shape (count, channels); fewer at the end, none after it."""

    def close(self) -> None:
        """Release the file."""


class Writer(Protocol):
    """A recording that is being written."""

    clipped: int  # sample values that the format cannot hold, so written as its largest, or as 0 for NaN

    def write(self, block: Block) -> None:
        """Append a block, shape (samples, channels)."""

    def __enter__(self) -> Any:
        """Return the writer itself."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Finish and close the file."""


# ---- reading


def open_recording(path: Path, argument: str = "IN") -> Reader:
    """Open a recording, its format told by the suffix.

    Parameters
    ----------
    path : Path
        The file.
    argument : str
        Command-line argument to name in errors.

    Raises
    ------
    RecordingError
        The file is missing, unreadable, empty, damaged, or holds no samples.
    ArgumentError
        The suffix names no known format.
    """
    check_readable(path, argument)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        reader: Reader = _read_npy(path, argument)
    elif suffix == ".csv":
        reader = _read_csv(path, argument)
    else:
        _audio_container(path, argument)
        reader = _AudioReader(path, argument)
    if not reader.layout.samples:
        reader.close()
        msg = f"{argument}: '{path}' has no samples; expected at least one"
        raise RecordingError(msg)
    return reader


def check_readable(path: Path, argument: str) -> None:
    """Raise `RecordingError` unless `path` is a regular file with at least one byte that may be read."""
    with blame(argument, path):
        if not stat.S_ISREG(path.stat().st_mode):
            what = "a directory" if path.is_dir() else "not a regular file"
            msg = f"{argument}: '{path}' is {what}; expected a file"
            raise RecordingError(msg)
        with path.open("rb") as file:
            if not file.read(1):
                msg = f"{argument}: '{path}' is empty (0 bytes)"
                raise RecordingError(msg)


@contextmanager
def blame(argument: str, path: Path) -> Iterator[None]:
    """Turn an error of the operating system or of libsndfile into a `RecordingError` that names argument and file."""
    try:
        yield
    except FileNotFoundError as error:
        msg = f"{argument}: '{path}' does not exist"
        raise RecordingError(msg) from error
    except PermissionError as error:
        msg = f"{argument}: no permission to open '{path}'"
        raise RecordingError(msg) from error
    except OSError as error:
        msg = f"{argument}: '{path}': {error.strerror or error}"
        raise RecordingError(msg) from error
    except Exception as error:
        text = getattr(error, "error_string", None)  # only libsndfile's errors have one
        if text is None:
            raise
        msg = f"{argument}: '{path}': libsndfile says: {text}"
        raise RecordingError(msg) from error


class _AudioReader:
    """A file that libsndfile reads."""

    def __init__(self, path: Path, argument: str) -> None:
        sf = _soundfile()
        self._path, self._argument, self._done = path, argument, 0
        with blame(argument, path):
            self._file = sf.SoundFile(str(path))
        dtype = np.dtype(np.float64 if self._file.subtype in _WIDE_SUBTYPES else np.float32)
        self.layout = Layout(
            samples=self._file.frames,
            channels=self._file.channels,
            rate=float(self._file.samplerate),
            dtype=dtype,
            stored=dtype,
            flat=self._file.channels == 1,
            container=self._file.format,
            subtype=self._file.subtype,
        )
        self.warnings = self._find_warnings()

    def _find_warnings(self) -> tuple[str, ...]:
        found = _CUT_SHORT.search(self._file.extra_info)
        if found is None or not int(found[2]) < int(found[1]) < _LENGTH_UNKNOWN:
            return ()
        text = f"its header announces {found[1]} bytes of samples but only {found[2]} are there; it may be cut short"
        return (f"{self._argument}: '{self._path}': {text}",)

    def read(self, count: int) -> Block:
        count = min(count, self.layout.samples - self._done)
        with blame(self._argument, self._path):
            block: Block = self._file.read(count, dtype=self.layout.dtype.name, always_2d=True)
        self._done += len(block)
        if len(block) < count:
            msg = f"{self._argument}: '{self._path}' ends after {self._done} of {self.layout.samples} samples: damaged?"
            raise RecordingError(msg)
        return block

    def close(self) -> None:
        self._file.close()


class _ArrayReader:
    """An array of shape (samples, channels), in memory or mapped from a file."""

    warnings: tuple[str, ...] = ()

    def __init__(self, values: npt.NDArray[Any], layout: Layout) -> None:
        self._values, self._done = values, 0
        self.layout = layout

    def read(self, count: int) -> Block:
        block: Block = self._values[self._done : self._done + count].astype(self.layout.dtype)
        self._done += len(block)
        return block

    def close(self) -> None:
        del self._values


def _read_npy(path: Path, argument: str) -> _ArrayReader:
    values = map_npy(path, argument)
    layout = array_layout(values.shape, values.dtype, None, f"{argument}: '{path}'")
    return _ArrayReader(values.reshape(-1, layout.channels), layout)


def array_layout(shape: tuple[int, ...], dtype: np.dtype[Any], rate: float | None, where: str) -> Layout:
    """Describe an array of samples; `where` begins the `RecordingError` about one that is none."""
    channels = (*shape, 1)[1] if shape else 0
    if len(shape) > _MAX_RANK or not 1 <= channels <= MAX_CHANNELS:
        expected = f"(samples,) or (samples, channels) with 1 to {MAX_CHANNELS} channels"
        msg = f"{where} has shape {shape}; expected {expected}"
        raise RecordingError(msg)
    check_real(dtype, where)
    # float32 holds 8- and 16-bit integers exactly, wider ones it does not; this is also NumPy's rule.
    wide = np.result_type(dtype, np.float32)
    stored = np.dtype(np.float16) if (dtype.kind, dtype.itemsize) == ("f", 2) else wide  # any byte order
    return Layout(shape[0], channels, rate, wide, stored, flat=len(shape) == 1)


def check_real(dtype: np.dtype[Any], where: str) -> None:
    """Refuse elements that are no real numbers of at most 64 bits."""
    if dtype.kind not in "iuf" or dtype.itemsize > _MAX_ITEM_BYTES:
        msg = f"{where} has dtype {dtype}; expected integers or floats of at most 64 bits"
        raise RecordingError(msg)


def map_npy(path: Path, argument: str) -> npt.NDArray[Any]:
    """Map a `.npy` file of real numbers into memory, read-only; nothing is ever unpickled.

    Raises
    ------
    RecordingError
        The file is damaged, or its elements are not real numbers of at most 64 bits.
    """
    with blame(argument, path), path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            short_header = version == (1, 0)
            read = np.lib.format.read_array_header_1_0 if short_header else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
        except (ValueError, EOFError) as error:
            msg = f"{argument}: '{path}' is not a .npy file, or it is damaged ({error})"
            raise RecordingError(msg) from error
        check_real(dtype, f"{argument}: '{path}'")
        if 0 in shape:  # nothing to map
            return np.empty(shape, dtype)
        try:
            values: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            msg = f"{argument}: '{path}' is cut short: its header announces shape {shape} of {dtype} ({error})"
            raise RecordingError(msg) from error
    return values


def _read_csv(path: Path, argument: str) -> _ArrayReader:
    numbers = array("d")
    header: tuple[str, ...] = ()
    width = 0
    try:
        with blame(argument, path), path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            for row in rows:
                if len(row) <= 1 and not "".join(row).strip():
                    continue
                if not width and _is_header(row):
                    header, width = tuple(row), len(row)
                    continue
                width = width or len(row)
                numbers.extend(_csv_numbers(row, width, f"{argument}: '{path}', line {rows.line_num}"))
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{argument}: '{path}' is not a text file of comma-separated numbers ({error})"
        raise RecordingError(msg) from error
    if width > MAX_CHANNELS:
        msg = f"{argument}: '{path}' has {width} columns; expected one per channel, at most {MAX_CHANNELS}"
        raise RecordingError(msg)
    values = np.frombuffer(numbers, np.float64).reshape(-1, max(width, 1))
    dtype = values.dtype
    return _ArrayReader(values, Layout(*values.shape, None, dtype, dtype, flat=width == 1, header=header))


def _csv_numbers(row: list[str], width: int, where: str) -> list[float]:
    if len(row) != width:
        msg = f"{where}: {len(row)} columns; expected {width}, as in the rows before"
        raise RecordingError(msg)
    return [parse_number(cell, where) for cell in row]


def parse_number(text: str, where: str) -> float:
    """Return the number that `text` spells; `where` begins the `RecordingError` if it spells none."""
    # Python reads 1_000 as 1000; in a file it is a slip.
    if not _is_number(text) or "_" in text:
        msg = f"{where}: {text!r} is not a number; expected numbers separated by commas"
        raise RecordingError(msg)
    return float(text)


def _is_header(row: list[str]) -> bool:
    return any(cell.strip() for cell in row) and not any(map(_is_number, row))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# ---- writing


def output_layout(path: Path, source: Layout, samples: int, rate: float | None) -> Layout:
    """Say how `samples` samples made from `source` are to be written to `path`.

    Rate, channels, header and dtype stay. For audio the container follows the suffix of `path`; the subtype stays where
    the container has it, else it is the nearest that loses no digits, else the nearest.

    Raises
    ------
    ArgumentError
        An unknown suffix, or an audio format without a whole sample rate that it can hold.
    """
    container = subtype = ""
    if path.suffix.lower() not in (".npy", ".csv"):
        container = _audio_container(path, "OUT")
        if rate is None:
            msg = f"--rate: OUT '{path}' needs a sample rate and IN has none; give --rate HZ"
            raise ArgumentError(msg)
        if rate > _MOST_AUDIO_RATE:
            msg = f"--rate: OUT '{path}' takes at most {_MOST_AUDIO_RATE} samples per second (int32), got {rate:.12g}"
            raise ArgumentError(msg)
        if rate != int(rate):
            msg = f"--rate: OUT '{path}' needs a whole number of samples per second, got {rate:.12g}"
            raise ArgumentError(msg)
        wav_family = container == "WAV" and source.container in ("WAV", "WAVEX", "RF64")
        container = source.container if wav_family else container
        subtype = _nearest_subtype(path, container, source)
        size = _SAMPLE_BITS.fullmatch(subtype)
        sample_bytes = int(size[1]) // 8 if size else 8
        if container in ("WAV", "WAVEX") and samples * source.channels * sample_bytes > _WAV_LIMIT_BYTES:
            container = "RF64"
    return Layout(
        samples=samples,
        channels=source.channels,
        rate=rate,
        dtype=source.dtype,
        stored=source.stored,
        flat=source.flat,
        container=container,
        subtype=subtype,
        header=source.header,
    )


def _soundfile() -> Any:
    import soundfile

    return soundfile


def _audio_container(path: Path, argument: str) -> str:
    name = path.suffix[1:].upper()
    name = _SUFFIX_ALIASES.get(name, name)
    if name == "RAW" or name not in _soundfile().available_formats():
        msg = f"{argument}: '{path}' has an unknown suffix; expected .wav, .flac, .ogg, .aiff, .npy, .csv or alike"
        raise ArgumentError(msg)
    return name


def _nearest_subtype(path: Path, container: str, source: Layout) -> str:
    sf = _soundfile()
    wanted = source.subtype.replace("ALAC", "PCM") or ("DOUBLE" if source.dtype == np.float64 else "FLOAT")
    if path.suffix.lower() == ".opus":
        wanted = "OPUS"
    for name in (source.subtype, wanted, *_NEAREST_SUBTYPES.get(wanted, ())):
        if name and sf.check_format(container, name):
            return str(name)
    default = sf.default_subtype(container)
    if default is None or not sf.check_format(container, default):
        msg = f"OUT: libsndfile cannot write {container} files such as '{path}'"
        raise ArgumentError(msg)
    return str(default)


def create_recording(path: Path, out: Path, layout: Layout) -> Writer:
    """Start writing a recording to `path`.

    Parameters
    ----------
    path : Path
        Where to write.
    out : Path
        Its name later: the suffix decides the format, and errors name it.
    layout : Layout
        What will be written, as `output_layout` says.

    Raises
    ------
    RecordingError
        The file cannot be created, or libsndfile does not write this layout.
    """
    if out.suffix.lower() == ".npy":
        return _NpyWriter(path, out, layout)
    if out.suffix.lower() == ".csv":
        return _CsvWriter(path, out, layout)
    return _AudioWriter(path, out, layout)


class _FileWriter:
    """What the three writers share: `self._file`, and closing it."""

    _file: Any

    def __init__(self, out: Path) -> None:
        self._out = out
        self.clipped = 0

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            with blame("OUT", self._out):
                self._file.close()
        else:
            # The file is thrown away: a second error, in closing it, would hide the first.
            with suppress(Exception):
                self._file.close()


class _AudioWriter(_FileWriter):
    """Writes by libsndfile, but rounds itself: libsndfile's float to integer paths truncate and clip in silence."""

    def __init__(self, path: Path, out: Path, layout: Layout) -> None:
        super().__init__(out)
        bits = _SAMPLE_BITS.fullmatch(layout.subtype)
        self._bits = int(bits[1]) if bits else None
        self._any_float = layout.subtype in ("FLOAT", "DOUBLE")
        with blame("OUT", out):
            self._file = _soundfile().SoundFile(
                str(path),
                "w",
                samplerate=int(layout.rate or 0),
                channels=layout.channels,
                format=layout.container,
                subtype=layout.subtype,
            )

    def write(self, block: Block) -> None:
        with blame("OUT", self._out):
            self._file.write(self._fit(block))

    def _fit(self, block: Block) -> npt.NDArray[Any]:
        """Return what libsndfile is to store: the block itself, or its samples rounded and clipped to the subtype."""
        if self._any_float:
            return block
        if self._bits is None:  # lossy subtypes: their encoders index tables by the sample, so it must be in range
            fitted, beyond = _clip(block.astype(np.float64), -1.0, 1.0)
        else:
            steps, beyond = quantize(block, self._bits)
            # libsndfile takes integers of all subtypes from the high bits of an int32.
            fitted = np.left_shift(steps, 32 - self._bits, dtype=np.int32)
        self.clipped += beyond
        return fitted


def quantize(block: Block, bits: int) -> tuple[npt.NDArray[np.int32], int]:
    """Round fractions of full scale to signed integers; return them, and how many did not fit and were clipped."""
    full_scale = 2.0 ** (bits - 1)
    fitted, beyond = _clip(np.rint(block.astype(np.float64) * full_scale), -full_scale, full_scale - 1)
    return fitted.astype(np.int32, order="C"), beyond


def _clip(values: npt.NDArray[Any], low: float, high: float) -> tuple[npt.NDArray[Any], int]:
    """Return values within bounds, 0 for NaN, and how many were not."""
    beyond = int(np.count_nonzero(~((values >= low) & (values <= high))))  # the negation counts NaN too
    return np.clip(np.nan_to_num(values, nan=0.0), low, high), beyond


class _NpyWriter(_FileWriter):
    """Writes plainly behind a header: a memory map would die by SIGBUS where a write fails on a full disk."""

    def __init__(self, path: Path, out: Path, layout: Layout) -> None:
        super().__init__(out)
        self._layout = layout
        shape = (layout.samples,) if layout.flat else (layout.samples, layout.channels)
        with blame("OUT", out):
            self._file = path.open("wb")
            descr = np.lib.format.dtype_to_descr(layout.stored)
            np.lib.format.write_array_header_1_0(self._file, {"shape": shape, "fortran_order": False, "descr": descr})

    def write(self, block: Block) -> None:
        with blame("OUT", self._out), np.errstate(over="ignore"):  # beyond float16's range is Inf, as in NumPy
            self._file.write(block.astype(self._layout.stored, order="C").tobytes())


class _CsvWriter(_FileWriter):
    """Writes each number with the fewest digits that read back as the same number."""

    def __init__(self, path: Path, out: Path, layout: Layout) -> None:
        super().__init__(out)
        with blame("OUT", out):
            self._file = path.open("w", newline="", encoding="utf-8")
            if layout.header:
                csv.writer(self._file, lineterminator="\n").writerow(layout.header)

    def write(self, block: Block) -> None:
        with blame("OUT", self._out):
            self._file.writelines(",".join(row) + "\n" for row in block.astype(str).tolist())
