"""What a study of pipelines says and draws: the split to take, what it is worth, what speaks against more micro-batches."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.measure.statistics import differs
from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Plot, Row, Series
from scalelab.studies.figures import READ, told, versus
from scalelab.studies.pipeline import bubbles
from scalelab.studies.shown import line
from scalelab.studies.study import Asked, Result

Measured = Sequence[tuple[Result, Row]]
"""the pipelines whose throughput is known"""
SHOWN = 4
"""timelines at most: one for each schedule"""


def _rate(row: Row) -> float:
    return row.figures["images_per_second"].median or 0.0


def _fastest(measured: Measured) -> tuple[Result, Row]:
    return max(measured, key=lambda pair: _rate(pair[1]))


def _slower(fast: Result, other: Result) -> bool:
    """Whether ``other`` is shown to be slower than ``fast``."""
    return differs(versus(fast, other, READ["images_per_second"]))


def _rivals(best: Result, others: Measured) -> str:
    """How many are not shown to be slower than ``best``, and how many could not be compared; empty where all are slower."""
    ratios = [versus(best, result, READ["images_per_second"]) for result, _ in others if result is not best]
    unknown = sum(ratio.ci95 is None for ratio in ratios)
    level = sum(ratio.ci95 is not None and not differs(ratio) for ratio in ratios)
    said = f" {text.count(level).capitalize()} other{'s are' if level > 1 else ' is'} not shown to be slower." if level else ""
    few = f" Too few steps were timed to compare it with {text.count(unknown)} other{'s' * (unknown > 1)}." if unknown else ""
    return said + few


def answer(results: Sequence[Result], measured: Measured) -> str:
    """Which pipeline to take, or that none is worth it here."""
    if not measured:
        why = next((r.refused for r in results if r.refused), "no pipeline was trained to its end")
        return f"No pipeline was measured: {why.rstrip('.')}."
    return told(_answer(measured), *(result for result, _ in measured))


def _answer(measured: Measured) -> str:
    best, shown = _fastest(measured)
    speedup = shown.figures["speedup"]
    also = _rivals(best, measured)
    size = _micro_batch(best)
    name = f"{shown.label} of {size} images each" if int(shown.factors["micro_batches"]) > 1 else shown.label
    rate = f"{text.shown(shown.figures['images_per_second'], text.rate)} images/s"
    gain = f"{text.shown(speedup, text.times)} the throughput of one process ({_interval(speedup)})"
    if speedup.median is None or not differs(speedup):
        return f"The fastest pipeline, {name}, is not shown to differ from one process: {rate}, {gain}.{also}"
    if speedup.median < 1:
        return (
            f"Don't cut this model for speed: the fastest pipeline, {name}, reaches {rate}, {gain}. "
            f"It is for models that don't fit.{also}"
        )
    return f"Take {name}: {rate}, {gain}; its bubble is {_bubble(shown)}.{also}"


def _interval(figure: Figure) -> str:
    return f"95 % interval {text.interval(figure, text.times)}" if figure.ci95 else "no interval: too few blocks or repeats"


def _bubble(row: Row) -> str:
    figures = row.figures
    return f"{text.shown(figures['bubble'], text.percent)} of a step, {text.shown(figures['theory'], text.percent)} in theory"


def _micro_batch(result: Result) -> int:
    record = result.completed[0].record
    return record.derived.micro_batch


def _groups(measured: Measured) -> dict[tuple[str, int], list[tuple[Result, Row]]]:
    found: dict[tuple[str, int], list[tuple[Result, Row]]] = {}
    for result, shown in measured:
        found.setdefault((str(shown.factors["schedule"]), int(shown.factors["stages"])), []).append((result, shown))
    return found


def best_splits(measured: Measured) -> list[str]:
    """The best number of micro-batches of each schedule, and those that are as good."""
    found = []
    for name, members in _named(measured):
        if len(members) < 2:
            continue
        best, shown = _fastest(members)
        level = sorted(
            int(r.factors["micro_batches"]) for result, r in members if result is not best and not _slower(best, result)
        )
        as_good = f" ({text.listing([str(n) for n in level])} not shown to be slower)" if level else ""
        found.append(f"{name} {shown.factors['micro_batches']} of {_micro_batch(best)} images{as_good}")
    said = f"Fastest in so many micro-batches: {'; '.join(found)}."
    return [told(said, *(result for result, _ in measured))] if found else []


def against_model(results: Sequence[Result], measured: Measured) -> list[str]:
    """What overlapping the stages is worth."""
    found = []
    for result in results:
        if result.point.spec.strategy != "model" or not result.completed:
            continue
        same = [pair for pair in measured if pair[1].factors["stages"] == result.point.factors["stages"]]
        if not same:
            continue
        best, shown = _fastest(same)
        ratio = versus(best, result, READ["images_per_second"])
        if ratio.median is None:
            continue
        claim = "trains" if differs(ratio) else "is not shown to differ from it:"
        said = (
            f"Against {result.point.label}, where one stage computes at a time, {shown.label} {claim} "
            f"{text.times(ratio.median)} as fast ({_interval(ratio)})."
        )
        found.append(told(said, best, result))
    return found


def small(measured: Measured) -> list[str]:
    """What small micro-batches cost in computing, which is no bubble: the schedule in which it is most."""
    found = []
    for name, members in _named(measured):
        order = _sorted(members)
        (few, one), (many, other) = order[0], order[-1]
        ratio = versus(many, few, bubbles.COMPUTE)
        if few is not many and ratio.median is not None and ratio.median > 1 and differs(ratio):
            found.append(
                (ratio.median, f"{text.times(ratio.median)} the computing in {other.factors['micro_batches']} micro-batches of "
                 f"{_micro_batch(many)} as in {one.factors['micro_batches']} of {_micro_batch(few)} under {name} ({_interval(ratio)})")
            )  # fmt: skip
    if not found:
        return []
    where = f" (so under {text.count(len(found))} of {text.count(len(_named(measured)))}, most there)" if len(found) > 1 else ""
    said = f"An image takes {max(found)[1]}{where}. That is no bubble, and counts against many micro-batches."
    return [told(said, *(result for result, _ in measured))]


def plots(asked: Asked, rows: Sequence[Row], staged: Sequence[Row], measured: Measured) -> list[Plot]:
    """Time per epoch and bubble over the number of micro-batches, what bubbles are made of, and a timeline for each schedule."""
    ticks = [float(n) for n in sorted(asked.varied["accumulate"])]
    over = Axis(title="micro-batches of a step", ticks=ticks, log=len(ticks) > 2, show="count")
    epochs = [_line(members, name, "epoch_seconds") for name, members in _named(measured)]
    alone = rows[0].figures["epoch_seconds"].median
    epochs += [Series(name="single", x=list(ticks), y=[alone] * len(ticks), style="ideal")] if alone is not None else []
    shares = [_line(members, name, "bubble") for name, members in _named(measured)]
    shares += [
        Series(name=f"{name}, in theory", x=one.x, y=[r.figures["theory"].median for _, r in _sorted(members)], style="ideal")
        for (name, members), one in zip(_named(measured), shares, strict=True)
    ]
    drawn = [
        Plot(
            id="epoch", title="Time per epoch", x=over, y=Axis(title="seconds of an epoch", show="seconds"), series=epochs,
            caption="More micro-batches leave less waiting, and smaller ones are computed less well: take the lowest point.",
        ),
        Plot(
            id="bubble", title="Bubble, measured and in theory", x=over, series=shares,
            y=Axis(title="idle share of a step", show="percent"),
            caption="Above theory (dashed; with one number of micro-batches an open mark): workers wait for more than the order of the "
            "passes.",
        ),
    ]  # fmt: skip
    known = [r for r in staged if r.figures["bubble"].median is not None]
    found = [bubbles.timeline_plot(*_fastest(members)) for members in _groups(measured).values()]
    return [*drawn, *([bubbles.waiting_plot(known)] if known else []), *[one for one in found if one is not None][:SHOWN]]


def _named(measured: Measured) -> list[tuple[str, list[tuple[Result, Row]]]]:
    groups = _groups(measured)
    several = len({stages for _, stages in groups}) > 1
    return [(f"{schedule}, {stages} stages" if several else schedule, members) for (schedule, stages), members in groups.items()]


def _sorted(members: Measured) -> list[tuple[Result, Row]]:
    return sorted(members, key=lambda pair: int(pair[1].factors["micro_batches"]))


def _line(members: Measured, name: str, key: str) -> Series:
    return line(name, [row for _, row in _sorted(members)], key, "micro_batches")
