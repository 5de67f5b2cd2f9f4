"""The page's figures as plotly JSON: plain dicts. Colours are CSS variables, resolved in the browser for its theme.

Names pass through ``text.plain`` (plotly reads labels as pseudo-HTML) and never stand in a template string
(``%{…}`` in a name would be filled in). Categories are numbers with tick texts, so equal names stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.record.schema import Figure, Step, TrainRecord
from scalelab.report import text
from scalelab.report.series import loss_curve
from scalelab.report.table import Row

COLOURS = 8
DASHES = ("solid", "dash", "dot", "dashdot")
PATTERNS = ("", "/", ".", "x")
MIB = float(1 << 20)


@dataclass(frozen=True)
class View:
    """One way of drawing a figure; several are switched by buttons above it."""

    label: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A figure with the sentence that says what one should see in it."""

    id: str
    title: str
    caption: str
    views: list[View]
    wide: bool = False


Runs = Sequence[tuple[Row, TrainRecord]]


def colour(place: int) -> str:
    """The CSS colour of the run at ``place``: the same in every figure and table."""
    return f"var(--run-{place % COLOURS})"


def charts(runs: Runs, steps: Mapping[str, Sequence[Step]], points: int) -> list[Chart]:
    """Every figure that the data can fill, in the page's order."""
    made = [throughput(runs), breakdown(runs), loss(runs, steps, points), accuracy(runs), memory(runs)]
    return [chart for chart in made if chart is not None]


def throughput(runs: Runs) -> Chart | None:
    """Images per second with their 95 % intervals; speedup as the second view where a base is there."""
    shown = [(place, row) for place, (row, _) in enumerate(runs) if row.images_per_second.median is not None]
    if not shown:
        return None
    caption = (
        "Longer is faster. The whisker is the 95 % interval of the median; where two whiskers overlap, "
        "do not read a difference into the bars."
    )
    views = [View("images/s", *_bars(runs, shown, lambda row: row.images_per_second, text.rate, "images per second"))]
    faster = [(place, row) for place, row in shown if row.speedup.median is not None]
    if len(faster) > 1:
        data, layout = _bars(runs, faster, lambda row: row.speedup, text.times, "speedup over the base (×)")
        layout["shapes"] = [_mark(1.0)]
        views.append(View("speedup", data, layout))
        caption += " Speedup divides by the base, the dashed line at 1×."
    return Chart("throughput", "Throughput", caption, views)


def _bars(
    runs: Runs, shown: Sequence[tuple[int, Row]], read: Callable[[Row], Figure], show: text.Show, axis: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    data = []
    for slot, (place, row) in enumerate(shown):
        figure = read(row)
        value = figure.median or 0.0
        low, high = figure.ci95 or (value, value)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": text.plain(row.label),
                "y": [slot],
                "x": [digits(value)],
                "marker": bar_style(place),
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [digits(high - value)],
                    "arrayminus": [digits(value - low)],
                    "visible": figure.ci95 is not None,
                    "color": "var(--ink)",
                    "thickness": 1.5,
                    "width": 5,
                },
                "text": [show(value)],
                "textposition": "inside",
                "insidetextanchor": "start",
                "textfont": {"color": "var(--on-run)"},
                "customdata": [text.interval(figure, show) or "none (too few blocks)"],
                "hovertemplate": f"%{{text}}<br>95 % interval %{{customdata}}<br>n = {figure.n}",
            }
        )
    return data, _horizontal([row.label for _, row in shown], axis)


