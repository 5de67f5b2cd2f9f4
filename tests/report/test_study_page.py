"""A study's page: everything of its record is on it, drawn, safe; and its tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scalelab.record.schema import Figure, Host
from scalelab.record.study import Axis, Column, Plot, Row, Series, Table
from scalelab.report import study
from scalelab.report.columns import Notes
from scalelab.report.plots import chart, scale
from scalelab.report.study_table import lay
from tests import browsing
from tests.report import samples, study_samples
from tests.report.test_page import Opened
from tests.studies import made


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    file = tmp_path_factory.mktemp("study") / "report.html"
    records = [samples.record(key)[0] for key in ("single", "ddp")] + [samples.failed()[0]]
    file.write_text(study.render(study_samples.study(), records, "studies/x"), encoding="utf-8")
    with browsing.chromium() as started:
        yield Opened(started, file)


def test_it_is_quiet_and_shows_all_of_the_record(opened: Opened) -> None:
    assert opened.problems == []
    assert len(opened.requests) == 1
    shown = opened.page.evaluate("() => document.body.innerText")
    record = study_samples.study()
    for part in (
        record.question, record.answer, *record.sentences, *record.notes, "--quick: small and once", "1,741", "1,641–1,859", "refused",
        "alert(1)", study_samples.ABOVE, "oversubscribed", "scalelab study weak-scaling --quick", "Student", "studies/x/runs",
        "those of the last call took 12.8 s, and 12 s had been estimated", "out of memory",
    ):  # fmt: skip
        assert part in shown, part


@pytest.mark.parametrize(
    ("processors", "said"),
    [
        (["A"], "A, 4 cores ·"),
        (["A", "A"], "2 hosts: A, 4 cores ·"),
        (["A", "B"], "2 hosts: A, 4 cores; B, 4 cores ·"),
        ([*"ABCDE"], "5 hosts: A, 4 cores; B, 4 cores; C, 4 cores; 2 more kinds ·"),
    ],
)
def test_the_kinds_of_all_hosts_are_named(processors: list[str], said: str) -> None:
    hosts = [Host(name=f"h{number}", processor=processor, cores=4) for number, processor in enumerate(processors)]
    assert f"· {said}" in study.facts(study_samples.study(), [made.on(samples.record()[0], *hosts)])


def test_every_figure_with_something_in_it_is_drawn(opened: Opened) -> None:
    drawn = opened.page.evaluate("() => [...document.querySelectorAll('.chart')].map(c => [c.id, c.data.length])")
    assert dict(drawn) == {
        "chart-speedup": 3, "chart-parts": 3, "chart-front": 1, "chart-bars": 2, "chart-long": 4, "chart-timeline": 2,
    }  # fmt: skip
    assert opened.page.locator("#figure-timeline.wide").count() == 1


def test_its_tables_are_sorted_by_number_and_by_text(opened: Opened) -> None:
    def first(column: int) -> list[str]:
        opened.page.locator(".study thead button").nth(column).click()
        cells = opened.page.locator(".study").first.locator("tbody tr > :first-child b").all_inner_texts()
        return [*cells[:1], *cells[-1:]]

    assert first(2) == ["ddp", "zero9"]  # by throughput; what has none is last, whichever way
    assert first(2) == ["ddp", "zero9"]
    assert first(0) == ["zero9", "ddp"]


def test_a_phone_shows_it_without_scrolling_sideways(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 390, "height": 800})
    try:
        opened.page.wait_for_function("() => document.documentElement.scrollWidth <= 390")  # figures are drawn anew for the width
    finally:
        opened.page.set_viewport_size({"width": 1200, "height": 900})


def test_a_study_without_records_or_figures_has_a_page(tmp_path: Path) -> None:
    record = study_samples.study()
    record.tables, record.plots, record.rows, record.runs = [], [], [], ["gone"]
    record.status, record.answer = "failed", "No training was completed, so nothing can be answered."
    page = study.write(tmp_path, record).read_text()
    assert record.answer in page
    assert 'class="badge failed"' in page
    assert 'id="figures"' not in page


def drawn(series: list[Series], x: Axis | None = None, y: Axis | None = None) -> Any:
    made = chart(Plot(id="p", title="t", caption="c", x=x or Axis(title="x"), y=y or Axis(title="y"), series=series))
    return None if made is None else made.views[0]


def test_an_axis_has_the_unit_that_suits_it() -> None:
    view = drawn([Series(name="a", x=[1, 2], y=[0.004, 0.002])], y=Axis(title="step", show="seconds"))
    assert view.layout["yaxis"]["title"]["text"] == "step (ms)"
    assert view.data[0]["y"] == [4.0, 2.0]
    assert scale(Axis(title="", show="size"), [3 << 20]).called == "MiB"
    assert scale(Axis(title="", show="percent"), [0.4]).at(0.25) == 25.0


def test_what_is_absent_is_a_gap_and_an_interval_stays_around_its_value() -> None:
    view = drawn([Series(name="a", x=[1, 2, 4], y=[2.0, None, 3.0], low=[1.5, None, None], high=[2.25, None, None])])
    assert view.data[0]["y"] == [2.0, None, 3.0]
    assert view.data[0]["error_y"]["array"] == [0.25, None, None]
    assert view.data[0]["error_y"]["arrayminus"] == [0.5, None, None]
    assert drawn([Series(name="a", x=[1], y=[None])]) is None


def test_a_logarithmic_axis_has_only_the_ticks_that_were_tried() -> None:
    view = drawn([Series(name="a", x=[32, 64], y=[1.0, 2.0])], x=Axis(title="batch", log=True, ticks=[32, 64], show="count"))
    assert view.layout["xaxis"]["type"] == "log"
    assert view.layout["xaxis"]["ticktext"] == ["32", "64"]
    assert drawn([Series(name="a", x=[1], y=[-1.0])], y=Axis(title="y", log=True)).data[0]["y"] == [None]


def test_names_of_hostile_users_are_text() -> None:
    view = drawn([Series(name="<b>%{x}", x=["<i>a"], y=[1.0], style="bars", text=["<u>"])])
    assert view.data[0]["name"] == "&lt;b&gt;%{x}"
    assert view.layout["xaxis"]["ticktext"] == ["&lt;i&gt;a"]
    assert view.data[0]["text"] == ["&lt;u&gt;"]
    assert "%{x}" not in view.data[0]["hovertemplate"]


def ratio(value: float | None, reason: str | None = None) -> Figure:
    return Figure(unit="ratio", median=value, n=3, reason=reason)


def test_what_all_figures_of_a_column_have_in_common_is_said_once() -> None:
    columns = [Column(key="name", title="Name", show="text"), Column(key="speed", title="Speed", show="times")]

    def laid(*figures: Figure) -> Any:
        rows = [Row(label=str(n), factors={"name": str(n)}, figures={"speed": one}) for n, one in enumerate(figures)]
        return lay(Table(id="t", title="t", columns=columns, rows=rows), Notes())

    same = laid(ratio(1.0, "paired"), ratio(2.0, "paired"), ratio(None, "never"))
    assert [head.notes for head in same.heads] == [(), (1,)]
    assert [line.cells[1].notes for line in same.lines] == [(), (), (2,)]
    mixed = laid(ratio(1.0, "paired"), ratio(2.0))
    assert [head.notes for head in mixed.heads] == [(), ()]
    assert [line.cells[1].notes for line in mixed.lines] == [(1,), ()]


def test_a_row_that_did_not_run_says_why_once() -> None:
    notes = Notes()
    table = study_samples.study().tables[0]
    last = lay(table, notes).lines[-1]
    assert [cell.notes for cell in last.cells[1:]] == [()] * (len(table.columns) - 1)
    assert notes.texts[last.cells[0].notes[0] - 1] == "<script>alert(1)</script> cuts nothing"


def test_its_rows_as_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(study.csv(study_samples.study()))))
    assert [row["table"] for row in rows] == ["rows"] * 5 + ["short"] * 2
    assert rows[3]["efficiency"] == ""
    assert rows[3]["efficiency_reason"] == "oversubscribed"
    assert (rows[1]["workers"], rows[1]["status"], rows[1]["marks"]) == ("2", "completed", study_samples.ABOVE)
    assert float(rows[1]["speedup_low"]) < float(rows[1]["speedup"]) < float(rows[1]["speedup_high"])
    assert rows[4]["status"] == "refused"


def test_the_page_is_small_and_may_load_nothing() -> None:
    page = study.render(study_samples.study(), [samples.record("ddp")[0]], "s")
    assert len(page.encode()) < 2_000_000
    assert "default-src &#39;none&#39;" in page


@pytest.mark.parametrize(("x", "mode"), [([2], "markers"), ([2, 2], "markers"), ([2, 4], "lines")])
def test_an_ideal_of_one_place_is_a_mark(x: list[int], mode: str) -> None:
    """A line with one point is not seen."""
    ideal = Series(name="in theory", x=list(x), y=[0.3] * len(x), style="ideal")
    drawn = chart(Plot(id="p", title="p", caption="", x=Axis(title="x"), y=Axis(title="y"), series=[ideal]))
    assert drawn is not None
    assert drawn.views[0].data[0]["mode"] == mode


def test_a_negative_part_of_a_bar_is_drawn_below_zero() -> None:
    parts = [Series(name=name, x=["a"], y=[value], style="stacked") for name, value in (("more", 0.3), ("less", -0.1))]
    drawn = chart(Plot(id="p", title="p", caption="", x=Axis(title="x", show="text"), y=Axis(title="y"), series=parts))
    assert drawn is not None
    assert drawn.views[0].layout["barmode"] == "relative"


def test_four_lines_look_different_and_none_hides_another() -> None:
    ys = [[1.0, 0.5, 2.0], [1.0, 0.6, 2.01], [1.0, 0.7, 0.1], [0.0, 0.8, 0.2]]
    lines = [Series(name=str(number), x=[1, 2, 3], y=list(values)) for number, values in enumerate(ys)]
    drawn = chart(Plot(id="p", title="p", x=Axis(title="epoch"), y=Axis(title="y"), series=lines, caption="c"))
    assert drawn is not None
    assert drawn.views[0].data is not None
    markers = [one["marker"] for one in drawn.views[0].data]
    assert len({one["symbol"] for one in markers}) == 4
    assert not {"var(--run-3)", "var(--run-5)"} <= {one["color"] for one in markers}  # both are orange
    assert [one["size"] for one in markers] == [[15, 7, 11], [11, 7, 7], 7, 7]
