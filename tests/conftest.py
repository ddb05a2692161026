"""Fixtures shared by all tests: a seeded generator, backends, and both ways to run a kernel."""

import importlib
import os

import hypothesis
import numpy as np
import pytest
import strict_cupy
import threadpoolctl

from higcore.device import gpu
from higcore.kernels import RangeKernel

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def one_blas_thread_a_worker():
    """Workers side by side would make BLAS threads wait for each other, ten times as long."""
    beside_others = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1
    with threadpoolctl.threadpool_limits(1 if beside_others else None):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(20220101)


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request, monkeypatch):
    """Array module: the same test runs on every backend that is installed.

    ``strict`` is a stand-in for CuPy that needs no GPU and refuses what CuPy would refuse.
    """
    if request.param == "strict":
        with strict_cupy.installed(monkeypatch) as stand_in:
            yield stand_in
        return
    yield importlib.import_module(request.param)


@pytest.fixture(params=["compiled", "plain"])
def kernel_mode(request, monkeypatch):
    """Run kernels compiled, and as the plain Python that defines them."""
    if request.param == "plain":
        monkeypatch.setattr(RangeKernel, "__call__", RangeKernel.plain)
    return request.param


def pytest_runtest_setup(item):
    """Tests marked gpu need a device that can be used."""
    if item.get_closest_marker("gpu") and (missing := gpu.obstacle()):
        pytest.skip(missing)
