"""The engine: native and graph give the same bits; everything compiles once; the cache is whole or absent."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import arrays
import numpy as np
import pytest

import maxconv
from maxconv import CompileError, _engine, _ops_path
from maxconv._engine import cache, devices, models, native, toolchain
from maxconv._problem import BORDERS, Problem, part_of_full


@pytest.mark.parametrize("dtype", [*arrays.FLOATS, *arrays.INTEGERS], ids=str)
def test_native_and_graph_give_the_same_bits(device, rng, dtype):
    """Both ways run the same kernels: every type, flip and padding agrees to the last bit."""
    for n, m, mode, flip in [
        (1, 1, "full", True),
        (700, 65, "same", False),
        (40, 300, "full", False),
        (9000, 33, "valid", True),
    ]:
        x, k = arrays.random_array(rng, n, dtype), arrays.random_array(rng, m, dtype)
        problem = part_of_full(n, m, mode, flip)
        native_bytes, graph_bytes = (
            _engine.run("test", problem, x, k, device, way=way).tobytes() for way in ("native", "graph")
        )
        assert native_bytes == graph_bytes


@pytest.mark.parametrize("dtype", [*arrays.FLOATS, *arrays.INTEGERS], ids=str)
def test_borders_give_the_same_bits_natively_and_through_a_graph(device, rng, dtype):
    """Every border, beside every type, reaches the kernels the same on both ways, its constant included."""
    for border in BORDERS:
        x, k = (arrays.random_array(rng, length, dtype) for length in (300, 65))
        problem = Problem(300, 65, 310, 70, flip=True, border=border, cval=-3)
        native_bytes, graph_bytes = (
            _engine.run("test", problem, x, k, device, way=way).tobytes() for way in ("native", "graph")
        )
        assert native_bytes == graph_bytes


def test_a_fresh_cache_builds_once_and_then_never_again(fresh_cache):
    """The first call of a new cache runs the compiler once; 200 more lengths, and a new process, never."""
    program = """
import numpy as np, maxconv
from maxconv._engine import toolchain
runs, run = [], toolchain.run_mojo
toolchain.run_mojo = lambda *arguments: runs.append(arguments) or run(*arguments)
for n in range(1, 201):
    maxconv.convolve(np.ones(n, np.float32), np.ones(n % 7 + 1, np.float32))
