"""Figures of a point over its trainings, ratios of two points, and what is said of trainings that were made once."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from scalelab.record.schema import Figure, Host
from scalelab.studies.figures import ONE, READ, SINGLE, UNPAIRED, once, over_runs, said_once, told, versus
from scalelab.studies.running.running import other_machines
from scalelab.studies.scaling.weak_scaling import STUDY
from scalelab.studies.study import Result, Run
from tests.studies import made

BASE, OTHER = STUDY.points(made.asked(STUDY, workers=[2], batch_per_worker=[32]))[::3]
RATE = READ["images_per_second"]


def trained(*steps: float) -> Result:
    """A point whose repeats took so many seconds a step."""
    return made.result(OTHER, *(made.record(OTHER, step, 32) for step in steps))


def test_repeats_are_paired_because_they_drift_together() -> None:
    ratio = versus(trained(0.1, 0.2, 0.4), trained(0.2, 0.4, 0.8), RATE)
    assert (ratio.median, ratio.ci95, ratio.reason) == (pytest.approx(2.0), pytest.approx((2.0, 2.0)), None)


def test_what_was_trained_once_is_compared_by_its_blocks_and_says_so() -> None:
    assert versus(trained(0.1), trained(0.2), RATE).reason == ONE
    assert versus(trained(0.1), trained(0.2, 0.2), RATE).reason == UNPAIRED


def test_a_sentence_of_single_trainings_is_of_these_alone() -> None:
    many, single = trained(0.1, 0.1), trained(0.1)
    assert (once(many), once(single), once(many, single)) == (False, True, True)
    assert told("Batch 8 is enough.", many) == "Batch 8 is enough."
    assert told("Batch 8 is enough.", many, single) == "In these single trainings, batch 8 is enough."
    assert told("", single) == ""
    named = replace(single, point=replace(single.point, hosts=("Lab1", "Lab2")))
    assert told("Lab1 is fast.", named) == "In these single trainings, Lab1 is fast."


def test_single_trainings_are_named_once_where_all_are() -> None:
    first, second, named = (f"{SINGLE}{rest}" for rest in ("it rises.", "it falls.", "ddp on one worker: no cost."))
    sentences = [first, "Nothing waits.", second, named]
    assert said_once(f"{SINGLE}take 8.", sentences, ["ddp"]) == [
        "It rises.", "Nothing waits.", "It falls.", "ddp on one worker: no cost.",
    ]  # fmt: skip
    assert said_once("Take 8.", sentences, ["ddp"]) == [first, "Nothing waits.", "It falls.", "ddp on one worker: no cost."]


@pytest.mark.parametrize(("doubts", "reason"), [((), None), ((0,), "of 1 of 3 trainings: busy"), ((0, 1, 2), "busy")])
def test_a_doubt_of_values_is_one_of_their_median(doubts: tuple[int, ...], reason: str | None) -> None:
    def read(run: Run) -> Figure:
        return Figure(unit="ratio", median=0.5, n=3, reason="busy" if run.repeat in doubts else None)

    result = trained(0.1, 0.1, 0.1)
    assert over_runs(result, read, doubted=True).reason == reason
    assert over_runs(result, read).reason is None


def test_trainings_of_two_machines_are_told() -> None:
    record = made.record(BASE, 0.1, 32)
    fast, slow = (made.on(record, Host(name=name, processor=name, cores=2)) for name in ("fast", "slow"))
    mixed = {(0, 0): Run(0, made.Path("a"), fast), (1, 0): Run(0, made.Path("b"), slow)}
    assert other_machines({(0, 0): mixed[0, 0]}) == []
    (said,) = other_machines(mixed)
    assert said == "the trainings ran on different machines (fast, 2 cores; slow, 2 cores): a difference may be the machines'"
    renamed = msgspec.structs.replace(fast.environment.hosts[0], name="another pod")
    assert other_machines({(0, 0): mixed[0, 0], (0, 1): Run(1, made.Path("c"), made.on(record, renamed))}) == []
