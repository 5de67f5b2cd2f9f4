"""Clusters for tests: one that all tests share, one with Slurm, and fresh ones for tests that break them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.cluster import jobs, needs
from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.waiting import PATIENCE, until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test here may wait several times, each time with patience; a cluster that it shares is made in its time, too."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(5 * PATIENCE))


def _possible(*programs: str) -> None:
    lacking = needs.lacking(*programs)
    if lacking:
        support.missing(lacking)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Hosts with sshd, for the whole session: leave them as they were."""
    _possible()
    with Cluster(folder=tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same with Slurm on it, for the whole session: leave no job behind."""
    _possible(*needs.SLURM)
    with Cluster(slurm=True, folder=tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """``fresh(racks=True, slurm=True)``: a cluster of the test's own, which it may break; gone after the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> Cluster:
            _possible(*(needs.SLURM if options.get("slurm") else ()), *(needs.ACCOUNTING if options.get("accounting") else ()))
            return stack.enter_context(Cluster(**{"folder": tmp_path, **options}))

        yield make


@pytest.fixture(autouse=True)
def _left_as_it_was(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves a process or a job on a shared cluster fails, and the next one finds none."""
    yield
    for name in {"cluster", "slurm"} & set(request.fixturenames):
        _tidy(request.getfixturevalue(name))


def _tidy(cluster: Cluster) -> None:
    left = []
    if cluster.slurm:
        try:
            until(lambda: not jobs.queued(cluster.h0), "an empty queue", BOUND)  # what has ended may still be completing
        except AssertionError:
            left += [f"job {job}" for job in jobs.queued(cluster.h0)]
            jobs.cancel_all(cluster.h0, list(cluster.hosts.values()))
    for host in (cluster.h0, *cluster.hosts.values()):
        if not host.on:
            left.append(f"{host.name} is off")
            host.power_on()
        try:
            host.idle()
        except AssertionError as error:
            left.append(str(error))
            host.kill("")
    assert not left, f"the test has left: {'; '.join(left)}"
