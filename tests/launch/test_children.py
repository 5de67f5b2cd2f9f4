"""What user code started in a rank ends with the rank, however that ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests.launch.test_local import in_background
from tests.trainings import only_run, processes_of, train
from tests.waiting import SOON, until

STARTING = """
import os, subprocess
from torch import nn
class Net(nn.Sequential):
    calls = 0
    def forward(self, x):
        self.calls += self.training
        if self.calls == FAILS_AT:
            raise ValueError("a bug")
        return super().forward(x)
def build(num_classes):
    subprocess.Popen(["sleep", "1000"], env={"STARTED_BY": __file__}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Net(nn.Flatten(), nn.Linear(192, num_classes))
"""


def model(folder: Path, fails_at: int = 0) -> str:
    """A model whose function starts a process that nobody waits for; it raises at training call ``fails_at``."""
    folder.mkdir()
    (folder / "starting.py").write_text(STARTING.replace("FAILS_AT", str(fails_at or -1)))
    return f"{folder}/starting.py:build"


@pytest.mark.parametrize(("fails_at", "status"), [(0, "completed"), (6, "failed")])
def test_none_survives_a_run(pool: Pool, tmp_path: Path, fails_at: int, status: str) -> None:
    built = model(tmp_path / "user", fails_at)
    record = train(pool, tmp_path / "runs", strategy="ddp", workers=2, model=built, model_args={}, epochs=3)
    assert record.status == status
    until(lambda: not processes_of(str(tmp_path / "user")), "the end of what it started", SOON)


def test_a_stopped_rank_ends_with_its_peer(pool: Pool, tmp_path: Path) -> None:
    thread, ended = in_background(pool, tmp_path, strategy="ddp", workers=2, steps=2_000_000, timeout=5.0)
    until(lambda: list(tmp_path.glob("*/checkpoints/last.json")))
    (stopped,) = processes_of(str(only_run(tmp_path) / "logs" / "rank-1.txt"))
    os.kill(stopped, signal.SIGSTOP)
    thread.join(60)
    (record,) = ended
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.rank == 1
    assert record.failure.error.startswith("it hung: rank 0 waited for it")
    assert processes_of(str(tmp_path)) == []
    assert records.load(only_run(tmp_path)).status == "failed"
