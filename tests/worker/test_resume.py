"""Checkpoints: resume is exact, across strategies and world sizes; damage is found and passed over."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests.conftest import Command
from tests.trainings import EVERY, Reference, completed, equal, final, largest_difference, only_run, scores, train

RECIPE: dict[str, Any] = {"schedule": "cosine", "warmup_epochs": 1, "augment": "crop+flip", "weight_decay": 0.01}


@pytest.mark.parametrize("strategy", EVERY)
def test_resume_is_exact_to_the_bit(pool: Pool, tmp_path: Path, strategy: str) -> None:
    """With more state than SGD's, whose resuming is held to the bit on odd models (test_odd_models.py)."""
    values = {
        **RECIPE,
        "strategy": strategy,
        "workers": 1 if strategy == "single" else 2,
        "optimizer": "adamw",
        "lr": 0.01,
        "epochs": 4,
    }
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, stop_after_epoch=2)
    assert len(first.losses) == 8
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses
    assert scores(second) == scores(whole)
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


@pytest.mark.parametrize("batch_norm", ["sync", "local"])
def test_resume_in_the_middle_of_an_epoch_is_exact_to_the_bit(pool: Pool, tmp_path: Path, batch_norm: str) -> None:
    values = {"strategy": "ddp", "workers": 2, "batch_norm": batch_norm, "augment": "crop", "epochs": 3}
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, steps=6)
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses
    assert scores(second) == scores(whole)
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


def test_dropout_resumes_exactly(pool: Pool, tmp_path: Path) -> None:
    model = tmp_path / "dropping.py"
    model.write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, num_classes))\n"
    )
    values = {"strategy": "ddp", "workers": 2, "model": f"{model}:build", "model_args": {}, "epochs": 2}
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, stop_after_epoch=1)
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("ddp", 2), ("zero3", 3)),
        (("zero3", 3), ("single", 1)),
        (("zero1", 2), ("zero2", 2)),
        (("zero2", 2), ("zero1", 3)),
        (("single", 1), ("ddp", 2)),
    ],
)
def test_resume_under_another_strategy_and_world_size(
    pool: Pool, tmp_path: Path, reference: Reference, before: tuple[str, int], after: tuple[str, int]
) -> None:
    values = {**RECIPE, "batch_norm": "sync", "precision": "fp64", "epochs": 2, "optimizer": "adamw", "lr": 0.01}
    out, whole = reference(**values)
    first = completed(pool, tmp_path / "parts", **values, strategy=before[0], workers=before[1], stop_after_epoch=1)
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run, strategy=after[0], workers=after[1])
    assert (second.strategy, second.workers, len(second.attempts)) == (*after, 2)
    assert second.losses == pytest.approx(whole.losses, rel=1e-9)
    assert largest_difference(final(tmp_path / "parts", second), final(out, whole)) < 1e-9


def test_the_record_holds_both_attempts(pool: Pool, tmp_path: Path) -> None:
    first = completed(pool, tmp_path, epochs=2, stop_after_epoch=1)
    second = completed(pool, tmp_path, resume=tmp_path / first.run)
    assert [(a.first_step, a.status) for a in second.attempts] == [(0, "completed"), (4, "completed")]
    assert [step.step for step in records.read_steps(tmp_path / first.run)] == list(range(1, 9))
    assert [epoch.epoch for epoch in second.epochs] == [1, 2]


def damage(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-3] ^= 0xFF
    path.write_bytes(body)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(pool: Pool, tmp_path: Path) -> None:
    whole = completed(pool, tmp_path / "whole", epochs=3, strategy="ddp", workers=2)
    first = completed(pool, tmp_path / "parts", epochs=3, strategy="ddp", workers=2, stop_after_epoch=2)
    folder = tmp_path / "parts" / first.run
    damage(folder / "checkpoints" / "step-00000008.safetensors")
    second = completed(pool, tmp_path / "parts", resume=folder)
    assert second.attempts[-1].first_step == 4
    assert second.losses == whole.losses
    assert "last.json is damaged (its checksum is wrong)" in (folder / "logs" / "rank-0.txt").read_text()
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


@pytest.mark.parametrize("how", ["flipped", "cut off", "gone", "pointer"])
def test_when_every_checkpoint_is_damaged_one_line_says_so(command: Command, pool: Pool, tmp_path: Path, how: str) -> None:
    record = completed(pool, tmp_path, epochs=2, stop_after_epoch=2)
    checkpoints = tmp_path / record.run / "checkpoints"
    for path in checkpoints.glob("step-*"):
        if how == "flipped":
            damage(path)
        elif how == "cut off":
            path.write_bytes(path.read_bytes()[:100])
        elif how == "gone":
            path.unlink()
    if how == "pointer":
        for path in checkpoints.glob("*.json"):
            path.write_text("{")
    ended = command("train", "--resume", tmp_path / record.run, "--epochs", 3)
    assert ended.status in (1, 2)
    said = [line for line in ended.err.splitlines() if line.startswith("scalelab: ")]
    assert len(said) == 1
    assert "no checkpoint to resume from" in said[0]
    assert "Traceback" not in ended.err


