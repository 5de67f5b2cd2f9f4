"""The figure of a run's resources: step times on top, what each worker used below, on one axis of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np

from scalelab.record import text
from scalelab.record.schema import Sample, Step, TrainRecord
from scalelab.report.chart import Chart, Runs, View, colour, digits
from scalelab.report.curves import DASHES
from scalelab.report.series import extremes
from scalelab.report.subject import Samples
from scalelab.report.table import Row

MOST_RUNS, MOST_WORKERS = 8, len(DASHES)
PANEL, GAP = 105, 22
"""pixels of a panel, and between two"""
PAUSE = 0.3
"""seconds without a step that are seen as a gap"""


@dataclass(frozen=True)
class Panel:
    """One quantity of a sample, drawn where any sample has it."""

    title: str
    read: Callable[[Sample], float | None]


PANELS = (
    Panel("CPU (% of a core)", lambda s: s.cpu_percent),
    Panel("resident (MiB)", lambda s: s.resident_bytes / 2**20),
    Panel("network (MB/s)", lambda s: None if s.sent_per_second is None else s.sent_per_second / 1e6),
    Panel("GPU (%)", lambda s: s.gpu_percent),
    Panel("GPU memory (GiB)", lambda s: None if s.gpu_memory_bytes is None else s.gpu_memory_bytes / 2**30),
    Panel("power (W)", lambda s: s.power_watts),
)


def resources(runs: Runs, steps: Mapping[str, Sequence[Step]], samples: Samples, points: int) -> Chart | None:
    """A view for each run that was sampled, the first eight of them; None where none was."""
    sampled = [(place, row, record) for place, (row, record) in enumerate(runs) if samples.get(record.run)][:MOST_RUNS]
    views = [_view(place, row, record, steps.get(record.run, ()), samples[record.run], points) for place, row, record in sampled]
    drawn = [view for view in views if view is not None]
    if not drawn:
        return None
    most = max(record.workers for _, _, record in sampled)
    caption = (
        "Above: the time of each step, its slowest worker's. Below, on the same clock: what each worker used, a sample a second. "
        "Between two epochs, where there are no steps, it evaluates, writes checkpoints or probes."
    )
    if most > MOST_WORKERS:
        caption += f" Of more than {MOST_WORKERS} workers, {MOST_WORKERS} are drawn."
    return Chart("resources", "Step time and resources", caption, drawn)


def _view(
    place: int, row: Row, record: TrainRecord, steps: Sequence[Step], samples: Sequence[Sample], points: int
) -> View | None:
    """The last attempt of one run."""
    attempt = record.attempts[-1] if record.attempts else None
    since = datetime.fromisoformat(attempt.started).timestamp() if attempt else 0.0
    timed = [(step.at, step.seconds) for step in steps if step.at is not None and step.at > since]
    taken = [sample for sample in samples if sample.at > since]
    if not taken:
        return None
    start = min([at - seconds for at, seconds in timed] or [taken[0].at])
    lines = [_step_times(place, start, timed, points)] if timed else []
    titles = ["step (ms)"] if timed else []
    ranks = sorted({sample.rank for sample in taken})
    chosen = [
        ranks[i] for i in sorted(set(np.linspace(0, len(ranks) - 1, min(MOST_WORKERS, len(ranks))).round().astype(int).tolist()))
    ]
    for panel in PANELS:
        if any(panel.read(sample) is not None for sample in taken):
            titles.append(panel.title)
            first = len(titles) == 1 + bool(timed)
            for number, rank in enumerate(chosen):
                own = [sample for sample in taken if sample.rank == rank]
                lines.append(_used(place, number, rank, start, own, panel, points // 2, len(titles), first and len(chosen) > 1))
    return View(text.shorten(row.label, 40), lines, _layout(titles, len(chosen) > 1))


def _step_times(place: int, start: float, timed: Sequence[tuple[float, float]], points: int) -> dict[str, Any]:
    """The line is broken where no step was made for a while."""
    pauses = np.array([0.0, *(at - seconds - before for (before, _), (at, seconds) in pairwise(timed))]) > PAUSE
    stretch = np.cumsum(pauses)
    x: list[float | None] = []
    y: list[float | None] = []
    last = None
    for i in extremes(np.array([seconds for _, seconds in timed]), points):
        if last is not None and stretch[i] != stretch[last]:
            x, y = [*x, None], [*y, None]
        x, y, last = [*x, digits(timed[i][0] - start)], [*y, digits(1000 * timed[i][1])], i
    return {
        "type": "scatter", "mode": "lines", "name": "step", "showlegend": False, "line": {"color": colour(place), "width": 1.4},
        "x": x, "y": y, "hovertemplate": "%{y:.4~g} ms",
    }  # fmt: skip


def _used(
    place: int, number: int, rank: int, start: float, own: Sequence[Sample], panel: Panel, points: int, axis: int, legend: bool
) -> dict[str, Any]:
    known = [(sample.at - start, value) for sample in own if (value := panel.read(sample)) is not None]
    kept = extremes(np.array([value for _, value in known]), points)
    name = f"worker {rank}"
    return {
        "type": "scatter", "mode": "lines+markers" if len(kept) <= 60 else "lines", "name": name, "legendgroup": name,
        "showlegend": legend, "line": {"color": colour(place), "width": 1.6, "dash": DASHES[number]}, "marker": {"size": 4},
        "x": [digits(known[i][0]) for i in kept], "y": [digits(known[i][1]) for i in kept],
        "yaxis": "y" if axis == 1 else f"y{axis}", "hovertemplate": "%{y:.4~g}",
    }  # fmt: skip


def _layout(titles: Sequence[str], legend: bool) -> dict[str, Any]:
    """Panels one below the other, of equal height, with one axis of time under the last."""
    count = len(titles)
    inner = count * PANEL + (count - 1) * GAP
    layout: dict[str, Any] = {"height": inner + 90, "hovermode": "x unified", "showlegend": legend}
    for number, title in enumerate(titles):
        top = 1 - number * (PANEL + GAP) / inner
        layout[f"yaxis{number + 1 if number else ''}"] = {
            "title": {"text": title}, "domain": [max(0.0, top - PANEL / inner), top], "rangemode": "tozero",
            "automargin": True, "nticks": 4,
        }  # fmt: skip
    last = f"y{count}" if count > 1 else "y"
    layout["xaxis"] = {"title": {"text": "seconds since the first step began"}, "anchor": last}
    return layout
