"""What several studies show alike: a figure drawn with its interval, and one heading for one thing."""

from __future__ import annotations

import importlib

from scalelab.record.figure import Figure
from scalelab.record.study import Column, Row
from scalelab.studies import STUDIES, shown


def test_a_figure_is_drawn_with_the_ends_of_its_interval() -> None:
    known = Figure(unit="s", median=2.0, n=9, ci95=(1.0, 3.0))
    series = shown.drawn("a", ["one", "two"], [known, Figure(unit="s", median=4.0, n=1)], "bars")
    assert (series.y, series.low, series.high, series.style) == ([2.0, 4.0], [1.0, None], [3.0, None], "bars")


def test_a_row_without_the_figure_leaves_a_gap_in_the_line() -> None:
    rows = [
        Row(label="1", factors={"workers": 1}, figures={"speed": Figure(unit="x", median=1.0, n=1)}),
        Row(label="2", factors={"workers": 2}, figures={"speed": Figure(unit="x", reason="one core")}),
    ]
    series = shown.line("a", rows, "speed", "workers")
    assert (series.x, series.y) == ([1, 2], [1.0, None])


def test_what_studies_share_has_one_heading_in_all_of_them() -> None:
    shared = {one.key: one for one in vars(shown).values() if isinstance(one, Column)}
    found = set()
    for place in STUDIES.values():
        module = importlib.import_module(place.partition(":")[0])
        for column in getattr(module, "COLUMNS", []):
            if column.key in ("efficiency", "exposed_share", "achieved"):  # a speedup may be over another base
                assert column == shared[column.key], module.__name__
                found.add(module.__name__)
    assert len(found) >= 4
