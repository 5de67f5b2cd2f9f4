"""``scalelab doctor`` on hosts with planted faults, and on Slurm's nodes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster

SCALELAB = Path(sys.executable).parent / "scalelab"
SHIFTED = """\
import platform, time
_time, platform.python_version = time.time, lambda: "3.12.9"
time.time = lambda: _time() + 90
"""
"""what an interpreter imports first: its clock is ahead, its version another"""


def diagnosed(cluster: Cluster, folder: Path, *words: object, env: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Exit status and document of ``scalelab doctor --json``."""
    done = cluster.h0.run([SCALELAB, "doctor", *words, "--json"], cwd=folder, env=env)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def lines(found: dict[str, Any], *statuses: str) -> set[tuple[str, str]]:
    """(host, check) of findings with one of these statuses."""
    return {(one["host"], one["check"]) for one in found["findings"] if one["status"] in statuses}


def test_every_planted_fault_is_found_on_its_host(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "sitecustomize.py").write_text(SHIFTED)
    wrapper = tmp_path / "odd python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/odd exec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "hosts").write_text(f"h1 slots=1\nh2 slots=1 python='{wrapper}'\nh9 slots=1\n")
    variables = {"GLOO_SOCKET_IFNAME": "ib0", "OMP_NUM_THREADS": "4096", "MASTER_ADDR": "no-such-host.invalid"}
    cluster.hosts["h2"].firewall(22)
    try:
        status, found = diagnosed(cluster, tmp_path, "--hosts", "hosts", "--out", "/mnt/apart", env=variables)
    finally:
        cluster.hosts["h2"].open_firewall()
    assert status == 1
    assert lines(found, "fail") >= {(host, check) for host in ("h1", "h2") for check in ("variables", "master")}
    assert lines(found, "fail") >= {("h9", "reachable"), ("h2", "clock"), ("h2", "python"), ("h1", "ports")}
    assert lines(found, "ok") >= {("h1", "clock"), ("h1", "python"), ("h2", "ports")}, "h2 reaches the other"
    assert lines(found, "warn") >= {("h1", "threads"), ("h2", "threads")}
    assert lines(found, "ok") >= {("h1", "shared folder"), ("h2", "shared folder")}, "over ssh it need not be shared"
    assert all(one["fix"] for one in found["findings"] if one["status"] in ("fail", "warn"))
    ahead = next(one["found"] for one in found["findings"] if (one["host"], one["check"]) == ("h2", "clock"))
    assert float(ahead.split(" s")[0]) == pytest.approx(90, abs=1)


def test_slurms_nodes_are_looked_at_by_one_srun(slurm: Cluster, tmp_path: Path) -> None:
    """That nothing fails where nothing is wrong, the page of the doctor shows: docs/doctor.md."""
    variables = {"MASTER_ADDR": "no-such-host.invalid"}  # which the nodes must look at, and not meet at
    for host in slurm.hosts.values():
        host.shape("100mbit")  # which a busy machine can fill
    try:
        status, found = diagnosed(slurm, tmp_path, "--slurm", "--out", "/mnt/apart", env=variables)
    finally:
        for host in slurm.hosts.values():
            host.shape("1gbit")
    assert (status, found["fit"]) == (1, False)
    (link,) = found["links"]
    assert found["hosts"] == ["Slurm", link["source"], link["target"]]
    assert lines(found, "fail") == {(host, check) for host in found["hosts"][1:] for check in ("master", "shared folder")}
    assert {("Slurm", "arrays"), ("Slurm", "partition"), ("Slurm", "requeue"), (link["source"], "ports")} <= lines(found, "ok")
    assert ("Slurm", "sacct") in lines(found, "warn"), "this cluster has no accounting"
    assert 70 < link["bytes_per_second"]["median"] * 8 / 1e6 < 110, "the cable has 100 Mbit/s"
    assert link["round_trip_seconds"]["n"] == 100
    assert not list(tmp_path.iterdir()), "nothing is left of what was tried"


def test_a_table_is_plain_and_fits_a_hundred_columns(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.h0.run([SCALELAB, "doctor", "--hosts", "h9,h8"], cwd=tmp_path, env={"NO_COLOR": "1"})
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stdout.splitlines()[-1] == "2 faults to mend"
