"""A sweep as a page: the best, what each parameter does, every task at once, the points, and what failed."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.measure.statistics import difference
from scalelab.record import text
from scalelab.record.atomic import write_atomic
from scalelab.record.study import Axis, Card, Column, Plot, Row, Series, Table
from scalelab.record.sweep import Best, SweepRecord, TaskRecord
from scalelab.report import parallel
from scalelab.report.chart import Chart
from scalelab.report.columns import Notes
from scalelab.report.frame import LIMIT, fill
from scalelab.report.plots import chart as drawn
from scalelab.report.study_table import lay
from scalelab.sweep import keeping
from scalelab.sweep.effects import Effect, effects
from scalelab.sweep.standing import OWN_METRICS, ranked, value
from scalelab.sweep.table import TaskRow

POINTS, EFFECTS, FAILED = 50, 8, 50
"""points, parameters' figures, and failed tasks that the page holds"""
DOTS = 300
"""tasks that a parameter's figure shows one by one"""
UNITS = {"s": text.seconds, "B": text.size}


def write(folder: Path, sweep: SweepRecord, rows: Sequence[TaskRow], output: Path) -> Path:
    """The page of the sweep in ``folder``, atomically; its path. Raises RunError on a full disk."""
    write_atomic(output, render(sweep, keeping.results(folder), rows, str(folder)))
    return output


def render(sweep: SweepRecord, records: Mapping[int, TaskRecord], rows: Sequence[TaskRow], folder: str) -> str:
    """The page, at most 2 MB."""
    found = effects(sweep, records) if sweep.goal else []
    charts = [parallel.chart(sweep, records, [one.name for one in found])] + [main_effect(sweep, one) for one in found[:EFFECTS]]
    shown = [one for one in charts if one is not None]
    page = fill("sweep.html.j2", content(sweep, records, rows, found, shown, folder), shown)
    if len(page.encode()) > LIMIT:
        raise ScalelabError("the sweep's figures do not fit into a page of 2 MB; -o FILE.csv has all of it")
    return page


def content(
    sweep: SweepRecord,
    records: Mapping[int, TaskRecord],
    rows: Sequence[TaskRow],
    found: Sequence[Effect],
    charts: Sequence[Chart],
    folder: str,
) -> dict[str, Any]:
    """What the template shows."""
    notes = Notes()
    best = ranked(sweep, records, sweep.goal, sweep.least, POINTS) if sweep.goal else []
    counts = Counter(row.state for row in rows)
    failed = [row for row in rows if row.state in ("failed", "interrupted", "lost")]
    tables = [lay(points(sweep, best, counts["completed"]), notes)] if best else []
    told = {
        "title": f"Sweep of {sweep.name}: {text.counted(sweep.tasks, 'task')}", "question": question(sweep), "answer": answer(sweep, best),
        "sentences": sentences(sweep, records, best, found), "facts": facts(sweep, rows), "cards": cards(sweep, rows, best, found),
        "tables": tables, "notes": notes.texts, "failed": failed[:FAILED], "failures": len(failed), "folder": folder,
        "counts": [(state if state != "missing" else "not begun", count) for state, count in counts.items()],
        "again": shlex.join(sweep.command), "methods": METHODS, "sorted": sorted,
    }  # fmt: skip
    sections = [("figures", "Figures")] if charts else []
    sections += [("tables", "Points")] if tables else []
    sections += [("failed", "Failed tasks")] if failed else []
    return told | {"sections": [*sections, ("method", "Method"), ("command", "Command")]}


def show(sweep: SweepRecord, found: float | None) -> str:
    """A value of the goal."""
    return text.ABSENT if found is None else UNITS.get(OWN_METRICS.get(sweep.goal, ""), lambda one: text.number(one, 4))(found)


