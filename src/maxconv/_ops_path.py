"""Where the Mojo sources are, and a hash of what they say."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent


def kernels_path() -> Path:
    """Return the folder of maxconv's MAX custom ops, for ``custom_extensions=[...]``.

    The folder holds Mojo source; MAX compiles it when the graph is compiled. ``mojo precompile <folder> -o
    maxconv.mojoc`` makes a package of it that loads the same way, for exactly the MAX version that made it.

    Returns
    -------
    pathlib.Path
        The folder. It registers the ops ``conv1d`` and ``maxconv_direct``.

    Examples
    --------
    >>> import maxconv
    >>> (maxconv.kernels_path() / "conv1d.mojo").is_file()
    True
    """
    return _PACKAGE / "_ops"


def native_path() -> Path:
    """Return the folder of the CPython extensions' sources; they import `kernels_path()` by its parent folder."""
    return _PACKAGE / "_native"


@cache
def source_hash() -> str:
    """Return 12 hexadecimal digits that change with any byte of any Mojo source."""
    digest = hashlib.sha256()
    for folder in (kernels_path(), native_path()):
        for source in sorted(folder.rglob("*.mojo")):
            digest.update(source.relative_to(_PACKAGE).as_posix().encode() + b"\0")
            digest.update(source.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
