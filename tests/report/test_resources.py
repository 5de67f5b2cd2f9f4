"""The figure of step times and resources on one clock."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from scalelab import report
from scalelab.record.samples import path
from scalelab.record.schema import Sample, Step
from scalelab.report.resources import resources
from scalelab.report.table import rows
from tests.report.samples import record
from tests.report.test_write import keep


def run(workers: int = 2, seconds: int = 20) -> tuple[Any, list[Step], list[Sample]]:
    """A record whose steps end every tenth of a second, with a pause of two seconds in the middle, and a sample a second."""
    made, steps = record("ddp", workers=workers)
    start = datetime.fromisoformat(made.attempts[-1].started).timestamp() + 5
    timed = [msgspec.structs.replace(s, seconds=0.1, at=start + 0.1 * n + (2 if n > 50 else 0)) for n, s in enumerate(steps, 1)]
    taken = [
        Sample(at=start + second, rank=rank, cpu_percent=90 + rank, threads=3, resident_bytes=rank + 2**20, sent_per_second=10**6)
        for second in range(1, seconds)
        for rank in range(workers)
    ]
    return made, timed, taken


def drawn(made: Any, steps: list[Step], taken: list[Sample]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    chart = resources(list(zip(rows([made]), [made], strict=True)), {made.run: steps}, {made.run: taken}, 300)
    assert chart is not None
    (view,) = chart.views
    assert view.data is not None
    return view.data, view.layout


def test_steps_and_samples_lie_on_one_clock() -> None:
    made, steps, taken = run()
    lines, layout = drawn(made, steps, taken)
    step, cpu = lines[0], lines[1]
    assert step["x"][0] == 0.1  # its first step took so long
    assert cpu["x"][:3] == [1.0, 2.0, 3.0]
    assert step["y"][0] == 100.0
    assert layout["yaxis2"]["domain"][1] < layout["yaxis"]["domain"][0]


def test_a_pause_between_steps_is_a_gap() -> None:
    lines, _ = drawn(*run())
    assert lines[0]["x"].count(None) == lines[0]["y"].count(None) == 1


def test_each_worker_has_a_line_in_each_panel_that_has_values() -> None:
    lines, layout = drawn(*run(workers=2))
    assert [line["name"] for line in lines[1:]] == ["worker 0", "worker 1"] * 3  # no GPU: CPU, memory, network
    assert {line.get("yaxis") for line in lines} == {None, "y2", "y3", "y4"}
    assert sum(line["showlegend"] for line in lines) == 2
    assert "yaxis5" not in layout


def test_of_many_workers_some_are_drawn() -> None:
    lines, _ = drawn(*run(workers=9))
    assert [line["name"] for line in lines[1:5]] == ["worker 0", "worker 3", "worker 5", "worker 8"]


def test_samples_of_an_earlier_attempt_are_not_drawn_and_none_is_no_figure() -> None:
    made, steps, taken = run()
    early = [msgspec.structs.replace(sample, at=sample.at - 1e6) for sample in taken]
    pairs = list(zip(rows([made]), [made], strict=True))
    assert resources(pairs, {made.run: steps}, {made.run: early}, 300) is None
    assert resources(pairs, {made.run: steps}, {}, 300) is None


def test_the_page_draws_what_the_folder_holds(tmp_path: Path) -> None:
    made, steps, taken = run()
    folder = keep(tmp_path, made, steps)
    path(folder, 0).parent.mkdir()
    for rank in (0, 1):
        lines = [msgspec.json.encode(sample) + b"\n" for sample in taken if sample.rank == rank]
        path(folder, rank).write_bytes(b"".join(lines) + b'{"at": 1')  # still being written
    page = report.write([folder], tmp_path / "r.html").read_text()
    assert 'id="chart-resources"' in page
    assert "resources" not in report.write([folder], tmp_path / "r.md", "md").read_text()
