"""Filter a Zarr array into a new one: out of core, chunk by chunk, and again from where a run was interrupted.

    store       a folder with one array, (samples,) or (samples, channels), real numbers; `rate` among its attributes
    blocks      chunks of IN joined to about 2^22 values, filtered by `_blocks`; each is written once, whole
    record      OUT's attribute `maxconv_complete` is false until its last block is written; blocks that are done stand
                one a line in OUT/.maxconv-done, behind the job that they belong to

A block is recorded after it was written, so what a killed run or worker leaves half-written is written again. The
blocks are computed by the threads of this process, or by those of a cluster, whose workers must see both folders.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _filtering, signal
from ._errors import ArgumentError
from ._filtering import Choice, Summary
from ._recording import Layout, RecordingError, array_layout, blame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ._filtering import Work

SUFFIX = ".zarr"
_BLOCK_VALUES = 1 << 22  # 16 MB of float32: a few of them a thread, and 4097 taps cost 0.1 % of halo
_RECORD, _COMPLETE = ".maxconv-done", "maxconv_complete"
_METADATA = ("zarr.json", ".zarray")  # of format 3 and of format 2


def filter_store(
    source: Path,
    out: Path,
    choice: Choice,
    *,
    mode: str | None = None,
    rate: float | None = None,
    device: str | None = None,
    force: bool = False,
    block: int = _BLOCK_VALUES,
    progress: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> Summary:
    """Filter the Zarr array `source` into `out`, or finish what an interrupted run of the same job left there.

    Parameters
    ----------
    source, out : Path
        Folders.
    choice, mode, rate, device : object
        As for `maxconv._filtering.filter_file`.
    force : bool
        Whether an existing array, finished or not, may be replaced.
    block : int
        Values that a block holds about, all channels of a chunk together.
    progress : bool
        Whether to show a bar on standard error.
    workers : int, optional
        How many processes to start on this machine; without them threads do the work.
    scheduler : str, optional
        In their place, the address of a running cluster.

    Raises
    ------
    ArgumentError
        Arguments that contradict each other or the array.
    RecordingError
        A store that cannot be read or written, or `out` holds another job. What was written stays, marked incomplete.
    """
    if not source.suffix.lower() == out.suffix.lower() == SUFFIX:
        msg = f"OUT: got '{out}' for IN '{source}'; expected {SUFFIX} for both, or for neither"
        raise ArgumentError(msg)
    stored = _open(source)
    layout = _layout(source, stored)
    work = _filtering.settle(choice, layout, rate, mode)
    filtered = _filter(stored, layout, work, device, block)
    job = _fingerprint(source, filtered, work)
    target = Layout(work.samples, layout.channels, work.rate, layout.dtype, layout.stored, flat=layout.flat)
    with ExitStack() as stack:
        client = stack.enter_context(_connected(workers, scheduler)) if workers or scheduler else None
        stack.enter_context(blame("OUT", out))
        store = _create(out, source, target, stored.chunks, job, force=force)
        _write(filtered, store, out / _RECORD, client, progress=progress)
        for leftover in out.rglob("*.partial"):  # Zarr's name for a chunk that a killed process was writing
            leftover.unlink()
        store.attrs[_COMPLETE] = True
        (out / _RECORD).unlink()
    return Summary(target, work.taps, 0, work.warnings)


# ---- reading


def _open(path: Path) -> Any:
    """Open the array of a store for reading."""
    import zarr

    with blame("IN", path):
        if not path.is_dir():
            msg = f"IN: '{path}' {'is not a folder' if path.exists() else 'does not exist'}; expected a Zarr store"
            raise RecordingError(msg)
        try:
            stored = zarr.open(str(path.resolve()), mode="r")  # workers may stand elsewhere
        except (ValueError, KeyError) as error:
            msg = f"IN: '{path}' is not a Zarr store, or it is damaged ({error})"
            raise RecordingError(msg) from error
    if not hasattr(stored, "chunks"):
        msg = f"IN: '{path}' is a group; expected one array, such as a folder within it"
        raise RecordingError(msg)
    if not stored.attrs.get(_COMPLETE, not (path / _RECORD).exists()):
        msg = f"IN: '{path}' is incomplete: the run that writes it was interrupted; repeat its command"
        raise RecordingError(msg)
    return stored


def _layout(path: Path, stored: Any) -> Layout:
    rate = stored.attrs.get("rate")
    known = float(rate) if isinstance(rate, (int, float)) else None
    layout = array_layout(tuple(stored.shape), stored.dtype, known, f"IN: '{path}'")
    if not layout.samples:
        msg = f"IN: '{path}' has no samples; expected at least one"
        raise RecordingError(msg)
    return layout


def _filter(stored: Any, layout: Layout, work: Work, device: str | None, block: int) -> Any:
    """Return the result as an array of Dask, whose blocks end where chunks of the store do."""
    import dask.array as da

    length = stored.chunks[0]
    width = 1 if layout.flat else stored.chunks[1]
    joined = length * max(1, block // (length * width))
    x = da.from_array(stored, chunks=(joined, *stored.chunks[1:]))
    taps = work.taps[:, 0] if layout.flat else work.taps
    y = signal.convolve(x.astype(layout.dtype), taps, mode=work.mode, axis=0, device=device)
    return y.astype(layout.stored)


# ---- writing


def _fingerprint(source: Path, filtered: Any, work: Work) -> str:
    """Name a job by all that its result depends on, but for the samples."""
    digest = hashlib.sha256(work.taps.tobytes())
    digest.update(json.dumps([work.mode, filtered.chunks, str(filtered.dtype), work.taps.shape]).encode())
    for name in _METADATA:
        if (metadata := source / name).is_file():
            digest.update(metadata.read_bytes())
    digest.update(str(source.resolve()).encode())
    return digest.hexdigest()


def _create(out: Path, source: Path, layout: Layout, chunks: tuple[int, ...], job: str, *, force: bool) -> Any:
    """Create the array of a job, or open it again where an earlier run of the same job was interrupted."""
    import zarr

    has_metadata = any((out / name).is_file() for name in _METADATA)
    if out.exists():
        if source.exists() and out.samefile(source):
            msg = f"OUT: '{out}' is also an input; expected another folder"
            raise ArgumentError(msg)
        unfinished = _recorded_job(out / _RECORD)
        if not has_metadata and unfinished is None:
            msg = f"OUT: '{out}' exists and is no Zarr array; expected a new folder"
            raise RecordingError(msg)
        if unfinished == job and has_metadata and not force:
            return zarr.open(str(out.resolve()), mode="r+")
        if unfinished != job and not force:
            state = "already exists" if unfinished is None else "holds another job that was interrupted"
            msg = f"OUT: '{out}' {state}; --force overwrites it"
            raise RecordingError(msg)
        shutil.rmtree(out)
    out.mkdir()
    (out / _RECORD).write_text(f"{job}\n")
    shape = (layout.samples,) if layout.flat else (layout.samples, layout.channels)
    store = zarr.open(str(out.resolve()), mode="a", shape=shape, chunks=chunks, dtype=layout.stored)
    store.attrs[_COMPLETE] = False
    if layout.rate is not None:
        store.attrs["rate"] = layout.rate
    return store


def _recorded_job(record: Path) -> str | None:
    """Return the job of an unfinished array; None if it is finished, or was not written by us."""
    return record.read_text().partition("\n")[0] if record.is_file() else None


def _write(filtered: Any, store: Any, record: Path, client: Any, *, progress: bool) -> None:
    """Write the blocks that are not recorded yet."""
    from dask.array.core import slices_from_chunks
    from dask.base import compute
    from dask.delayed import delayed

    done = set(record.read_text().split("\n")[1:-1])  # a last line without its end was cut off: not done
    blocks = filtered.to_delayed()
    write, note = delayed(_write_block, pure=False), delayed(_note, pure=False)
    tasks = {}
    for index, part in zip(np.ndindex(blocks.shape), slices_from_chunks(filtered.chunks), strict=True):
        name = ",".join(map(str, index))
        if name not in done:
            tasks[name] = write(blocks[index], store, part, name)
    if client is None:
        with _bar() if progress else nullcontext():
            compute(*(note(task, record) for task in tasks.values()), scheduler="threads")
        return
    futures = dict(zip(client.compute(list(tasks.values())), tasks, strict=True))
    for name in _track(futures, progress=progress):  # one process appends: hosts may share the folder
        _note(name, record)


def _write_block(block: np.ndarray, store: Any, part: tuple[slice, ...], name: str) -> str:
    """Write a block; return its name."""
    store[part] = block
    return name


def _note(name: str, record: Path) -> None:
    """Record a block that was written: one short append, which no other comes between."""
    file = os.open(record, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, f"{name}\n".encode())
    finally:
        os.close(file)


@contextmanager
def _connected(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Connect to the cluster with that address, or start one of so many processes."""
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if scheduler is None:
            quiet = {"dashboard_address": ":0", "silence_logs": logging.ERROR}
            cluster = stack.enter_context(LocalCluster(n_workers=workers, **quiet))
            scheduler = cluster.scheduler_address
        try:
            client = stack.enter_context(Client(scheduler, set_as_default=False))
        except (OSError, ValueError) as error:
            msg = f"--scheduler: '{scheduler}' does not answer ({error}); expected an address such as tcp://host:8786"
            raise RecordingError(msg) from error
        yield client


def _track(futures: dict[Any, str], *, progress: bool) -> Iterator[str]:
    """Yield the names of blocks as a cluster has written them.

    That a future is done is enough. Its result may be lost with its worker, and who waits for that waits for ever
    where Dask sees nothing left to do: a block that is on the disk need not be written again.
    """
    from distributed import as_completed
    from rich.console import Console
    from rich.progress import track

    done = as_completed(list(futures))
    for future in track(done, "Filtering", len(futures), console=Console(stderr=True), disable=not progress):
        if future.status in {"error", "cancelled"}:
            future.result()  # raises
        name = futures.pop(future)
        future.release()
        yield name


@contextmanager
def _bar() -> Iterator[None]:
    from dask.diagnostics.progress import ProgressBar

    with ProgressBar(out=sys.stderr):
        yield
