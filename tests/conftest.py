"""Devices, random numbers and compiled graphs that the tests share."""

from __future__ import annotations

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import raw_ops
from command import recording, run, taps_file  # noqa: F401  # fixtures
from max.engine import InferenceSession
from mojo_jobs import Job

import maxconv
from maxconv._engine import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEVICES = ["cpu", pytest.param("gpu:0", marks=pytest.mark.gpu)]

#: One model for each family of operations, element type and device, whatever the lengths: the run ends as failed if it
#: compiles as many as this.
TOO_MANY_MODELS = 40
compiled: list[str] = []


def pytest_configure() -> None:
    """Note what the run compiles in its own process: MAX models, and native extensions."""
    compile_module, build = InferenceSession.compile, native.build

    def note_models(session, module, **options):
        compiled.extend(module.top_level_graph_names())
        return compile_module(session, module, **options)

    def note_extension(kind, *arguments, **options):
        compiled.append(kind)
        return build(kind, *arguments, **options)

    InferenceSession.compile, native.build = note_models, note_extension


def pytest_collection_modifyitems(items) -> None:
    """Leave to the end what waits for jobs, which are done meanwhile."""
    items.sort(key=lambda item: bool(jobs_of(item)))  # the rest keeps its order


def jobs_of(item) -> set[Job]:
    """List the jobs that a test has for parameters."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {value for value in parameters if isinstance(value, Job)}


def pytest_sessionfinish(session) -> None:
    """Fail a run that compiled too much."""
    if len(compiled) >= TOO_MANY_MODELS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how many models the run compiled."""
    terminalreporter.write_line(f"{len(compiled)} models compiled, fewer than {TOO_MANY_MODELS} are promised")


@pytest.fixture(scope="session", autouse=True)
def native_kernels() -> None:
    """Build the CPU kernels before any test: a compiler error is then one failure, not the subject of a search."""
    maxconv.convolve([1.0], [1.0])


@pytest.fixture(scope="session", autouse=True)
def done(request, tmp_path_factory) -> Iterator[Callable[[Job], list[str]]]:
    """Give what comes of the jobs that tests have for parameters, begun before the first test, two at a time.

    They give way to the tests, most of which leave a core idle. Kernels come first, which take longest.
    """
    jobs = sorted(set().union(*map(jobs_of, request.session.items)))
    scratch = tmp_path_factory.mktemp("jobs")
    pool = ThreadPoolExecutor(2, initializer=os.nice, initargs=(5,))
    runs = {job: pool.submit(job.finish, scratch) for job in jobs}
    yield lambda job: runs[job].result()
    pool.shutdown(cancel_futures=True)


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    """Each device that a behaviour is promised on."""
    return request.param


@pytest.fixture
def rng(request) -> np.random.Generator:
    """Fresh random numbers in every run; a failing test shows the seed that repeats it."""
    seed = secrets.randbits(64)
    request.node.add_report_section("setup", "seed", f"np.random.default_rng({seed})")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session", params=DEVICES)
def ops_on_device(request, tmp_path_factory) -> raw_ops.Ops:
    """Every graph of `raw_ops`, compiled together in one module from the precompiled op package."""
    return raw_ops.compile_all(request.param, tmp_path_factory.mktemp("ops"))


@pytest.fixture
def fresh_cache(monkeypatch, tmp_path) -> Path:
    """Use an empty folder for compiled kernels."""
    monkeypatch.setenv("MAXCONV_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
