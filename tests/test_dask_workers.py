"""Arrays and stores of Dask on workers: killed, interrupted or refused, nothing wrong or half-written remains."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import reference
import zarr
from tolerances import assert_within_fft_bound

import maxconv
import maxconv.dask
from maxconv import _zarr
from maxconv._filtering import Choice
from maxconv._recording import RecordingError
from maxconv.cli import main


@pytest.fixture(scope="module")
def client():
    """Two worker processes of one thread each."""
    from dask.distributed import Client, LocalCluster

    quiet = {"distributed.admin.log-format": "%(message)s", "distributed.scheduler.allowed-failures": 5}
    with (
        dask.config.set(quiet),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster,
        Client(cluster) as connected,
    ):
        yield connected


def count_builds(folder: str) -> None:
    """Make a worker use a cache folder, and instead of compiling note it there and copy what is compiled already."""
    from maxconv._engine import cache, native

    compiled = cache.cache_folder()
    os.environ["MAXCONV_CACHE_DIR"] = folder

    def build(kind, target, **_):
        with (Path(folder) / "builds.txt").open("a") as file:
            file.write(f"{kind}\n")
        time.sleep(0.5)  # long enough for the other worker to come
        shutil.copy(compiled / target.name, target)

    native.build = build


def has_kernels() -> bool:
    """Tell whether a worker has loaded its kernels."""
    from maxconv._engine import native

    return bool(native._cpu_functions)


def test_workers_compile_once_and_never_again(client, tmp_path, rng):
    """Two workers that need the kernels at the same moment build them once; two new workers build nothing."""
    x, k = rng.standard_normal(4000), rng.standard_normal(30)
    for turn in range(2):
        if turn or any(client.run(has_kernels).values()):
            client.restart()
        client.run(count_builds, str(tmp_path))
        y = maxconv.convolve(da.from_array(x, chunks=100), k, method="direct").compute()
        np.testing.assert_array_equal(y, maxconv.convolve(x, k, method="direct"))
        assert (tmp_path / "builds.txt").read_text() == "cpu\n"


def test_a_killed_worker_changes_nothing(client, rng):
    """A worker that dies in the middle is replaced, and what it had is computed again, to the same bits."""
    x, k = rng.standard_normal(40_000).astype("f4"), rng.standard_normal(1001).astype("f4")

    def linger(block: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return block

    pending = client.compute(maxconv.convolve(da.from_array(x, chunks=1000).map_blocks(linger), k, method="direct"))
    time.sleep(0.5)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    np.testing.assert_array_equal(pending.result(timeout=60), maxconv.convolve(x, k, method="direct"))


# ---- Zarr


@pytest.fixture
def recording(tmp_path, rng) -> tuple[Path, np.ndarray]:
    """Make a store of 10 000 samples of two channels in small chunks."""
    x = rng.standard_normal((10_000, 2)).astype("f4")
    store = zarr.open(str(tmp_path / "in.zarr"), mode="w", shape=x.shape, chunks=(300, 1), dtype="f4")
    store[:] = x
    store.attrs["rate"] = 1000.0
    return tmp_path / "in.zarr", x


def write_taps(folder: Path, rng: np.random.Generator, count: int = 401) -> np.ndarray:
    """Write taps to a file of that folder."""
    taps = rng.standard_normal(count).astype("f4")
    np.save(folder / "taps.npy", taps)
    return taps


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_a_store_is_filtered_along_its_samples(recording, tmp_path, rng, mode, capsys):
    """The command writes what the function in memory gives, keeps chunks and rate, and says that it is complete."""
    source, x = recording
    taps = write_taps(tmp_path, rng)
    out = tmp_path / "out.zarr"
    assert main(["filter", str(source), str(out), "--taps", str(tmp_path / "taps.npy"), "--mode", mode]) == 0
    stored = zarr.open(str(out), mode="r")
    columns = [reference.convolve(x[:, channel], taps, mode) for channel in range(2)]
    for channel, exact in enumerate(columns):
        assert_within_fft_bound(stored[:, channel], exact, x[:, channel], taps)
    assert dict(stored.attrs) == {"maxconv_complete": True, "rate": 1000.0}
    assert stored.chunks == (300, 1)
    assert "2 channels, 1000 Hz, float32; 401 taps" in capsys.readouterr().out
    assert not list(out.glob(".maxconv*"))


def interrupt_after(monkeypatch, count: int) -> list[str]:
    """Let the writing of blocks fail after some; return the list of those that were begun."""
    begun: list[str] = []
    write = _zarr._write_block

    def write_some(block, store, part, name):
        begun.append(name)
        if len(begun) > count:
            raise KeyboardInterrupt
        return write(block, store, part, name)

    monkeypatch.setattr(_zarr, "_write_block", write_some)
    return begun


def test_an_interrupted_run_goes_on_where_it_was(recording, tmp_path, rng, monkeypatch):
    """What is unfinished says so and is refused as an input; the same call writes the rest, and only that."""
    source, x = recording
    taps, out = write_taps(tmp_path, rng), tmp_path / "out.zarr"
    job = {"choice": Choice("taps", file=tmp_path / "taps.npy"), "block": 1200}
    with monkeypatch.context() as patch, dask.config.set(num_workers=1):
        interrupt_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            _zarr.filter_store(source, out, **job)
    assert zarr.open(str(out), mode="r").attrs["maxconv_complete"] is False
    with pytest.raises(RecordingError, match=r"IN: .* is incomplete"):
        _zarr.filter_store(out, tmp_path / "next.zarr", **job)
    with pytest.raises(RecordingError, match="holds another job that was interrupted; --force overwrites it"):
        _zarr.filter_store(source, out, mode="full", **job)
    with (out / ".maxconv-done").open("a") as record:
        record.write("8,1")  # a last line that was cut off
    written = interrupt_after(monkeypatch, 100)
    _zarr.filter_store(source, out, **job)
    assert len(written) == 2 * math.ceil(10_000 / 1200) - 5
    whole = maxconv.convolve(x, taps[:, None], "same", axis=0, method="fft")
    stored = zarr.open(str(out), mode="r")
    np.testing.assert_allclose(stored[:], whole, atol=1e-5 * np.abs(whole).max())
    assert stored.attrs["maxconv_complete"] is True


def die_in_the_middle(folder: str) -> None:
    """Make a worker die once while it writes its third block, half of a chunk on the disk."""
    write, begun = _zarr._write_block, []

    def write_and_die(block, store, part, name):
        begun.append(name)
        if len(begun) == 3:
            (Path(folder) / "0.123.partial").write_bytes(b"half")
            Path(folder).with_name(f"{os.getpid()}.died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return write(block, store, part, name)

    _zarr._write_block = write_and_die


def test_a_worker_that_dies_leaves_nothing_half_written(client, recording, tmp_path, rng):
    """By a running cluster one of whose workers dies while it writes the result is whole, the bits of one process."""
    source, _ = recording
    write_taps(tmp_path, rng)
    outs = [tmp_path / "alone.zarr", tmp_path / "out.zarr"]
    choice = Choice("taps", file=tmp_path / "taps.npy")
    _zarr.filter_store(source, outs[0], choice, block=1200)
    # One: where all workers die within some ms, Dask's scheduler (2026.8) leaves tasks waiting for ever.
    client.run(die_in_the_middle, str(outs[1]), workers=[next(iter(client.scheduler_info()["workers"]))])
    _zarr.filter_store(source, outs[1], choice, block=1200, scheduler=client.scheduler.address)
    assert list(tmp_path.glob("*.died"))
    alone, by_cluster = (zarr.open(str(out), mode="r") for out in outs)
    np.testing.assert_array_equal(alone[:], by_cluster[:])
    assert by_cluster.attrs["maxconv_complete"] is True
    assert not [*outs[1].rglob("*.partial"), *outs[1].glob(".maxconv*")]


def test_the_command_starts_processes_of_its_own(recording, tmp_path, rng, capsys):
    """`--workers` gives what threads give."""
    source, _ = recording
    write_taps(tmp_path, rng)
    outs = [tmp_path / "threads.zarr", tmp_path / "workers.zarr"]
    for out, options in zip(outs, ([], ["--workers", "2"]), strict=True):
        assert main(["filter", str(source), str(out), "--taps", str(tmp_path / "taps.npy"), *options]) == 0
    threads, workers = (zarr.open(str(out), mode="r") for out in outs)
    np.testing.assert_array_equal(threads[:], workers[:])
    assert capsys.readouterr().err == ""


BAD_CLUSTERS = [
    (["in.zarr", "out.zarr", "--workers", "0"], 2, "--workers: got 0; expected at least 1"),
    (["in.zarr", "out.zarr", "--workers", "2", "--scheduler", "tcp://h:1"], 2, "has its own; expected one of both"),
    (["in.npy", "out.npy", "--workers", "2"], 2, "--workers: only .zarr arrays"),
    (["in.zarr", "out.zarr", "--scheduler", "nowhere"], 1, "'nowhere' does not answer"),
    (["in.zarr", "out.zarr", "--scheduler", "tcp://127.0.0.1:1"], 1, "'tcp://127.0.0.1:1' does not answer"),
]


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize(("arguments", "code", "text"), BAD_CLUSTERS)
def test_clusters_that_cannot_be_are_refused_in_one_line(tmp_path, rng, monkeypatch, capsys, arguments, code, text):
    """Numbers and addresses of no use end the command before anything is written."""
    write_taps(tmp_path, rng, 3)
    monkeypatch.chdir(tmp_path)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert main(["filter", *arguments, "--taps", "taps.npy"]) == code
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.zarr").exists()


BAD_STORES = [
    (["in.zarr", "out.npy"], 2, "expected .zarr for both"),
    (["no.zarr", "out.zarr"], 1, "does not exist"),
    (["group.zarr", "out.zarr"], 1, "is a group"),
    (["cube.zarr", "out.zarr"], 1, "has shape (2, 2, 2)"),
    (["words.zarr", "out.zarr"], 1, "has dtype bool"),
    (["in.zarr", "in.zarr"], 2, "is also an input"),
    (["in.zarr", "folder.zarr"], 1, "is no Zarr array"),
    (["in.zarr", "cube.zarr"], 1, "already exists; --force overwrites it"),
]


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize(("arguments", "code", "text"), BAD_STORES)
def test_bad_stores_are_refused_in_one_line(tmp_path, rng, monkeypatch, capsys, arguments, code, text):
    """Stores that are missing, of another kind or in the way end the command, and nothing is overwritten."""
    write_taps(tmp_path, rng, 3)
    monkeypatch.chdir(tmp_path)
    zarr.open_group("group.zarr", mode="w")
    zarr.open("cube.zarr", mode="w", shape=(2, 2, 2), dtype="f4")
    zarr.open("words.zarr", mode="w", shape=(2,), dtype="bool")
    (tmp_path / "folder.zarr").mkdir()
    assert main(["filter", *arguments, "--taps", "taps.npy"]) == code
    assert text in capsys.readouterr().err
    assert zarr.open("cube.zarr", mode="r").shape == (2, 2, 2)
    assert not (tmp_path / "out.zarr").exists()
