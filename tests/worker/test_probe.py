"""What communication costs is measured on steps that never train, and the bytes are those really sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab import spec as specs
from scalelab.launch.pool import Pool
from scalelab.record.schema import Figure
from tests import loopback
from tests.trainings import SPREAD, completed, equal, final, scores, tiny


@pytest.mark.parametrize(("strategy", "optimizer"), [*((strategy, "adamw") for strategy in SPREAD), ("ddp", "sgd")])
def test_probes_never_train(pool: Pool, tmp_path: Path, strategy: str, optimizer: str) -> None:
    values = {
        "strategy": strategy,
        "workers": 2,
        "optimizer": optimizer,
        "lr": 0.01,
        "epochs": 2,
        "augment": "crop",
        "weight_decay": 0.01,
    }
    without = completed(pool, tmp_path, **values)
    probed = completed(pool, tmp_path, **values, probe_steps=3)
    assert probed.communication_seconds.total.n == 3
    assert probed.losses == without.losses
    assert scores(probed) == scores(without)
    assert equal(final(tmp_path, probed), final(tmp_path, without))


def test_probes_never_train_with_sync_batch_norm_and_dropout(pool: Pool, tmp_path: Path) -> None:
    model = tmp_path / "dropping.py"
    model.write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, num_classes))\n"
    )
    values = {"strategy": "ddp", "workers": 3, "batch_norm": "sync", "accumulate": 2, "epochs": 2, "model": f"{model}:build"}
    values["model_args"] = {}
    without = completed(pool, tmp_path, **values)
    probed = completed(pool, tmp_path, **values, probe_steps=2)
    assert probed.losses == without.losses
    assert equal(final(tmp_path, probed), final(tmp_path, without))


RATIOS = {"ddp": 2, "zero1": 3, "zero2": 3, "zero3": 4}
"""bytes each of n ranks sends, in (n-1)/n · P, as each strategy's file states them for gloo"""


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("strategy", SPREAD)
def test_bytes_sent_are_those_the_strategy_states(pool: Pool, tmp_path: Path, strategy: str, workers: int) -> None:
    record = completed(
        pool, tmp_path, strategy=strategy, workers=workers, steps=2, probe_steps=1, model_args={"width": 12}, evaluate=False
    )
    assert record.model is not None
    expected = RATIOS[strategy] * (workers - 1) / workers * record.model.bytes
    assert record.bytes_sent.median == pytest.approx(expected, rel=0.03)  # FSDP pads what does not divide


def test_bytes_sent_are_those_of_the_network_interface(pool: Pool, tmp_path: Path) -> None:
    """What 90 more steps add to the loopback interface's counter."""
    values = {"strategy": "ddp", "workers": 2, "model_args": {"width": 40}, "batch": 8, "train_limit": 800}
    values |= {"evaluate": False, "checkpoint": False}
    sent = completed(pool, tmp_path, **values, steps=2, probe_steps=1).bytes_sent.median
    assert sent is not None
    own, few, more = loopback.apart(), 5, 95
    files = [tmp_path / f"{steps}.yaml" for steps in (few, more)]
    for file, steps in zip(files, (few, more), strict=True):
        file.write_text(specs.dump(tiny(tmp_path, **values, steps=steps)))
    # On a shared interface others' traffic only adds: the least of several readings comes nearest.
    less, whole = (min(column) for column in zip(*(loopback.counted(files, own) for _ in range(1 if own else 3)), strict=True))
    measured = (whole - less) / (more - few) / 2
    assert measured > 0.95 * sent
    assert measured < (1.15 if own else 1.5) * sent  # headers; and others', where there are others


def figures(record: Any) -> list[Figure]:
    seconds = record.communication_seconds
    return [seconds.total, seconds.exposed, seconds.hidden, seconds.waited, seconds.bare, record.bytes_sent]


def test_figures_of_communication_are_there_for_two_workers(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="zero3", workers=2, probe_steps=4)
    total, exposed, hidden, waited, bare, sent = figures(record)
    assert total.median is not None
    assert exposed.median is not None
    assert total.median > 0
    assert hidden.median == pytest.approx(total.median - exposed.median)
    assert waited.median is not None
    assert 0 < waited.median <= total.median
    assert bare.median is not None
    assert bare.median > 0
    assert (total.n, exposed.n, waited.n, bare.n) == (4, 4, 4, 10)
    assert sent.median
    said = {f"communication_seconds.{name}" for name in ("total", "exposed", "hidden", "waited", "bare")}
    assert said | {"bytes_sent"} <= record.method.keys()


def test_a_pipelines_waiting_is_no_reading_of_its_communication(pool: Pool, tmp_path: Path) -> None:
    seconds = completed(pool, tmp_path, strategy="pipeline", workers=2, accumulate=2, probe_steps=1).communication_seconds
    assert seconds.total.median is not None
    assert seconds.waited.median is None
    assert "a stage waits" in (seconds.waited.reason or "")
    assert "can't be done by themselves" in (seconds.bare.reason or "")


def test_a_step_between_two_averagings_has_its_share_of_them(pool: Pool, tmp_path: Path) -> None:
    """The bare time is of the mean step, as the bytes are."""
    values = {"strategy": "local-sgd", "workers": 2, "model_args": {"width": 40}, "steps": 4, "evaluate": False, "probe_steps": 1}
    often, rarely = (
        completed(pool, tmp_path, **values, sync_every=every).communication_seconds.bare.median for every in (1, 100)
    )
    assert often is not None
    assert rarely is not None
    assert 0 < rarely < often / 5


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"probe_steps": 4}, "one worker: nothing is sent"), ({"strategy": "ddp", "workers": 2}, "not probed: --probe-steps 0")],
)
def test_figures_that_were_not_measured_are_absent_with_the_reason(
    pool: Pool, tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    for figure in figures(completed(pool, tmp_path, **values)):
        assert (figure.median, figure.reason) == (None, reason)
