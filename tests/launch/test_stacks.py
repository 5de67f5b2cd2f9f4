"""A worker that hangs: the run ends after --timeout, and where it stood is in its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.launch.pool import Pool
from tests.trainings import processes_of, train

HANGS = """
import os, time
LAST = str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
from torch import nn

class Hangs(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes)), 0

    def forward(self, images):
        self.calls += self.training
        if os.environ.get("RANK") == LAST and self.calls > 3:
            self.stand_still()
        return self.layers(images)

    def stand_still(self):
        time.sleep(600)
"""
"""the last of one or two ranks does"""


@pytest.mark.parametrize(
    ("workers", "strategy", "timeout", "says"),
    [(1, "single", 2, "silent for 2 seconds"), (2, "ddp", 4, "it hung: rank 0 waited")],
)
def test_a_hang_is_ended_and_its_stack_kept(
    pool: Pool, tmp_path: Path, workers: int, strategy: str, timeout: float, says: str
) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)
    values = {"model": f"{tmp_path}/hangs.py:Hangs", "model_args": {}, "epochs": 2, "sample_seconds": 0}
    record = train(pool, tmp_path / "runs", workers=workers, strategy=strategy, timeout=timeout, **values)
    assert record.failure is not None
    assert record.failure.error.startswith(says)
    folder = tmp_path / "runs" / record.run
    assert "in stand_still" in (folder / "logs" / f"rank-{workers - 1}.txt").read_text()
    assert ("in stand_still" in record.failure.traceback) == (workers == 2)
    assert processes_of(str(folder)) == []
