"""What the trainings of a pipeline show of its bubble: figures over repeats, the judgement against theory, the timeline as a plot.

How it is measured and taken apart: scalelab.measure.bubble. A measured bubble **agrees** with theory where its 95 % interval, made
wider by ``MARGIN`` at both ends, holds the theoretical one: the theory knows no messages at all, so less than that is no difference.
An interval wider than ``WIDEST`` would hold anything: nothing is said of it then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path

import msgspec

from scalelab.measure.statistics import absent
from scalelab.record import text, timeline
from scalelab.record.schema import Bubble, Figure, TrainRecord
from scalelab.record.study import Axis, Factor, Plot, Row, Series
from scalelab.record.timeline import Event, Lane
from scalelab.studies.figures import Read, pooled
from scalelab.studies.study import Result

MARGIN = 0.02
WIDEST = 0.2
"""of a step's span"""
PARTS: dict[str, str] = {
    "unequal": "unequal stages",
    "jitter": "passes of one stage that take longer now and then",
    "rest": "messages and the schedule's own work between passes",
}
"""what may come on top of the order's own bubble"""
SHARES = ("measured", "order", *PARTS)
NO_STAGES = "one process: nothing waits"


def of_bubble(read: Callable[[Bubble], Figure], unit: str = "ratio") -> Read:
    """A figure of a training's bubble; absent where there is no pipeline."""

    def found(record: TrainRecord) -> Figure:
        return absent(unit, NO_STAGES) if record.bubble is None else read(record.bubble)

    return found


def theory(bubble: Bubble) -> Figure:
    """By formula: no measurement, no interval."""
    if bubble.theory is None:
        return absent("ratio", bubble.measured.reason or "not recorded")
    return Figure(unit="ratio", median=bubble.theory, n=1, reason="by formula")


def per_image(bubble: Bubble) -> Figure:
    """Seconds of computing, all workers together, for an image of a step."""
    seconds, images = bubble.compute_seconds, (bubble.micro_batches or 0) * (bubble.micro_batch or 0)
    if seconds.median is None or not images:
        return absent("s", seconds.reason or "not recorded")
    interval = None if seconds.ci95 is None else (seconds.ci95[0] / images, seconds.ci95[1] / images)
    mad = None if seconds.mad is None else seconds.mad / images
    return Figure(unit="s", median=seconds.median / images, n=seconds.n, mad=mad, ci95=interval)


COMPUTE = of_bubble(per_image, "s")


def figures(result: Result) -> dict[str, Figure]:
    """All that a row says of a bubble, over the repeats."""
    reads: dict[str, Callable[[Bubble], Figure]] = {"theory": theory, **{name: attrgetter(name) for name in SHARES}}
    found = {name: pooled(result, of_bubble(read)) for name, read in reads.items()}
    return {("bubble" if name == "measured" else name): one for name, one in found.items()}


def judged(row: Row) -> bool | None:
    """Whether a row's bubble agrees with theory; None where that can't be said."""
    measured, ideal = row.figures["bubble"], row.figures["theory"]
    if measured.ci95 is None or ideal.median is None or measured.ci95[1] - measured.ci95[0] > WIDEST:
        return None
    return measured.ci95[0] - MARGIN <= ideal.median <= measured.ci95[1] + MARGIN


def sentences(rows: Sequence[Row], oversubscribed: Sequence[Row]) -> list[str]:
    """Agreement with theory; what explains the rest; rows in which workers share cores, which theory knows nothing of."""
    own = [row for row in rows if row not in oversubscribed]
    agreeing, apart = ([row for row in own if judged(row) is verdict] for verdict in (True, False))
    found = []
    if agreeing or apart:
        found.append(
            f"The measured bubble agrees with theory (its 95 % interval, {text.percent(MARGIN)} of a step wider at both ends, holds it) "
            f"in {text.count(len(agreeing)) if agreeing else 'none'} of {text.count(len(agreeing) + len(apart))} pipelines."
        )
    if unsure := len(own) - len(agreeing) - len(apart):
        found.append(
            f"The bubble of {text.count(unsure)} pipeline{'s' * (unsure > 1)} was not measured well enough to say (no interval, or one "
            f"wider than {text.whole_percent(WIDEST)} of a step): more --probe-steps narrow it."
        )
    found += [_apart(row) for row in _most(apart)]
    if oversubscribed:
        names = text.listing([row.label for row in oversubscribed[:3]]) + (" and others" if len(oversubscribed) > 3 else "")
        found.append(
            f"{names}: more workers than cores. A worker that is ready to compute waits for a core there, which is in its passes' time "
            "and not in the bubble, so no agreement with theory is to be expected."
        )
    return found


def _most(rows: Sequence[Row]) -> list[Row]:
    """The row that is furthest from theory."""
    return [max(rows, key=_distance)] if rows else []


def _distance(row: Row) -> float:
    return abs((row.figures["bubble"].median or 0.0) - (row.figures["theory"].median or 0.0))


