"""The command `maxconv`: demo, info, filter.

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
from contextlib import contextmanager
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
}
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
    except SystemExit:  # raised by `_ending_cleanly` alone
        code, text = _TERMINATED, "terminated"
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
        epilog="--debug shows the traceback of an error.",
        add_completion=False,
    )
    application.callback(invoke_without_command=True)(_root)
    application.command("demo")(demo)
    application.command("info")(info)
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
    typer.echo(stop.code, err=True)
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


def filter_(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Recording: .wav, .flac, .ogg, ..., .npy, .csv or .zarr.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New file; its suffix decides the format.")],
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT if it exists.")] = False,  # noqa: FBT002
    workers: Annotated[int | None, typer.Option(metavar="N", help="Filter a .zarr in N processes.")] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Filter a .zarr by a running cluster of Dask: tcp://host:8786."),
    ] = None,
) -> None:
    """Filter a recording; OUT appears when it is complete.

    Sample rate, channels and sample format stay where OUT's format has them.

    The columns of a .csv or .npy are its channels; integers become floats.

    Integer audio is rounded, and clipped at full scale with a warning.

    A .zarr may be larger than memory; the same command finishes an interrupted run.
    """
    from ._filtering import BLOCK, filter_file

    started = time.perf_counter()
    designs = (("lowpass", lowpass), ("highpass", highpass), ("bandpass", bandpass))
    choice = _choose({**dict(designs), "taps": taps, "impulse-response": impulse_response}, num_taps)
    _check_options(mode, rate, device)
    is_store = ".zarr" in {source.suffix.lower(), out.suffix.lower()}
    _check_cluster(workers, scheduler, is_store=is_store)
    options: dict[str, Any] = {"mode": mode, "rate": rate, "device": device, "force": force}
    with _ending_cleanly():
        if is_store:
            from ._zarr import filter_store

            options |= {"progress": sys.stderr.isatty(), "workers": workers, "scheduler": scheduler}
            summary = filter_store(source, out, choice, **options)
        else:
            summary = filter_file(source, out, choice, **options, block=BLOCK, track=_track)
    for text in _warnings(summary, out):
        typer.echo(f"maxconv: warning: {text}", err=True)
    typer.echo(_sum_up(summary, out, time.perf_counter() - started))


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


def _check_options(mode: str | None, rate: float | None, device: str | None) -> None:
    """Raise `ArgumentError` for a value that no recording could make right."""
    from ._errors import ArgumentError

    if mode not in (None, "full", "same", "valid"):
        msg = f"--mode: got '{mode}'; expected full, same or valid"
        raise ArgumentError(msg)
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        msg = f"--rate: got {rate:.12g} Hz; expected a positive number"
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
    return f"{out}: {', '.join(parts)}; {_count(summary.taps, 'tap')}; {seconds:.2f} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
