"""`maxconv bench` and `maxconv compile`: figures a script can read, and kernels built before they are needed."""

from __future__ import annotations

import json
import re

import pytest
from command import line_of

from maxconv import _bench, _prebuild
from maxconv._errors import CompileError


@pytest.fixture
def quick(monkeypatch):
    """Time a single round: the tests look at form, not at speed."""
    timed = _bench.time_calls
    monkeypatch.setattr(_bench, "time_calls", lambda calls: timed(calls, rounds=1, seconds=0))


@pytest.mark.usefixtures("quick")
def test_bench_prints_json_as_the_result_files_have_it(run):
    """--json has a row for each number of taps, a time for each contender, and says on what it was measured."""
    code, out, err = run("bench", "--samples", 500, "--taps", "3,40", "--dtype", "float64", "--json")
    results = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["case"] for row in results["rows"]] == ["float64 N=500 K=3", "float64 N=500 K=40"]
    for row in results["rows"]:
        assert {"maxconv.convolve", "numpy.convolve", "scipy.signal.oaconvolve", "copy of x"} <= set(row["seconds"])
        assert all(0 < timing["low"] <= timing["median"] <= timing["high"] for timing in row["seconds"].values())
    assert {"maxconv", "max", "cpu", "numpy", "date"} <= set(results)


@pytest.mark.usefixtures("quick")
def test_bench_prints_a_table_and_draws(run, tmp_path):
    """Without --json there is a line for each number of taps; --plot draws them; --compare names the peers."""
    picture = tmp_path / "times.svg"
    code, out, _ = run("bench", "--samples", 500, "--taps", "3,40", "--compare", "numpy", "--plot", picture)
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if re.match(r"│ \d", line)] == ["3", "40"]
    assert "numpy.convolve" in out
    assert "scipy" not in out
    assert picture.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "numpy,matlab"], "--compare: got 'matlab'; expected some of numpy, scipy, torch, cupy"),
        (["--compare", "cupy"], "--compare: cupy is not installed: pip install cupy"),
        (["--taps", "4,many"], "--taps: got '4,many'; expected whole numbers separated by commas"),
        (["--taps", "0"], "--samples, --taps: got 1000000 and 0; expected at least 1"),
        (["--dtype", "int32"], "--dtype: got 'int32'; expected float32 or float64"),
        (["--device", "tpu"], "--device: got 'tpu'"),
        (["--plot", "times.txt"], "--plot: 'times.txt' has an unknown suffix"),
    ],
)
def test_wrong_arguments_of_bench_are_refused(run, monkeypatch, arguments, message):
    """Arguments that cannot be timed are one line that names them."""
    found = _bench.find_spec
    monkeypatch.setattr(_bench, "find_spec", lambda name: None if name == "cupy" else found(name))
    code, err = line_of(run("bench", *arguments))
    assert (code, message in err) == (2, True), err


def test_a_contender_that_is_wrong_is_not_timed(run, monkeypatch):
    """A peer whose result differs from float64 sums ends the run by an error that names it."""
    monkeypatch.setattr(_bench, "_functions", lambda _: {"worse.convolve": lambda x, _: 0 * x.repeat(2)})
    code, err = line_of(run("bench", "--samples", 50, "--taps", "3"))
    assert (code, "worse.convolve is wrong by" in err) == (1, True), err


def test_each_thing_is_built_once():
    """One build of a kind serves several NVIDIA GPUs; layers need Ampere; other GPUs get models."""
    gpu = [("gpu", "sm_75"), ("gpu_fft", "sm_75"), ("gpu", "sm_90a"), ("gpu_fft", "sm_90a"), ("gpu_layers", "sm_90a")]
    assert _prebuild.steps(["cpu"], with_models=False) == [("cpu", "cpu"), ("cpu_layers", "cpu")]
    assert _prebuild.steps(["sm_75", "sm_90a", "sm_100"], with_models=False) == gpu
    assert _prebuild.steps(["gfx942"], with_models=False) == [("models", "gfx942")]
    assert _prebuild.steps(["sm_75", "gfx942"], with_models=True)[2:] == [("models", "sm_75"), ("models", "gfx942")]


def test_compile_builds_what_is_not_there(run, fresh_cache, monkeypatch):
    """A kind is built once into the cache folder, and the second time found."""
    builds = []

    def build(kind, target, **_):
        builds.append(kind)
        target.write_bytes(b"kernels")

    monkeypatch.setattr("maxconv._engine.native.build", build)
    code, out, err = run("compile", "--target", "cpu,sm_90a", "--json")
    first = json.loads(out)
    assert (code, err) == (0, "")
    assert [item["kind"] for item in first] == builds == ["cpu", "cpu_layers", "gpu", "gpu_fft", "gpu_layers"]
    assert all(item["built"] and (fresh_cache / item["file"]).read_bytes() == b"kernels" for item in first)
    lines = run("compile", "--target", "cpu,sm_90a")[1].splitlines()
    assert len(builds) == len(lines) == 5
    assert all(line.endswith("was there") for line in lines)


@pytest.mark.parametrize(
    ("target", "message"),
    [("tpu", "--target: got 'tpu'; expected cpu, or a GPU"), ("sm_60", "NVIDIA GPUs are served from sm_75 on")],
)
def test_targets_that_nothing_serves_are_refused(run, target, message):
    """An unknown or too old target is one line, before anything is built."""
    code, err = line_of(run("compile", "--target", f"cpu,{target}"))
    assert (code, message in err) == (2, True), err


def test_a_model_that_does_not_compile_is_one_line(run, monkeypatch):
    """Where MAX cannot compile for a virtual device, its last line is the reason."""
    monkeypatch.setattr(_prebuild, "_FOR_A_VIRTUAL_DEVICE", "raise RuntimeError('no such device')")
    code, err = line_of(run("compile", "--target", "gfx942"))
    assert (code, "for gfx942 could not be compiled: RuntimeError: no such device" in err) == (1, True), err
    assert issubclass(CompileError, RuntimeError)
