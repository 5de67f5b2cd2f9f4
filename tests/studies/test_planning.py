"""The order of a study's trainings, and how long they may take: pure functions of what is known before."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalelab import spec as specs
from scalelab import strategies, studies
from scalelab.batch import derive
from scalelab.errors import ScalelabError
from scalelab.launch.launcher import Prepared
from scalelab.launch.pool import Pool
from scalelab.record.schema import DataFacts, ModelFacts
from scalelab.studies.running import estimate
from scalelab.studies.running.estimate import Estimate, Pace
from scalelab.studies.running.keeping import Finished, asked_of, differences, identity, key
from scalelab.studies.running.planning import Case, Planned, expected, named, order, refuse_doubles, some, without_failing
from scalelab.studies.running.running import Clock, command
from scalelab.studies.study import Asked, Point
from tests.studies.toy import STUDY


def row(steps: int = 100, test: int = 0, **values: Any) -> Prepared:
    """What ``prepare`` would answer."""
    given = {"threads_per_worker": 1, "device": "cpu", "probe_steps": 0, "evaluate": test > 0, **values}
    spec = specs.from_mapping(given)
    facts = (
        ModelFacts(name="m", parameters=1, bytes=4),
        DataFacts(name="d", train=640, test=test, classes=["a"], shape=[1, 8, 8]),
    )
    derived = derive(spec, strategies.degrees(spec), 4)
    plan = {"total_steps": steps, "steps_per_epoch": 640 // derived.batch, "samples": 640}
    return Prepared(spec, derived, *facts, plan, 0)


def case(label: str, **values: Any) -> Case:
    made = row(**values)
    return Case(Point(label, {}, made.spec), made)


CASES = [case(str(n), batch=8 * n) for n in range(1, 9)]


def test_every_point_trains_before_any_trains_again() -> None:
    found = order(CASES, 3, 0)
    assert [repeat for _, repeat in found] == sorted([0, 1, 2] * 8)
    for _, once in itertools.groupby(found, key=lambda one: one[1]):
        assert sorted(place for place, _ in once) == list(range(8))


def test_the_order_is_random_by_repeat_and_seed_and_more_repeats_keep_it() -> None:
    found = [place for place, _ in order(CASES, 3, 0)]
    assert len({tuple(found[at : at + 8]) for at in (0, 8, 16)}) == 3
    assert found[:8] != [place for place, _ in order(CASES, 1, 1)]
    assert order(CASES, 5, 0)[:24] == order(CASES, 3, 0)


def test_what_is_refused_is_not_in_the_order() -> None:
    cases = [CASES[0], Case(CASES[1].point, None, "why"), CASES[2]]
    assert {place for place, _ in order(cases, 2, 0)} == {0, 2}


def test_a_training_is_known_by_what_is_trained_and_its_repeat() -> None:
    def mark(one: Prepared) -> bytes:
        import msgspec

        return key(msgspec.to_builtins(one.spec))

    first, again = named(CASES[0], False, 0), named(CASES[0], False, 1)
    assert mark(first) != mark(again)
    elsewhere = specs.from_mapping({"out": "x", "timeout": 9, "master_port": 5, "batch": 8, "name": "other, repeat 1"})
    assert mark(replace(first, spec=elsewhere)) == mark(
        replace(first, spec=specs.from_mapping({"batch": 8, "name": "a, repeat 1"}))
    )
    assert mark(named(CASES[0], True, 0)) != mark(named(CASES[0], True, 1))
    assert mark(named(CASES[0], True, 1)) != mark(named(CASES[1], True, 1))


def test_where_nothing_can_run_what_stops_most_is_told() -> None:
    refused = [Case(case.point, None, why) for case, why in zip(CASES[:3], ("only this one", "all", "all"), strict=True)]
    with pytest.raises(ScalelabError, match=r"^all$"):
        some(STUDY, refused)


def test_two_points_of_one_name_are_refused() -> None:
    with pytest.raises(ScalelabError, match="two points of this study are called '1'"):
        refuse_doubles([CASES[0].point, CASES[1].point, CASES[0].point])


def test_the_estimate_counts_what_there_is_to_do() -> None:
    pace = Pace(0.002, 0.001)
    start = estimate.START
    assert estimate.duration(row(batch=8), pace, 4) == pytest.approx(start + 100 * 0.010)
    assert estimate.duration(row(batch=8, accumulate=2), pace, 4) == pytest.approx(start + 100 * 2 * 0.006)
    two = row(batch=16, workers=2, strategy="ddp")
    assert estimate.duration(two, pace, 4) == pytest.approx(start + 2 * estimate.START_WORKER + 100 * 0.010)
    assert estimate.duration(two, pace, 1) == pytest.approx(estimate.START + 4 * estimate.START_WORKER + 100 * 0.020)  # crowded
    evaluated = estimate.duration(row(steps=160, batch=8, test=300), pace, 4)
    assert evaluated == pytest.approx(start + 160 * 0.010 + 2 * 300 * 0.001 / 3)
    probed = estimate.duration(row(batch=16, workers=2, strategy="ddp", probe_steps=8), pace, 4)
    assert probed > estimate.duration(two, pace, 4) + 0.18


def test_a_pipelines_estimate_has_its_bubble() -> None:
    one = row(batch=8, workers=2, strategy="pipeline", accumulate=4)
    assert estimate.staged(one) == pytest.approx(5 / 8)
    assert estimate.staged(row(batch=8, workers=2, strategy="model")) == 1.0


def test_the_pace_of_a_real_model_grows_with_its_images(pool: Pool) -> None:
    values = {"data": "synthetic", "image_size": 8, "classes": 4, "train_limit": 96, "test_limit": 30, "model_args": {"width": 4}}
    small, large = row(batch=16, **values), row(batch=48, **values)
    found = estimate.estimate(pool, [small, large])
    assert len(found.paces) == 1
    seconds = found.seconds(large)
    assert seconds is not None
    assert 0 < (found.seconds(small) or 0) < seconds < 60
    assert "communication is not in it" in found.said


def test_more_threads_are_not_expected_to_be_slower() -> None:
    one, two, other = (row(batch=8, threads_per_worker=n, model=name) for n, name in ((1, "a"), (2, "a"), (2, "b")))
    slow, fast = Pace(0.0, 0.010), Pace(0.0, 0.001)
    found = estimate.at_least_as_fast({estimate.mark(one): fast, estimate.mark(two): slow, estimate.mark(other): slow})
    assert [found[estimate.mark(each)] for each in (one, two, other)] == [fast, fast, slow]


def test_no_estimate_says_why(pool: Pool) -> None:
    found = estimate.estimate(pool, [row(batch=8, data="nothing-like-it")])
    assert found.said.startswith("no estimate: ")
    assert found.seconds(row(batch=8, data="nothing-like-it")) is None


def planned(pace: Pace | None, tmp_path: Path) -> Planned:
    paces = {} if pace is None else {estimate.mark(one.row): pace for one in CASES if one.row}
    asked = Asked(specs.Spec(), {}, {}, False, 4)
    return Planned(STUDY, asked, 2, tmp_path, CASES, order(CASES, 2, 0), Finished(tmp_path), estimate=Estimate(paces, ""))


def test_what_remains_is_corrected_by_what_was(tmp_path: Path) -> None:
    one = planned(Pace(0.0, 0.001), tmp_path)
    guess = one.estimate.seconds(row(batch=8))
    whole = expected(one)
    assert guess is not None
    assert whole is not None
    clock = Clock(one)
    assert clock.remaining(one.order) == pytest.approx(whole)
    clock.note(0, 3 * guess)
    assert clock.remaining([(0, 1)]) == pytest.approx(3 * guess)
    assert clock.remaining([(1, 0)]) == pytest.approx(3 * (one.estimate.seconds(row(batch=16)) or 0))


def test_what_cannot_be_estimated_has_no_end(tmp_path: Path) -> None:
    none = planned(None, tmp_path)
    assert expected(none) is None
    clock = Clock(none)
    assert clock.remaining(none.order) is None
    clock.note(0, 2.0)
    assert clock.remaining([(0, 1)]) == 2.0


FAILING = """
from torch import nn
class Net(nn.Sequential):
    def forward(self, x):
        if len(x) == 64:
            raise ValueError("sixty-four\\n\\nis too many")
        return super().forward(x)