def bar_style(place: int) -> dict[str, Any]:
    """Colour, and beyond the palette's end a pattern, of the run at ``place``."""
    style: dict[str, Any] = {"color": colour(place), "cornerradius": 4}
    if place >= COLOURS:
        style["pattern"] = {"shape": PATTERNS[place // COLOURS % len(PATTERNS)], "fgcolor": "var(--panel)", "size": 6, "solidity": 0.25}
    return style


def _mark(x: float) -> dict[str, Any]:
    line = {"color": "var(--ink-2)", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def _horizontal(labels: Sequence[str], axis: str) -> dict[str, Any]:
    return {
        "height": 90 + 38 * len(labels),
        "bargap": 0.28,
        "showlegend": False,
        "xaxis": {"title": {"text": axis}, "rangemode": "tozero"},
        "yaxis": {
            "tickvals": list(range(len(labels))),
            "ticktext": [text.plain(text.shorten(label, 26)) for label in labels],
            "range": [len(labels) - 0.45, -0.55],
            "showgrid": False,
            "automargin": True,
            "fixedrange": True,
        },
    }


def breakdown(runs: Runs) -> Chart | None:
    """A step's time stacked as compute, exposed communication and waiting for data, in milliseconds."""
    shown = [(row, record) for row, record in runs if row.compute_seconds.median is not None]
    if not shown:
        return None
    parts: tuple[tuple[str, str, Callable[[Row], Figure]], ...] = (
        ("compute", "var(--part-compute)", lambda row: row.compute_seconds),
        ("exposed communication", "var(--part-exposed)", lambda row: row.exposed),
        ("waiting for data", "var(--part-data)", lambda row: row.data_wait),
    )
    data = [_stack(name, shade, [read(row) for row, _ in shown], 1e3, text.seconds) for name, shade, read in parts]
    layout = _horizontal([row.label for row, _ in shown], "milliseconds per step")
    layout |= {"barmode": "stack", "showlegend": True, "height": layout["height"] + 34}
    missing = [row.label for row, _ in shown if row.exposed.median is None and row.workers > 1]
    caption = (
        "Where a step's time goes. Exposed communication is what the network adds to the step; "
        "what hides behind compute is not in the bar. A strategy is worth its workers when the bar shrinks as they grow."
    )
    if missing:
        caption += f" Not measured, so not drawn: communication of {text.listing(missing)}."
    return Chart("breakdown", "Where a step's time goes", caption, [View("", data, layout)])


def _stack(name: str, shade: str, figures: Sequence[Figure], scale: float, show: text.Show) -> dict[str, Any]:
    """One layer of stacked bars; an absent figure is a gap (null), never a zero."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": list(range(len(figures))),
        "x": [None if figure.median is None else digits(figure.median * scale) for figure in figures],
        "marker": {"color": shade, "cornerradius": 3, "line": {"width": 1, "color": "var(--panel)"}},
        "customdata": [text.shown(figure, show) for figure in figures],
        "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
    }


def loss(runs: Runs, steps: Mapping[str, Sequence[Step]], points: int) -> Chart | None:
    """Training loss: a faint raw line and its moving mean, against steps or seconds."""
    curves = [(place, row, loss_curve(steps.get(record.run, ()), points)) for place, (row, record) in enumerate(runs)]
    curves = [(place, row, curve) for place, row, curve in curves if curve.loss]
    if not curves:
        return None
    raw = len(curves) <= COLOURS
    by_step, by_second = [], []
    for place, row, curve in curves:
        smooth = curve.window > 1
        if raw and smooth:
            by_step.append(_line(place, row.label, curve.steps, curve.loss, faint=True))
            by_second.append(_line(place, row.label, curve.seconds, curve.loss, faint=True))
        by_step.append(_line(place, row.label, curve.smooth_steps, curve.smooth_loss))
        by_second.append(_line(place, row.label, curve.smooth_seconds, curve.smooth_loss))
    views = [
        View("by step", by_step, _lines("optimizer step", "training loss")),
        View("by seconds", by_second, _lines("seconds of training steps (no evaluation)", "training loss")),
    ]
    window = max(curve.window for _, _, curve in curves)
    caption = (
        "By step, strategies that compute the same thing lie on one another; by seconds, the faster one falls first."
        + (f" The strong line is the mean of {window} neighbouring steps, the faint one keeps each stretch's extremes." if window > 1 else "")
    )
    return Chart("loss", "Training loss", caption, views)


def _line(place: int, label: str, x: Sequence[float], y: Sequence[float], faint: bool = False) -> dict[str, Any]:
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "name": text.plain(label),
        "legendgroup": str(place),
        "x": [digits(value) for value in x],
        "y": [digits(value) for value in y],
        "line": {"color": colour(place), "width": 1 if faint else 2.2, "dash": DASHES[place // COLOURS % len(DASHES)]},
        "hovertemplate": "%{y:.4g} at %{x:.4~g}",
    }
    return line | {"opacity": 0.28, "showlegend": False, "hoverinfo": "skip", "hovertemplate": None} if faint else line


def _lines(x: str, y: str) -> dict[str, Any]:
    return {"height": 380, "xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "automargin": True}, "showlegend": True}


def accuracy(runs: Runs) -> Chart | None:
    """Test accuracy after each epoch, against epochs or the seconds until then."""
    shown = [(place, row, record) for place, (row, record) in enumerate(runs) if record.epochs]
    if not shown:
        return None
    by_epoch, by_second = [], []
    for place, row, record in shown:
        values = [100 * epoch.accuracy for epoch in record.epochs]
        first = min(epoch.epoch for epoch in record.epochs)
        total, clock = 0.0, []
        for epoch in record.epochs:
            total += epoch.seconds
            clock.append(total)
        by_epoch.append(_points(_line(place, row.label, [epoch.epoch + (first == 0) for epoch in record.epochs], values), place))
        by_second.append(_points(_line(place, row.label, clock, values), place))
    whole = _lines("epoch", "test accuracy (%)")
    whole["xaxis"] |= {"tickformat": "d", "dtick": 1} if max(len(record.epochs) for _, _, record in shown) <= 12 else {"tickformat": "d"}
    views = [View("by epoch", by_epoch, whole), View("by seconds", by_second, _lines("seconds of training until then", "test accuracy (%)"))]
    tests = sorted({record.data.test for _, _, record in shown if record.data})
    caption = "By epoch, equal training gives equal accuracy; by seconds, the line furthest to the left is the quickest way there."
    if tests:
        caption += f" One of {text.listing([f'{n:,}' for n in tests])} test images is {text.listing([f'{100 / n:.2g}' for n in tests])} points."
    return Chart("accuracy", "Test accuracy", caption, views)


def _points(line: dict[str, Any], place: int) -> dict[str, Any]:
    symbol = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")[place % COLOURS]
    return line | {"mode": "lines+markers", "marker": {"size": 7, "symbol": symbol, "color": colour(place)}}


def memory(runs: Runs) -> Chart | None:
    """Peak bytes per worker, and the largest worker's by category."""
    shown = [(place, row) for place, (row, _) in enumerate(runs) if row.peak_memory.median is not None]
    if not shown:
        return None
    views = []
    parted = [(row, categories(record)) for row, record in runs if categories(record)]
    if parted:
        data = [_stack(name, f"var(--mem-{i})", [found[name] for _, found in parted], 1 / MIB, text.size) for i, name in enumerate(CATEGORIES)]
        layout = _horizontal([row.label for row, _ in parted], "MiB, the largest worker")
        views.append(View("by category", data, layout | {"barmode": "stack", "showlegend": True, "height": layout["height"] + 48}))
    peak, flat = _bars(runs, shown, lambda row: _scaled(row.peak_memory), lambda mib: text.size(mib * MIB), "peak MiB per worker")
    views.append(View("peak", peak, flat))
    caption = "What one worker must have. Sharding (zero1 to zero3) saves optimizer state, then gradients, then parameters"
    caption += "; for a small model the process itself weighs most, and sharding cannot show." if parted else "."
    return Chart("memory", "Memory per worker", caption, views)


CATEGORIES = ("process before the model", "parameters", "gradients", "optimizer state", "activations and the rest")


def categories(record: TrainRecord) -> dict[str, Figure]:
    """The largest worker's bytes by category; empty when none is known. The rest is what the peak leaves over."""
    memory = record.memory_bytes
    known = (memory.baseline, memory.parameters, memory.gradients, memory.optimizer)
    peak = max(memory.per_worker, default=memory.peak.median)
    if peak is None or all(value is None for value in known):
        return {}
    rest = float(peak) - sum(value or 0 for value in known)
    values = [*known, rest if rest >= 0 and None not in known else None]
    reason = "not measured apart"
    return {
        name: Figure(unit="bytes", reason=reason) if value is None else Figure(unit="bytes", median=float(value), n=1)
        for name, value in zip(CATEGORIES, values, strict=True)
    }


def _scaled(figure: Figure) -> Figure:
    ends = None if figure.ci95 is None else (figure.ci95[0] / MIB, figure.ci95[1] / MIB)
    return Figure(unit="MiB", median=(figure.median or 0.0) / MIB, n=figure.n, ci95=ends)


def digits(value: float) -> float | None:
    """Five significant digits: more can't be seen, and they would fill the page's megabytes. Not finite: None."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
