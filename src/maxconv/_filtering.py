"""Filter a recording into a new file: taps from a file or a design, then block by block, then put in place at once.

    taps        one number per line or comma-separated, a .npy vector, or an impulse response (a recording)
    designs     linear-phase low-, high- and band-pass filters by `scipy.signal.firwin` (Hamming window)
    blocks      y[i] = sum_j taps[j] * x[i - j]; each block of x keeps a halo of len(taps) - 1 samples of the one before

Memory is bounded by block, taps and channels, whatever the length of the recording (a CSV is held as numbers). The
result has the bits of one call on the whole recording: sums are the same wherever it is cut, and for FFTs it is cut
where the blocks of that one call begin.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import maxconv

from ._engine import devices
from ._errors import ArgumentError
from ._methods import fft_mended, is_summed
from ._plan import choose, prefers_gpu
from ._problem import part_of_full
from ._recording import (
    Layout,
    Reader,
    RecordingError,
    blame,
    check_readable,
    create_recording,
    map_npy,
    open_recording,
    output_layout,
    parse_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt

    from ._recording import Block

    Kind = Literal["taps", "impulse-response", "lowpass", "highpass", "bandpass"]

BLOCK = 1 << 18  # sample values in a block, all channels together: 2 MB of float64; ogg encoders crash above 2**20
MIN_TAPS, DEFAULT_TAPS, MOST_DEFAULT_TAPS, MOST_TAPS = 3, 257, 2**16 + 1, 2**20 + 1
_HAMMING_WIDTH = 3.3  # transition band of a Hamming-window design, in units of rate / taps (Ifeachor & Jervis, ch. 7)


@dataclass(frozen=True)
class Choice:
    """Which filter to apply: `kind` is the option's name without dashes, and one of `edges` and `file` is given.

    Attributes
    ----------
    kind
        The option.
    edges
        Cut-off frequencies in Hz, one, or two for a band-pass.
    file
        Where the taps or the impulse response are.
    num_taps
        How many taps to design, odd, from 3 to 2^20 + 1; None: see `design_taps`.
    """

    kind: Kind
    edges: tuple[float, ...] = ()
    file: Path | None = None
    num_taps: int | None = None


@dataclass(frozen=True)
class Summary:
    """What `filter_file` did."""

    layout: Layout
    taps: npt.NDArray[Any]  # (K, 1) or (K, channels)
    clipped: int
    warnings: tuple[str, ...]


def filter_file(
    source: Path,
    out: Path,
    choice: Choice,
    *,
    mode: str | None = None,
    rate: float | None = None,
    device: str | None = None,
    method: str = "auto",
    force: bool = False,
    block: int | None = BLOCK,
    track: Callable[[Iterable[Block], Layout], Iterable[Block]] | None = None,
) -> Summary:
    """Filter the recording `source` into the new file `out`.

    Parameters
    ----------
    source, out : Path
        Input and output; the output's suffix decides its format.
    choice : Choice
        The filter.
    mode : {"full", "same", "valid"}, optional
        Which part of the full convolution to keep, as in `maxconv.convolve`; "same", or for an impulse response "full".
    rate : float, optional
        Samples per second, for a `source` whose format has none.
    device : str, optional
        As in `maxconv.convolve`; "auto" is decided once, for all blocks.
    method : {"auto", "direct", "fft"}
        As in `maxconv.convolve`, decided once, for the whole recording; a GPU sums.
    force : bool
        Whether an existing `out` may be replaced.
    block : int or None
        Sample values held at a time, all channels together; None for all of them. The result does not depend on it on
        one device.
    track : callable, optional
        Wraps the blocks that are read, to show progress.

    Raises
    ------
    ArgumentError
        Arguments that contradict each other or the recording.
    RecordingError
        A file that cannot be read or written. As on any other error, `out` is as it was before.
    """
    inputs = (source,) if choice.file is None else (source, choice.file)
    with closing(open_recording(source)) as reader:
        check_output(out, inputs, force=force)
        layout = reader.layout
        work = settle(choice, layout, rate, mode)
        target = output_layout(out, layout, work.samples, work.rate)
        count = layout.samples if block is None else max(1, block // layout.channels)
        device = _settle_device(device, layout, count, len(work.taps))
        nfft = fft_length(layout, work.taps, work.mode, method, device)
        blocks: Iterable[Block] = read_blocks(reader, count)
        if track is not None:
            blocks = track(blocks, layout)
        with replacing(out, force=force) as temporary, create_recording(temporary, out, target) as writer:
            for filtered in convolve_blocks(blocks, work.taps, work.mode, device=device, count=count, nfft=nfft):
                writer.write(filtered)
        return Summary(target, work.taps, writer.clipped, reader.warnings + work.warnings)


class Work(NamedTuple):
    """What is to be done to a recording."""

    taps: npt.NDArray[Any]
    """As `find_taps` gives them."""
    mode: str
    """Which part of the full convolution to keep."""
    samples: int
    """Length of the result."""
    rate: float | None
    """Samples per second."""
    warnings: tuple[str, ...]
    """About the taps."""


def settle(choice: Choice, layout: Layout, rate: float | None, mode: str | None) -> Work:
    """Find the taps for a recording and say what becomes of it; the arguments are those of `filter_file`."""
    known_rate = agree_on_rate(layout.rate, rate, "IN")
    taps, warnings = find_taps(choice, layout, known_rate)
    mode = mode or ("full" if choice.kind == "impulse-response" else "same")
    samples = output_length(layout.samples, len(taps), mode)
    if samples < 1:
        msg = f"--mode: 'valid' leaves no samples of {layout.samples} under {len(taps)} taps; expected full or same"
        raise ArgumentError(msg)
    return Work(taps, mode, samples, known_rate, warnings)


def _settle_device(device: str | None, layout: Layout, count: int, taps: int) -> str:
    """Decide "auto" once for a file: CPU and GPU add in different order, so blocks must not go to either in turn."""
    device = maxconv.get_default_device() if device is None else device
    if device != "auto":
        return device
    # The channels of a block weigh as much as one signal of all their samples.
    samples = min(count, layout.samples) * layout.channels + taps - 1
    faster = prefers_gpu(part_of_full(samples, taps, "valid", flip=True), layout.dtype.itemsize, "direct")
    return "gpu:0" if faster and devices.accelerator_count() > 0 else "cpu"


# ---- taps


def find_taps(choice: Choice, layout: Layout, rate: float | None) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Return the taps, shape (K, 1) or (K, channels), in the dtype of `layout`; and warnings about them."""
    warnings: tuple[str, ...] = ()
    if choice.file is None:
        designed, warnings = design_taps(choice, rate)
        taps = designed[:, np.newaxis]
    elif choice.kind == "taps":
        taps = read_taps(choice.file)[:, np.newaxis]
    else:
        taps, warnings = _read_impulse_response(choice.file, layout, rate)
    with np.errstate(over="ignore"):
        cast: npt.NDArray[Any] = taps.astype(layout.dtype)
    bad = np.argwhere(~np.isfinite(cast))
    if len(bad):
        k = int(bad[0, 0])
        msg = f"--{choice.kind}: tap {k} is {taps[k, bad[0, 1]]}; expected finite {layout.dtype} numbers"
        raise RecordingError(msg)
    return cast, warnings


