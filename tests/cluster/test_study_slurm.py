"""Studies on Slurm, for real: sizes as jobs, the report as the last of them, what can't run named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scalelab import spec as specs
from scalelab import strategies
from scalelab.launch import training
from scalelab.launch.pool import Pool
from tests import support
from tests.cluster.cluster import Cluster
from tests.waiting import PATIENCE

SMALL = [
    "--quick", "--data", "synthetic", "--image-size", 8, "--classes", 4, "--train-limit", 640, "--test-limit", 30, "--model-arg", "width=4",
    "--steps", 8, "--probe-steps", 0,
]  # fmt: skip


def scalelab(cluster: Cluster, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command on the login machine; its exit status must be ``status``."""
    passed = {name: os.environ[name] for name in ("SCALELAB_CACHE", "PYTHONPATH") if name in os.environ}
    done = cluster.h0.run([sys.executable, "-m", "scalelab", *words], env=passed, timeout=2 * PATIENCE)
    assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def study(folder: Path) -> dict[str, Any]:
    """study.json."""
    found: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return found


@pytest.mark.usefixtures("_own_cache")
def test_a_size_is_a_job_and_the_last_job_makes_the_report(slurm: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "a study"
    flags = ["--workers", "8,64", "--workers-per-node", 4, "--cpus-per-task", 1, "--batch-per-worker", 4, "--json"]
    asked = ["study", "weak-scaling", "--slurm", "--wait", *SMALL, *flags, "--csv", tmp_path / "rows.csv", "--out", folder]
    done = scalelab(slurm, *asked, status=1)
    found = json.loads(done.stdout)
    rows = {row["label"].partition(",")[0]: row for row in found["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "single": "completed", "ddp × 1": "completed", "ddp × 8": "completed", "ddp × 64": "refused",
    }  # fmt: skip
    assert rows["ddp × 64"]["reason"] == "Slurm could not run it: it would wait for ever: PartitionConfig"
    assert rows["ddp × 8"]["figures"]["images_per_second"]["median"] > 0
    assert "more workers than cores" in rows["ddp × 8"]["marks"][0], "each node has 8 CPUs by its own word, and this machine 2"
    (eight,) = (record for record in records(folder) if record["workers"] == 8)
    assert [(host["name"], host["workers"]) for host in eight["environment"]["hosts"]] == [("h1", 4), ("h2", 4)]
    assert {record["derived"]["threads"] for record in records(folder)} == {1}
    assert (tmp_path / "rows.csv").read_text().count("\n") == 5, "the report's job wrote it"
    assert "report:" in next((folder / "slurm").glob("report-*.txt")).read_text()
    for host in slurm.hosts.values():
        host.idle()


def records(folder: Path) -> list[dict[str, Any]]:
    """record.json of each training."""
    return [json.loads(path.read_text()) for path in (folder / "runs").glob("*/record.json")]


@pytest.mark.usefixtures("_own_cache")
def test_what_waits_is_named_with_its_reason_and_can_be_cancelled(slurm: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    asked = ["study", "batch-size", "--slurm", *SMALL, "--batch", 12, 24, "--out", folder, "--slurm-arg=--begin=now+1hour"]
    assert "1-worker: job " in scalelab(slurm, *asked).stderr
    assert study(folder)["status"] == "submitted"
    refused = scalelab(slurm, *asked, status=2).stderr
    assert "of Slurm are under way; --wait follows" in refused
    scalelab(slurm, "study", "--conclude", folder, status=1)
    assert {one["reason"] for one in study(folder)["trainings"]} == {"waits in Slurm's queue: BeginTime"}
    assert study(folder)["status"] == "submitted"
    (told,) = json.loads(scalelab(slurm, "jobs", "--out", tmp_path, "--json").stdout)["jobs"]
    assert (told["kind"], told["status"], told["state"]) == ("study", "queued", "3 PENDING")
    scalelab(slurm, "cancel", folder)
    scalelab(slurm, "study", "--conclude", folder, status=1)
    reasons = {one["reason"] for one in study(folder)["trainings"]}
    assert all("CANCELLED, it was cancelled" in reason for reason in reasons), reasons


@pytest.mark.usefixtures("_own_cache")
def test_horovod_scales_as_jobs(slurm: Cluster, tmp_path: Path, pool: Pool) -> None:
    if not strategies.installed("horovod"):
        support.missing("engine horovod; `make engines` installs it")
    folder = tmp_path / "study"
    asked = ["study", "strong-scaling", "--engine", "horovod", "--slurm", "--wait", *SMALL, "--workers", 2, "--batch", 24]
    scalelab(slurm, *asked, "--workers-per-node", 1, "--out", folder)
    assert study(folder)["status"] == "completed"
    assert {(one["strategy"], one["engine"], one["workers"]) for one in records(folder)} == {
        ("single", "torch", 1), ("ddp", "horovod", 1), ("ddp", "horovod", 2),
    }  # fmt: skip
    (two,) = (one for one in records(folder) if one["workers"] == 2)
    assert [host["name"] for host in two["environment"]["hosts"]] == ["h1", "h2"]
    spec = specs.from_mapping({**two["spec"], "engine": "torch", "out": str(tmp_path / "here")})
    here = training.train(pool, training.prepare(pool, spec), ["test"], lambda folder: None)
    assert two["losses"] == pytest.approx(here.losses, rel=1e-5), "what torch's own engine computes on one host"
    assert all(one["environment"]["command"] == study(folder)["command"] for one in records(folder)), "what a person would type"


@pytest.mark.usefixtures("_own_cache")
def test_a_task_that_is_requeued_begins_anew_and_one_that_is_cancelled_is_closed(slurm: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    endless = ["--batch", 12, "--steps", 1_000_000, "--epochs", 50_000, "--out", folder]
    scalelab(slurm, "study", "batch-size", "--slurm", *SMALL, *endless)
    (job,) = json.loads((folder / "slurm" / "jobs.json").read_text())["jobs"]
    first = trained(folder, set())
    slurm.h0.run(["scontrol", "requeue", f"{job['id']}_0"], check=True)
    second = trained(folder, {first})
    scalelab(slurm, "cancel", folder)
    scalelab(slurm, "study", "--conclude", folder, status=1)
    assert {record["run"]: record["status"] for record in records(folder)} == {first: "interrupted", second: "interrupted"}
    (told,) = study(folder)["trainings"]
    assert (told["status"], told["run"], told["reason"]) == ("interrupted", second, "Slurm: CANCELLED, it was cancelled")
    for host in slurm.hosts.values():
        host.idle()


def trained(folder: Path, but: set[str], seconds: float = PATIENCE) -> str:
    """The name of another run than ``but``, once it has trained a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for path in (folder / "runs").glob("*/steps.jsonl"):
            if path.parent.name not in but and path.read_bytes().count(b"\n") > 20:
                return path.parent.name
        time.sleep(0.1)
    raise AssertionError(f"nothing new was trained in {seconds:g} s: {list((folder / 'runs').glob('*'))}")
