"""Processes and threads: children see a clean environment, forked ones work or say why not, threads do not disturb."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading

import numpy as np
import pytest

import maxconv
from maxconv import DeviceError, _engine
from maxconv._engine import models
from maxconv._problem import part_of_full

LARGE = 4 * 10**6
"""Multiply-adds enough for a parallel region."""


def test_child_processes_inherit_the_environment_unchanged():
    """A first call changes nothing in the environment that children get: Mojo's Python support would."""
    program = (
        "import subprocess, maxconv; before = subprocess.check_output('env'); maxconv.convolve([1., 2.], [1.]);"
        "assert before == subprocess.check_output('env')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def convolve_in_child(connection, size: int) -> None:
    """Send the sum of a convolution of ones."""
    connection.send(float(maxconv.convolve(np.ones(size), np.ones(100)).sum()))


def graph_in_child(connection) -> None:
    """Send what the graph way raises."""
    try:
        _engine.run("test", part_of_full(3, 1, "full", True), np.ones(3), np.ones(1), "cpu", way="graph")
    except DeviceError as error:
        connection.send(str(error))


def ask_child(method: str, target, *arguments):
    """Run a function in a child process and return what it sends within a minute."""
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(sender, *arguments))
    child.start()
    try:
        assert receiver.poll(60), "the child hangs"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_computes_after_the_parent_used_threads(method):
    """After a parallel region in the parent a forked or spawned child still computes large work."""
    expected = float(maxconv.convolve(np.ones(LARGE // 100), np.ones(100)).sum())
    assert ask_child(method, convolve_in_child, LARGE // 100) == expected


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_is_told_that_max_did_not_survive():
    """MAX models hang in a forked child; maxconv raises instead, and says what to do."""
    models.models("cpu")
    assert 'multiprocessing.get_context("spawn")' in ask_child("fork", graph_in_child)


@pytest.mark.parametrize("way", ["native", "graph"])
def test_many_threads_at_once_get_their_own_results(rng, way):
    """Eight threads that call at the same time, large work and small, each get what one thread gets."""
    jobs = [(rng.standard_normal(n), rng.standard_normal(k)) for n, k in [(10, 3), (1000, 64), (LARGE // 64, 64)] * 3]

    def compute(x: np.ndarray, k: np.ndarray) -> np.ndarray:
        return _engine.run("test", part_of_full(len(x), len(k), "full", True), x, k, "cpu", way=way)

    expected = [compute(*job) for job in jobs]
    wrong: list[int] = []

    def work(first: int) -> None:
        for turn in range(20):
            job = (first + turn) % len(jobs)
            if not np.array_equal(expected[job], compute(*jobs[job])):
                wrong.append(job)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert not wrong


def test_no_module_of_the_users_is_overwritten():
    """The extensions enter `sys.modules` under maxconv's name alone."""
    program = (
        "import sys; before = set(sys.modules); import maxconv; maxconv.convolve([1.], [2.]);"
        "assert not {'cpu', 'gpu'} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_one_core_is_enough():
    """A process confined to one core computes large work right."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "import numpy as np, maxconv;"
        "assert maxconv.convolve(np.ones(10**6), np.ones(50), method='direct').sum() == 5e7"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