def read_taps(path: Path) -> npt.NDArray[Any]:
    """Read taps, shape (K,), from a `.npy` vector or from text: numbers separated by line ends, commas or blanks.

    Raises
    ------
    ArgumentError
        Another suffix than .npy, .txt or .csv.
    RecordingError
        The file is missing, unreadable, empty, not numeric, or not a vector.
    """
    argument = "--taps"
    check_readable(path, argument)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        taps: npt.NDArray[Any] = map_npy(path, argument)
        if taps.ndim != 1:
            msg = f"{argument}: '{path}' has shape {taps.shape}; expected (taps,)"
            raise RecordingError(msg)
    elif suffix in (".txt", ".csv"):
        taps = np.array(_read_numbers(path, argument))
    else:
        msg = f"{argument}: '{path}' has an unknown suffix; expected .npy, .txt or .csv"
        raise ArgumentError(msg)
    if not len(taps):
        msg = f"{argument}: '{path}' holds no taps; expected at least one number"
        raise RecordingError(msg)
    return taps


def _read_numbers(path: Path, argument: str) -> list[float]:
    numbers: list[float] = []
    try:
        with blame(argument, path):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        msg = f"{argument}: '{path}' is not a text file ({error})"
        raise RecordingError(msg) from error
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].replace(",", " ").split()
        numbers += [parse_number(word, f"{argument}: '{path}', line {number}") for word in words]
    return numbers