print(len(runs))
"""
    counts = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
        for _ in range(2)
    ]
    assert counts == ["1", "0"]
    assert len(list(fresh_cache.glob("*.so"))) == 1


def test_two_hundred_lengths_through_a_graph_compile_nothing(monkeypatch, rng):
    """The models of the graph way, once read, serve every length."""
    from max.engine import InferenceSession

    models.models("cpu")
    monkeypatch.setattr(InferenceSession, "compile", lambda *_, **__: pytest.fail("a graph was compiled"))
    monkeypatch.setattr(toolchain, "run_mojo", lambda *_: pytest.fail("the compiler was run"))
    for n in range(10, 210):
        x, k = rng.standard_normal(n), rng.standard_normal(n % 9 + 1)
        problem = part_of_full(n, len(k), "full", True)
        result = _engine.run("test", problem, x, k, "cpu", way="graph")
        np.testing.assert_array_equal(maxconv.convolve(x, k), result)


def write_payload(target: Path) -> None:
    """Stand in for a compiler."""
    target.write_bytes(b"payload" * 1000)


def test_a_damaged_entry_is_rebuilt(fresh_cache):
    """An entry that was cut short, altered, or lost its digest is built anew; a whole one is not."""
    builds = []

    def build(target: Path) -> None:
        builds.append(target)
        write_payload(target)

    path = cache.entry("thing.so", build, "")
    assert cache.entry("thing.so", build, "") == path
    assert len(builds) == 1
    damages = [
        lambda: path.write_bytes(path.read_bytes()[:-1]),
        lambda: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda: path.write_bytes(b""),
        path.unlink,
        lambda: path.with_name("thing.so.sha256").unlink(),
        lambda: path.with_name("thing.so.sha256").write_bytes(b"\xff\xfe"),
    ]
    for count, damage in enumerate(damages, start=2):
        damage()
        assert cache.entry("thing.so", build, "").read_bytes() == b"payload" * 1000
        assert len(builds) == count
    assert cache.entries() == [path]
    assert fresh_cache in path.parents


def test_what_nobody_has_used_for_a_month_goes_when_its_successor_is_built(fresh_cache):
    """An older version of the same thing is deleted unless it was read lately; who has mapped it does not notice."""
    day, name = 24 * 3600, "native-cpu-x86-64-v3-linux-x86_64-mojo{}-{:012x}.so"
    ages = {name.format("1.0", 1): 31, name.format("1.2.0", 2): 31, name.format("1.2.0", 3): 29}
    ages |= {"native-cpu_layers-x86-64-v3-linux-x86_64-mojo1.2.0-000000000001.so": 400, "thing.so": 400}
    paths = {cache.entry(other, write_payload, ""): age for other, age in ages.items()}
    gone = fresh_cache / name.format("1.0", 1)
    with gone.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for path, age in paths.items():
            os.utime(path, (time.time() - age * day, time.time() - 500 * day))
        new = cache.entry(name.format("1.2.0", 4), write_payload, "")
        assert bytes(mapped) == b"payload" * 1000
    kept = {other for other, age in ages.items() if age != 31} | {new.name}
    files = {path.name for path in fresh_cache.iterdir() if not path.name.endswith(".lock")}
    assert files == kept | {f"{other}.sha256" for other in kept}
    assert not gone.with_name(f"{gone.name}.lock").exists()


@pytest.mark.usefixtures("fresh_cache")
def test_an_obstacle_in_the_place_of_an_entry_is_cleared():
    """A folder where the entry should be, left by whatever accident, does not stop every later call."""
    (cache.cache_folder() / "thing.so" / "deep").mkdir(parents=True)
    assert cache.entry("thing.so", write_payload, "").read_bytes() == b"payload" * 1000


@pytest.mark.usefixtures("fresh_cache")
def test_a_missing_compiler_is_not_blamed_on_the_cache():
    """An operating-system error of the build itself reaches the caller as it is."""

    def build(_: Path) -> None:
        message = "mojo not found"
        raise FileNotFoundError(message)

    with pytest.raises(FileNotFoundError, match="mojo not found"):
        cache.entry("thing.so", build, "")


@pytest.mark.usefixtures("fresh_cache")
def test_a_failed_build_leaves_no_entry():
    """A compiler error, even after half the file was written, reaches the caller and leaves nothing to be trusted."""

    def build(target: Path) -> None:
        target.write_bytes(b"half")
        message = "mojo: no"
        raise CompileError(message)

    with pytest.raises(CompileError, match="mojo: no"):
        cache.entry("thing.so", build, "")
    assert cache.entries() == []
    assert cache.entry("thing.so", write_payload, "").read_bytes() == b"payload" * 1000


def build_and_count(folder: str, barrier) -> None:
    """Ask for one entry at the same moment as other processes; leave a mark for each build."""
    os.environ[cache.ENVIRONMENT_VARIABLE] = folder

    def build(target: Path) -> None:
        (Path(folder) / f"built-by-{os.getpid()}").touch()
        write_payload(target)

    barrier.wait(60)
    assert cache.entry("thing.so", build, "").read_bytes() == b"payload" * 1000


def test_many_processes_build_an_entry_once(tmp_path):
    """Of six processes that need a missing entry at the same moment one builds it, and all get it whole."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(6)
    children = [context.Process(target=build_and_count, args=(str(tmp_path), barrier)) for _ in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert len(list(tmp_path.glob("built-by-*"))) == 1


def test_a_cache_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    """The error says which folder cannot be used and how to choose another."""
    obstacle = tmp_path / "file"
    obstacle.touch()
    monkeypatch.setenv("MAXCONV_CACHE_DIR", str(obstacle / "cache"))
    with pytest.raises(CompileError, match=r"cache folder .*file/cache cannot be used .* set MAXCONV_CACHE_DIR"):
        cache.entry("thing.so", write_payload, "")


@pytest.mark.parametrize(
    "name", [lambda: native.entry_name("cpu"), lambda: models.entry_name("cpu")], ids=["native", "models"]
)
def test_the_cache_key_changes_with_everything_an_entry_depends_on(monkeypatch, name):
    """Another processor, MAX or Mojo version, or kernel source means another entry."""
    names = {name()}
    monkeypatch.setattr(toolchain, "cpu_level", lambda: "x86-64-v9")
    names.add(name())
    monkeypatch.setattr(toolchain, "versions", lambda: {"max": "99.1", "mojo": "99.2"})
    names.add(name())
    monkeypatch.setattr(_ops_path, "source_hash", lambda: "0123456789ab")
    names.add(name())
    assert len(names) == 4
    assert native.entry_name("cpu") != native.entry_name("gpu")


@pytest.mark.parametrize(
    ("capability", "families"),
    [(75, ["75", "75", "80"]), (86, ["80", "80", "80"]), (90, ["80", "80", "80"]), (120, ["80", "80", "80"])],
)
def test_a_gpu_takes_the_newest_build_that_it_can_run(capability, families, monkeypatch):
    """The oldest GPU of a process says which build is loaded, and so which file is looked for."""
    monkeypatch.setattr("maxconv._engine.devices.compute_capability", lambda: capability)
    names = [native.entry_name(kind) for kind in ("gpu", "gpu_fft", "gpu_layers")]
    assert [name.partition("-sm_")[2][:2] for name in names] == families


def test_the_source_hash_sees_every_byte(monkeypatch, tmp_path):
    """One changed character in any source, Mojo or Python, that decides what is compiled changes the hash."""
    package = _ops_path.kernels_path().parent
    for source in _ops_path.sources():
        copy = tmp_path / source.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    assert _ops_path.kernels_path() / "kernels/direct_cpu.mojo" in _ops_path.sources()
    assert package / "graph.py" in _ops_path.sources()
    fresh_hash = _ops_path.source_hash.__wrapped__
    monkeypatch.setattr(_ops_path, "_PACKAGE", tmp_path)
    hashes = {fresh_hash()}
    sources = _ops_path.sources()
    for source in sources:
        source.write_text(source.read_text().replace("e", "E", 1))
        hashes.add(fresh_hash())
    (tmp_path / "_ops" / "more.mojo").touch()
    hashes.add(fresh_hash())
    assert len(hashes) == len(sources) + 2


def test_the_processor_level_is_one_that_this_machine_runs(monkeypatch):
    """Levels follow the instruction sets: one missing flag leads to the level below."""
    level = toolchain.cpu_level.__wrapped__
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    for name, flags in toolchain._X86_LEVELS.items():
        monkeypatch.setattr(toolchain, "cpu_flags", lambda flags=flags: flags)
        assert level() == name
        monkeypatch.setattr(toolchain, "cpu_flags", lambda flags=flags: flags - {min(flags)})
        assert level() != name
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "aarch64")
    assert not level().startswith("x86")


def test_a_compiler_error_is_told_in_the_compilers_words():
    """`CompileError` carries what the compiler printed."""
    with pytest.raises(CompileError, match="nonexistent"):
        toolchain.run_mojo("build", "nonexistent.mojo")


@pytest.mark.parametrize(
    ("capabilities", "error", "least"),
    [([(9, 0), (7, 5), (8, 9)], 0, 75), ([(10, 3)], 0, 103), ([], 0, 0), ([(9, 0)], 100, 0)],
)
def test_the_oldest_gpu_decides_what_is_loaded(monkeypatch, capabilities, error, least):
    """The compute capability is the least of the GPUs that CUDA's driver finds, 0 if it finds none or fails."""

    def fill(number, value):
        number._obj.value = value
        return 0

    driver = SimpleNamespace(
        cuInit=lambda _: error,
        cuDeviceGetCount=lambda count: fill(count, len(capabilities)),
        cuDeviceGet=lambda device, index: fill(device, 100 + index),  # a handle need not be an index
        cuDeviceGetAttribute=lambda number, which, device: fill(number, capabilities[device.value - 100][which - 75]),
    )
    monkeypatch.setattr("ctypes.CDLL", lambda _: driver)
    assert devices.compute_capability.__wrapped__() == least
