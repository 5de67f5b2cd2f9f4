"""A study's table in a terminal of any width: nothing is cut, nothing left out."""

from __future__ import annotations

import io

import pytest

from scalelab.cli.flags import Parser
from scalelab.cli.study.tables import grids, parts
from scalelab.cli.terminal import Safe
from scalelab.record.schema import Figure
from scalelab.record.study import Column, Row, Table
from scalelab.report.columns import Notes

TITLES = ["Throughput", "Speedup", "Efficiency", "Communication", "Computation"]
TABLE = Table(
    id="rows", title="A study",
    columns=[Column(key="way", title="Strategy", show="text"), Column(key="workers", title="Workers", show="count"),
             *(Column(key=title, title=title, sub="of all workers together", show="rate") for title in TITLES)],
    rows=[Row(label=way, factors={"way": way, "workers": 2},
              figures={title: Figure(unit="images/s", median=1500.0, n=9, ci95=(1250.0, 1750.0)) for title in TITLES})
          for way in ("ddp", "pipeline of 2 stages with 2 replicas each")],
)  # fmt: skip


@pytest.mark.parametrize(("room", "count"), [(60, 3), (80, 2), (160, 1)])
def test_a_narrow_terminal_has_several_tables_with_all_names_and_intervals(room: int, count: int) -> None:
    made = grids(TABLE, Notes(), room)
    assert len(made) == count
    written = io.StringIO()
    for grid in made:
        Safe(file=written, width=room, highlight=False).print(grid)
    shown = written.getvalue()
    assert max(map(len, shown.splitlines())) <= room
    assert all(title in shown for title in TITLES)
    assert shown.count("1,250–1,750") == 2 * len(TITLES)
    assert shown.count("ddp") == shown.count("Strategy") == count


def test_the_rows_names_are_in_every_part_and_each_other_column_in_one() -> None:
    assert parts([10, 5, 20, 20, 20], 2, 60) == [[0, 1, 2, 3], [0, 1, 4]]
    assert parts([10, 90, 90], 1, 60) == [[0, 1], [0, 2]]  # what is too wide stands alone


def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    parser = Parser("study toy", "What is asked? " * 8, "  scalelab study toy")
    parser.add_argument("--flag", help="some words that say what it does, " * 5)
    assert max(map(len, parser.format_help().splitlines())) <= 60
