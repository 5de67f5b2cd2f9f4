"""Trainings as Slurm jobs, as a person on h0 submits them and looks after them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.trainings import of_model
from tests.waiting import PATIENCE

PASSED_ON = ("SCALELAB_CACHE", "PYTHONPATH", "TORCH_EXTENSIONS_DIR")
SLOW = """\
import time
from torch import nn

class Slow(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.last = nn.Linear(192, classes)

    def forward(self, images):
        time.sleep(0.01)
        return self.last(images.flatten(1))

def net(num_classes):
    return Slow(num_classes)
"""
"""a model whose steps take time and next to no work: the processors are for what the test looks at"""


def long(folder: Path) -> list[str]:
    """Flags of a training of 1,000 steps an epoch, for hours, on two nodes. ``folder``: of its model's file."""
    flags = [
        "--probe-steps",
        "0",
        "--warmup-steps",
        "0",
        "--epochs",
        "1000",
        "--train-limit",
        "24000",
        "--nodes",
        "2",
        "--check-in-job",
    ]
    return [*of_model(folder, "slow.py", SLOW), *flags]


def line(*words: object) -> list[str]:
    """``scalelab WORDS``."""
    return [sys.executable, "-m", "scalelab", *map(str, words)]


def passed() -> dict[str, str]:
    """The test's environment, as far as a command on a host needs it."""
    return {"COLUMNS": "160", **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}


def scalelab(cluster: Cluster, folder: Path, *words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    """A command on the login machine, in ``folder``; its exit status must be ``status``."""
    done = cluster.h0.run(line(*words), env=passed(), cwd=folder)
    assert done.returncode == status, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def submit(cluster: Cluster, folder: Path, *words: object) -> tuple[Path, str]:
    """``scalelab train --slurm WORDS`` in ``folder``: the run's folder, and its job."""
    told = json.loads(scalelab(cluster, folder, "train", "--slurm", "--json", *words).stdout)
    return folder / told["run"], told["job"]


def when(run: Path, ready: Callable[[TrainRecord], object], seconds: float, what: str) -> TrainRecord:
    """The record once ``ready`` says so of it."""
    end = time.monotonic() + seconds
    while not ready(record := records.load(run)):
        if time.monotonic() > end:
            printed = run / "slurm" / "output.txt"
            output = printed.read_text() if printed.exists() else ""
            raise AssertionError(f"{what}: not after {seconds:g} s: {record.status} {record.attempts} {record.failure}\n{output}")
        time.sleep(0.1)
    return record


def steps(run: Path) -> int:
    """Steps that were written so far."""
    return sum(1 for _ in records.read_steps(run))


def trains(attempt: int) -> Callable[[TrainRecord], bool]:
    """Whether a record's attempt of this number (from 1) runs."""
    return lambda record: len(record.attempts) == attempt and record.attempts[-1].start_seconds is not None


def going(run: Path, attempt: int, seconds: float = PATIENCE) -> TrainRecord:
    """The record once its attempt of this number (from 1) has made steps."""
    record = when(run, trains(attempt), seconds, f"attempt {attempt} trains")
    first = record.attempts[-1].first_step
    return when(run, lambda _: steps(run) >= first + 20, PATIENCE, f"attempt {attempt} makes steps")


def idle(cluster: Cluster, seconds: float = BOUND) -> None:
    """No process of a training is left on any host."""
    for host in (cluster.h0, *cluster.hosts.values()):
        if host.on:
            host.idle(seconds)
