"""Parallel coordinates: a line for each task through its values and its metric, drawn as lines of a common plot.

(The page's copy of plotly has no parcoords: it would make the file three times as large.)
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.record import text
from scalelab.record.sweep import SweepRecord, TaskRecord
from scalelab.report.chart import Chart, View, digits
from scalelab.sweep.effects import logarithmic
from scalelab.sweep.standing import value
from scalelab.sweep.table import number

MOST = 400
"""lines: more can't be told apart"""
BEST = 40
"""of them the best ones, where there are more tasks: the others are drawn by lot"""
NAMED = 7
"""values that are named one by one, evenly spaced"""
APART = 0.12
"""how far lines through one value lie from it, as a share of the distance between two values"""
MOST_AXES = 9
GROUPS = (
    ("worst fifth", 0.16, 1.0),
    ("fourth", 0.24, 1.0),
    ("third", 0.36, 1.2),
    ("second", 0.6, 1.5),
    ("best fifth", 1.0, 2.2),
)
"""name, opacity, width; the last one is drawn last, above the others"""


@dataclass(frozen=True)
class Axis:
    """An upright axis: where a value is on it, from 0 to 1, and its ticks."""

    title: str
    at: Callable[[TaskRecord], float]
    said: Callable[[TaskRecord], str]
    ticks: list[tuple[float, str]]


def chart(sweep: SweepRecord, records: Mapping[int, TaskRecord], names: Sequence[str]) -> Chart | None:
    """The figure of the parameters ``names``, and of the goal, which the colour shows too; None where there is nothing to draw."""
    known = [(one, found) for one in records.values() if (found := value(one, sweep.goal)) is not None]
    if len(known) < 2 or not names:
        return None
    ordered = [one for one, _ in sorted(known, key=lambda pair: -pair[1] if sweep.least else pair[1])]  # the best last
    drawn = chosen(ordered)
    shown = list(names)[: MOST_AXES - 1]
    axes = [parameter(name, ordered) for name in shown] + [metric(sweep, ordered)]
    caption = (
        f"Each line is a task: its values from left to right, then its {sweep.goal}. The strongest lines are the best fifth: where they "
        "run together, a value matters; where they spread, it does not."
    )
    if len(drawn) < len(ordered):
        caption += f" Of {len(ordered):,} tasks the best {BEST} are drawn, and {len(drawn) - BEST} others by lot."
    if len(shown) < len(names):
        caption += f" Of {len(names)} parameters those {len(shown)} are shown that go with most of the differences."
    return Chart("parallel", "Every task at once", caption, [View("", traces(drawn, axes), layout(axes))], wide=True)


def chosen(ordered: Sequence[TaskRecord]) -> list[TaskRecord]:
    """Those that are drawn, in the same order."""
    if len(ordered) <= MOST:
        return list(ordered)
    rest = sorted(random.Random(0).sample(range(len(ordered) - BEST), MOST - BEST))
    return [ordered[place] for place in rest] + list(ordered[-BEST:])


