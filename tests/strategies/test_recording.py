"""Calls are noted while a step is recorded, each once, and not a moment longer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
import torch.distributed as dist

from scalelab.strategies.stages.recording import Noted, Recorder, Watched, recording


class Stage:
    """Calls as torch's schedules make them."""

    def forward(self, index: int) -> int:
        self.wait()
        return index

    def wait(self) -> str:
        return "waited"

    def loss(self) -> None:
        return None

    def fails(self) -> None:
        raise RuntimeError("in a pass")


def ticks() -> Callable[[], int]:
    counter = count()
    return lambda: next(counter)


def watched(stage: Stage) -> list[Watched]:
    return [
        Watched(stage, "forward", lambda index: ("forward", 3, index)), Watched(stage, "wait", lambda: ("wait", None, None)),
        Watched(stage, "loss", lambda: None), Watched(stage, "fails", lambda: ("backward", 3, 0)),
    ]  # fmt: skip


def test_calls_are_noted_and_give_what_they_gave() -> None:
    stage = Stage()
    with recording(watched(stage), ticks()) as recorder:
        assert stage.forward(7) == 7
        assert stage.wait() == "waited"
        assert recorder.take() == [Noted("forward", 0, 1, 3, 7), Noted("wait", 2, 3)]
        assert recorder.take() == []


def test_what_happens_inside_is_part_of_it() -> None:
    """A batch norm's wait is a forward pass's own."""
    stage = Stage()
    with recording(watched(stage), ticks()) as recorder:
        stage.forward(0)
        assert [one.kind for one in recorder.take()] == ["forward"]


def test_the_loss_belongs_to_the_pass_before() -> None:
    stage = Stage()
    with recording(watched(stage), ticks()) as recorder:
        stage.forward(0)
        stage.loss()
        assert recorder.take() == [Noted("forward", 0, 3, 3, 0)]


def test_a_pass_that_fails_fails_and_nothing_stays_inside_of_it() -> None:
    stage = Stage()
    with recording(watched(stage), ticks()) as recorder:
        with pytest.raises(RuntimeError, match="in a pass"):
            stage.fails()
        stage.forward(1)
        assert [one.kind for one in recorder.take()] == ["backward", "forward"]


def test_afterwards_nothing_is_wrapped() -> None:
    stage, wait = Stage(), vars(dist.Work)["wait"]
    stage.__dict__["loss"] = own = lambda: None
    with recording(watched(stage), ticks()):
        assert vars(dist.Work)["wait"] is not wait
    assert vars(stage) == {"loss": own}
    assert vars(dist.Work)["wait"] is wait


def test_a_recorder_that_noted_nothing_before_leaves_a_loss_out() -> None:
    recorder, stage = Recorder(ticks()), Stage()
    recorder.around(stage.loss, watched(stage)[2])()
    assert recorder.take() == []
