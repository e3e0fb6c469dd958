"""The command `maxconv`: demo, info, compile, bench, filter.

Exit codes: 0 done, 1 a file or device failed, 2 the arguments are wrong, 130 interrupted, 143 terminated. Errors are
one line on stderr; `--debug` anywhere among the arguments shows the traceback instead.

Importing this module loads nothing but Python's own library, so that what is missing can be said in one line; Typer
reads the annotations of the commands only when the application is built.
"""

from __future__ import annotations

import json
import math
import re
import runpy
import signal
import sys
import threading
import time
from contextlib import closing, contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import typer  # noqa: TC004 - `_build` imports it, so that `main` can say that it is missing
    from rich.table import Table

    from ._filtering import Choice, Kind, Summary
    from ._recording import Block, Layout

_EXTRAS = {
    **dict.fromkeys(("typer", "rich", "soundfile", "scipy"), "cli"),
    **dict.fromkeys(("dask", "distributed", "zarr"), "dask"),
    "matplotlib": "plot",
}
_PIPE = Path("-")
_PICTURES = (".png", ".svg", ".pdf")
_FAILED, _MISUSED, _INTERRUPTED, _TERMINATED = 1, 2, 130, 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the program's name, by default those of this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        code = int(_build()([word for word in given if word != "--debug"], "maxconv", standalone_mode=False) or 0)
    except SystemExit as stop:  # of `_ending_cleanly`, or of a shell that asked for completions
        code = _exit_code(stop)
        text = "terminated" if code == _TERMINATED else ""
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        code, text = _explain(error)
    else:
        text = "interrupted" if code == _INTERRUPTED else ""  # newer Typers make this code of Ctrl-C, older ones raise
    if text:
        print(f"maxconv: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201 - Rich may be what is missing
    return code


def _build() -> Callable[..., Any]:
    """Return the Typer application."""
    global typer  # noqa: PLW0603 - the commands' annotations name it
    import typer

    application = typer.Typer(
        help="1-D convolution: filter recordings, see what runs where.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted, 143 terminated. "
        "--debug shows the traceback of an error.",
    )
    application.callback(invoke_without_command=True)(_root)
    application.command("demo")(demo)
    application.command("info")(info)
    application.command("compile")(compile_)
    application.command("bench")(bench)
    application.command("filter")(filter_)
    return application


def _explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the line for an error."""
    from ._errors import ArgumentError, MaxconvError

    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return _INTERRUPTED, "interrupted"
    if isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        return _FAILED, f"the command line needs {error.name}: pip install 'maxconv[{extra}]'"
    if isinstance(error, MaxconvError):
        return (_MISUSED if isinstance(error, ArgumentError) else _FAILED), str(error)
    describe = getattr(error, "format_message", None)  # Typer's errors about the arguments
    if describe is not None:
        return _MISUSED, str(describe())
    if isinstance(error, (OSError, MemoryError)):
        return _FAILED, str(error) or "out of memory"
    return _FAILED, f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,  # noqa: FBT002
) -> None:
    if version:
        typer.echo(f"maxconv {installed_version('maxconv')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        return
    raise typer.Exit


def demo() -> None:
    """Convolve 15 numbers with 4 taps by the Mojo kernel and check the result against NumPy."""
    try:
        runpy.run_module("maxconv._p15", run_name="__main__")
    except SystemExit as stop:
        raise typer.Exit(_exit_code(stop)) from stop


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(stop.code, file=sys.stderr)  # noqa: T201 - as Python itself does
    return _FAILED


def info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Show versions, devices, the cache and what runs where."""
    from ._engine import report

    facts = report()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    _add_rows(table, facts, depth=0)
    # Into a file or pipe nothing is folded: who searches there wants whole paths.
    Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 10_000).print(table)