def _read_impulse_response(path: Path, layout: Layout, rate: float | None) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    argument = "--impulse-response"
    with closing(open_recording(path, argument)) as reader:
        response = reader.layout
        if rate is not None and response.rate is not None and rate != response.rate:
            msg = f"{argument}: '{path}' has {response.rate:.12g} Hz; expected the {rate:.12g} Hz of IN"
            raise RecordingError(msg)
        if response.channels not in (1, layout.channels):
            wanted = "1" if layout.channels == 1 else f"1 or {layout.channels}"
            msg = f"{argument}: '{path}' has {response.channels} channels; expected {wanted}, as IN"
            raise RecordingError(msg)
        return reader.read(response.samples), reader.warnings


def design_taps(choice: Choice, rate: float | None) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Design a linear-phase filter with a Hamming window, and warn if it is too short for its cut-offs.

    Without `num_taps` there are 257, or as many more, to 65537, as it takes to make the transition band half as wide as
    the lowest cut-off (or the pass band, if narrower): 257 taps cannot tell 20 Hz from 0 at 48 kHz.

    Parameters
    ----------
    choice : Choice
        Kind, edges and number of taps.
    rate : float or None
        Samples per second.

    Returns
    -------
    tuple
        Taps of shape (K,) in float64, K odd; and warnings.

    Raises
    ------
    ArgumentError
        No rate; a cut-off outside (0, rate / 2); LO >= HI; an even, too small or too large number of taps.
    """
    option, edges = f"--{choice.kind}", choice.edges
    if rate is None:
        msg = f"{option}: IN carries no sample rate; give --rate HZ"
        raise ArgumentError(msg)
    half = rate / 2
    for edge in edges:
        if not (0 < edge < half and edge / half > 0):
            msg = f"{option}: got {edge:.12g} Hz; expected more than 0 and less than half the rate, {half:.12g} Hz"
            raise ArgumentError(msg)
    relative = [edge / half for edge in edges]
    if sorted(set(relative)) != relative:
        msg = f"{option}: got LO = {edges[0]:.12g} and HI = {edges[-1]:.12g} Hz; expected LO < HI"
        raise ArgumentError(msg)
    if choice.num_taps is not None and (not MIN_TAPS <= choice.num_taps <= MOST_TAPS or choice.num_taps % 2 == 0):
        expected = f"an odd number from {MIN_TAPS} to {MOST_TAPS}, symmetric about a tap"
        msg = f"--num-taps: got {choice.num_taps}; expected {expected}"
        raise ArgumentError(msg)
    narrowest = min(edges[0], edges[-1] - edges[0]) if len(edges) > 1 else edges[0]
    needed = _odd_at_least(min(_HAMMING_WIDTH * rate / narrowest * 2, 2 * MOST_TAPS))  # it may be infinite
    count = choice.num_taps or min(max(DEFAULT_TAPS, needed), MOST_DEFAULT_TAPS)
    # SciPy takes seconds to import: every other error comes first.
    from scipy.signal import firwin

    taps = firwin(count, edges, pass_zero=choice.kind == "lowpass", fs=rate)
    width = _HAMMING_WIDTH * rate / count
    if width <= narrowest:
        return taps, ()
    text = f"{count} taps change over about {width:.3g} Hz, too much for {narrowest:.3g} Hz at a rate of {rate:.12g} Hz"
    advice = f"--num-taps {needed} would do" if needed <= MOST_TAPS else "no practical number of taps separates it"
    return taps, (f"{option}: {text}; {advice}",)


def _odd_at_least(count: float) -> int:
    return math.ceil(count) | 1


def agree_on_rate(found: float | None, given: float | None, argument: str) -> float | None:
    """Return the rate that a recording has or a caller gave; refuse two that differ."""
    if found is not None and given is not None and found != given:
        msg = f"--rate: got {given:.12g} Hz, but {argument} says {found:.12g} Hz; leave --rate out"
        raise ArgumentError(msg)
    return given if found is None else found


# ---- blocks


def output_length(samples: int, taps: int, mode: str) -> int:
    """Length of the result: N + K - 1 (full), N (same) or N - K + 1 (valid; not positive if the taps are longer)."""
    return {"full": samples + taps - 1, "same": samples, "valid": samples - taps + 1}[mode]


def read_blocks(reader: Reader, count: int) -> Iterator[Block]:
    """Yield a recording from its first sample to its last, `count` samples at a time."""
    for _ in range(0, reader.layout.samples, count):
        yield reader.read(count)


def fft_length(layout: Layout, taps: npt.NDArray[Any], mode: str, method: str, device: str) -> int:
    """Choose the block length of the FFTs that one call of `maxconv.convolve` on a recording would take; 0 for sums.

    Raises
    ------
    ArgumentError
        FFTs were asked for on a GPU, whose blocks of two cannot be cut where others end.
    """
    if method == "fft" and device != "cpu":
        msg = f"--method: fft is served on the cpu, got --device {device}; expected auto or direct"
        raise ArgumentError(msg)
    if device != "cpu":
        return 0
    problem = part_of_full(layout.samples, len(taps), mode, flip=True)
    problem = problem._replace(batch=() if layout.channels == 1 else (layout.channels,), tap_rows=taps.shape[1])
    return 0 if is_summed(problem, layout.dtype, method, device) else choose(problem, layout.dtype.itemsize).nfft


def convolve_blocks(
    blocks: Iterable[Block],
    taps: npt.NDArray[Any],
    mode: str,
    *,
    device: str | None = None,
    count: int = BLOCK,
    nfft: int = 0,
) -> Iterator[Block]:
    """Convolve a signal that comes in blocks with `taps`, channel by channel.

    On one device every output is one sum over all taps in the same order, with zeros in place of samples that are not
    there, so the result has the same bits however the signal is cut. So it is by FFTs, whose blocks begin at the same
    outputs.

    Parameters
    ----------
    blocks : iterable of array
        The signal in order, blocks of shape (n, channels), n >= 1.
    taps : array
        Shape (K, channels), or (K, 1): the same for all channels. Dtype of the blocks.
    mode : {"full", "same", "valid"}
        Which part of the full convolution to yield; its length is that of `output_length`.
    device : str, optional
        As in `maxconv.convolve`; "auto" is decided block by block.
    count : int
        How many samples to compute at a time, about.
    nfft : int
        What `fft_length` says.

    Yields
    ------
    array
        The result in order, blocks of shape (n, channels).
    """
    halo = len(taps) - 1
    if nfft:
        hop = nfft - halo
        count = max(1, count // hop) * hop
    # Outputs of the full convolution to drop before the first one wanted, and to add after the last sample.
    drop, tail = {"full": (0, halo), "same": (halo // 2, halo // 2), "valid": (halo, 0)}[mode]
    for span in _spans(chain(blocks, _zero_blocks(tail, count)), halo, drop, count):
        if nfft:
            yield _convolve_by_fft(span, taps, nfft)
        else:
            yield maxconv.convolve(span, taps, mode="valid", method="direct", axis=0, device=device)


def _spans(blocks: Iterable[Block], halo: int, drop: int, count: int) -> Iterator[Block]:
    """Yield the samples that `count` outputs at a time are made of, fewer at the end; zeros stand before the first."""
    span: npt.NDArray[Any] | None = None
    for x in blocks:
        if span is None:
            span = np.zeros((halo, x.shape[1]), x.dtype)
        span = np.concatenate((span, np.broadcast_to(x, (len(x), span.shape[1]))))
        skipped = min(drop, len(span) - halo)
        span, drop = span[skipped:], drop - skipped
        while len(span) >= halo + count:
            yield span[: halo + count]
            span = span[count:]
    if span is not None and len(span) > halo:
        yield span


def _convolve_by_fft(span: Block, taps: npt.NDArray[Any], nfft: int) -> Block:
    rows, filters = np.ascontiguousarray(span.T), np.ascontiguousarray(taps.T)
    problem = part_of_full(len(span), len(taps), "valid", flip=True)
    y: Block = fft_mended("filter", problem._replace(batch=(len(rows),), tap_rows=len(filters)), rows, filters, nfft).T
    return y


def _zero_blocks(samples: int, count: int) -> Iterator[Block]:
    for start in range(0, samples, count):
        yield np.zeros((min(count, samples - start), 1), np.float32)


# ---- the output file


def check_output(path: Path, inputs: tuple[Path, ...], *, force: bool) -> None:
    """Refuse an output path that cannot, or must not, be written.

    Raises
    ------
    ArgumentError
        `path` is one of `inputs`.
    RecordingError
        It exists and `force` is False, it is not a regular file, its folder does not exist, or it is a loop of links.
    """
    _follow(path)
    with blame("OUT", path):
        if not path.exists():
            return
        if any(path.samefile(other) for other in inputs if other.exists()):
            msg = f"OUT: '{path}' is also an input; expected another file"
            raise ArgumentError(msg)
        if not path.is_file():
            msg = f"OUT: '{path}' is {'a directory' if path.is_dir() else 'not a regular file'}; expected a file name"
            raise RecordingError(msg)
        if not force:
            _refuse_to_overwrite(path)


def _follow(path: Path) -> Path:
    """Return the file that an output path means, with links followed; refuse a loop of them and a missing folder."""
    with blame("OUT", path):
        final = Path(os.path.realpath(path))  # unlike Path.resolve it stops at a loop in every Python
        if final.is_symlink():
            msg = f"OUT: '{path}' is a link that leads back to itself; expected a file name"
            raise RecordingError(msg)
        if not final.parent.is_dir():
            missing = (
                f"'{path}' is a link to '{final}', whose folder" if path.is_symlink() else f"folder '{path.parent}'"
            )
            msg = f"OUT: {missing} does not exist"
            raise RecordingError(msg)
    return final


@contextmanager
def replacing(path: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; put it in place of `path` if the body succeeds, else remove it.

    Parameters
    ----------
    path : Path
        The final file; nobody ever sees it half-written. A link is followed.
    force : bool
        Replace an existing file. Otherwise one that appeared during the body is left alone, and this is an error.
    """
    final = _follow(path)
    temporary = final.with_name(f".maxconv-{secrets.token_hex(8)}.part")
    try:
        with blame("OUT", path):
            temporary.touch(exist_ok=False)
            if force and final.exists():
                shutil.copymode(final, temporary)
        yield temporary
        with blame("OUT", path):
            _store(temporary)
            if force:
                temporary.replace(final)
            else:
                _move_unless_there(temporary, final, path)
    finally:
        temporary.unlink(missing_ok=True)


def _store(path: Path) -> None:
    """Wait until a file is on the disk: after a power cut a name may be there without what was written before it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _move_unless_there(temporary: Path, final: Path, path: Path) -> None:
    try:
        os.link(temporary, final)  # unlike a rename, a link fails if the file has appeared meanwhile
    except FileExistsError:
        _refuse_to_overwrite(path)
    except OSError:  # a file system without hard links
        if final.exists():
            _refuse_to_overwrite(path)
        temporary.replace(final)


def _refuse_to_overwrite(path: Path) -> None:
    msg = f"OUT: '{path}' already exists; --force overwrites it"
    raise RecordingError(msg)
