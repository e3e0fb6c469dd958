"""What the tests of the command line share: running it, a recording, and what is expected of it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import reference

from maxconv import cli

RATE = 8000


@pytest.fixture
def run(capsys):
    """Run the command with arguments; return exit code, stdout and stderr."""

    def call(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def recording(tmp_path, rng):
    """Make a stereo .wav of 1000 samples, in a folder that holds nothing else."""
    (tmp_path / "work").mkdir()
    path = tmp_path / "work" / "in.wav"
    import soundfile  # of the extra `cli`, which a machine that runs only the tests of GPUs lacks

    soundfile.write(path, rng.uniform(-0.2, 0.2, (1000, 2)), RATE)
    return path


@pytest.fixture
def taps_file(tmp_path, rng):
    """Write a file of nine taps, which together amplify by at most 1."""
    path = tmp_path / "taps.txt"
    np.savetxt(path, rng.uniform(-0.1, 0.1, 9), header="nine taps")
    return path


def files(folder):
    """Return the names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def run_python(program, *arguments, cwd=None):
    """Run a program in a new Python process."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=cwd,
        env=dict(os.environ),  # what Python knows: Mojo's own additions would hide the virtual environment
        capture_output=True,
        text=True,
        check=True,
    )


def expected(x, taps, mode):
    """Convolve each channel as the reference does; also return what its error is measured against."""
    columns = x.reshape(len(x), -1).astype(np.float64).T
    exact = np.stack([reference.convolve(column, taps, mode) for column in columns], axis=1)
    size = np.stack([reference.magnitude(column, taps, mode) for column in columns], axis=1)
    return exact, size


def line_of(result):
    """Return the one line on stderr of a failed run that printed nothing else; and its exit code."""
    code, out, err = result
    assert out == ""
    assert err.startswith("maxconv: ")
    assert err.count("\n") == 1
    return code, err
