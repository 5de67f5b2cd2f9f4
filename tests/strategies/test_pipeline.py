"""``--strategy pipeline``: every schedule computes what one process does; what torch's schedules can't do is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab.errors import NotApplicable
from scalelab.launch.pool import Pool
from scalelab.spec import from_mapping
from scalelab.strategies.pipeline import ORDERS, Pipeline, bubble
from tests.trainings import Reference, completed, equal, final, largest_difference, scores, train

EXACT: dict[str, Any] = {"precision": "fp64", "batch_norm": "sync", "epochs": 1}


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("order", ORDERS)
def test_every_schedule_is_single(pool: Pool, tmp_path: Path, reference: Reference, order: str, accumulate: int) -> None:
    """One micro-batch is fewer than stages; four fill the pipeline."""
    values = {**EXACT, "accumulate": accumulate}
    out, alone = reference(**values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=2, pipeline_schedule=order)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-12)
    assert scores(spread)[0]["confusion"] == scores(alone)[0]["confusion"]
    assert largest_difference(final(tmp_path, spread), final(out, alone)) < 1e-12


@pytest.mark.parametrize("order", ORDERS)
def test_with_replicas_of_the_stages(pool: Pool, tmp_path: Path, reference: Reference, order: str) -> None:
    """Batch statistics cross the replicas inside of the schedule, gradients after it."""
    values = {**EXACT, "accumulate": 2, "optimizer": "adamw", "lr": 0.01}
    out, alone = reference(**values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=4, stages=2, pipeline_schedule=order)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, spread), final(out, alone)) < 1e-9


def test_statistics_of_each_replicas_share(pool: Pool, tmp_path: Path) -> None:
    values = {**EXACT, "batch_norm": "local", "accumulate": 3}
    alone = completed(pool, tmp_path, **values, norm_slices=2)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=4, stages=2)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, spread), final(tmp_path, alone)) < 1e-9


DROPPING = """
from torch import nn

class Dropping(nn.Module):
    def forward(self, x):
        return x[:, : x.shape[1] // 2] if self.training else x

class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)

def build(num_classes):
    wide = [layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.Tanh())]
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), Dropping(), *wide, nn.Linear(8, num_classes), Mean())
"""


def test_no_cut_where_training_changes_the_shape(pool: Pool, tmp_path: Path) -> None:
    """Neighbours introduce each other in evaluation: what is shorter in training (timm's PatchDropout) must not travel."""
    (tmp_path / "dropping.py").write_text(DROPPING)
    values = {**EXACT, "accumulate": 2, "model": f"{tmp_path}/dropping.py:build", "model_args": {}, "batch": 32}
    alone = completed(pool, tmp_path, **values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=2)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-12)


def test_one_stage_is_data_parallelism(pool: Pool, tmp_path: Path) -> None:
    values = {**EXACT, "accumulate": 2}
    alone = completed(pool, tmp_path, **values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=2, stages=1)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, spread), final(tmp_path, alone)) < 1e-9


FROZEN = """
from torch import nn

def build(num_classes):
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 16)).requires_grad_(False)
    return nn.Sequential(frozen, nn.ReLU(inplace=True), nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, num_classes))
"""


@pytest.mark.parametrize("order", ORDERS)
def test_no_gradient_into_frozen_stages(pool: Pool, tmp_path: Path, order: str) -> None:
    """zero-bubble finds a stage's weights on the way to its input: one that needs no gradient would hide them."""
    (tmp_path / "frozen.py").write_text(FROZEN)
    values = {**EXACT, "accumulate": 4, "model": f"{tmp_path}/frozen.py:build", "model_args": {}}
    split = "1,2,3" if ORDERS[order].chunks == 2 else "1"
    alone = completed(pool, tmp_path, **values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=2, pipeline_schedule=order, split=split)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-12)
    assert largest_difference(final(tmp_path, spread), final(tmp_path, alone)) < 1e-12


