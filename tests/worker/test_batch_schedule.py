"""A training whose batch grows on the way: what single computes, what is recorded, and going on with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab.launch.pool import Pool
from scalelab.measure.statistics import blocks
from scalelab.record import folder as records
from tests.conftest import Command
from tests.trainings import FLAGS, completed, equal, final, largest_difference, scores

GROWING: dict[str, Any] = {
    "batch": None, "batch_schedule": "0:12,1:24,2:48", "lr_scaling": "linear", "base_batch": 12, "lr": 0.01, "epochs": 3,
    "schedule": "cosine", "augment": "crop",
}  # fmt: skip
"""8 + 4 + 2 steps"""
BATCHES = [12] * 8 + [24] * 4 + [48] * 2


@pytest.mark.parametrize(
    ("strategy", "held"),
    [("ddp", {}), ("zero1", {"micro_batch": 3}), ("zero3", {"micro_batch": 3}), ("pipeline", {})],
    ids=["ddp, micro-batch grows", "zero1, accumulate grows", "zero3, accumulate grows", "pipeline, micro-batch grows"],
)
def test_it_computes_what_single_computes(pool: Pool, tmp_path: Path, strategy: str, held: dict[str, int]) -> None:
    values = {**GROWING, "batch_norm": "sync", "precision": "fp64", "lr_follows_batch": True}
    replicas = 1 if strategy == "pipeline" else 2
    alone = completed(pool, tmp_path / "a", **values, **{name: size * replicas for name, size in held.items()})
    spread = completed(pool, tmp_path / "b", **values, **held, strategy=strategy, workers=2)
    assert len(alone.losses) == 14
    assert spread.losses == pytest.approx(alone.losses, rel=1e-12)
    assert largest_difference(final(tmp_path / "a", alone), final(tmp_path / "b", spread)) < 1e-12


@pytest.mark.parametrize("ended", [{"stop_after_epoch": 2}, {"steps": 10}], ids=["at a change", "inside an epoch"])
def test_resume_in_the_middle_is_exact_to_the_bit(pool: Pool, tmp_path: Path, ended: dict[str, int]) -> None:
    values = {**GROWING, "strategy": "ddp", "workers": 2, "schedule": "constant"}
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, **ended)
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses
    assert scores(second) == scores(whole)
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


def test_each_step_is_recorded_with_its_batch_and_its_rate(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, **{**GROWING, "schedule": "constant", "lr_follows_batch": True})
    steps = list(records.read_steps(tmp_path / record.run))
    assert [step.batch for step in steps] == BATCHES
    assert [step.learning_rate for step in steps] == pytest.approx([0.01 * batch / 12 for batch in BATCHES])
    assert [step.epoch for step in steps] == [1] * 8 + [2] * 4 + [3] * 2
    assert [epoch.steps for epoch in record.epochs] == [8, 4, 2]


def test_images_per_second_counts_the_images_of_each_step(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, **GROWING)
    steps = list(records.read_steps(tmp_path / record.run))[:10]  # the whole block; both batches are in it
    expected = sum(step.batch for step in steps) / sum(step.seconds for step in steps)
    assert record.images_per_second.median == pytest.approx(expected, rel=1e-9)
    assert record.step_seconds.median == pytest.approx(blocks([step.seconds for step in steps])[0])
    assert record.step_seconds.reason == "over steps of 12 to 48 images: the batch changes"
    last = record.epochs[-1]
    assert last.images_per_second == pytest.approx(96 / last.seconds)


def test_bytes_are_told_of_the_batch_that_was_probed(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, **{**GROWING, "batch_schedule": "0:12,2:48", "probe_steps": 1}, strategy="ddp", workers=2)
    told = {(step.batch, step.bytes_sent is None) for step in list(records.read_steps(tmp_path / record.run))[8:]}
    assert told == {(12, False), (48, True)}


def test_the_schedule_of_a_run_stays(pool: Pool, tmp_path: Path, command: Command) -> None:
    first = completed(pool, tmp_path, **GROWING, stop_after_epoch=1)
    ended = command("train", "--resume", tmp_path / first.run, "--batch-schedule", "0:12,1:48")
    assert ended.status == 2
    assert ended.error.startswith("--resume can't change --batch-schedule from '0:12,1:24,2:48' to '0:12,1:48'")


def test_the_start_prints_the_batches_and_the_rates(command: Command, tmp_path: Path) -> None:
    flags = [flag for flag in FLAGS if flag not in ("--batch", "24")]
    policies = ["--batch-schedule", "0:12,1:24", "--lr", 0.01, "--lr-scaling", "sqrt", "--base-batch", 3, "--lr-follows-batch"]
    ended = command("train", *flags, *policies, "--epochs", 2, "--out", tmp_path)
    assert ended.status == 0, ended.err
    assert "batch schedule: after 1 epoch 24 (micro-batch 24 x accumulate 1)" in ended.err
    assert "peak learning rate 0.02, then 0.02828: 0.01 for batch 3, in proportion to the square root of the batch" in ended.err


def test_an_engine_that_is_set_up_for_one_batch_refuses(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    flags = [flag for flag in FLAGS if flag not in ("--batch", "24")]
    ended = command("train", *flags, "--batch-schedule", "0:12,1:24", "--epochs", 2, "--engine", "deepspeed", "--strategy", "ddp",
                    "--workers", 2, "--out", tmp_path)  # fmt: skip
    assert ended.status == 2
    assert "is set up for one batch; use --engine torch" in ended.error