def question(sweep: SweepRecord) -> str:
    """What a reader asks."""
    if not sweep.goal:
        return "Which of these tasks were completed?"
    if not sweep.parameters:
        return f"What is the {superlative(sweep)} {sweep.goal}?"
    return f"Which values of {text.listing(sweep.parameters)} give the {superlative(sweep)} {sweep.goal}?"


def superlative(sweep: SweepRecord) -> str:
    """lowest, highest."""
    return "lowest" if sweep.least else "highest"


def answer(sweep: SweepRecord, best: Sequence[Best]) -> str:
    """The best point, with its doubt."""
    if not sweep.goal:
        return "No metric was caught: --metric or --metric-json says where it is."
    if not best:
        return f"No task is completed with its {sweep.goal}."
    first = best[0]
    n = first.figure.n
    interval = text.interval(first.figure, lambda one: show(sweep, one))
    repeats = f", the median of {n} repeats" + (f" ({interval})" if interval else "") if n > 1 else ""
    return (
        f"The {superlative(sweep)} {sweep.goal}, {show(sweep, first.figure.median)}{repeats}, comes with {values(first.values)}."
    )


def values(found: Mapping[str, str]) -> str:
    """``lr 0.1 and batch 128``."""
    return (
        text.listing([f"{name} {text.shorten(' '.join(one.split()), 40)}" for name, one in found.items()])
        if found
        else "no parameter"
    )


def sentences(sweep: SweepRecord, records: Mapping[int, TaskRecord], best: Sequence[Best], found: Sequence[Effect]) -> list[str]:
    """Whether the best is beyond chance better than the next, and which parameter matters most."""
    said = []
    if len(best) > 1:
        a, b = ([one for task in point.tasks if (one := value(records[task], sweep.goal)) is not None] for point in best[:2])
        if min(len(a), len(b)) > 1:
            gap = difference(a, b, "")
            beyond = gap.ci95 is not None and (gap.ci95[0] > 0 or gap.ci95[1] < 0)
            verdict = "a difference beyond chance" if beyond else "which may be chance: their intervals do not show a difference"
            said.append(f"The next, {values(best[1].values)}, has {show(sweep, best[1].figure.median)}, {verdict}.")
        else:
            said.append(
                "Each point ran once, and the best of many is the luckiest too: --repeats, with {seed}, shows how much of it is chance."
            )
    telling = [one for one in found if one.share is not None]
    if telling and (telling[0].share or 0) >= 0.01:
        said.append(
            f"Of the differences in {sweep.goal} {text.whole_percent(telling[0].share or 0)} go with {telling[0].name} alone."
        )
    return said


def facts(sweep: SweepRecord, rows: Sequence[TaskRow]) -> str:
    """``sweep · 200 tasks, 3 repeats · on h1, h2 · 2 January 2026``."""
    hosts = sorted({row.host for row in rows if row.host})
    where = [f"on {text.listing(hosts)}" if len(hosts) <= 4 else f"on {len(hosts)} hosts"] if hosts else []
    return " · ".join(
        [
            "sweep",
            text.counted(sweep.tasks, "task") + (f", {sweep.repeats} of each point" if sweep.repeats > 1 else ""),
            *where,
            sweep.created[:10],
        ]
    )


def cards(sweep: SweepRecord, rows: Sequence[TaskRow], best: Sequence[Best], found: Sequence[Effect]) -> list[Card]:
    """Four figures to be read from across the room."""
    completed = [row for row in rows if row.state == "completed"]
    made = []
    if best:
        made.append(
            Card(
                label=f"{superlative(sweep).capitalize()} {sweep.goal}",
                value=show(sweep, best[0].figure.median),
                sub=values(best[0].values),
            )
        )
    made.append(
        Card(
            label="Completed",
            value=str(len(completed)),
            unit=f"of {sweep.tasks}",
            sub=f"{text.count(sum(row.state == 'failed' for row in rows))} failed",
        )
    )
    took = [row.seconds for row in completed if row.seconds is not None]
    if took:
        made.append(
            Card(
                label="A task took",
                value=text.seconds(median(took)),
                sub=f"median; together {text.seconds(sum(took))}",
            )
        )
    if found and found[0].share is not None:
        made.append(
            Card(
                label="Matters most",
                value=found[0].name,
                sub=f"{text.whole_percent(found[0].share)} of the differences go with it",
            )
        )
    return made


