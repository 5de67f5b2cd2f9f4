"""The other engines over hosts: what they compute there is what one process computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scalelab import strategies
from tests import support
from tests.cluster.cluster import Cluster
from tests.trainings import VERIFY_FLAGS

MEASURED = ("--steps", "2", "--timeout", "60", "--json")


def verified(cluster: Cluster, folder: Path, *words: object) -> dict[tuple[str, int], tuple[str, str]]:
    """(status, reason) of each cell, by strategy and workers, of ``scalelab verify`` over hosts."""
    done = cluster.h0.run(["scalelab", "verify", *VERIFY_FLAGS, *MEASURED, *words], cwd=folder)
    assert done.stdout, done.stderr
    cells: list[dict[str, Any]] = json.loads(done.stdout)["cells"]
    return {(cell["strategy"], cell["workers"]): (cell["status"], cell.get("reason") or "") for cell in cells}


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """Its name; the test is skipped where it is not installed."""
    name: str = request.param
    if not strategies.installed(name):
        support.missing(f"engine {name}; `make engines` installs it")
    return name


@pytest.mark.parametrize("engine", ["deepspeed"], indirect=True)
def test_deepspeed_shards_over_hosts(cluster: Cluster, tmp_path: Path, engine: str) -> None:
    found = verified(cluster, tmp_path, "--hosts", "h1,h2", "--engine", engine, "--strategy", "zero1", "zero2", "zero3")
    assert found == {(strategy, 2): ("passed", "") for strategy in ("zero1", "zero2", "zero3")}


@pytest.mark.parametrize("engine", ["deepspeed"], indirect=True)
def test_deepspeed_pipelines_over_hosts_with_replicas(cluster: Cluster, tmp_path: Path, engine: str) -> None:
    flags = ("--strategy", "pipeline", "--stages", "2", "--accumulate", "2")
    assert verified(cluster, tmp_path, "--hosts", "h1:2,h2:2", "--engine", engine, *flags) == {("pipeline", 4): ("passed", "")}


@pytest.mark.parametrize("engine", ["horovod"], indirect=True)
def test_horovod_meets_on_the_interface_that_was_said(cluster: Cluster, tmp_path: Path, engine: str) -> None:
    """Three ranks on two hosts; with --interface its own rendezvous takes that one, too."""
    flags = ("--hosts", "h1:2,h2:1", "--interface", "10.77.0.0/24", "--strategy", "ddp")
    assert verified(cluster, tmp_path, "--engine", engine, *flags) == {("ddp", 3): ("passed", "")}