def _add_rows(table: Table, facts: dict[str, Any], depth: int) -> None:
    """Add a nested dict to a table of two columns, what lies deeper further to the right."""
    for name, value in facts.items():
        label = "  " * depth + str(name)
        if isinstance(value, dict) and value:
            table.add_row(label, "")
            _add_rows(table, value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            table.add_row(label, "")
            for item in value:
                first, *rest = item.items()
                _add_rows(table, {"- " + str(first[0]): first[1]}, depth + 1)
                _add_rows(table, dict(rest), depth + 2)
        elif isinstance(value, list):
            lines = [str(item) for item in value] or ["none"]
            table.add_row(label, "\n".join(lines))
        else:
            table.add_row(label, "none" if value in ({}, None) else str(value))


def compile_(
    targets: Annotated[
        str,
        typer.Option("--target", metavar="LIST", help="cpu, and GPUs such as sm_80,sm_90a,gfx942; none need be here."),
    ] = "cpu",
    with_models: Annotated[bool, typer.Option("--models", help="Also the MAX models, half a minute each.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Build kernels into the cache ahead of time, so that no first call waits.

    One build serves every NVIDIA GPU. GPUs of other makers are served by MAX models.
    """
    from ._prebuild import build, check_targets, steps

    names = [name.strip() for name in targets.split(",")]
    check_targets(names)
    from rich.console import Console

    console, built = Console(stderr=True), []
    planned = steps(names, with_models=with_models)
    for number, (kind, target) in enumerate(planned, 1):
        if console.is_terminal:
            console.print(f"{number} of {len(planned)}: {kind} for {target} ...", highlight=False)
        built.append(build(kind, target))
        if not as_json:
            last = built[-1]
            how = f"built in {last['seconds']:.1f} s" if last["built"] else "was there"
            typer.echo(f"{last['file']}  {last['bytes'] / 2**20:.1f} MB  {how}")
    if as_json:
        typer.echo(json.dumps(built, indent=2))


def bench(
    samples: Annotated[int, typer.Option(metavar="N", help="Length of the signal.")] = 1_000_000,
    taps: Annotated[str, typer.Option(metavar="LIST", help="Numbers of taps.")] = "4,16,64,256",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    compare: Annotated[
        str | None, typer.Option(metavar="LIST", help="numpy, scipy, torch, cupy; by default what is installed.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where maxconv computes: cpu, gpu, gpu:0, ... or auto.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the times: .png, .svg or .pdf.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as in benchmarks/results.")] = False,  # noqa: FBT002
) -> None:
    """Time one convolution of host arrays beside its peers, on the same data, in turns."""
    from . import _bench

    counts = _numbers("--taps", taps)
    _check_options(None, None, device)
    if plot is not None:
        _check_picture(plot)
    rows = []
    for row in _bench.compare(samples, counts, dtype, device, None if compare is None else compare.split(",")):
        rows.append(row)
        if sys.stderr.isatty():
            typer.echo(f"{row['case']} done", err=True)
    results = {**_bench.about(), "rows": rows}
    if plot is not None:
        from .plot import lines

        lines(results, dtype=dtype, samples=samples).savefig(plot)
    if as_json:
        typer.echo(json.dumps(results, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("taps", *rows[0]["seconds"], title=f"{dtype}, {samples} samples: microseconds of one call, medians")
    for count, row in zip(counts, rows, strict=True):
        table.add_row(str(count), *(f"{1e6 * timing['median']:.1f}" for timing in row["seconds"].values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _numbers(option: str, text: str) -> list[int]:
    from ._errors import ArgumentError

    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        msg = f"{option}: got '{text}'; expected whole numbers separated by commas"
        raise ArgumentError(msg) from error


def _check_picture(path: Path) -> None:
    """Refuse a picture that could not be written, before minutes of work go into it."""
    import matplotlib as mpl  # here, so that it is missed at once

    from ._errors import ArgumentError

    del mpl
    if path.suffix.lower() not in _PICTURES:
        msg = f"--plot: '{path}' has an unknown suffix; expected {', '.join(_PICTURES)}"
        raise ArgumentError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"--plot: folder '{path.parent}' does not exist"
        raise ArgumentError(msg)


def filter_(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Recording: .wav, .flac, .ogg, ..., .npy, .csv or .zarr; - is a pipe.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New file; its suffix decides the format. - is a pipe.")],
    taps: Annotated[Path | None, typer.Option(metavar="FILE", help="Filter with these: .npy, .txt or .csv.")] = None,
    lowpass: Annotated[float | None, typer.Option(metavar="HZ", help="Keep what is below HZ.")] = None,
    highpass: Annotated[float | None, typer.Option(metavar="HZ", help="Keep what is above HZ.")] = None,
    bandpass: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LO HI", help="Keep what is between LO and HI Hz.")
    ] = None,
    impulse_response: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Filter with this recording, as a room or a loudspeaker does.")
    ] = None,
    num_taps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Length of the designed filter, odd; by default 257, or what it takes."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="full, same or valid; by default same (as long as IN, no delay), for a response full."),
    ] = None,
    rate: Annotated[float | None, typer.Option(metavar="HZ", help="Sample rate of a .npy or .csv.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, gpu, gpu:0, ... or auto.")] = None,
    method: Annotated[str, typer.Option(help="auto, direct (sums) or fft.")] = "auto",
    no_stream: Annotated[  # noqa: FBT002
        bool, typer.Option("--no-stream/--stream", help="Hold all of IN in memory, or (default) a few blocks.")
    ] = False,
    raw: Annotated[str | None, typer.Option(metavar="FORMAT", help="Of pipes: u8, s16, s24, s32, f32 or f64.")] = None,
    channels: Annotated[int, typer.Option(metavar="N", help="Of pipes.")] = 1,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the filter and spectrograms: .png, .svg or .pdf.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT if it exists.")] = False,  # noqa: FBT002
    workers: Annotated[int | None, typer.Option(metavar="N", help="Filter a .zarr in N processes.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Filter a .zarr by a running cluster of Dask: tcp://host:8786."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,  # noqa: FBT002
) -> None:
    """Filter a recording; OUT appears when it is complete.

    Sample rate, channels and sample format stay where OUT's format has them.

    The columns of a .csv or .npy are its channels; integers become floats.

    Integer audio is rounded, and clipped at full scale with a warning.

    Nothing need fit in memory. An interrupted run into a .zarr is finished by the same command.

    With - for IN and OUT, raw samples are read from and written to pipes: --raw s16 --channels 2 --rate 48000.
    """
    from ._filtering import BLOCK, filter_file

    started = time.perf_counter()
    designs = (("lowpass", lowpass), ("highpass", highpass), ("bandpass", bandpass))
    choice = _choose({**dict(designs), "taps": taps, "impulse-response": impulse_response}, num_taps)
    _check_options(mode, rate, device, method)
    in_pipe = _PIPE in {source, out}
    in_store = ".zarr" in {source.suffix.lower(), out.suffix.lower()}
    _check_combination(source, out, raw=raw, plot=plot, in_store=in_store, whole=no_stream, method=method)
    _check_cluster(workers, scheduler, is_store=in_store)
    options: dict[str, Any] = {"mode": mode, "rate": rate, "device": device, "force": force}
    with _ending_cleanly():
        if in_pipe:
            summary = _filter_pipe(choice, raw, channels, rate, mode or "same", method, device)
        elif in_store:
            from ._zarr import filter_store

            options |= {"progress": sys.stderr.isatty(), "workers": workers, "scheduler": scheduler}
            summary = filter_store(source, out, choice, **options)
        else:
            options |= {"method": method, "block": None if no_stream else BLOCK, "track": _track}
            summary = filter_file(source, out, choice, **options)
            if plot is not None:
                _draw(plot, source, out, summary)
    for text in _warnings(summary, out):
        typer.echo(f"maxconv: warning: {text}", err=True)
    seconds = time.perf_counter() - started
    line = json.dumps(_facts(summary, out, seconds), indent=2) if as_json else _sum_up(summary, out, seconds)
    typer.echo(line, err=in_pipe)


def _check_combination(
    source: Path, out: Path, *, raw: str | None, plot: Path | None, in_store: bool, whole: bool, method: str
) -> None:
    """Raise `ArgumentError` for options that do not go together."""
    from ._errors import ArgumentError

    in_pipe = _PIPE in {source, out}
    special = "a pipe" if in_pipe else "a .zarr"
    msg = ""
    if in_pipe and source != out:
        msg = f"OUT: got '{out}' for IN '{source}'; expected - for both, or for neither"
    elif raw is not None and not in_pipe:
        msg = "--raw: only pipes carry raw samples; expected - for IN and OUT"
    elif plot is not None and (in_pipe or in_store):
        msg = f"--plot: the samples of {special} are not read again; expected files"
    elif whole and (in_pipe or in_store):
        msg = f"--no-stream: {special} is not held in memory; expected files"
    elif method != "auto" and in_store:
        msg = f"--method: got {method}; a .zarr is filtered by whichever promises to be faster"
    if msg:
        raise ArgumentError(msg)
    if plot is not None:
        _check_picture(plot)


def _filter_pipe(
    choice: Choice, raw: str | None, channels: int, rate: float | None, mode: str, method: str, device: str | None
) -> Summary:
    """Filter standard input onto standard output."""
    from . import get_default_device
    from ._raw import check_format, filter_raw

    device = get_default_device() if device is None else device
    return filter_raw(
        sys.stdin.buffer,
        sys.stdout.buffer,
        choice,
        form=check_format(raw, channels),
        channels=channels,
        rate=rate,
        mode=mode,
        method=method,
        device="cpu" if device == "auto" else device,  # blocks are small: a transfer costs more than it saves
        name=_PIPE,
    )


def _draw(path: Path, source: Path, out: Path, summary: Summary) -> None:
    """Draw the filter's gain, and the first channel before and after."""
    from .plot import draw_filtering, power

    rate = summary.layout.rate
    pictures = []
    for name in (source, out):
        samples, windows = _windows(name)
        pictures.append((name.name, samples, power(windows)))
    draw_filtering(summary.taps[:, 0], pictures, 1.0 if rate is None else rate).savefig(path)


def _windows(path: Path) -> tuple[int, list[Any]]:
    """Return the length of a recording, and windows of its first channel for a spectrogram."""
    import numpy as np

    from ._filtering import BLOCK, read_blocks
    from ._recording import open_recording
    from .plot import WINDOW, window_starts

    with closing(open_recording(path)) as reader:
        samples = reader.layout.samples
        starts = window_starts(samples)
        windows: list[Any] = []
        rest, begin = np.empty(0, reader.layout.dtype), 0
        for block in read_blocks(reader, max(WINDOW, BLOCK // reader.layout.channels)):
            rest = np.concatenate((rest, block[:, 0]))
            while len(windows) < len(starts) and starts[len(windows)] + WINDOW <= begin + len(rest):
                first = int(starts[len(windows)]) - begin
                windows.append(rest[first : first + WINDOW].copy())
            kept = min(len(rest), WINDOW)
            begin, rest = begin + len(rest) - kept, rest[len(rest) - kept :]
        return samples, windows or [rest]


@contextmanager
def _ending_cleanly() -> Iterator[None]:
    """Let SIGTERM raise SystemExit, so that half-written files are removed; a program's own handler is left alone."""
    in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere Python sets no handlers
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not stop the cleanup
    raise SystemExit(_TERMINATED)


def _choose(options: dict[str, Any], num_taps: int | None) -> Choice:
    """Return the one filter that was asked for."""
    from ._errors import ArgumentError
    from ._filtering import Choice

    given = {kind: value for kind, value in options.items() if value is not None}
    if len(given) != 1:
        came = " and ".join(f"--{kind}" for kind in given) or "none"
        msg = f"filter: expected one of {', '.join(f'--{kind}' for kind in options)}; got {came}"
        raise ArgumentError(msg)
    name, value = given.popitem()
    kind = cast("Kind", name)
    if isinstance(value, Path):
        if num_taps is not None:
            msg = f"--num-taps: only a designed filter has a length to choose; --{kind} brings its own"
            raise ArgumentError(msg)
        return Choice(kind, file=value)
    edges = value if isinstance(value, tuple) else (value,)
    return Choice(kind, edges=edges, num_taps=num_taps)


def _check_options(mode: str | None, rate: float | None, device: str | None, method: str = "auto") -> None:
    """Raise `ArgumentError` for a value that no recording could make right."""
    from ._errors import ArgumentError

    if mode not in (None, "full", "same", "valid"):
        msg = f"--mode: got '{mode}'; expected full, same or valid"
        raise ArgumentError(msg)
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        msg = f"--rate: got {rate:.12g} Hz; expected a positive number"
        raise ArgumentError(msg)
    if method not in ("auto", "direct", "fft"):
        msg = f"--method: got '{method}'; expected auto, direct or fft"
        raise ArgumentError(msg)
    if device is not None and not re.fullmatch(r"cpu|auto|gpu(:\d+)?", device):
        msg = f"--device: got '{device}'; expected cpu, gpu, gpu:0, ... or auto"
        raise ArgumentError(msg)


def _check_cluster(workers: int | None, scheduler: str | None, *, is_store: bool) -> None:
    """Raise `ArgumentError` for processes that nothing can be given to, or more than one cluster."""
    from ._errors import ArgumentError

    if workers is not None and workers < 1:
        msg = f"--workers: got {workers}; expected at least 1"
        raise ArgumentError(msg)
    if workers and scheduler:
        msg = f"--workers: got {workers}, but the cluster at --scheduler {scheduler} has its own; expected one of both"
        raise ArgumentError(msg)
    if (workers or scheduler) and not is_store:
        msg = f"--{'workers' if workers else 'scheduler'}: only .zarr arrays are filtered by several processes"
        raise ArgumentError(msg)


def _track(blocks: Iterable[Block], layout: Layout) -> Iterable[Block]:
    """Show a progress bar on a terminal while the blocks of a long recording go by."""
    from rich.console import Console
    from rich.progress import Progress

    from ._filtering import BLOCK

    console = Console(stderr=True)
    if not console.is_terminal or layout.samples * layout.channels <= BLOCK:
        yield from blocks
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Filtering", total=layout.samples)
        for block in blocks:
            yield block
            progress.advance(task, len(block))


def _warnings(summary: Summary, out: Path) -> list[str]:
    texts = list(summary.warnings)
    if summary.clipped:
        total = summary.layout.samples * summary.layout.channels
        texts.append(f"OUT: {summary.clipped} of {total} sample values clipped to the range of '{out}'")
    return texts


def _sum_up(summary: Summary, out: Path, seconds: float) -> str:
    layout = summary.layout
    form = f"{layout.container} {layout.subtype}" if layout.container else str(layout.stored)
    rate = "no rate" if layout.rate is None else f"{layout.rate:.12g} Hz"
    parts = [_count(layout.samples, "sample"), _count(layout.channels, "channel"), rate, form]
    return f"{out}: {', '.join(parts)}; {_count(len(summary.taps), 'tap')}; {seconds:.2f} s"


def _facts(summary: Summary, out: Path, seconds: float) -> dict[str, Any]:
    layout = summary.layout
    return {
        "out": str(out),
        "samples": layout.samples,
        "channels": layout.channels,
        "rate": layout.rate,
        "container": layout.container,
        "subtype": layout.subtype or str(layout.stored),
        "taps": len(summary.taps),
        "clipped": summary.clipped,
        "warnings": list(summary.warnings),
        "seconds": round(seconds, 3),
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