def build(num_classes):
    return Net(nn.Flatten(), nn.Linear(64, num_classes))
"""


def test_a_batch_that_the_model_fails_at_is_refused_and_the_others_are_estimated(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(FAILING)
    small, large = (row(batch=batch, model=f"{tmp_path}/net.py:build", data="digits") for batch in (32, 64))
    lines: list[str] = []
    found = estimate.estimate(pool, [small, large], lines.append)
    assert lines == [f"measuring the pace of {tmp_path}/net.py:build with 1 thread"]
    assert found.seconds(small)
    assert found.said == estimate.SAID
    assert found.refused(small) is None
    assert found.refused(large) == f"a step of 64 images fails: ValueError: sixty-four is too many ({tmp_path}/net.py:6)"
    cases = [Case(Point(str(place), {}, one.spec), one) for place, one in enumerate((small, large))]
    made = Planned(STUDY, Asked(specs.Spec(), {}, {}, False, 4), 1, tmp_path, cases, order(cases, 1, 0), Finished(tmp_path))
    assert [without_failing(made, place, found).refused for place in (0, 1)] == [None, found.refused(large)]


def test_the_same_training_on_another_host_is_another_training() -> None:
    made = case("alone")
    keys = [
        key(msgspec.to_builtins(named(replace(made, point=replace(made.point, hosts=hosts)), False, 0).spec))
        for hosts in ((), ("h1",), ("h2",), ("h1", "h2"))
    ]
    assert len(set(keys)) == 4


def test_the_pace_of_a_host_is_its_own_and_crowding_is_counted_by_host() -> None:
    made = row(workers=4, strategy="ddp")
    assert len({estimate.mark(replace(made, hosts=hosts)) for hosts in ((), ("h1",), ("h2",))}) == 3
    spread, together = (replace(made, local=local, cores=2) for local in (2, 4))
    pace = Pace(0.001, 0.0001)
    assert estimate.duration(together, pace, 2) > 1.2 * estimate.duration(spread, pace, 2)


@pytest.mark.parametrize(
    ("where", "places"),
    [("", ()), ("Slurm partition a:1, 4 workers a node", ()), ("h1:2,fe80::1:3", (("h1", 2), ("fe80::1", 3)))],
)
@pytest.mark.parametrize("name", studies.STUDIES)
def test_a_question_is_read_back_as_it_was_asked(name: str, where: str, places: tuple[tuple[str, int], ...]) -> None:
    study = studies.load(name)
    varied = {field: list(values) for field, values in study.varies.items()}
    options = {option.name: option.default for option in study.options}
    asked = Asked(specs.from_mapping({**study.base, "timeout": 300.0}), varied, options, True, 3, places, where)
    kept = msgspec.json.decode(msgspec.json.encode(identity(study, asked)))
    assert asked_of(kept) == asked


def test_a_study_that_ran_elsewhere_is_another() -> None:
    here = Asked(specs.from_mapping({}), {"batch": [8]}, {}, False, 2)
    there = replace(here, where="h1:2,h2:2")
    assert differences(identity(STUDY, here), identity(STUDY, there)) == ["where is this machine there, h1:2,h2:2 here"]
    assert "where" not in identity(STUDY, here)["options"], "studies of this machine are found again by the names they had"


def test_a_study_does_not_keep_the_secrets_of_its_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scalelab", "study", "hosts", "--env", "API_TOKEN=hunter2", "--env=B=3", "--out", "x"])
    assert command() == ["scalelab", "study", "hosts", "--env", "API_TOKEN=****", "--env=B=****", "--out", "x"]
