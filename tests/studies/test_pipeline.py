"""The study pipeline: what is tried, what is said of the split, of the bubble and of what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.measure.statistics import figure
from scalelab.record import timeline
from scalelab.record.study import Findings
from scalelab.record.timeline import Timeline
from scalelab.studies import quiet
from scalelab.studies.pipeline.pipeline import STUDY
from scalelab.studies.study import Asked, Point, Result, Run
from tests.measure.test_bubble import gpipe
from tests.studies import untrained
from tests.studies.learned import asked

THEORY = {2: 1 / 3, 8: 1 / 9}


def question(accumulate: tuple[int, ...] = (2, 8), cores: int = 2, schedules: tuple[str, ...] = ("gpipe",), **base: Any) -> Asked:
    varied = {"stages": [2], "accumulate": list(accumulate), "pipeline_schedule": list(schedules)}
    found = asked(STUDY, varied, **base)
    return Asked(found.base, found.varied, found.options, found.quick, cores)


def analysed(rates: dict[str, float], about: Callable[[Point], dict[str, Any]], ask: Asked | None = None) -> Findings:
    """Findings where each point has the rate of its label."""
    ask = ask or question()
    return STUDY.analyse(ask, [untrained.result(p, rates[p.label], cores=ask.cores, **about(p)) for p in STUDY.points(ask)])


def plain(point: Point) -> dict[str, Any]:
    """A bubble as in theory."""
    if point.spec.strategy == "single":
        return {}
    theory = 0.5 if point.spec.strategy == "model" else THEORY[point.spec.accumulate or 1]
    return {"bubble": untrained.bubble(point, theory, theory)}


RATES = {
    "single": 1000.0, "single, all 2 cores": 1800.0, "model × 2": 900.0, "gpipe × 2, 2 micro-batches": 1200.0,
    "gpipe × 2, 8 micro-batches": 1500.0,
}  # fmt: skip


def test_the_points_are_single_model_and_every_pipeline() -> None:
    points = STUDY.points(question())
    assert [p.label for p in points] == list(RATES)
    assert {p.spec.threads_per_worker for p in points if p.factors["role"] != "all cores"} == {1}
    assert {p.spec.batch for p in points} == {128}


def test_workers_are_the_stages_or_what_is_said() -> None:
    assert {p.spec.workers for p in STUDY.points(question())} == {1, 2}
    spread = [p for p in STUDY.points(question(workers=4)) if p.spec.workers > 1]
    assert {(p.spec.workers, p.spec.stages) for p in spread} == {(4, 2)}
    assert spread[0].label == "model × 4 (2 stages × 2 replicas)"


@pytest.mark.parametrize(
    ("base", "stages", "why"),
    [
        ({"strategy": "ddp"}, 2, "compares pipelines with single and model"),
        ({}, 1, "--stages 1: a pipeline has at least 2"),
        ({"workers": 3}, 2, "does not divide --workers 3"),
        ({"engine": "deepspeed"}, 2, "only torch's passes"),
        ({"probe_steps": 0}, 2, "--probe-steps 0: leaves out the probes that this study reads"),
        ({"steps": 5}, 2, "--steps 5: no step is left to be timed"),
        ({"compile": True}, 2, "--compile: leaves out the probes that this study reads"),
    ],
)
def test_what_cannot_be_asked_is_refused(base: dict[str, Any], stages: int, why: str) -> None:
    found = question(**base)
    found.varied["stages"] = [stages]
    with pytest.raises(ScalelabError, match=why):
        STUDY.points(found)


def test_the_best_split_is_recommended_with_its_gain() -> None:
    found = analysed(RATES, plain)
    assert found.answer.startswith(
        "In these single trainings, take gpipe × 2, 8 micro-batches of 16 images each: 1,500 images/s, 1.50× the throughput"
    )
    assert "its bubble is 11.1 % of a step, 11.1 % in theory" in found.answer
    assert any(s == "In these single trainings, fastest in so many micro-batches: gpipe 8 of 16 images." for s in found.sentences)
    assert any("gpipe × 2, 8 micro-batches trains 1.67× as fast" in s for s in found.sentences)


def test_splits_that_intervals_cannot_tell_apart_are_as_good() -> None:
    found = analysed({**RATES, "gpipe × 2, 2 micro-batches": 1490.0}, plain)
    assert "One other is not shown to be slower." in found.answer
    assert any("gpipe 8 of 16 images (2 not shown to be slower)" in s for s in found.sentences)


def test_without_intervals_nothing_is_compared() -> None:
    found = analysed(RATES, lambda p: {**plain(p), "noise": (1.0,)})
    assert found.answer.endswith("Too few steps were timed to compare it with one other.")


def test_a_pipeline_that_is_slower_than_one_process_is_not_recommended() -> None:
    found = analysed({**RATES, "gpipe × 2, 2 micro-batches": 700.0, "gpipe × 2, 8 micro-batches": 800.0}, plain)
    assert found.answer.startswith("In these single trainings, don't cut this model for speed")
    assert "0.800× the throughput of one process" in found.answer


def test_no_difference_is_claimed_where_the_interval_holds_one() -> None:
    found = analysed({**RATES, "gpipe × 2, 2 micro-batches": 700.0, "gpipe × 2, 8 micro-batches": 1005.0}, plain)
    assert "is not shown to differ from one process" in found.answer


def test_agreement_with_theory_is_by_the_interval() -> None:
    found = analysed(RATES, plain)
    assert any("agrees with theory" in s and "in two of two pipelines" in s for s in found.sentences)
    assert not any("furthest" in s for s in found.sentences)


def test_an_interval_that_would_hold_anything_shows_no_agreement() -> None:
    def about(point: Point) -> dict[str, Any]:
        found = plain(point)
        if point.spec.strategy == "pipeline":
            wide = figure([0.0, 0.1, 0.2, 0.4, 0.5, 0.6], "ratio")
            found["bubble"] = msgspec.structs.replace(found["bubble"], measured=wide)
        return found

    said = analysed(RATES, about).sentences
    assert not any("agrees" in s for s in said)
    assert any("of two pipelines was not measured well enough" in s for s in said)


@pytest.mark.parametrize(
    ("part", "words"),
    [("unequal", "mostly unequal stages"), ("jitter", "mostly passes of one stage"), ("rest", "mostly messages")],
)
def test_where_it_does_not_agree_the_largest_part_is_named(part: str, words: str) -> None:
    def about(point: Point) -> dict[str, Any]:
        if point.label != "gpipe × 2, 8 micro-batches":
            return plain(point)
        parts = {"unequal": 0.01, "jitter": 0.01, "rest": 0.01, part: 0.2}
        return {"bubble": untrained.bubble(point, 1 / 9 + 0.22, 1 / 9, **parts)}

    found = analysed(RATES, about)
    assert any("in one of two pipelines" in s for s in found.sentences)
    (said,) = [s for s in found.sentences if "furthest" in s]
    assert said.startswith("It is furthest from it in gpipe × 2, 8 micro-batches: 33.1 % measured")
    assert words in said


def test_workers_without_cores_of_their_own_are_not_held_to_theory() -> None:
    ask = question(cores=1)
    rates = {label: rate for label, rate in RATES.items() if "all" not in label}
    found = analysed(rates, lambda p: {} if not plain(p) else {"bubble": untrained.bubble(p, 0.6, 0.2)}, ask)
    assert not any("agrees" in s or "furthest" in s for s in found.sentences)
    assert any("more workers than cores" in s and "no agreement with theory is to be expected" in s for s in found.sentences)
    spread = [r for r in found.tables[0].rows if r.factors["workers"] == 2]
    assert all(r.figures["efficiency"].median is None and r.marks for r in spread)


@pytest.mark.parametrize(("percent", "busy"), [(34.0, True), (99.0, False)])
def test_a_busy_machine_is_told_by_what_one_process_gets(percent: float, busy: bool) -> None:
    def about(point: Point) -> dict[str, Any]:
        return {**plain(point), "resources": untrained.resources(percent * (point.spec.threads_per_worker or 1))}

    said = [s for s in analysed(RATES, about).sentences if s.startswith("The machine was busy")]
    assert len(said) == busy
    assert not busy or "got 34 % of its core's time" in said[0]


@pytest.mark.parametrize("change", [{"threads": 8}, {"data_threads": 1}])
def test_threads_that_wait_for_one_another_are_no_busy_machine(change: dict[str, int]) -> None:
    """A small model has not enough to do for eight threads, on the quietest machine."""
    point = STUDY.points(question())[0]
    made = untrained.record(point, 1000.0, resources=untrained.resources(60.0))
    assert quiet.sentences(Result(point, [Run(0, Path("nowhere"), made)]))
    other = msgspec.structs.replace(made, derived=msgspec.structs.replace(made.derived, **change))
    assert quiet.sentences(Result(point, [Run(0, Path("nowhere"), other)])) == []


def test_slower_computing_of_small_micro_batches_is_told_from_the_bubble() -> None:
    def about(point: Point) -> dict[str, Any]:
        if point.spec.strategy != "pipeline":
            return plain(point)
        theory = THEORY[point.spec.accumulate or 1]
        return {"bubble": untrained.bubble(point, theory, theory, compute=1.5 if point.spec.accumulate == 8 else 1.0)}

    (said,) = [s for s in analysed(RATES, about).sentences if "no bubble" in s]
    assert said.startswith(
        "In these single trainings, an image takes 1.50× the computing in 8 micro-batches of 16 as in 2 of 64 under gpipe (95 % interval"
    )
    assert not any("no bubble" in s for s in analysed(RATES, plain).sentences)


def test_a_refused_point_stays_in_the_table_with_its_reason() -> None:
    ask = question()
    points = STUDY.points(ask)
    results = [untrained.result(p, RATES[p.label], **plain(p)) for p in points[:-1]] + [Result(points[-1], (), "no such cut")]
    found = STUDY.analyse(ask, results)
    last = found.tables[0].rows[-1]
    assert (last.status, last.reason) == ("refused", "no such cut")
    assert last.figures["bubble"].reason == "no such cut"


def test_without_any_pipeline_the_answer_says_why() -> None:
    ask = question()
    results = [
        Result(p, (), "it can't be cut") if p.spec.strategy == "pipeline" else untrained.result(p, RATES[p.label], **plain(p))
        for p in STUDY.points(ask)
    ]
    assert STUDY.analyse(ask, results).answer == "No pipeline was measured: it can't be cut."


def test_the_timeline_is_drawn_from_the_recorded_events(tmp_path: Path) -> None:
    steps = [gpipe(2, 8), gpipe(2, 8), gpipe(2, 8)]
    recorded = Timeline(schedule="gpipe", workers=2, stages=2, micro_batches=8, micro_batch=16, clock_error=0.0, steps=steps)
    timeline.write(tmp_path, recorded)
    ask = question()
    results = [untrained.result(p, RATES[p.label], tmp_path, **plain(p)) for p in STUDY.points(ask)]
    (drawn,) = [p for p in STUDY.analyse(ask, results).plots if p.id.startswith("timeline")]
    forward = next(s for s in drawn.series if s.name == "forward")
    assert forward.style == "spans"
    assert list(zip(forward.x, forward.low, forward.high, forward.text, strict=True))[:2] == [
        ("worker 0", 0.0, 1.0, "1"), ("worker 0", 1.0, 2.0, "2"),
    ]  # fmt: skip
    assert {s.name for s in drawn.series} == {"forward", "backward", "waiting"}
    waiting = next(s for s in drawn.series if s.name == "waiting")
    assert list(zip(waiting.x, waiting.low, waiting.high, strict=True)) == [("worker 1", 0.0, 1.0)]


def test_what_a_bubble_is_made_of_adds_up_to_the_measured_one() -> None:
    def about(point: Point) -> dict[str, Any]:
        return {"bubble": untrained.bubble(point, 0.4, 1 / 9, unequal=-0.05, jitter=0.02, rest=0.1)} if plain(point) else {}

    found = analysed(RATES, about)
    drawn = next(p for p in found.plots if p.id == "parts")
    stacked = [s for s in drawn.series if s.style == "stacked"]
    for place, label in enumerate(stacked[0].x):
        row = next(r for r in found.tables[1].rows if r.label == label)
        assert sum(s.y[place] or 0.0 for s in stacked) == pytest.approx(row.figures["bubble"].median)
        assert stacked[1].y[place] == row.figures["unequal"].median
