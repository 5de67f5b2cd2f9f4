"""A study's figures, drawn: ``Plot`` becomes plotly's JSON. Values are scaled to the unit that suits an axis; absent ones are gaps."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.record import text
from scalelab.record.study import Axis, Factor, Plot, Series, Show
from scalelab.report.bars import bar_style
from scalelab.report.chart import COLOURS, Chart, View, colour, digits
from scalelab.report.curves import DASHES
from scalelab.report.telling_apart import place_of, ringed, symbol

SHOW: dict[Show, text.Show] = {
    "rate": text.rate, "seconds": text.seconds, "percent": text.percent, "points": text.points, "times": text.times,
    "size": text.size, "number": text.number, "count": lambda value: f"{value:,.0f}", "text": text.number,
    "bandwidth": lambda value: f"{text.size(value)}/s",
}  # fmt: skip
UNITS: dict[Show, tuple[tuple[float, str], ...]] = {
    "seconds": ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "size": ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")),
    "bandwidth": ((1 << 30, "GiB/s"), (1 << 20, "MiB/s"), (1 << 10, "KiB/s"), (1, "B/s")),
    "percent": ((0.01, "%"),),
    "points": ((0.01, "points"),),
}
"""what an axis may be divided by, largest first"""
BAND = 14
"""points of a line from which on its intervals are a band, not whiskers"""
MOST_TICKS = 9
LONG_NAMES = 60
"""characters that the names under upright bars may have together; with more the bars lie"""
NAME_LINE = 18
"""characters of a line of a name beside a lying bar"""
FIRST_COLOUR = 2
"""of the palette in a timeline: its first, a grey, is for a base"""
BARS = ("bars", "stacked")


@dataclass(frozen=True)
class Scale:
    """An axis as it is drawn: values are divided by ``unit``; names stand at 0, 1, 2 … in the order of ``names``."""

    axis: Axis
    unit: float
    called: str
    names: tuple[str, ...] | None = None

    def at(self, value: Factor | None) -> float | None:
        """Where a value is drawn; None for what is absent, or not above zero on a logarithmic axis."""
        if value is None:
            return None
        if self.names is not None:
            return float(self.names.index(str(value)))
        found = float(value)
        return None if self.axis.log and found <= 0 else digits(found / self.unit)

    def said(self, value: Factor | None) -> str:
        """A value in words."""
        if value is None:
            return text.ABSENT
        return text.plain(str(value)) if self.names is not None or isinstance(value, str) else SHOW[self.axis.show](float(value))


def chart(plot: Plot) -> Chart | None:
    """The figure; None where no series has anything to draw."""
    drawn = [one for one in plot.series if any(value is not None for value in (*one.y, *one.low))]
    if not drawn:
        return None
    timeline = all(one.style == "spans" for one in drawn)
    data, layout = spans(plot, drawn) if timeline else points(plot, drawn)
    return Chart(plot.id, plot.title, plot.caption, [View("", data, layout)], plot.wide)


def points(plot: Plot, series: Sequence[Series]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines, points and bars over a common axis."""
    bars = any(one.style in BARS for one in series)
    across = scale(plot.x, [value for one in series for value in one.x], named=bars)
    up = scale(plot.y, [value for one in series for value in (*one.y, *one.low, *one.high) if value is not None])
    lying = bars and sum(map(len, across.names or ())) > LONG_NAMES
    data: list[dict[str, Any]] = []
    number = 0
    for one in series:
        place = place_of(number)
        made = trace(one, place, across, up, lying)
        data += [*band(one, place, across, up), made] if banded(one) else [made]
        number += one.style != "ideal"  # what is drawn behind takes no colour
    ringed([one for one in data if one.get("mode") == "lines+markers"], up.axis.log)
    layout = frame(across, up, lying, [one.name for one in series])
    layout["barmode"] = "relative" if any(one.style == "stacked" for one in series) else "group"
    layout["hovermode"] = "closest" if bars or any(one.style == "points" for one in series) else "x unified"
    return data, layout


def scale(axis: Axis, values: Sequence[Factor], named: bool = False) -> Scale:
    """How an axis is drawn that holds ``values``: as names where one of them is text, or ``named`` says so."""
    if values and (named or any(isinstance(value, str) for value in values)):
        return Scale(axis, 1.0, "", tuple(dict.fromkeys(str(value) for value in values)))
    largest = max((abs(float(value)) for value in values), default=0.0)
    units = UNITS.get(axis.show, ((1.0, ""),))
    unit, called = next(((unit, name) for unit, name in units if largest >= unit), units[-1])
    return Scale(axis, unit, called)


