"""Compiled things on disk: brought along by the wheel or built once, whole or absent, never trusted when damaged.

An entry is a file and, beside it, `<file>.sha256` with the digest of its content. Both are written under a temporary
name and renamed, the digest last. A reader takes no lock: an entry whose content does not match its digest, however
that came about, does not exist. Builders of one entry queue on a lock file, and look again once they hold it.

Names carry everything an entry depends on (`native.py`, `models.py`), so an entry is never out of date. What replaces
it has another name; who builds that deletes what nobody has used for a month.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .. import _ops_path
from .._errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENVIRONMENT_VARIABLE = "MAXCONV_CACHE_DIR"

_VERSION = re.compile(r"-(?:max|mojo)[^-]+-[0-9a-f]{12}\.(?:so|mef)$")
"""End of an entry's name: before it stands what the entry is and where it runs, here of what it was made."""

_KEPT_SECONDS = 30 * 24 * 3600
"""How long an entry that nobody reads may stay beside its successor; the system notes reads to the day."""


def cache_folder() -> Path:
    """Return the folder of compiled kernels: ``MAXCONV_CACHE_DIR``, or ``maxconv`` in the user's cache folder."""
    if folder := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(folder)
    from platformdirs import user_cache_path  # 5 ms that a call with the variable set need not pay

    return user_cache_path("maxconv")


def entry(name: str, build: Callable[[Path], None], note: str) -> Path:
    """Return the path of an entry of the package or of the cache, building it first if it is absent or damaged.

    Parameters
    ----------
    name
        File name; must carry everything the content depends on.
    build
        Writes the content to the path it is given; a failure leaves no entry.
    note
        What is being built and for how long, shown on a terminal.

    Raises
    ------
    CompileError
        If the build fails or the folder cannot be written.
    """
    if (found := find(name)) is not None:
        return found
    path = cache_folder() / name
    from filelock import FileLock  # needed for the one call in a machine's life that builds

    lock = FileLock(path.with_name(name + ".lock"))
    with _blame_folder(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        if not _is_whole(path):
            _build(path, build, note)
            _prune(path)
    finally:
        lock.release()
    return path


def find(name: str) -> Path | None:
    """Return the path of an entry that the package brings along or the cache holds; None if neither does."""
    places = (folder / name for folder in (_ops_path.prebuilt_path(), cache_folder()))
    return next((path for path in places if _is_whole(path)), None)


@contextmanager
def _blame_folder(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"the cache folder {folder} cannot be used ({error}); set {ENVIRONMENT_VARIABLE} to another"
        raise CompileError(message) from error


def entries() -> list[Path]:
    """List what is in the cache, whole entries only."""
    return sorted(path for path in cache_folder().glob("*") if path.suffix in {".so", ".mef"} and _is_whole(path))


def _build(path: Path, build: Callable[[Path], None], note: str) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"maxconv: {note}\n")
    with _blame_folder(path.parent):
        scratch = tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-")
    with scratch as folder:
        content = Path(folder) / path.name
        build(content)
        digest = Path(folder) / "digest"
        with _blame_folder(path.parent):
            digest.write_text(_digest(content))
            if path.is_dir():  # whatever accident made it: a file cannot take its place
                shutil.rmtree(path)
            content.replace(path)
            digest.replace(_digest_path(path))


def _prune(path: Path) -> None:
    """Delete entries that differ from a new one in their version alone and were last read long ago.

    A process that has one loaded keeps it: its memory stays mapped. Another that wants one later builds it again.
    """
    kind = _VERSION.sub("", path.name)
    for other in path.parent.iterdir():
        if other == path or _VERSION.sub("", other.name) != kind:
            continue
        with suppress(OSError):  # somebody else deleted it, or may alone
            status = other.stat()
            if time.time() - max(status.st_atime, status.st_mtime) > _KEPT_SECONDS:
                for leftover in (_digest_path(other), other, other.with_name(other.name + ".lock")):
                    leftover.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    try:
        return _digest_path(path).read_text() == _digest(path)
    except (OSError, UnicodeDecodeError):
        return False


def seal(path: Path) -> None:
    """Write the digest of a file beside it."""
    _digest_path(path).write_text(_digest(path))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
