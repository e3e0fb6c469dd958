"""What is installed from a wheel that `poe wheel` built computes at once: nothing is compiled, nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from maxconv._engine import native

ROOT = Path(__file__).parents[1]
PROGRAM = """
import numpy, maxconv
from maxconv import _prebuild
from maxconv._engine import native, report, toolchain
toolchain.run_mojo = lambda *_: print("compiles")
print(maxconv.__file__, native.built("cpu"), maxconv.convolve([1, 2, 3], [0, 1, 0.5]).tolist())
print(_prebuild.build("cpu", "cpu")["built"], report()["cache"]["native cpu kernels"])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Build a wheel with the CPU's extension, which the cache has, and unpack it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "scripts/build_wheel.py", "--kinds", "cpu", "--levels", native.host_level("cpu")]
    subprocess.run([*command, "--output", str(folder)], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(site: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Call what was unpacked in a new process without a compiler on its path."""
    environment = {"PYTHONPATH": str(site), "PATH": "", "MAXCONV_CACHE_DIR": str(cache), "HOME": str(cache)}
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)


def test_the_first_call_compiles_and_writes_nothing(installed, tmp_path):
    """With an empty cache that cannot even be made, the extension of the package serves the first call."""
    (tmp_path / "file").touch()
    done = run(installed, tmp_path / "file" / "cache")
    assert done.returncode == 0, done.stderr
    module, extension, values = done.stdout.split(" ", 2)
    assert Path(module).parent == installed / "maxconv"
    assert Path(extension).parent == installed / "maxconv/_prebuilt"
    assert values.splitlines() == ["[0.0, 1.0, 2.5, 4.0, 1.5]", "False brought along by the package"]


def test_libraries_are_found_from_where_it_lies(installed):
    """The run path is relative, and no folder of the building machine is in the file, sources of its texts included."""
    (extension,) = (installed / "maxconv/_prebuilt").glob("*.so")
    content = extension.read_bytes()
    assert b"$ORIGIN/../../modular/lib" in content
    assert sys.prefix.encode() not in content
    assert b"/_native/cpu.mojo" in content
    assert b"/src/maxconv/" not in content


def test_a_damaged_extension_is_not_trusted(installed, tmp_path):
    """A package whose extension lost bytes builds its own, and says so where it can't."""
    (extension,) = (installed / "maxconv/_prebuilt").glob("*.so")
    content = extension.read_bytes()
    (tmp_path / "file").touch()
    extension.write_bytes(content[:-1])
    try:
        done = run(installed, tmp_path / "file" / "cache")
    finally:
        extension.write_bytes(content)
    assert done.returncode != 0
    assert "CompileError: the cache folder" in done.stderr
