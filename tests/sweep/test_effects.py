"""What parameters do to a metric, which point is the best, how long the rest takes."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from scalelab.record.sweep import MetricRead, PlannedTask, SweepRecord, TaskRecord
from scalelab.sweep.effects import effects, share
from scalelab.sweep.keeping import open_tasks, states
from scalelab.sweep.standing import goal_of, ranked, remaining, status
from scalelab.sweep.table import best_first, flat, number, rows


def a_sweep(parameters: list[str], tasks: int, **more: object) -> SweepRecord:
    """A sweep of a metric called score."""
    given = {"metrics": [MetricRead(name="score", pattern="x")], "goal": "score", **more}
    return SweepRecord(
        name="p", command=[], argv=["p"], cwd="/", parameters=parameters, tasks=tasks, created="2026-01-01T00:00:00Z", **given
    )  # type: ignore[arg-type]


def a_task(number: int, score: float | None, status: str = "completed", **values: str) -> TaskRecord:
    """A task that took two seconds."""
    return TaskRecord(task=number, status=status, values=values, metrics={"score": score}, seconds=2.0, ended="x", host="h")  # type: ignore[arg-type]


def test_the_share_of_a_parameter_that_decides_all_and_of_one_that_does_nothing() -> None:
    source = random.Random(0)
    grid = [(a, b) for a in "123" for b in "xyz" for _ in range(8)]
    records = {n: a_task(n, float(a) * 10 + source.gauss(0, 0.5), a=a, b=b) for n, (a, b) in enumerate(grid)}
    found = effects(a_sweep(["b", "a"], len(grid)), records)
    assert [one.name for one in found] == ["a", "b"]
    assert found[0].share is not None
    assert found[0].share > 0.98
    assert found[1].share is not None
    assert found[1].share < 0.1
    assert [level.at for level in found[0].levels] == [1.0, 2.0, 3.0]
    assert [round((level.figure.median or 0) / 10) for level in found[0].levels] == [1, 2, 3]
    assert found[0].numeric
    assert not found[1].numeric


def test_epsilon_squared_of_a_known_case() -> None:
    # groups 1,2,3 and 4,5,6: total 17.5, within 4, between 13.5: (13.5 - 1 * 4 / 4) / 17.5
    assert share([[1, 2, 3], [4, 5, 6]]) == pytest.approx(12.5 / 17.5)
    assert share([[1], [2], [3]]) is None
    assert share([[1, 1], [1, 1]]) is None
    assert share([[1, 3], [3, 1]]) == 0.0


def test_many_numbers_are_taken_together_on_a_logarithmic_scale() -> None:
    records = {n: a_task(n, float(n), lr=f"{10 ** (-4 + n / 25):.6g}") for n in range(100)}
    (found,) = effects(a_sweep(["lr"], 100), records)
    assert (found.binned, found.log, len(found.levels)) == (True, True, 8)
    medians = [level.figure.median or math.nan for level in found.levels]
    assert medians == sorted(medians)


def test_failed_tasks_and_parameters_of_one_value_have_no_effect() -> None:
    records = {0: a_task(0, 1.0, a="1", b="x"), 1: a_task(1, 9.0, "failed", a="2", b="x"), 2: a_task(2, 2.0, a="1", b="x")}
    assert effects(a_sweep(["a", "b"], 3), records) == []


def test_the_best_is_the_best_median_of_the_repeats_not_the_luckiest_task() -> None:
    scores = {"a": [9.0, 1.0, 1.0], "b": [3.0, 3.1, 2.9]}
    records = {n: a_task(n, score, x=x) for n, (x, score) in enumerate((x, s) for x, those in scores.items() for s in those)}
    sweep = a_sweep(["x"], 6, repeats=3)
    assert [one.values["x"] for one in ranked(sweep, records, "score", least=False)] == ["b", "a"]
    assert [one.values["x"] for one in ranked(sweep, records, "score", least=True)] == ["a", "b"]
    assert ranked(sweep, records, "score", least=False)[0].figure.n == 3


def test_seeds_that_are_a_parameter_are_repeats_of_a_point() -> None:
    records = {n: a_task(n, float(n), x="1", seed=str(n)) for n in range(3)}
    (best,) = ranked(a_sweep(["x", "seed"], 3), records, "score", least=False)
    assert (best.tasks, best.figure.median, best.values) == ([0, 1, 2], 1.0, {"x": "1"})


@pytest.mark.parametrize(
    ("metrics", "least", "most", "goal"),
    [
        (["accuracy", "loss"], None, None, ("accuracy", False)),
        (["test_loss"], None, None, ("test_loss", True)),
        (["accuracy"], "seconds", None, ("seconds", True)),
        (["loss"], None, "loss", ("loss", False)),
        ([], None, None, ("", False)),
    ],
)
def test_what_best_means(metrics: list[str], least: str | None, most: str | None, goal: tuple[str, bool]) -> None:
    assert goal_of(metrics, least, most) == goal


def test_states_and_what_resume_runs() -> None:
    kinds = ["completed", "failed", "interrupted", "running", "running", "completed"]
    records = {n: a_task(n, 1.0, kind) for n, kind in enumerate(kinds)}
    dead = states(8, records, alive=False)
    assert dead == ["completed", "failed", "interrupted", "lost", "lost", "completed", "missing", "missing"]
    assert open_tasks(dead) == [1, 2, 3, 4, 6, 7]
    assert states(8, records, alive=True)[3:] == ["running", "running", "completed", "queued", "queued"]
    slurm = states(8, records, False, queued={1, 6}, running={3, 5})
    assert slurm == ["completed", "queued", "interrupted", "running", "lost", "completed", "queued", "missing"]
    assert open_tasks(slurm) == [2, 4, 7]


def test_the_time_that_is_left() -> None:
    records = {n: a_task(n, 1.0) for n in range(4)}
    assert remaining(records, {"running": 2, "queued": 9}, 2) == pytest.approx(10.0)
    assert remaining({}, {"running": 2, "queued": 9}, 2) is None
    assert remaining(records, {"running": 0, "queued": 0}, None) is None


def test_a_status_counts_each_task_once() -> None:
    records = {0: a_task(0, 1.0, x="1"), 1: a_task(1, None, "failed", x="2")}
    found = status(Path("s"), a_sweep(["x"], 3), states(3, records, False), records, None)
    assert (found.completed, found.failed, found.missing, found.tasks) == (1, 1, 1, 3)
    assert found.failures == ["task 1: failed"]
    assert found.best is not None
    assert found.best.values == {"x": "1"}


def test_metrics_of_a_failed_task_are_not_in_its_row() -> None:
    sweep = a_sweep(["x"], 3)
    planned = [PlannedTask(task=n, values={"x": x}, argv=["p"]) for n, x in enumerate(["10", "9", "-1e-3"])]
    records = {0: a_task(0, 5.0, "failed", x="10"), 1: a_task(1, 1.0, x="9"), 2: a_task(2, 2.0, x="-1e-3")}
    found = rows(sweep, planned, states(3, records, False), records)
    assert [row.metrics["score"] for row in found] == [None, 1.0, 2.0]
    assert [row.task for row in best_first(sweep, found, None)] == [2, 1, 0]
    assert [row.task for row in best_first(sweep, found, "x")] == [2, 1, 0]
    assert [row["param.x"] for row in flat(sweep, found, typed=True)] == [10, 9, -0.001]
    assert [row["param.x"] for row in flat(sweep, found, typed=False)] == ["10", "9", "-1e-3"]
    assert number("nan") is None
    assert number("inf") is None