def parameter(name: str, tasks: Sequence[TaskRecord]) -> Axis:
    """The axis of a parameter: few values, or names, evenly spaced; many numbers on a scale."""
    texts = [task.values[name] for task in tasks]
    numbers = {said: number(said) for said in dict.fromkeys(texts)}
    whole = [one for one in numbers.values() if one is not None]
    if len(whole) == len(numbers) and len(numbers) > NAMED:
        place, ticks = scaled(whole)
        return Axis(name, lambda task: place(number(task.values[name]) or 0.0), lambda task: task.values[name], ticks)
    order = sorted(numbers, key=lambda said: (numbers[said] is None, numbers[said] or 0.0, said))
    step = 1 / max(1, len(order) - 1)
    at = {said: index * step if len(order) > 1 else 0.5 for index, said in enumerate(order)}
    every = max(1, len(order) // 12)
    ticks = [(at[said], text.shorten(" ".join(said.split()), 18)) for said in order[::every]]
    apart = min(step, 0.5) * APART
    return Axis(name, lambda task: at[task.values[name]] + apart * jitter(task, name), lambda task: task.values[name], ticks)


def jitter(task: TaskRecord, name: str) -> float:
    """Between -1 and 1, the same each time: lines through one value lie beside each other, so that many look like many."""
    return zlib.crc32(f"{task.task} {name}".encode()) / 0x7FFFFFFF - 1


def metric(sweep: SweepRecord, tasks: Sequence[TaskRecord]) -> Axis:
    """The axis of the goal; the best is at its top."""
    found = {task.task: value(task, sweep.goal) or 0.0 for task in tasks}
    place, ticks = scaled(list(found.values()))
    if not sweep.least:
        return Axis(sweep.goal, lambda task: place(found[task.task]), lambda task: text.number(found[task.task], 4), ticks)
    turned = [(1 - at, said) for at, said in ticks]
    return Axis(sweep.goal, lambda task: 1 - place(found[task.task]), lambda task: text.number(found[task.task], 4), turned)


def scaled(values: Sequence[float]) -> tuple[Callable[[float], float], list[tuple[float, str]]]:
    """From values to places between 0 and 1, and five ticks."""
    log = logarithmic(values)
    low, high = min(values), max(values)
    bend: Callable[[float], float] = math.log if log else float
    span = bend(high) - bend(low) or 1.0
    back: Callable[[float], float] = math.exp if log else float
    ticks = (
        [(part / 4, text.number(back(bend(low) + part / 4 * span))) for part in range(5)]
        if high > low
        else [(0.0, text.number(low))]
    )
    return lambda one: (bend(one) - bend(low)) / span, ticks


def traces(tasks: Sequence[TaskRecord], axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """A trace for each fifth of the tasks, by their goal."""
    made = []
    groups = GROUPS if len(tasks) >= len(GROUPS) else GROUPS[-1:]
    for index, (name, opacity, width) in enumerate(groups):
        part = tasks[index * len(tasks) // len(groups) : (index + 1) * len(tasks) // len(groups)]
        x: list[float | None] = []
        y: list[float | None] = []
        hover: list[str] = []
        for task in part:
            x += [*map(float, range(len(axes))), None]
            y += [*(digits(axis.at(task)) for axis in axes), None]
            hover += [f"task {task.task}<br>{text.plain(text.shorten(axis.said(task), 40))}" for axis in axes] + [""]
        made.append({
            "type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y, "customdata": hover, "opacity": opacity,
            "line": {"color": "var(--accent)", "width": width}, "marker": {"size": 4, "color": "var(--accent)"},
            "hovertemplate": "%{customdata}<extra></extra>", "cliponaxis": False,
        })  # fmt: skip
    return made


def layout(axes: Sequence[Axis]) -> dict[str, Any]:
    """Upright axes with their ticks as annotations."""
    ticks = [
        {
            "x": place, "y": digits(at), "text": text.plain(said), "showarrow": False,
            "xanchor": "left" if place < len(axes) - 1 else "right", "xshift": 7 if place < len(axes) - 1 else -7,
            "font": {"size": 11.5, "color": "var(--ink-2)"}, "bgcolor": "var(--panel)", "borderpad": 1, "opacity": 0.9,
        }
        for place, axis in enumerate(axes)
        for at, said in axis.ticks
    ]  # fmt: skip
    lines = [
        {
            "type": "line",
            "x0": place,
            "x1": place,
            "y0": 0,
            "y1": 1,
            "line": {"color": "var(--ink-2)", "width": 1.2},
            "layer": "below",
        }
        for place in range(len(axes))
    ]
    titles = {
        "tickvals": list(range(len(axes))),
        "ticktext": [f"<b>{text.plain(text.shorten(axis.title, 24))}</b>" for axis in axes],
    }
    edge = 0.02 * len(axes)
    return {
        "height": 470, "showlegend": True, "hovermode": "closest", "annotations": ticks, "shapes": lines,
        "xaxis": {**titles, "range": [-edge, len(axes) - 1 + edge], "showgrid": False, "zeroline": False, "fixedrange": True},
        "yaxis": {"visible": False, "range": [-0.07, 1.07], "fixedrange": True},
    }  # fmt: skip