@pytest.mark.parametrize("order", ["interleaved", "zero-bubble"])
def test_two_stages_on_each_worker_resume(pool: Pool, tmp_path: Path, order: str) -> None:
    values = {"strategy": "pipeline", "workers": 2, "pipeline_schedule": order, "accumulate": 2, "augment": "crop", "epochs": 2}
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, stop_after_epoch=1)
    second = completed(pool, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


TWICE = """
import torch
from torch import nn

class Twice(nn.Linear):
    def forward(self, x):
        return torch.tanh(super().forward(torch.tanh(super().forward(x))))

def build(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), Twice(16, 16), nn.Linear(16, 16), Twice(16, 16), nn.Linear(16, num_classes))
"""


def test_a_weight_used_twice_where_its_gradient_is_put_off(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(TWICE)
    values = {**EXACT, "accumulate": 2, "model": f"{tmp_path}/twice.py:build", "model_args": {}}
    alone = completed(pool, tmp_path, **values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=2, pipeline_schedule="zero-bubble", split="2,3,4")
    assert largest_difference(final(tmp_path, spread), final(tmp_path, alone)) < 1e-12


FAILING = """
from torch import nn

class Fails(nn.Linear):
    def forward(self, x):
        if self.training and len(x) == 12:
            raise ValueError("no more of this")
        return super().forward(x)

def build(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), Fails(16, num_classes))
"""


def test_what_goes_wrong_in_a_stage_is_told_in_its_own_words(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    record = train(
        pool, tmp_path, model=f"{tmp_path}/failing.py:build", model_args={}, strategy="pipeline", workers=2, accumulate=2
    )
    assert record.failure is not None
    assert record.failure.error == "ValueError: no more of this"


BLOCKS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return torch.relu(x + self.b(torch.tanh(self.norm(self.a(x)))))

def build(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 1), *(Block() for _ in range(4)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


@pytest.mark.parametrize("order", ["gpipe", "1f1b", "interleaved"])
def test_layers_computed_again(pool: Pool, tmp_path: Path, order: str) -> None:
    (tmp_path / "blocks.py").write_text(BLOCKS)
    values = {**EXACT, "accumulate": 2, "model": f"{tmp_path}/blocks.py:build", "model_args": {}}
    alone = completed(pool, tmp_path, **values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=2, recompute=True, pipeline_schedule=order)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, spread), final(tmp_path, alone)) < 1e-9


def test_bf16_activations_travel(pool: Pool, tmp_path: Path) -> None:
    values = {"epochs": 1, "accumulate": 2, "precision": "bf16"}
    alone = completed(pool, tmp_path, **values)
    spread = completed(pool, tmp_path, **values, strategy="pipeline", workers=2)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-6)


def test_fewer_micro_batches_than_stages_are_allowed_with_the_bubble_stated(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=1, strategy="pipeline", workers=3)
    (said,) = [
        note for note in record.notes if note.startswith("1f1b with 1 micro-batch, fewer than the 3 workers of a pipeline")
    ]
    assert said.endswith("each worker waits for 67% of a step, at best")


def test_rounds_that_do_not_come_out_even_are_refused_with_the_nearest(pool: Pool, tmp_path: Path) -> None:
    values = {"strategy": "pipeline", "workers": 2, "pipeline_schedule": "interleaved", "batch": 35, "accumulate": 5}
    with pytest.raises(
        NotApplicable, match="takes equal rounds of micro-batches; nearest: 4 or 6; 1f1b and gpipe take any number"
    ):
        train(pool, tmp_path, **values)


@pytest.mark.parametrize("name", ["compile", "recompute"])
def test_a_backward_in_two_parts_is_refused_where_it_cannot_be(name: str) -> None:
    with pytest.raises(NotApplicable, match=f"--{name}: .* goes backward through a stage twice"):
        Pipeline.check(from_mapping({"strategy": "pipeline", "workers": 2, "pipeline_schedule": "zero-bubble", name: True}))


def test_twice_as_many_stages_are_needed_where_each_worker_has_two(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(
        NotApplicable, match="can't be cut into 8 stages with 2 on each worker, at most into 7; use --stages 7 or fewer"
    ):
        train(pool, tmp_path, strategy="pipeline", workers=8, pipeline_schedule="interleaved")


@pytest.mark.parametrize(
    ("order", "stages", "micro_batches", "share"),
    [
        ("gpipe", 4, 4, 3 / 7),
        ("1f1b", 4, 12, 3 / 15),
        ("interleaved", 4, 12, 3 / 27),
        ("zero-bubble", 4, 12, 1 / 25),
        ("gpipe", 1, 8, 0.0),
    ],
)
def test_the_bubble(order: str, stages: int, micro_batches: int, share: float) -> None:
    assert bubble(order, stages, micro_batches) == pytest.approx(share)