def trace(one: Series, place: int, across: Scale, up: Scale, lying: bool) -> dict[str, Any]:
    """A series as plotly draws it."""
    x, y = [across.at(value) for value in one.x], [up.at(value) for value in one.y]
    made: dict[str, Any] = {"name": text.plain(text.shorten(one.name, 40)), **STYLES[one.style](one, place)}
    made |= (
        {"x": y, "y": x, "orientation": "h"} if lying and one.style in BARS else {"x": y, "y": x} if lying else {"x": x, "y": y}
    )
    shown = zip(one.x, one.y, ends(one), strict=True)
    made["customdata"] = [[across.said(a), up.said(b), interval(low, high, up)] for a, b, (low, high) in shown]
    made["hovertemplate"] = "%{customdata[0]}: %{customdata[1]}%{customdata[2]}"
    known = any(
        low is not None and high is not None for low, high in ends(one)
    )  # of none plotly would draw caps without whiskers
    if known and one.style != "ideal" and not banded(one):
        made["error_x" if lying else "error_y"] = whiskers(one, up, "var(--ink)" if one.style in BARS else colour(place))
    return made


def _line(one: Series, place: int) -> dict[str, Any]:
    marker = {"size": 7, "symbol": symbol(place), "color": colour(place)}
    line = {"color": colour(place), "width": 2.2, "dash": DASHES[place // COLOURS % len(DASHES)]}
    return {"type": "scatter", "mode": "lines+markers" if len(one.x) <= BAND else "lines", "line": line, "marker": marker}


def _points(one: Series, place: int) -> dict[str, Any]:
    marker = {"size": 10, "symbol": symbol(place), "color": colour(place)}
    labelled = {"text": [text.plain(said) for said in one.text], "textposition": beside(one.x), "textfont": {"size": 11.5}}
    return {"type": "scatter", "mode": "markers+text" if one.text else "markers", "marker": marker, "cliponaxis": False} | (
        labelled if one.text else {}
    )


def beside(values: Sequence[Factor]) -> list[str]:
    """Where each point's name stands: above it; to the left of those on the right, where a narrow figure would cut it off."""
    numbers = [value for value in values if not isinstance(value, str)]
    edge = max(numbers, default=0.0) * 2 / 3
    return ["top left" if not isinstance(value, str) and value > edge else "top center" for value in values]


def _bars(one: Series, place: int) -> dict[str, Any]:
    style = bar_style(place) | {"line": {"width": 1, "color": "var(--panel)"}}
    inside = {"text": [text.plain(said) for said in one.text], "textposition": "auto"} if one.text else {}
    return {"type": "bar", "marker": style, **inside}


def _ideal(one: Series, place: int) -> dict[str, Any]:
    made = {"type": "scatter", "mode": "lines", "line": {"color": "var(--ink-2)", "width": 1.2, "dash": "dash"}}
    if len(set(one.x)) > 1:
        return made
    mark = {"size": 11, "symbol": "diamond-open", "color": "var(--ink-2)"}  # a line of one point is not seen
    return made | {"mode": "markers", "marker": mark}


STYLES: dict[str, Callable[[Series, int], dict[str, Any]]] = {
    "line": _line, "points": _points, "bars": _bars, "stacked": _bars, "ideal": _ideal, "spans": _bars,
}  # fmt: skip


def ends(one: Series) -> list[tuple[float | None, float | None]]:
    """The ends of each value's interval, None where it has none."""
    none: list[float | None] = [None] * len(one.x)
    return list(zip(one.low or none, one.high or none, strict=True))


def interval(low: float | None, high: float | None, up: Scale) -> str:
    """What a hover says of an interval."""
    return "" if low is None or high is None else f"<br>95 % interval {up.said(low)} to {up.said(high)}"


def whiskers(one: Series, up: Scale, shade: str) -> dict[str, Any]:
    """Intervals as error bars; none for a point without one."""
    above, below = [], []
    for value, (low, high) in zip(one.y, ends(one), strict=True):
        known = value is not None and low is not None and high is not None
        middle, bottom, top = (up.at(v) for v in (value, low, high)) if known else (None, None, None)
        above.append(None if middle is None or top is None else digits(max(0.0, top - middle)))
        below.append(None if middle is None or bottom is None else digits(max(0.0, middle - bottom)))
    return {
        "type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": shade, "thickness": 1.4, "width": 4,
    }  # fmt: skip


def banded(one: Series) -> bool:
    """Whether the intervals are drawn as a band."""
    return one.style == "line" and len(one.x) > BAND and bool(one.low and one.high)


def band(one: Series, place: int, across: Scale, up: Scale) -> list[dict[str, Any]]:
    """The intervals of a long line as a faint area behind it."""
    known = [(across.at(x), up.at(low), up.at(high)) for x, (low, high) in zip(one.x, ends(one), strict=True)]
    whole = [(x, low, high) for x, low, high in known if x is not None and low is not None and high is not None]
    if not whole:
        return []
    return [{
        "type": "scatter", "mode": "lines", "x": [x for x, _, _ in whole] + [x for x, _, _ in reversed(whole)],
        "y": [low for _, low, _ in whole] + [high for _, _, high in reversed(whole)], "fill": "toself", "fillcolor": colour(place),
        "opacity": 0.16, "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "name": "",
    }]  # fmt: skip


def frame(across: Scale, up: Scale, lying: bool, names: Sequence[str]) -> dict[str, Any]:
    """The axes, and the legend where there is more than one name."""
    first, second = axis(across, wrapped=lying), axis(up)
    if lying:
        first, second = second, first | {"range": [len(across.names or ()) - 0.4, -0.6], "showgrid": False}
    height = 330 + 20 * ((len(names) + 1) // 2) if len(names) > 1 else 320
    if lying and across.names:
        height = 110 + 34 * len(across.names) + 20 * (len(names) > 1)
    return {
        "height": height,
        "showlegend": len(names) > 1,
        "xaxis": first,
        "yaxis": second | {"automargin": True},
        "bargap": 0.28,
    }


def axis(scale: Scale, wrapped: bool = False) -> dict[str, Any]:
    """An axis with its title, its unit, and ticks that can be read; names ``wrapped`` into lines leave room for bars on a phone."""
    unit = f" ({scale.called})" if scale.called else ""
    made: dict[str, Any] = {"title": {"text": text.plain(scale.axis.title) + unit}}
    if scale.names is not None:
        kept = [text.shorten(name, 34) for name in scale.names]
        parts = [textwrap.wrap(name, NAME_LINE, break_on_hyphens=False) or [name] if wrapped else [name] for name in kept]
        shown = ["<br>".join(map(text.plain, lines)) for lines in parts]
        return made | {
            "tickvals": list(range(len(shown))),
            "ticktext": shown,
            "range": [-0.6, len(shown) - 0.4],
            "automargin": True,
        }
    if scale.axis.log:
        made["type"] = "log"
    if scale.axis.ticks:
        every = math.ceil(len(scale.axis.ticks) / MOST_TICKS)
        values = [value for value in scale.axis.ticks[::every] if scale.at(value) is not None]
        return made | {
            "tickvals": [scale.at(v) for v in values],
            "ticktext": [bare(scale.axis.show, v / scale.unit) for v in values],
        }
    if scale.axis.log:
        values = [float(f"{digit}e{power}") for power in range(-9, 13) for digit in (1, 2, 5)]
        return made | {"tickvals": values, "ticktext": [bare(scale.axis.show, value) for value in values]}
    suffix = "×" if scale.axis.show == "times" else ""
    return made | {"tickformat": "," if scale.axis.show in ("rate", "count") else "", "ticksuffix": suffix, "rangemode": "tozero"}


def bare(show: Show, value: float) -> str:
    """A tick without its unit, which the axis' title has."""
    return (f"{value:,g}" if value < 1e6 else text.number(value)) + ("×" if show == "times" else "")


def spans(plot: Plot, series: Sequence[Series]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A timeline: one lane for each name in ``x``, bars from ``low`` to ``high``, a colour for each series."""
    lanes = tuple(dict.fromkeys(str(lane) for one in series for lane in one.x))
    along = scale(plot.x, [value for one in series for value in (*one.low, *one.high) if value is not None])
    data = [_lane(one, place, lanes, along) for place, one in enumerate(series)]
    up = axis(Scale(plot.y, 1.0, "", lanes)) | {
        "autorange": "reversed",
        "showgrid": False,
        "automargin": True,
        "fixedrange": True,
    }
    return data, {
        "height": 140 + 46 * len(lanes), "barmode": "overlay", "bargap": 0.18, "showlegend": len(series) > 1, "xaxis": axis(along),
        "yaxis": up, "hovermode": "closest",
    }  # fmt: skip


def _lane(one: Series, place: int, lanes: Sequence[str], along: Scale) -> dict[str, Any]:
    both = [(low, high) for low, high in ends(one)]
    starts = [along.at(low) for low, _ in both]
    lengths = [None if low is None or high is None else digits((high - low) / along.unit) for low, high in both]
    texts = one.text or [""] * len(one.x)
    return {
        "type": "bar", "orientation": "h", "name": text.plain(text.shorten(one.name, 40)), "y": [lanes.index(str(x)) for x in one.x],
        "base": starts, "x": lengths, "text": [text.plain(said) for said in texts], "textposition": "inside", "insidetextanchor": "middle",
        "textangle": 0, "constraintext": "none", "textfont": {"size": 11, "color": "var(--on-run)"},
        "marker": {"color": colour(FIRST_COLOUR + place), "line": {"width": 0.5, "color": "var(--panel)"}},
        "customdata": [[said, along.said(low), along.said(None if low is None or high is None else high - low)]
                       for said, (low, high) in zip(texts, both, strict=True)],
        "hovertemplate": "%{customdata[0]} from %{customdata[1]} for %{customdata[2]}",
    }  # fmt: skip