def points(sweep: SweepRecord, best: Sequence[Best], completed: int) -> Table:
    """The best points as a table."""
    names = [name for name in sweep.parameters if any(name in one.values for one in best)]
    columns = [Column(key="rank", title="Point", show="text"), *(Column(key=name, title=name, show="text") for name in names)]
    columns += [Column(key="goal", title=sweep.goal, sub="median"), Column(key="n", title="Tasks", sub="completed", show="count")]
    rows = [
        Row(
            label=str(place),
            factors={"rank": str(place), **{name: text.shorten(one.values.get(name, ""), 60) for name in names}, "n": one.figure.n},
            figures={"goal": one.figure},
        )
        for place, one in enumerate(best, 1)
    ]  # fmt: skip
    title = f"The best {len(best)} points" if len(best) == POINTS else "All points, the best first"
    return Table(id="points", title=title, caption=f"Of {text.counted(completed, 'completed task')}.", columns=columns, rows=rows)


def main_effect(sweep: SweepRecord, effect: Effect) -> Chart | None:
    """The goal at each value of a parameter: every task, and the medians with their intervals."""
    step = max(1, -(-len(effect.tasks) // DOTS))
    dots = effect.tasks[::step]
    levels = effect.levels
    share = "" if effect.share is None else f" {text.whole_percent(effect.share)} of the differences go with {effect.name} alone."
    binned = " Neighbouring values are taken together." if effect.binned else ""
    plot = Plot(
        id=f"effect-{sweep.parameters.index(effect.name)}",
        title=f"{sweep.goal} by {effect.name}",
        caption=f"Dots are tasks, with all values of the other parameters; the medians have 95 % intervals.{binned}{share}",
        x=Axis(title=effect.name, log=effect.log, ticks=[] if not effect.numeric or effect.binned else [float(one.at) for one in levels]),
        y=Axis(title=sweep.goal),
        series=[
            Series(name="task", x=[x for x, _ in dots], y=[y for _, y in dots], style="points"),
            Series(
                name="median", x=[one.at for one in levels], y=[one.figure.median for one in levels],
                low=[None if one.figure.ci95 is None else one.figure.ci95[0] for one in levels],
                high=[None if one.figure.ci95 is None else one.figure.ci95[1] for one in levels],
                style="line" if effect.numeric else "points",
            ),
        ],
    )  # fmt: skip
    made = drawn(plot)
    if made is not None:
        for trace in (made.views[0].data or [])[:1]:  # the tasks stand behind their medians
            trace["marker"] |= {"size": 5, "opacity": 0.45, "color": "var(--run-0)", "symbol": "circle"}
        made.views[0].layout["yaxis"].pop("rangemode", None)  # what differs is seen, not the distance from zero
    return made


METHODS = [
    (
        "a task",
        [
            "one run of the program with one set of values. Completed: it ended by itself with exit status 0, and its metrics were found."
        ],
    ),
    (
        "median, interval",
        [
            "of a point's repeats, and of all tasks that have a value: for two to seven the interval is Student's (1908), on logarithms "
            "where all values are positive, from eight on the bootstrap of the median (Efron 1979). Always 95 %."
        ],
    ),
    (
        "share of the differences",
        [
            "epsilon squared (Kelley 1935): the part of the metric's variance between tasks that goes with one parameter alone, "
            "corrected for the number of its values. What two parameters do only together is in no single share."
        ],
    ),
    (
        "time, memory",
        [
            "from the start of the program to its end; the largest resident memory of any of its processes, as the kernel counts it."
        ],
    ),
]