def test_checkpoints_are_safetensors_with_their_hash(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=1, strategy="zero3", workers=2)
    checkpoints = tmp_path / record.run / "checkpoints"
    pointer = json.loads((checkpoints / "last.json").read_text())
    path = checkpoints / pointer["file"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == pointer["sha256"]
    assert sorted({p.suffix for p in checkpoints.iterdir()}) == [".json", ".safetensors"]
    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        assert json.loads(file.metadata()["progress"])["step"] == 4
    assert any(name.endswith("/momentum_buffer") for name in names)
    assert record.model is not None
    weights = {k: v for k, v in final(tmp_path, record).items() if k.startswith("model/") and k.endswith(("weight", "bias"))}
    assert sum(v.size for v in weights.values()) == record.model.parameters


def test_only_the_last_two_and_the_best_are_kept(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=6, lr=0.2)
    checkpoints = tmp_path / record.run / "checkpoints"
    pointed = {json.loads((checkpoints / f"{name}.json").read_text())["step"] for name in ("last", "previous", "best")}
    kept = {int(path.stem.removeprefix("step-")) for path in checkpoints.glob("step-*")}
    assert kept == pointed
    assert {24, 20} <= kept
    best = json.loads((checkpoints / "best.json").read_text())["step"]
    accuracies = [epoch.accuracy for epoch in record.epochs]
    assert best == 4 * (1 + accuracies.index(max(accuracies)))


def test_a_failed_run_resumes(pool: Pool, tmp_path: Path) -> None:
    """A model that fails at its ninth training step, until a file appears."""
    model = tmp_path / "failing.py"
    model.write_text(
        "import os\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    calls = 0\n"
        "    def forward(self, x):\n"
        "        self.calls += self.training\n"
        f"        if self.calls > 8 and not os.path.exists({str(tmp_path / 'mended')!r}):\n"
        "            raise RuntimeError('not yet')\n"
        "        return super().forward(x)\n"
        "def build(num_classes):\n"
        "    return Net(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    values = {"model": f"{model}:build", "model_args": {}, "epochs": 3, "strategy": "ddp", "workers": 2}
    record = train(pool, tmp_path / "runs", **values)
    assert (record.status, record.steps) == ("failed", 8)
    (tmp_path / "mended").touch()
    mended = completed(pool, tmp_path / "runs", resume=tmp_path / "runs" / record.run)
    assert mended.failure is None
    assert mended.losses == completed(pool, tmp_path / "whole", **values).losses
    assert [a.status for a in mended.attempts] == ["failed", "completed"]


def test_a_running_run_is_not_resumed(command: Command, pool: Pool, tmp_path: Path) -> None:
    completed(pool, tmp_path, epochs=1)
    folder = only_run(tmp_path)
    record = records.load(folder)
    record.status = "running"
    records.save(folder, record)
    ended = command("train", "--resume", folder, "--epochs", 2)
    assert ended.status == 2
    assert "running" in ended.error


def test_a_resume_cannot_change_the_images(pool: Pool, tmp_path: Path) -> None:
    half = completed(pool, tmp_path, steps=2)
    with pytest.raises(ScalelabError, match="--resume can't change --image-size from 8 to 12"):
        train(pool, tmp_path, resume=tmp_path / half.run, steps=4, image_size=12)


def test_a_record_from_before_a_flag_was_there_resumes(pool: Pool, tmp_path: Path) -> None:
    half = completed(pool, tmp_path, steps=2)
    path = tmp_path / half.run / "record.json"
    written = json.loads(path.read_text())
    del written["spec"]["frames"]
    path.write_text(json.dumps(written))
    assert completed(pool, tmp_path, resume=tmp_path / half.run, steps=4).steps == 4


def test_a_run_that_reached_its_end_has_nothing_to_resume(command: Command, pool: Pool, tmp_path: Path) -> None:
    completed(pool, tmp_path, epochs=1)
    before = (only_run(tmp_path) / "record.json").read_bytes()
    ended = command("train", "--resume", only_run(tmp_path))
    assert ended.status == 2
    assert "--epochs" in ended.error
    assert (only_run(tmp_path) / "record.json").read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused_by_its_first_differing_tensor(
    command: Command, pool: Pool, tmp_path: Path
) -> None:
    model = tmp_path / "mine.py"
    text = (
        "from torch import nn\ndef build(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, WIDTH), nn.Linear(WIDTH, num_classes))\n"
    )
    model.write_text(text.replace("WIDTH", "8"))
    record = completed(pool, tmp_path / "runs", model=f"{model}:build", model_args={}, epochs=1)
    model.write_text(text.replace("WIDTH", "9"))
    ended = command("train", "--resume", tmp_path / "runs" / record.run, "--epochs", 2)
    assert ended.status == 2
    assert "of another model: '1.weight' is of shape [8, 192] there and of shape [9, 192] in the model of now" in ended.error


def test_the_notes_of_how_an_attempt_was_spread_go_with_it(pool: Pool, tmp_path: Path) -> None:
    first = completed(pool, tmp_path, epochs=2, stop_after_epoch=1, strategy="pipeline", workers=2)
    assert any(note.startswith("1f1b with ") for note in first.notes)
    second = completed(pool, tmp_path, resume=tmp_path / first.run, strategy="ddp", workers=2)
    assert not [note for note in second.notes if "stage" in note or note.startswith("1f1b")]
    assert second.attempts[0].notes
    assert not second.attempts[1].notes
