"""A sweep's results as files, and its page in a browser."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from scalelab.record.sweep import TaskRecord
from scalelab.report import parallel
from scalelab.report.sweep import answer, render, sentences
from scalelab.sweep.effects import effects
from scalelab.sweep.standing import ranked
from tests import browsing
from tests.report.test_page import Opened
from tests.sweep.conftest import Sweep
from tests.sweep.test_effects import a_sweep, a_task

PROGRAM = "test {x} = 3 && exit 4; echo score 0.{x}$(( {seed} + 1 ))"
WORDS = ["--grid", "x=1,2,3", "--grid", 'opt=<b>&amp;,"=1+1"', "--repeats", "2", "--metric", r"score=score (\S+)", "--out", "s"]


@pytest.fixture
def done(sweep: Sweep) -> Sweep:
    """A folder ``s`` with a sweep of 12 tasks, four of which failed."""
    assert sweep(*WORDS, "--", "sh", "-c", PROGRAM, "{opt}").status == 1
    return sweep


def test_csv_and_parquet(done: Sweep, tmp_path: Path) -> None:
    assert done("results", "s", "-o", "s.csv").status == 0
    with (tmp_path / "s.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert (len(found), found[0]["param.x"], found[0]["metric.score"]) == (12, "2", "0.22")
    assert {row["param.opt"] for row in found} == {"<b>&amp;", "'=1+1"}  # what a spreadsheet would run is text
    assert {row["status"] for row in found if row["param.x"] == "3"} == {"failed"}
    assert all(row["metric.score"] == "" for row in found if row["param.x"] == "3")
    assert json.loads(done("results", "s", "-o", "s.parquet", "--json").out) == {"output": "s.parquet", "tasks": 12}
    table = pq.read_table(tmp_path / "s.parquet")
    assert (table.num_rows, str(table.schema.field("param.x").type), str(table.schema.field("metric.score").type)) == (
        12,
        "int64",
        "double",
    )
    assert done("results", "s", "-o", "s.txt").error.startswith("unknown kind of file 'txt'")


def test_the_table(done: Sweep) -> None:
    shown = done("results", "s", "--sort", "seconds").out
    assert "failed: exit status 4" in shown
    assert len(json.loads(done("results", "s", "--failed", "--json").out)) == 4
    assert "unknown metric or parameter 'lr'" in done("results", "s", "--sort", "lr").error


def test_the_page_in_a_browser(done: Sweep, tmp_path: Path) -> None:
    assert done("results", "s", "-o", "s.html").status == 0
    with browsing.chromium() as started:
        opened = Opened(started, tmp_path / "s.html")
        assert opened.problems == []
        assert len(opened.requests) == 1
        shown = opened.page.evaluate("() => document.body.innerText")
        drawn = opened.page.evaluate(
            "() => [...document.querySelectorAll('.chart')].map(c => c.querySelectorAll('.scatterlayer .trace').length)"
        )
    assert "The highest score, 0.2150, the median of 2 repeats" in shown
    assert "which may be chance" in shown
    assert "<b>&amp;" in shown
    assert "exit status 4" in shown
    assert drawn == [5, 2, 2]  # a trace for each fifth; dots and medians


def test_the_page_of_many_tasks_fits_and_says_what_is_left_out() -> None:
    names = [f"p{n}" for n in range(12)]
    sweep = a_sweep(names, 3000)
    records = {
        n: a_task(n, n % 101 / 101, **{name: f"{(n * 7919 + k) % 997 / 997:.6f}" for k, name in enumerate(names)})
        for n in range(3000)
    }
    page = render(sweep, records, [], "s")
    assert "Of 3,000 tasks the best 40 are drawn, and 360 others by lot." in page
    assert "Of 12 parameters those 8 are shown" in page


def test_the_best_line_is_at_the_top_also_where_less_is_better() -> None:
    records = {n: a_task(n, float(n), x=str(n)) for n in range(5)}
    for least, best in ((True, 0), (False, 4)):
        sweep = a_sweep(["x"], 5, least=least)
        drawn = parallel.chart(sweep, records, ["x"])
        assert drawn is not None
        traces = drawn.views[0].data or []
        assert traces[-1]["name"] == "best fifth"
        assert traces[-1]["y"][1] == 1.0
        assert f"task {best}<br>" in traces[-1]["customdata"][0]


def words(scores: dict[str, list[float]], repeats: int) -> str:
    """What a page says of tasks with these scores."""
    pairs = [(x, one) for x, those in scores.items() for one in those]
    records: dict[int, TaskRecord] = {n: a_task(n, one, x=x) for n, (x, one) in enumerate(pairs)}
    sweep = a_sweep(["x"], len(pairs), repeats=repeats)
    best = ranked(sweep, records, "score", False)
    return " ".join([answer(sweep, best), *sentences(sweep, records, best, effects(sweep, records))])


def test_a_difference_is_claimed_only_beyond_chance() -> None:
    assert "a difference beyond chance" in words({"a": [5.0, 5.01, 5.02, 5.0], "b": [1.0, 1.01, 1.02, 1.0]}, 4)
    assert "which may be chance" in words({"a": [5.0, 1.0, 6.0, 5.5], "b": [4.0, 6.0, 2.0, 5.0]}, 4)
    assert "the best of many is the luckiest too" in words({"a": [5.0], "b": [1.0]}, 1)
    assert "No task is completed with its score" in words({}, 1)
