"""A polite stop: all ranks end at the same step with a checkpoint, and who goes on loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.launch import local
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.trainings import completed, equal, final, only_run, scores, train

LONG = {"train_limit": 24 * 25, "epochs": 2, "evaluate": True, "optimizer": "adamw"}
"""25 steps an epoch"""
ASKED = """
import os, signal
from torch import nn
class Net(nn.Sequential):
    calls = 0
    def forward(self, x):
        self.calls += self.training
        if self.calls == {call} and os.environ["RANK"] == "{rank}" and os.environ.get("SCALELAB_STOP_ON"):
            os.kill(os.getpid(), signal.SIGUSR1)
        return super().forward(x)
def build(num_classes):
    return Net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))
"""
"""a model that asks its own rank to stop, in a training that may be asked"""


def asked(folder: Path, call: int, rank: int = 1) -> dict[str, object]:
    """The model, as fields of a spec."""
    (folder / "asked.py").write_text(ASKED.format(call=call, rank=rank))
    return {"model": f"{folder}/asked.py:build", "model_args": {}}


@pytest.fixture
def may_be_asked(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Ranks take SIGUSR1 for the wish to stop, as those of a Slurm job do."""
    before = local.variables
    monkeypatch.setattr(local, "variables", lambda *args: {**before(*args), "SCALELAB_STOP_ON": "SIGUSR1"})
    return monkeypatch


def stopped_and_resumed(
    pool: Pool, folder: Path, patch: pytest.MonkeyPatch, call: int, **values: object
) -> tuple[TrainRecord, TrainRecord, TrainRecord]:
    """An unbroken training, one that was asked to stop at a training step, and the same when it went on."""
    model = asked(folder, call)
    first = train(pool, folder / "parts", **LONG, **model, **values)
    patch.undo()
    whole = completed(pool, folder / "whole", **LONG, **model, **values)
    second = completed(pool, folder / "parts", resume=folder / "parts" / first.run)
    return whole, first, second


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_a_stop_inside_an_epoch_loses_nothing(
    pool: Pool, tmp_path: Path, may_be_asked: pytest.MonkeyPatch, strategy: str
) -> None:
    whole, first, second = stopped_and_resumed(pool, tmp_path, may_be_asked, 14, strategy=strategy, workers=2)
    stopped = first.attempts[-1].stopped or 0
    assert 14 <= stopped <= 20, "at the next exchange, which comes sooner where steps are slow"
    assert (first.status, first.steps) == ("interrupted", stopped)
    assert not first.epochs
    assert [attempt.status for attempt in second.attempts] == ["interrupted", "completed"]
    assert second.attempts[-1].first_step == stopped
    assert second.losses == whole.losses
    assert scores(second) == scores(whole)
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


def test_the_time_of_an_epoch_in_two_parts_is_that_of_both(pool: Pool, tmp_path: Path, may_be_asked: pytest.MonkeyPatch) -> None:
    _, first, second = stopped_and_resumed(pool, tmp_path, may_be_asked, 14, strategy="ddp", workers=2)
    before = sum(step.seconds for step in list(records.read_steps(only_run(tmp_path / "parts")))[: first.steps])
    assert second.epochs[0].seconds > before / 2 > 0, "half: a step's seconds are the slowest rank's, an epoch's the first's"
    assert second.seconds > first.seconds > 0


def test_a_stop_at_the_end_of_an_epoch_comes_after_its_evaluation(
    pool: Pool, tmp_path: Path, may_be_asked: pytest.MonkeyPatch
) -> None:
    whole, first, second = stopped_and_resumed(pool, tmp_path, may_be_asked, 23, strategy="ddp", workers=2)
    assert (first.attempts[-1].stopped, len(first.epochs)) == (25, 1)
    assert scores(second) == scores(whole)


def test_a_stop_that_comes_with_the_last_step_is_none(pool: Pool, tmp_path: Path, may_be_asked: pytest.MonkeyPatch) -> None:
    record = train(pool, tmp_path, **LONG, **asked(tmp_path, 49), strategy="ddp", workers=2)
    assert (record.status, record.steps, record.attempts[-1].stopped) == ("completed", 50, None)
