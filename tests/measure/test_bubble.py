"""The bubble of recorded steps, on steps whose bubble is known: made by hand, pass by pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest

from scalelab.measure.bubble import Parts, parts, replayed
from scalelab.record.timeline import Event, Kind, Lane

FORWARD, BACKWARD = 1.0, 2.0


def event(kind: Kind, stage: int, micro_batch: int, start: float, length: float) -> Event:
    return Event(kind=kind, stage=stage, micro_batch=micro_batch, start=start, end=start + length)


def gpipe(workers: int, count: int, replica: int = 0) -> list[Lane]:
    """All forward passes, then all backward passes, each at the first moment that it can be."""
    turn = (count + workers - 1) * FORWARD
    lanes = []
    for place in range(workers):
        forward = [event("forward", place, m, (place + m) * FORWARD, FORWARD) for m in range(count)]
        back = [event("backward", place, m, turn + (workers - 1 - place + m) * BACKWARD, BACKWARD) for m in range(count)]
        lanes.append(Lane(rank=place, place=place, replica=replica, events=[*forward, *back]))
    return lanes


def changed(lanes: Sequence[Lane], change: Callable[[Event], Event]) -> list[Lane]:
    return [msgspec.structs.replace(lane, events=[change(one) for one in lane.events]) for lane in lanes]


def timed(lanes: Sequence[Lane], length: Callable[[Event], float]) -> list[Lane]:
    """gpipe of two workers with other lengths: every pass when its worker and what it needs are ready."""
    ends: dict[tuple[str, int, int], float] = {}
    count = len(lanes[0].events) // 2
    found: dict[int, list[Event]] = {0: [], 1: []}
    free = [0.0, 0.0]
    order = [("forward", 0), ("forward", 1), ("backward", 1), ("backward", 0)]
    for kind, stage in order:
        for m in range(count):
            needs = {
                ("forward", 0): 0.0, ("forward", 1): ends.get(("forward", 0, m), 0.0),
                ("backward", 1): ends.get(("forward", 1, m), 0.0), ("backward", 0): ends.get(("backward", 1, m), 0.0),
            }  # fmt: skip
            made = event("forward" if kind == "forward" else "backward", stage, m, max(free[stage], needs[kind, stage]), 0.0)
            made = msgspec.structs.replace(made, end=made.start + length(made))
            ends[kind, stage, m] = free[stage] = made.end
            found[stage].append(made)
    return [msgspec.structs.replace(lane, events=found[lane.place]) for lane in lanes]


def whole(found: Parts) -> float:
    return found.order + found.unequal + found.jitter + found.rest


@pytest.mark.parametrize(("workers", "count"), [(2, 2), (2, 8), (4, 4), (4, 12), (3, 1)])
def test_an_ideal_gpipe_has_the_bubble_of_theory_and_nothing_else(workers: int, count: int) -> None:
    found = parts(gpipe(workers, count))
    assert found.bubble == pytest.approx((workers - 1) / (count + workers - 1))
    assert found.order == pytest.approx(found.bubble)
    assert [found.unequal, found.jitter, found.rest] == pytest.approx([0, 0, 0], abs=1e-12)
    assert found.busy == pytest.approx([count * (FORWARD + BACKWARD)] * workers)
    assert found.span == pytest.approx((count + workers - 1) * (FORWARD + BACKWARD))


def test_a_stage_that_takes_longer_is_told_from_the_order() -> None:
    def length(one: Event) -> float:
        return (FORWARD if one.kind == "forward" else BACKWARD) * (2 if one.stage == 1 else 1)

    found = parts(timed(gpipe(2, 4), length))
    span = 1 + 4 * 2 + 4 * 4 + 2  # the second worker is never idle between its first and last pass; the first begins and ends
    assert found.span == pytest.approx(span)
    assert found.bubble == pytest.approx(1 - (4 * 3 + 4 * 6) / 2 / span)
    assert found.order == pytest.approx(1 / 5)
    assert found.unequal == pytest.approx(found.bubble - 1 / 5)
    assert [found.jitter, found.rest] == pytest.approx([0, 0], abs=1e-12)


def test_a_pass_that_takes_longer_once_is_jitter() -> None:
    def length(one: Event) -> float:
        return (
            5.0 if (one.kind, one.stage, one.micro_batch) == ("forward", 0, 2) else FORWARD if one.kind == "forward" else BACKWARD
        )

    found = parts(timed(gpipe(2, 4), length))
    assert found.jitter > 0.05
    assert found.unequal == pytest.approx(0, abs=1e-12)
    assert found.rest == pytest.approx(0, abs=1e-12)
    assert whole(found) == pytest.approx(found.bubble)


def test_time_between_passes_that_nothing_explains_is_the_rest() -> None:
    def late(one: Event) -> Event:
        gap = 0.5 * (one.start / FORWARD + 1)
        return msgspec.structs.replace(one, start=one.start + gap, end=one.end + gap)

    found = parts(changed(gpipe(2, 4), late))
    assert found.order == pytest.approx(1 / 5)
    assert [found.unequal, found.jitter] == pytest.approx([0, 0], abs=1e-12)
    assert found.rest == pytest.approx(found.bubble - 1 / 5)
    assert found.rest > 0.1


def test_weights_gradients_that_are_put_off_fill_the_bubble() -> None:
    """The second half of a backward pass waits for its first, and nobody waits for it."""
    lanes = [
        Lane(rank=0, place=0, replica=0, events=[
            event("forward", 0, 0, 0, 1), event("forward", 0, 1, 1, 1), event("input", 0, 0, 4, 1), event("weight", 0, 0, 5, 1),
            event("input", 0, 1, 6, 1), event("weight", 0, 1, 7, 1),
        ]),
        Lane(rank=1, place=1, replica=0, events=[
            event("forward", 1, 0, 1, 1), event("forward", 1, 1, 2, 1), event("input", 1, 0, 3, 1), event("input", 1, 1, 4, 1),
            event("weight", 1, 0, 5, 1), event("weight", 1, 1, 6, 1),
        ]),
    ]  # fmt: skip
    found = parts(lanes)
    assert found.order == pytest.approx(1 - 6 / 8)
    assert found.rest == pytest.approx(0, abs=1e-12)


def test_the_update_is_no_part_of_it() -> None:
    def step() -> list[Lane]:
        lanes = gpipe(2, 4)
        after = [Event(kind="wait", start=15.0, end=16.0), Event(kind="update", start=16.0, end=40.0)]
        return [msgspec.structs.replace(lane, events=[*lane.events, *after]) for lane in lanes]

    assert parts(step()).bubble == pytest.approx(1 / 5)


def test_replicas_are_pipelines_of_their_own() -> None:
    both = parts([*gpipe(2, 4), *gpipe(2, 8, replica=1)])
    assert both.bubble == pytest.approx((1 / 5 + 1 / 9) / 2)
    assert len(both.busy) == 2


def test_two_stages_on_a_worker_wait_for_the_stage_before_wherever_it_is() -> None:
    """Stages 0 and 2 on the first worker, 1 and 3 on the second: forward goes to and fro."""
    lanes = [
        Lane(rank=0, place=0, replica=0, events=[
            event("forward", 0, 0, 0, 1), event("forward", 2, 0, 2, 1), event("backward", 2, 0, 5, 1), event("backward", 0, 0, 7, 1),
        ]),
        Lane(rank=1, place=1, replica=0, events=[
            event("forward", 1, 0, 1, 1), event("forward", 3, 0, 3, 1), event("backward", 3, 0, 4, 1), event("backward", 1, 0, 6, 1),
        ]),
    ]  # fmt: skip
    assert replayed(lanes, lambda one: one.end - one.start) == pytest.approx(0.5)


def test_an_order_that_waits_for_itself_is_an_error() -> None:
    lanes = gpipe(2, 2)
    backwards = [msgspec.structs.replace(lane, events=lane.events[::-1]) for lane in lanes]
    with pytest.raises(ValueError, match="can't be carried out"):
        parts(backwards)


def test_a_worker_that_computed_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="computed nothing"):
        parts([*gpipe(2, 2), Lane(rank=2, place=2, replica=0, events=[])])
