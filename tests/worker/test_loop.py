"""A training from its spec to its record: order, length, scores, isolation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score
from torch import nn

from scalelab import data, models
from scalelab.data.order import epoch_order
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests.trainings import SPREAD, Reference, completed, equal, final, scores, tiny


def test_losses_do_not_depend_on_the_number_of_workers(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    """The order and the augmentation are of (seed, epoch, sample): 1, 2, 3 workers see the same global batches."""
    values = {"precision": "fp64", "batch_norm": "sync", "augment": "crop+flip", "epochs": 2}
    _, alone = reference(**values)
    for workers in (1, 2, 3):
        assert completed(pool, tmp_path, **values, strategy="ddp", workers=workers).losses == pytest.approx(
            alone.losses, rel=1e-11
        )


def test_losses_follow_from_the_seed(pool: Pool, tmp_path: Path) -> None:
    one, same, other = (completed(pool, tmp_path, seed=seed) for seed in (1, 1, 2))
    assert one.losses == same.losses
    assert one.losses != other.losses


def test_a_training_does_not_depend_on_what_ran_before_it(tmp_path: Path, pool: Pool) -> None:
    """Alone in a server of its own, and after others that seed, wrap, compile flags, change dtypes and threads."""
    values = {"strategy": "zero2", "workers": 2, "augment": "crop", "epochs": 2}
    with Pool() as fresh:
        alone = completed(fresh, tmp_path / "alone", **values)
    completed(pool, tmp_path / "others", precision="fp64", seed=7, optimizer="adamw", threads_per_worker=2)
    completed(pool, tmp_path / "others", strategy="zero1", workers=3, seed=8, batch_norm="sync", probe_steps=2)
    after = completed(pool, tmp_path / "after", **values)
    assert after.losses == alone.losses
    assert scores(after) == scores(alone)
    assert equal(final(tmp_path / "after", after), final(tmp_path / "alone", alone))


def test_it_learns(pool: Pool, tmp_path: Path) -> None:
    digits = {"data": "digits", "train_limit": 960, "test_limit": 200, "batch": 48, "model_args": {"width": 8}}
    record = completed(pool, tmp_path, **digits, epochs=3, strategy="ddp", workers=2)
    assert record.accuracy is not None
    assert record.accuracy > 0.85
    assert record.losses[-1] < record.losses[0] / 3


@pytest.mark.parametrize(("strategy", "workers"), [("ddp", 2), ("zero3", 3)])
@pytest.mark.parametrize("test_limit", [1, 2, 29, 30])
def test_each_test_sample_counts_exactly_once(
    pool: Pool, tmp_path: Path, reference: Reference, strategy: str, workers: int, test_limit: int
) -> None:
    values = {"test_limit": test_limit, "batch_norm": "sync", "precision": "fp64", "epochs": 1}
    alone = reference(**values)[1].epochs[-1]
    found = completed(pool, tmp_path, **values, strategy=strategy, workers=workers).epochs[-1]
    assert sum(map(sum, found.confusion)) == test_limit
    assert found.confusion == alone.confusion
    assert (found.accuracy, found.precision, found.recall) == (alone.accuracy, alone.precision, alone.recall)
    assert found.test_loss == pytest.approx(alone.test_loss, rel=1e-6)


def test_scores_are_scikit_learns(pool: Pool, tmp_path: Path) -> None:
    epoch = completed(pool, tmp_path, test_limit=101, classes=5, epochs=1, strategy="ddp", workers=2, lr=0.01).epochs[-1]
    table = np.array(epoch.confusion)
    true = np.repeat(np.arange(5), table.sum(1))
    predicted = np.concatenate([np.repeat(np.arange(5), row) for row in table])
    assert (confusion_matrix(true, predicted) == table).all()
    assert len(set(predicted.tolist())) > 2  # else the averages would say little
    assert epoch.accuracy == pytest.approx(accuracy_score(true, predicted))
    assert epoch.precision == pytest.approx(precision_score(true, predicted, average="macro", zero_division=0))
    assert epoch.recall == pytest.approx(recall_score(true, predicted, average="macro", zero_division=0))


def test_the_confusion_matrix_has_the_true_class_first(pool: Pool, tmp_path: Path) -> None:
    """A model that always says class 2: the matrix fills one column, not one row."""
    model = tmp_path / "constant.py"
    model.write_text(
        "import torch\nfrom torch import nn\n"
        "class Constant(nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.bias = nn.Parameter(torch.zeros(classes))\n"
        "    def forward(self, x):\n"
        "        return self.bias * 0 + torch.tensor([0.0, 0.0, 9.0, 0.0]).expand(len(x), 4)\n"
        "def build(num_classes):\n"
        "    return Constant(num_classes)\n"
    )
    epoch = completed(pool, tmp_path / "runs", model=f"{model}:build", model_args={}, epochs=1, test_limit=8).epochs[-1]
    assert epoch.confusion == [[0, 0, 2, 0]] * 4


@pytest.mark.parametrize(
    ("values", "steps", "epochs"),
    [
        ({}, 4, 1),
        ({"epochs": 2}, 8, 2),
        ({"steps": 3}, 3, 1),
        ({"steps": 6}, 6, 2),
        ({"steps": 6, "epochs": 1}, 4, 1),
        ({"steps": 2, "epochs": 5}, 2, 1),
        ({"epochs": 5, "stop_after_epoch": 2}, 8, 2),
        ({"epochs": 5, "target_accuracy": 0.01}, 4, 1),
    ],
)
def test_length(pool: Pool, tmp_path: Path, values: dict[str, Any], steps: int, epochs: int) -> None:
    record = completed(pool, tmp_path, **values)
    assert (record.steps, len(record.losses), len(record.epochs)) == (steps, steps, epochs)


def test_early_stop_waits_for_its_patience(pool: Pool, tmp_path: Path) -> None:
    record = completed(
        pool, tmp_path, lr=1e-30, epochs=30, early_stop=3
    )  # only the running statistics move, and soon stand still
    accuracies = [epoch.accuracy for epoch in record.epochs]
    assert len(accuracies) == accuracies.index(max(accuracies)) + 1 + 3
    assert len(accuracies) < 30
    assert any("stopped early: 3 epochs" in note for note in record.notes)


def test_the_reached_target_is_noted(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=9, target_accuracy=0.01)
    assert "reached --target-accuracy in epoch 1" in record.notes


def test_the_dropped_partial_batch_is_noted(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, train_limit=100)
    assert record.steps == 4
    assert any("last 4 of 100 samples" in note for note in record.notes)


def test_label_smoothing_changes_the_loss_as_defined(pool: Pool, tmp_path: Path) -> None:
    """At the first step, with equal weights: the smoothed loss mixes in the mean over all classes."""
    values = {"steps": 1, "precision": "fp64"}
    plain, smooth, most = (completed(pool, tmp_path, **values, label_smoothing=value).losses[0] for value in (0.0, 0.1, 0.2))
    assert smooth != plain
    assert most - plain == pytest.approx(2 * (smooth - plain), rel=1e-9)


def test_bf16_computes_near_fp32(pool: Pool, tmp_path: Path) -> None:
    exact, rough = (completed(pool, tmp_path, steps=3, precision=name, strategy="ddp", workers=2) for name in ("fp32", "bf16"))
    assert rough.losses != exact.losses
    assert rough.losses == pytest.approx(exact.losses, rel=0.05)
    assert {str(v.dtype) for k, v in final(tmp_path, rough).items() if k.endswith("weight")} == {"float32"}


@pytest.mark.parametrize("strategy", SPREAD)
def test_channels_last_changes_the_layout_not_the_result(pool: Pool, tmp_path: Path, strategy: str) -> None:
    values = {"precision": "fp64", "strategy": strategy, "workers": 2, "epochs": 1}
    auto, off = (completed(pool, tmp_path, **values, channels_last=value) for value in ("auto", "off"))
    assert auto.losses == pytest.approx(off.losses, rel=1e-11)


def test_norm_slices_are_the_serial_twin_of_local_batch_norm(pool: Pool, tmp_path: Path) -> None:
    values = {"precision": "fp64", "epochs": 2}
    spread = completed(pool, tmp_path, **values, strategy="ddp", workers=3, batch_norm="local")
    twin = completed(pool, tmp_path, **values, norm_slices=3)
    plain = completed(pool, tmp_path, **values)
    assert spread.losses == pytest.approx(twin.losses, rel=1e-11)
    assert spread.losses != pytest.approx(plain.losses, rel=1e-6)


def test_steps_are_recorded_one_a_line(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=3, schedule="step", step_epochs=2, step_gamma=0.5, lr=0.08)
    steps = list(records.read_steps(tmp_path / record.run))
    assert [s.step for s in steps] == list(range(1, 13))
    assert [s.epoch for s in steps] == [1] * 4 + [2] * 4 + [3] * 4
    assert [s.learning_rate for s in steps] == pytest.approx([0.08] * 8 + [0.04] * 4)
    assert [s.loss for s in steps] == record.losses
    assert all(0 <= s.data_seconds <= s.seconds for s in steps)
    assert all(s.batch == 24 for s in steps)
    assert record.epochs[0].train_loss == pytest.approx(np.mean(record.losses[:4]))


def test_without_evaluation_nothing_is_claimed(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, evaluate=False, checkpoint=False, epochs=2)
    assert (record.epochs, record.accuracy, record.best_accuracy) == ([], None, None)
    assert not list((tmp_path / record.run / "checkpoints").iterdir())


def test_compile_gives_the_same_losses(pool: Pool, tmp_path: Path) -> None:
    model = tmp_path / "linear.py"  # the compiler takes long on anything larger
    model.write_text(
        "from torch import nn\ndef build(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    values = {"model": f"{model}:build", "model_args": {}, "steps": 2, "precision": "fp64", "evaluate": False}
    plain, compiled = (completed(pool, tmp_path, **values, compile=value) for value in (False, True))
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-9)


PLAIN = (
    "from torch import nn\n"
    "def build(num_classes):\n"
    "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, num_classes))\n"
)


def test_single_equals_a_loop_written_by_hand(pool: Pool, tmp_path: Path) -> None:
    """The reference of all strategies against plain PyTorch: normalised images in the epoch's order, one step a batch."""
    spec = tiny(tmp_path, precision="fp64", epochs=2, lr=0.1, weight_decay=0.01, label_smoothing=0.1)
    record = completed(pool, tmp_path, precision="fp64", epochs=2, lr=0.1, weight_decay=0.01, label_smoothing=0.1)
    dataset = data.load(spec, lambda _: None)
    images = dataset.train.images.permute(0, 3, 1, 2).double() / 255
    images = (images - torch.tensor(dataset.mean).view(1, 3, 1, 1)) / torch.tensor(dataset.std).view(1, 3, 1, 1)
    torch.manual_seed(spec.seed)
    model = models.build(spec, dataset.num_classes, dataset.shape).double().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    losses = []
    for epoch in range(2):
        for batch in epoch_order(96, spec.seed, epoch).split(24):
            loss = nn.functional.cross_entropy(model(images[batch]), dataset.train.labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert record.losses == pytest.approx(losses, rel=1e-6)  # the images are rounded to float32 on one of the two ways


@pytest.mark.parametrize(("strategy", "workers"), [("single", 1), ("ddp", 2), ("zero2", 2), ("zero3", 2)])
def test_accumulation_changes_nothing_without_batch_norm(pool: Pool, tmp_path: Path, strategy: str, workers: int) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    values = {
        "model": f"{tmp_path}/plain.py:build",
        "model_args": {},
        "precision": "fp64",
        "strategy": strategy,
        "workers": workers,
    }
    whole, parts = (completed(pool, tmp_path / "runs", **values, epochs=2, accumulate=count) for count in (1, 4))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-11)
