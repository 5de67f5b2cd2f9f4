"""A run that is resumed: one attempt at a time, each with its own notes."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.cli.train import spec_of
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests.launch.test_local import in_background
from tests.trainings import completed, only_run
from tests.waiting import until


def test_notes_of_an_attempt_are_not_the_next_ones(pool: Pool, tmp_path: Path) -> None:
    first = completed(pool, tmp_path, workers=2, strategy="ddp", threads_per_worker=64, epochs=3, stop_after_epoch=1)
    assert any("--resume goes on" in note for note in first.notes)
    second = completed(pool, tmp_path, resume=tmp_path / first.run)
    assert second.steps == 12
    assert not any("--resume goes on" in note for note in second.notes)
    assert sum(note.startswith("oversubscribed") for note in second.notes) == 1
    third = completed(pool, tmp_path, resume=tmp_path / first.run, epochs=4, threads_per_worker=1)
    assert not any(note.startswith("oversubscribed") for note in third.notes)


def test_a_run_is_resumed_by_one_at_a_time(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=1)
    folder = tmp_path / record.run
    prepared = training.prepare(pool, spec_of({"resume": str(folder), "epochs": 2}))
    with records.held(folder), pytest.raises(ScalelabError, match="another process is training this run now") as refused:
        training.train(pool, prepared, ["test"], lambda folder: None)
    assert refused.value.exit_status == 2
    assert records.load(folder).status == "completed"  # the other's record was not touched
    assert completed(pool, tmp_path, resume=folder, epochs=2).steps == 8


def test_a_run_is_held_while_it_trains(pool: Pool, tmp_path: Path) -> None:
    thread, ended = in_background(pool, tmp_path, steps=400)
    until(lambda: list(tmp_path.glob("*/steps.jsonl")))
    with pytest.raises(ScalelabError, match="another process"), records.held(only_run(tmp_path)):
        pass
    thread.join(60)
    assert ended[0].status == "completed"
    with records.held(only_run(tmp_path)):
        pass
