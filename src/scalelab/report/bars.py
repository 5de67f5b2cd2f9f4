"""The figures with bars: throughput, where a step's time goes, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scalelab.record import text
from scalelab.record.schema import Figure, TrainRecord
from scalelab.report.chart import COLOURS, Chart, Runs, View, colour, digits
from scalelab.report.table import Row

PATTERNS = ("", "/", ".", "x")
MIB = float(1 << 20)


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
    data, notes, reach = [], [], 0.0
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
                "customdata": [[show(value), text.interval(figure, show) or "none (too few blocks)"]],
                "hovertemplate": f"%{{customdata[0]}}<br>95 % interval %{{customdata[1]}}<br>n = {figure.n}",
            }
        )
        notes.append({"x": high, "y": slot, "text": show(value), "showarrow": False, "xanchor": "left", "xshift": 8})
        reach = max(reach, high)
    layout = _horizontal([row.label for _, row in shown], axis) | {"annotations": notes}
    layout["xaxis"]["range"] = [0, reach * 1.28]  # room for the value at the bar's end
    return data, layout


def bar_style(place: int) -> dict[str, Any]:
    """Colour, and beyond the palette's end a pattern, of the run at ``place``."""
    style: dict[str, Any] = {"color": colour(place), "cornerradius": 4}
    if place >= COLOURS:
        style["pattern"] = {
            "shape": PATTERNS[place // COLOURS % len(PATTERNS)],
            "fillmode": "overlay",
            "fgcolor": "var(--panel)",
            "size": 6,
            "solidity": 0.25,
        }
    return style


def _mark(x: float) -> dict[str, Any]:
    line = {"color": "var(--ink-2)", "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def _horizontal(labels: Sequence[str], axis: str) -> dict[str, Any]:
    return {
        "height": 90 + 38 * len(labels),
        "bargap": 0.28,
        "showlegend": False,
        "xaxis": {"title": {"text": axis}, "rangemode": "tozero", "nticks": 5},
        "yaxis": {
            "tickvals": list(range(len(labels))),
            "ticktext": [text.plain(text.shorten(label, 26)) for label in labels],
            "range": [len(labels) - 0.45, -0.55],
            "showgrid": False,
            "zeroline": False,
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
        # A difference of two times may come out below zero by noise: the bar ends at 0, the hover tells the number.
        "x": [None if figure.median is None else digits(max(figure.median, 0.0) * scale) for figure in figures],
        "marker": {"color": shade, "cornerradius": 3, "line": {"width": 1, "color": "var(--panel)"}},
        "customdata": [text.shown(figure, show) for figure in figures],
        "hovertemplate": f"{name}: %{{customdata}}<extra></extra>",
    }


def memory(runs: Runs) -> Chart | None:
    """Peak bytes per worker, and the largest worker's by category."""
    shown = [(place, row) for place, (row, _) in enumerate(runs) if row.peak_memory.median is not None]
    if not shown:
        return None
    views = []
    parted = [(row, categories(record)) for row, record in runs if categories(record)]
    if parted:
        views = [
            View("by category", *_categories(parted, CATEGORIES)),
            View("model state", *_categories(parted, CATEGORIES[1:4])),
        ]
    peak, flat = _bars(runs, shown, lambda row: _scaled(row.peak_memory), lambda mib: text.size(mib * MIB), "peak MiB per worker")
    views.append(View("peak", peak, flat))
    caption = "What one worker must have. Sharding (zero1 to zero3) saves optimizer state, then gradients, then parameters"
    caption += "; for a small model the process itself weighs most, and only the model state shows it." if parted else "."
    return Chart("memory", "Memory per worker", caption, views)


def _categories(
    parted: Sequence[tuple[Row, Mapping[str, Figure]]], names: Sequence[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    shade = {name: f"var(--mem-{place})" for place, name in enumerate(CATEGORIES)}
    data = [_stack(name, shade[name], [found[name] for _, found in parted], 1 / MIB, text.size) for name in names]
    layout = _horizontal([row.label for row, _ in parted], "MiB, the largest worker")
    return data, layout | {"barmode": "stack", "showlegend": True, "height": layout["height"] + 48}


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
