"""The figures with lines: training loss and test accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scalelab.record import text
from scalelab.record.schema import Step
from scalelab.report.chart import COLOURS, Chart, Runs, View, colour, digits
from scalelab.report.series import loss_curve

# The library's own ticks between decades are bare digits: a 5 that means 0.5.
LOG_TICKS = [float(f"{digit}e{power}") for power in range(-6, 5) for digit in (1, 2, 5)]
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
DASHES = ("solid", "dash", "dot", "dashdot")


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
        View("by step", by_step, _lines("optimizer step", "training loss", len(curves))),
        View("by seconds", by_second, _lines("seconds of training steps (no evaluation)", "training loss", len(curves))),
    ]
    logarithmic = _lines("optimizer step", "training loss (logarithmic)", len(curves))
    logarithmic["yaxis"] |= {"type": "log", "tickvals": LOG_TICKS, "ticktext": [f"{tick:g}" for tick in LOG_TICKS]}
    views.append(View("log scale", None, logarithmic))
    window = max(curve.window for _, _, curve in curves)
    caption = "By step, strategies that compute the same thing lie on one another; by seconds, the faster one falls first." + (
        f" The strong line is the mean of {window} neighbouring steps, the faint one keeps each stretch's extremes."
        if window > 1
        else ""
    )
    return Chart("loss", "Training loss", caption, views)


def _line(place: int, label: str, x: Sequence[float], y: Sequence[float], faint: bool = False) -> dict[str, Any]:
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "name": text.plain(text.shorten(label, 40)),
        "legendgroup": str(place),
        "x": [digits(value) for value in x],
        "y": [digits(value) for value in y],
        "line": {"color": colour(place), "width": 1 if faint else 2.2, "dash": DASHES[place // COLOURS % len(DASHES)]},
        "hovertemplate": "%{y:.4~g}",
    }
    return line | {"opacity": 0.28, "showlegend": False, "hoverinfo": "skip", "hovertemplate": None} if faint else line


def _lines(x: str, y: str, count: int) -> dict[str, Any]:
    """The layout of ``count`` lines; a long legend makes the figure taller, not the plot flatter."""
    return {
        "height": 350 + 20 * ((count + 1) // 2),
        "hovermode": "x unified",
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}, "automargin": True},
        "showlegend": True,
    }


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
    whole = _lines("epoch", "test accuracy (%)", len(shown))
    whole["xaxis"] |= (
        {"tickformat": "d", "dtick": 1} if max(len(record.epochs) for _, _, record in shown) <= 12 else {"tickformat": "d"}
    )
    views = [
        View("by epoch", by_epoch, whole),
        View("by seconds", by_second, _lines("seconds of training until then", "test accuracy (%)", len(shown))),
    ]
    tests = sorted({record.data.test for _, _, record in shown if record.data})
    caption = (
        "By epoch, equal training gives equal accuracy; by seconds, the line furthest to the left is the quickest way there."
    )
    if tests:
        sizes, points = text.listing([f"{n:,}" for n in tests]), text.listing([f"{100 / n:.2g}" for n in tests])
        caption += f" One of {sizes} test images is {points} points."
    return Chart("accuracy", "Test accuracy", caption, views)


def _points(line: dict[str, Any], place: int) -> dict[str, Any]:
    symbol = SYMBOLS[place % COLOURS]
    return line | {"mode": "lines+markers", "marker": {"size": 7, "symbol": symbol, "color": colour(place)}}
