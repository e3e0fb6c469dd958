"""Devices, random numbers and compiled graphs that the tests share."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np
import pytest
import raw_ops

import maxconv

if TYPE_CHECKING:
    from pathlib import Path

DEVICES = ["cpu", pytest.param("gpu:0", marks=pytest.mark.gpu)]


@pytest.fixture(scope="session", autouse=True)
def native_kernels() -> None:
    """Build the CPU kernels before any test: a compiler error is then one failure, not the subject of a search."""
    maxconv.convolve([1.0], [1.0])


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
