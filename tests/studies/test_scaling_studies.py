"""weak-scaling and strong-scaling: what they train, and what they say of figures that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.launcher import Prepared
from scalelab.measure.amdahl import speedup
from scalelab.record.study import Findings, Row
from scalelab.studies.running.planning import Case, some
from scalelab.studies.scaling import scaling
from scalelab.studies.scaling.scaling import ALL_CORES, BASE, SPREAD, WRAPPER
from scalelab.studies.scaling.strong_scaling import STUDY as STRONG
from scalelab.studies.scaling.weak_scaling import STUDY as WEAK
from scalelab.studies.study import Asked, Point, Result
from tests.studies import made


def weak(efficiencies: dict[int, float], whole: float = 2.0, **more: object) -> Findings:
    """weak-scaling of batch 32 per worker with these efficiencies; ``whole``: how much faster one process on all cores is."""
    asked = made.asked(WEAK, workers=sorted({1, *efficiencies}), batch_per_worker=[32])

    def trained(point: Point) -> Result:
        workers, role = point.spec.workers, point.factors["role"]
        step = {BASE: 0.1, ALL_CORES: 0.1 / whole}.get(str(role)) or 0.1 / efficiencies.get(workers, 1.0)
        return made.result(point, made.record(point, step, 32 * workers, **more))  # type: ignore[arg-type]

    return WEAK.analyse(asked, [trained(point) for point in WEAK.points(asked)])


def strong(speedups: dict[int, float], noise: float = 0.002, crowded: Sequence[int] = ()) -> Findings:
    """strong-scaling of batch 256 with these speedups."""
    asked = made.asked(STRONG, workers=[1, *speedups], batch=[256])

    def trained(point: Point) -> Result:
        gain = speedups.get(point.spec.workers, 1.0)
        record = made.record(point, 0.1 / gain, 256, noise=noise, oversubscribed=point.spec.workers in crowded)
        return made.result(point, record)

    return STRONG.analyse(asked, [trained(point) for point in STRONG.points(asked)])


def row(findings: Findings, role: str, workers: int = 1) -> Row:
    return next(r for r in findings.tables[0].rows if (r.factors["role"], r.factors["workers"]) == (role, workers))


@pytest.mark.parametrize("study", [WEAK, STRONG])
def test_threads_are_the_same_in_all_rows_but_the_one_on_all_cores(study: object) -> None:
    for each in WEAK.points(made.asked(WEAK, cores=8, workers=[1, 2, 4])):
        assert each.spec.threads_per_worker == (8 if each.factors["role"] == ALL_CORES else 2)


def test_the_base_is_the_serial_run_and_the_wrapper_is_tried_alone() -> None:
    points = STRONG.points(made.asked(STRONG, workers=[4], batch=[64]))
    tried = {(p.factors["role"], p.spec.strategy, p.spec.workers) for p in points}
    assert tried == {(BASE, "single", 1), (ALL_CORES, "single", 1), (WRAPPER, "ddp", 1), (SPREAD, "ddp", 4)}


def test_all_cores_is_no_row_where_a_worker_has_them_all() -> None:
    roles = {p.factors["role"] for p in WEAK.points(made.asked(WEAK, cores=2, workers=[2], threads_per_worker=2))}
    assert ALL_CORES not in roles


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"strategy": "single"},
            "--strategy single: is the base that this study compares with; name a parallel one, such as ddp",
        ),
        ({"workers": [1]}, "--workers 1: needs two or more, such as --workers 2 4"),
    ],
)
def test_nothing_spread_is_refused(values: dict[str, object], message: str) -> None:
    for study in (WEAK, STRONG):
        with pytest.raises(ScalelabError) as refused:
            study.points(made.asked(study, **values))
        assert str(refused.value) == message


def test_weak_efficiency_is_step_time_of_single_over_that_of_the_workers() -> None:
    found = weak({2: 0.9, 4: 0.75})
    assert row(found, SPREAD, 4).figures["efficiency"].median == pytest.approx(0.75)
    assert row(found, SPREAD, 4).figures["speedup"].median == pytest.approx(3.0)
    assert row(found, SPREAD, 4).figures["step_ratio"].median == pytest.approx(1 / 0.75)
    assert row(found, BASE).figures["efficiency"].median == 1
    assert row(found, ALL_CORES).figures["efficiency"].median is None
    assert found.answer.startswith("In these single trainings, on 4 workers with 32 images each, ddp trains 3.00×")
    assert "25.0 % of each worker is lost" in found.answer


def test_a_loss_that_the_interval_does_not_show_is_not_claimed() -> None:
    answer = weak({2: 0.98}, noise=0.05).answer
    assert "is lost" not in answer
    assert "no loss was shown" in answer


def test_the_best_of_several_batches_is_called_that() -> None:
    asked = made.asked(WEAK, workers=[2], batch_per_worker=[32, 128])
    results = [
        made.result(p, made.record(p, 0.1, int(p.factors["batch_per_worker"]) * p.spec.workers)) for p in WEAK.points(asked)
    ]
    assert WEAK.analyse(asked, results).answer.endswith("No other of the 2 batches that were tried was shown to be better.")
    slower = [
        made.result(p, made.record(p, 0.2, 64)) if (p.factors["batch_per_worker"], p.factors["role"]) == (32, SPREAD) else one
        for p, one in zip(WEAK.points(asked), results, strict=True)
    ]
    assert WEAK.analyse(asked, slower).answer.endswith("That is the best of the 2 batches that were tried.")


@pytest.mark.parametrize(("repeats", "single"), [(1, True), (3, False)])
def test_what_is_said_of_single_trainings_says_so(repeats: int, single: bool) -> None:
    """Whatever compares trainings of one repeat each is about these alone, in the same words everywhere."""
    for study, field in ((WEAK, "batch_per_worker"), (STRONG, "batch")):
        asked = made.asked(study, workers=[2, 4], **{field: [64]})

        def trained(point: Point) -> Result:
            step = 0.1 if point.spec.strategy == "single" else 0.08
            return made.result(point, *[made.record(point, step * (1 + 0.01 * one), 64) for one in range(repeats)])

        found = study.analyse(asked, [trained(point) for point in study.points(asked)])
        assert len(found.sentences) >= 2
        for said in (found.answer, *found.sentences):
            assert said.startswith("In these single trainings, ") is single, said


def test_a_wrapper_makes_nothing_faster() -> None:
    (said,) = (one for one in weak({1: 1.4, 2: 1.2}).sentences if "ddp on one worker" in one)
    assert "1.40× (1.3" in said
    assert "no wrapper brings about" in said
    assert "40.0 %" not in said


def test_communication_of_more_than_a_step_is_marked_over_repeats_too() -> None:
    asked = weak_asked()
    above = made.seconds(0.4, 0.3)
    results = [
        made.result(p, *[made.record(p, 0.1, 32 * p.spec.workers, above if p.spec.workers > 1 else made.ALONE)] * 3)
        for p in WEAK.points(asked)
    ]
    found = WEAK.analyse(asked, results)
    assert any(mark.startswith("impossible: exposed communication") for mark in row(found, SPREAD, 2).marks)
    assert not any("impossible" in mark for mark in row(found, BASE).marks)


def test_without_a_base_nothing_pays() -> None:
    asked = made.asked(STRONG, workers=[2, 4], batch=[256])
    results = [
        made.failed(p, "it broke", 256)
        if p.factors["role"] == BASE
        else made.result(p, made.record(p, 0.1 / p.spec.workers, 256))
        for p in STRONG.points(asked)
    ]
    found = STRONG.analyse(asked, results)
    assert found.answer.startswith("Nothing can be told")
    assert found.tables[1].rows[0].figures["pays_to"].reason == "no base was completed"
    assert "no serial base" in (row(found, SPREAD, 4).figures["marginal"].reason or "")
    assert found.cards == []


def test_speedups_above_the_workers_have_no_serial_fraction() -> None:
    said = strong({2: 2.2, 4: 4.6}).sentences
    assert any("no serial fraction explains speedups above the number of workers" in one for one in said)
    assert not any("fits" in one for one in said)


def test_an_efficiency_above_one_is_marked_with_its_causes() -> None:
    sure, unsure = row(weak({2: 1.2}), SPREAD, 2), row(weak({2: 1.02}, noise=0.05), SPREAD, 2)
    assert scaling.ABOVE in sure.marks[0]
    assert "does not exclude" not in sure.marks[0]
    assert "does not exclude" in unsure.marks[0]
    assert row(weak({2: 0.9}), SPREAD, 2).marks == []


def test_no_interval_is_spoken_of_where_there_is_none() -> None:
    few = made.around(1000, "images/s", count=1)
    asked = made.asked(WEAK, workers=[2], batch_per_worker=[32])
    results = [
        made.result(p, made.record(p, 0.1, 64, images_per_second=msgspec.structs.replace(few, median=1000.0 * p.spec.workers**2)))
        for p in WEAK.points(asked)
    ]
    (mark,) = row(WEAK.analyse(asked, results), SPREAD, 2).marks
    assert "without an interval: too few blocks or repeats" in mark
    results = [
        made.result(
            p, made.record(p, 0.1, 64, images_per_second=msgspec.structs.replace(few, median=900.0 + 100 * p.spec.workers))
        )
        for p in STRONG.points(made.asked(STRONG, workers=[2], batch=[64]))
    ]
    fit = STRONG.analyse(made.asked(STRONG, workers=[2], batch=[64]), results).tables[1].rows[0].figures
    assert fit["at_most"].reason == "no interval: the serial fraction has none, too few blocks or repeats"


def test_workers_that_are_slower_have_no_serial_fraction_and_are_counted_in_whole_numbers() -> None:
    found = strong({2: 0.65})
    fit = found.tables[1].rows[0].figures
    for figure in (fit["serial_fraction"], fit["at_most"], row(found, SPREAD, 2).figures["karp_flatt"]):
        assert figure.median is None
        assert "more workers are slower than one" in (figure.reason or "")
    assert not any("serial fraction" in one for one in found.sentences)
    assert [(card.value, card.sub) for card in found.cards][:1] == [("1", "worker, batch 256")]


def test_the_wrappers_cost_is_told_apart() -> None:
    said = weak({1: 0.9, 2: 0.8}).sentences
    assert any("ddp on one worker" in one and "the wrapper itself costs 10.0 %" in one for one in said)
    assert any("no cost of the wrapper was shown" in one for one in weak({1: 0.99, 2: 0.8}, noise=0.05).sentences)


@pytest.mark.parametrize(("whole", "words"), [(2.0, "has 0.900×"), (1.79, "was not shown to be faster or slower")])
def test_the_workers_are_held_against_one_process_on_all_cores(whole: float, words: str) -> None:
    assert any("one process on all 8 cores" in one and words in one for one in weak({2: 0.9}, whole).sentences)


def test_workers_without_cores_of_their_own_claim_no_efficiency() -> None:
    found = strong({2: 1.8, 4: 1.9}, crowded=[4])
    crowded = row(found, SPREAD, 4)
    assert crowded.figures["efficiency"].reason == scaling.OVERSUBSCRIBED
    assert crowded.figures["karp_flatt"].median is None
    assert crowded.marks == [scaling.OVERSUBSCRIBED]
    assert crowded.figures["speedup"].median == pytest.approx(1.9)
    assert "up to the 2 workers" in found.answer


def test_amdahls_law_is_found_in_speedups_that_follow_it() -> None:
    found = strong({n: speedup(0.1, n) for n in (2, 4, 8)})
    fit = found.tables[1].rows[0].figures
    assert fit["serial_fraction"].median == pytest.approx(0.1)
    assert fit["at_most"].median == pytest.approx(10)
    assert row(found, SPREAD, 8).figures["karp_flatt"].median == pytest.approx(0.1)
    assert row(found, SPREAD, 4).figures["marginal"].median == pytest.approx((speedup(0.1, 4) - speedup(0.1, 2)) / 2)
    assert any("was not shown to move" in one and "serial part" in one for one in found.sentences)
    assert any("over 3 numbers of workers" in one for one in found.sentences)


def test_a_karp_flatt_fraction_that_rises_is_overhead() -> None:
    found = strong({2: 1.9, 4: 3.0, 8: 3.6})
    assert any("rises" in one and "overhead" in one for one in found.sentences)


def test_one_number_of_workers_is_said_to_be_no_fit() -> None:
    assert any("no fit of Amdahl's law" in one for one in strong({2: 1.8}).sentences)


@pytest.mark.parametrize(
    ("speedups", "pays", "words"),
    [
        ({2: 1.9, 4: 3.5}, 4, "paid up to the 4 workers that were tried"),
        ({2: 1.9, 4: 1.9, 8: 4.0}, 2, "pays up to 2 workers"),
        ({2: 1.9, 4: 1.2}, 2, "4 made it slower"),
        ({2: 0.8, 4: 0.9}, 1, "pays up to 1 worker;"),
    ],
)
def test_it_pays_as_long_as_each_step_raises_throughput(speedups: dict[int, float], pays: int, words: str) -> None:
    found = strong(speedups)
    assert found.tables[1].rows[0].figures["pays_to"].median == pays
    assert words in found.answer


def test_a_gain_within_the_noise_does_not_pay() -> None:
    answer = strong({2: 1.9, 4: 2.0}, noise=0.05).answer
    assert "pays up to 2 workers" in answer
    assert "4 were not shown to raise throughput" in answer


def test_a_point_that_failed_or_was_refused_stays_with_its_reason() -> None:
    asked = made.asked(STRONG, workers=[2], batch=[256])
    results = [
        made.failed(p, "it broke", 256) if p.factors["role"] == BASE else made.result(p, refused="not here")
        for p in STRONG.points(asked)
    ]
    found = STRONG.analyse(asked, results)
    assert {(r.status, r.reason) for r in found.tables[0].rows} == {("failed", "it broke"), ("refused", "not here")}
    assert found.answer.startswith("Nothing can be told")
    assert all(f.reason for r in found.tables[0].rows for f in r.figures.values())
    assert WEAK.analyse(weak_asked(), [made.result(p, refused="not here") for p in WEAK.points(weak_asked())]).answer.startswith(
        "No "
    )


def weak_asked() -> Asked:
    return made.asked(WEAK, workers=[2], batch_per_worker=[32])


def test_what_leaves_no_step_to_be_timed_is_refused() -> None:
    """Those of the warm-up and those that are traced are not timed."""
    said = "--steps 7: no step is left to be timed beside the 5 of --warmup-steps and the 2 that are traced; give at least 8"
    for study in (WEAK, STRONG):
        with pytest.raises(ScalelabError) as refused:
            study.points(made.asked(study, steps=7, profile=2))
        assert str(refused.value) == said
        assert study.points(made.asked(study, steps=8, profile=2))


def test_where_nothing_that_is_spread_can_run_the_study_says_why() -> None:
    refused = [Case(point, None, f"why not {point.label}") for point in STRONG.points(made.asked(STRONG, batch=[3], workers=[2]))]
    spread = next(case.refused for case in refused if case.point.factors["role"] == SPREAD)
    row = cast(Prepared, object())
    cases = [replace(case, row=row, refused=None) if case.point.factors["role"] != SPREAD else case for case in refused]
    with pytest.raises(ScalelabError) as error:
        some(STRONG, cases)
    assert str(error.value) == spread
    assert some(STRONG, [replace(case, row=row) for case in cases])
