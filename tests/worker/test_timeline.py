"""A pipeline's steps are recorded on every rank: each pass once, in an order that can be, and nothing is trained by it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalelab.launch.pool import Pool
from scalelab.record import timeline
from scalelab.record.timeline import Event, Timeline
from scalelab.strategies.pipeline import ORDERS
from tests.trainings import completed, equal, final

COUNT = 4
SMALL: dict[str, Any] = {"workers": 2, "accumulate": COUNT, "steps": 2, "evaluate": False}


def passes(found: Timeline, step: int = 0) -> list[Event]:
    return [event for lane in found.steps[step] for event in lane.chunks]


@pytest.mark.parametrize("order", [*ORDERS, "model"])
def test_every_pass_is_recorded_once_and_after_what_it_needs(pool: Pool, tmp_path: Path, order: str) -> None:
    how = {"strategy": "model"} if order == "model" else {"strategy": "pipeline", "pipeline_schedule": order}
    record = completed(pool, tmp_path, **SMALL, **how, probe_steps=3)
    found = timeline.read(tmp_path / record.run)
    assert found is not None
    stages = 4 if order in ("interleaved", "zero-bubble") else 2
    assert (found.schedule, found.workers, found.stages, found.micro_batches, found.micro_batch) == (order, 2, stages, COUNT, 6)
    assert len(found.steps) == 3
    for step in range(3):
        each = Counter((event.kind, event.stage, event.micro_batch) for event in passes(found, step))
        back = ("input", "weight") if order == "zero-bubble" else ("backward",)
        assert each == Counter((k, s, m) for k in ("forward", *back) for s in range(stages) for m in range(COUNT))
        check_order(found, step)
    bubble = record.bubble
    assert bubble is not None
    assert bubble.measured.n == 3
    assert bubble.measured.median is not None
    assert 0 < bubble.measured.median < 1
    assert bubble.order.median is not None
    if order == "zero-bubble":  # its theory holds where all kinds of passes take equally long, which is the machine's affair
        assert 0 <= bubble.order.median < 1
    else:
        assert bubble.order.median == pytest.approx(bubble.theory, abs=1e-6)
    assert "bubble.measured" in record.method


def check_order(found: Timeline, step: int) -> None:
    """A rank does one thing at a time; a pass begins after the passes that it needs ended (one host: one clock)."""
    ends = {(event.kind, event.stage, event.micro_batch): event.end for event in passes(found, step)}
    for lane in found.steps[step]:
        for before, after in zip(lane.events, lane.events[1:], strict=False):
            assert before.end <= after.start
        assert [event.kind for event in lane.events[-2:]] == ["reduce", "update"]
    for event in passes(found, step):
        assert event.stage is not None
        if event.kind == "forward" and event.stage > 0:
            assert ends["forward", event.stage - 1, event.micro_batch] < event.start
        if event.kind in ("backward", "input") and event.stage < found.stages - 1:
            assert ends[event.kind, event.stage + 1, event.micro_batch] < event.start


@pytest.mark.parametrize("how", [{"strategy": "model"}, {"strategy": "pipeline", "optimizer": "adamw", "lr": 0.01}])
def test_recorded_steps_never_train(pool: Pool, tmp_path: Path, how: dict[str, Any]) -> None:
    values = {**how, "workers": 2, "accumulate": 2, "epochs": 2, "augment": "crop", "evaluate": False}
    without = completed(pool, tmp_path, **values)
    recorded = completed(pool, tmp_path, **values, probe_steps=2)
    assert recorded.losses == without.losses
    assert equal(final(tmp_path, recorded), final(tmp_path, without))
    assert without.bubble is not None
    assert without.bubble.measured.reason == "not recorded: --probe-steps 0"
    assert timeline.read(tmp_path / without.run) is None


def test_replicas_have_lanes_of_their_own(pool: Pool, tmp_path: Path) -> None:
    values = {**SMALL, "workers": 4, "stages": 2, "accumulate": 2}
    record = completed(pool, tmp_path, **values, strategy="pipeline", probe_steps=1)
    found = timeline.read(tmp_path / record.run)
    assert found is not None
    assert [(lane.rank, lane.replica, lane.place) for lane in found.steps[0]] == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1)]
    assert record.bubble is not None
    assert len(record.bubble.busy_seconds) == 2


def test_one_process_has_no_bubble(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, steps=2, evaluate=False, probe_steps=1)
    assert record.bubble is None
    assert timeline.read(tmp_path / record.run) is None
