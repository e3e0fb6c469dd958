"""Where the Mojo sources are, and a hash of all that decides what is compiled."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parent
_BUILDERS = ("_engine/models.py", "_engine/native.py", "_problem.py", "graph.py")


def kernels_path() -> Path:
    """Return the folder of maxconv's MAX custom ops, for ``custom_extensions=[...]``.

    The folder holds Mojo source; MAX compiles it when the graph is compiled. ``mojo precompile <folder> -o
    maxconv.mojoc`` makes a package of it that loads the same way, for exactly the MAX version that made it.

    Returns
    -------
    pathlib.Path
        The folder. It registers the ops ``conv1d``, ``maxconv_direct``, ``maxconv_conv1d_layer``,
        ``maxconv_conv_transpose1d``, ``maxconv_causal_conv1d`` and ``maxconv_causal_state``.

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


def prebuilt_path() -> Path:
    """Return the folder of the extensions that a wheel brings along; a source tree has none."""
    return _PACKAGE / "_prebuilt"


@cache
def source_hash() -> str:
    """Return 12 hexadecimal digits that change with any byte of any source that a compiled thing is made of."""
    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.relative_to(_PACKAGE).as_posix().encode() + b"\0")
        digest.update(source.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def sources() -> list[Path]:
    """List the Mojo sources, and the Python ones that say which graphs are built and how compilers are called."""
    mojo = (source for folder in (kernels_path(), native_path()) for source in folder.rglob("*.mojo"))
    return sorted([*mojo, *(_PACKAGE / name for name in _BUILDERS)])
