"""``--strategy model``: layers on different workers compute what one process does, and only activations and gradients travel."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from scalelab.errors import NotApplicable
from scalelab.launch.pool import Pool
from tests.trainings import Reference, completed, equal, final, largest_difference, scores, train

EXACT: dict[str, Any] = {
    "precision": "fp64",
    "batch_norm": "sync",
    "accumulate": 2,
    "optimizer": "adamw",
    "lr": 0.01,
    "epochs": 1,
}


@pytest.mark.parametrize("workers", [2, 3])
def test_it_is_single_to_the_bit(pool: Pool, tmp_path: Path, reference: Reference, workers: int) -> None:
    """The same operations on the same micro-batches: losses, weights, statistics, slots and scores."""
    out, alone = reference(**EXACT)
    spread = completed(pool, tmp_path, **EXACT, strategy="model", workers=workers)
    assert spread.losses == alone.losses
    assert scores(spread) == scores(alone)
    assert equal(final(tmp_path, spread), final(out, alone))


@pytest.mark.parametrize("batch_norm", ["sync", "local"])
def test_replicas_of_stages_average_their_gradients(pool: Pool, tmp_path: Path, batch_norm: str) -> None:
    values = {**EXACT, "batch_norm": batch_norm}
    alone = completed(pool, tmp_path, **values, norm_slices=2 if batch_norm == "local" else 1)
    spread = completed(pool, tmp_path, **values, strategy="model", workers=4, stages=2)
    assert (spread.derived.data, spread.derived.pipe) == (2, 2)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, spread), final(tmp_path, alone)) < 1e-9


def test_uneven_shares_of_replicas(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    out, alone = reference(**EXACT)
    spread = completed(pool, tmp_path, **EXACT, strategy="model", workers=4, stages=2, shares="3:1")
    assert spread.losses == pytest.approx(alone.losses, rel=1e-11)
    assert largest_difference(final(tmp_path, spread), final(out, alone)) < 1e-9


def test_each_worker_holds_its_stages_alone(pool: Pool, tmp_path: Path) -> None:
    alone = completed(pool, tmp_path, epochs=1, checkpoint=False)
    spread = completed(pool, tmp_path, epochs=1, strategy="model", workers=2, split="8", checkpoint=False)
    assert spread.memory_bytes.parameters < 0.8 * alone.memory_bytes.parameters
    assert "2 stages; a new one begins at 8" in spread.notes
    assert "2 stages; a new one begins at 8" in (tmp_path / spread.run / "logs" / "rank-0.txt").read_text()


def test_what_is_sent_is_the_activation_and_its_gradient(pool: Pool, tmp_path: Path) -> None:
    """Behind the second pooling lie 8 channels of 2x2 pixels: 24 samples of 128 bytes, forward and back, over two workers."""
    record = completed(pool, tmp_path, epochs=1, strategy="model", workers=2, split="8", accumulate=2, probe_steps=2)
    assert record.bytes_sent is not None
    assert record.bytes_sent.median == 24 * 8 * 2 * 2 * 4 * 2 / 2
    assert record.communication_seconds.exposed.reason.startswith("not probed: a stage waits")


ODD = """
    import os, signal
    import torch
    from torch import nn

    class Dies(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += self.training
            if self.calls > 6:  # more than are made before the start
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(x)

    class Choosy(nn.Sequential):
        def forward(self, x):
            x = super().forward(x)
            return x if x.sum() > 0 else x * 2

    class Hidden(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.factor = inner, 1.0

        def forward(self, x):
            self.factor += self.training
            return self.inner(x) * self.factor

    class Turned(nn.Module):
        def forward(self, x):
            return x.flatten(2).transpose(1, 2)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(1)

    def build(num_classes, kind):
        if kind == "turned":
            return nn.Sequential(nn.Conv2d(3, 8, 1), Turned(), nn.Linear(8, num_classes), Mean())
        plain = [nn.Flatten(), nn.Linear(192, 16), nn.Tanh()]
        if kind == "dies":
            return nn.Sequential(*plain, Dies(16, num_classes))
        if kind == "choosy":
            return Choosy(*plain, nn.Linear(16, num_classes))
        if kind == "hidden":
            return Hidden(nn.Sequential(*plain, nn.Linear(16, num_classes)))
        if kind == "no parameters first":
            return nn.Sequential(nn.AvgPool2d(2), *plain[:1], nn.Linear(48, num_classes))
        frozen = nn.Sequential(*plain[:2]).requires_grad_(False)
        return nn.Sequential(frozen, nn.ReLU(inplace=True), nn.Linear(16, 16), nn.ReLU(inplace=True), nn.Linear(16, num_classes))
"""


@pytest.fixture
def odd(tmp_path: Path) -> str:
    (tmp_path / "odd.py").write_text(textwrap.dedent(ODD))
    return f"{tmp_path}/odd.py:build"


@pytest.mark.parametrize(
    ("kind", "split"), [("no parameters first", "2"), ("frozen first", "1,3"), ("frozen first", "2,4"), ("turned", "2")]
)
def test_stages_without_parameters_or_gradients_or_order_in_memory(
    pool: Pool, tmp_path: Path, odd: str, kind: str, split: str
) -> None:
    values = {**EXACT, "model": odd, "model_args": {"kind": kind}, "channels_last": "off"}
    alone = completed(pool, tmp_path, **values)
    spread = completed(pool, tmp_path, **values, strategy="model", workers=1 + len(split.split(",")), split=split)
    assert spread.losses == alone.losses
    assert equal(final(tmp_path, spread), final(tmp_path, alone))


@pytest.mark.parametrize("kind", ["choosy", "hidden"])
def test_a_model_that_cannot_be_followed_is_refused_by_name(pool: Pool, tmp_path: Path, odd: str, kind: str) -> None:
    with pytest.raises(
        NotApplicable, match=r"odd\.py:build' can't be split: torch\.fx can't follow its forward \(.*\); use ddp or zero3"
    ):
        train(pool, tmp_path / "runs", model=odd, model_args={"kind": kind}, strategy="model", workers=2)
    assert not (tmp_path / "runs").exists()


def test_more_stages_than_there_are_places_for_is_refused_with_the_most(pool: Pool, tmp_path: Path, odd: str) -> None:
    values = {"model": odd, "model_args": {"kind": "dies"}, "strategy": "model", "batch": 30}
    with pytest.raises(NotApplicable, match="can't be cut into 5 stages, at most into 4; use --stages 4 or fewer"):
        train(pool, tmp_path / "runs", **values, workers=5)


def test_a_module_that_is_not_there_is_told_before_the_start(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="--split layer3: 'layer3' is no module of the model; a stage can begin at 1, 2, 3"):
        train(pool, tmp_path / "runs", strategy="model", workers=2, split="layer3")


def test_a_killed_stage_ends_the_job(pool: Pool, tmp_path: Path, odd: str) -> None:
    began = time.monotonic()
    record = train(
        pool, tmp_path, model=odd, model_args={"kind": "dies"}, strategy="model", workers=2, split="3", epochs=2, timeout=60
    )
    assert record.status == "failed"
    assert time.monotonic() - began < 60
    assert record.failure is not None
    assert record.failure.rank == 1