def _apart(row: Row) -> str:
    """Why the bubble is not what theory says: the part that adds most, with all of them."""
    measured, ideal = row.figures["bubble"], row.figures["theory"]
    values = {name: row.figures[name].median or 0.0 for name in PARTS}
    more = (row.figures["order"].median or 0.0) - (ideal.median or 0.0)
    said = [f"{what} {_points(values[name])}" for name, what in PARTS.items()]
    if abs(more) >= MARGIN / 2:
        said.append(f"the order as torch carries it out, and how long its kinds of passes take, {_points(more)}")
    largest = max(PARTS, key=lambda name: abs(values[name]))
    cause = f"mostly {PARTS[largest]}" if abs(values[largest]) > abs(more) else "mostly the order itself"
    return (
        f"It is furthest from it in {row.label}: {text.shown(measured, text.percent)} measured "
        f"({text.interval(measured, text.percent)}) against {text.shown(ideal, text.percent)}, {cause} "
        f"(of a step: {', '.join(said)})."
    )


def _points(share: float) -> str:
    return f"{100 * share:+.1f} %"


def waiting_plot(rows: Sequence[Row]) -> Plot:
    """What each pipeline's bubble is made of, beside what it would be in theory."""
    names: list[Factor] = [row.label for row in rows]
    parts = {"order": "order of the passes", "unequal": "unequal stages", "jitter": "uneven passes", "rest": "messages, the rest"}
    series = [Series(name=what, x=names, y=[_drawn(row, key) for row in rows], style="stacked") for key, what in parts.items()]
    series.append(Series(name="theory", x=names, y=[row.figures["theory"].median for row in rows], style="points"))
    return Plot(
        id="parts", title="What the bubble is made of", x=Axis(title="pipeline", show="text"), series=series,
        y=Axis(title="idle share of a step", show="percent"), wide=True,
        caption="A point on top of the first part alone is a schedule that waits as much as it must; everything above is this "
        "machine's and this model's. A part below zero makes the bubble smaller. Parts are medians, and those do not add up: the last one "
        "is drawn as what the others leave of the measured bubble.",
    )  # fmt: skip


def _drawn(row: Row, part: str) -> float | None:
    """A part; the last one such that all of them add up to the measured bubble."""
    values = [row.figures[name].median for name in ("order", *PARTS)]
    whole = row.figures["bubble"].median
    if part != "rest" or whole is None or any(value is None for value in values):
        return row.figures[part].median
    return whole - sum(value for value in values[:-1] if value is not None)


KINDS: dict[timeline.Kind, str] = {
    "forward": "forward", "backward": "backward", "input": "backward, input", "wait": "waiting", "update": "update",
    "weight": "backward, weights", "reduce": "replicas' gradients",
}  # fmt: skip
"""in an order that gives each the same colour in all timelines: what only some have comes last"""


def timeline_plot(result: Result, row: Row) -> Plot | None:
    """The workers of one pipeline in the recorded step whose span is the middle one; None where none was recorded."""
    found = next((read for run in result.completed if (read := timeline.read(Path(run.folder))) is not None), None)
    if found is None or not found.steps:
        return None
    steps = [[lane for lane in step if lane.replica == 0] for step in found.steps]
    step = [_from_the_start(lane) for lane in sorted(steps, key=_span)[len(steps) // 2]]
    alone = all(lane.replica == 0 for lane in found.steps[0])
    kinds = {kind: what for kind, what in KINDS.items() if not (alone and kind == "reduce")}
    name = str(row.factors["schedule"])
    return Plot(
        id=f"timeline-{name}-{row.factors['stages']}", title=f"A step of {row.label}", wide=True,
        caption=f"Recorded on every worker, the number is the micro-batch; bubble {text.shown(row.figures['bubble'], text.percent)}, "
        f"in theory {text.shown(row.figures['theory'], text.percent)}. White is neither a pass nor a wait for a message.",
        x=Axis(title="time", show="seconds"), y=Axis(title="worker", show="text"),
        series=[made for kind, what in kinds.items() if (made := _spans(step, kind, what)) is not None],
    )  # fmt: skip


def _from_the_start(lane: Lane) -> Lane:
    """With its wait from the start of the step, 0, for its first micro-batch: no event tells of that."""
    first = min((event.start for event in lane.events), default=0.0)
    if first <= 0 or not lane.chunks:
        return lane
    return msgspec.structs.replace(lane, events=[Event(kind="wait", start=0.0, end=first), *lane.events])


def _span(step: Sequence[Lane]) -> float:
    return max(event.end for lane in step for event in lane.events)


def _spans(step: Sequence[Lane], kind: timeline.Kind, what: str) -> Series | None:
    events: list[tuple[str, Event]] = [
        (f"worker {lane.place}", event)
        for lane in sorted(step, key=lambda lane: lane.place)
        for event in lane.events
        if event.kind == kind
    ]
    if not events:
        return None
    return Series(
        name=what, x=[lane for lane, _ in events], y=[None] * len(events), low=[event.start for _, event in events],
        high=[event.end for _, event in events], style="spans",
        text=["" if event.micro_batch is None else str(event.micro_batch + 1) for _, event in events],
    )  # fmt: skip
