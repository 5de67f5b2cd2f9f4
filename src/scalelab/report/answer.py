"""The answer in one sentence, made from the data: a difference is claimed only where an interval excludes chance."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.measure.statistics import differs, quotient, resolution
from scalelab.record import text
from scalelab.record.schema import TrainRecord
from scalelab.report.table import Row, rows

MOST_NAMED = 3


def sentence(records: Sequence[TrainRecord]) -> str:
    """What ``records`` show. Runs of different tasks are answered apart, and the sentence says so."""
    table = rows(records)
    tasks = list(dict.fromkeys(row.task for row in table))
    parts = []
    for task in tasks:
        members = [(row, record) for row, record in zip(table, records, strict=True) if row.task == task]
        clause = "; ".join(_clauses(members))
        parts.append(f"{task}: {clause}" if len(tasks) > 1 else clause)
    if not parts:
        return "No run is in this report."
    if len(tasks) > 1:
        return f"{text.count(len(tasks)).capitalize()} tasks, each compared only with itself. {'. '.join(parts)}."
    return f"{parts[0]}."


def _clauses(members: Sequence[tuple[Row, TrainRecord]]) -> list[str]:
    measured = [row for row, _ in members if row.images_per_second.median is not None]
    measured = [row for row in measured if row.status == "completed"] or measured
    clauses = _throughput(measured) + _accuracy(members) + _unfinished([row for row, _ in members])
    return clauses or ["nothing has been measured yet"]


def _throughput(measured: Sequence[Row]) -> list[str]:
    if not measured:
        return []
    others = [row for row in measured if not row.is_base and row.speedup.median is not None]
    if len(measured) == 1:
        return [f"{measured[0].name} trained at {_rate(measured[0])}"]
    if not others:
        return _without_base(measured)
    fastest = max(others, key=lambda row: row.speedup.median or 0)
    clauses = [_against_base(fastest)]
    rest = [row for row in others if row is not fastest]
    ratios = {row.label: quotient(fastest.images_per_second, row.images_per_second) for row in rest}
    unknown = [row for row in rest if ratios[row.label].ci95 is None]
    level = [row for row in rest if row not in unknown and not differs(ratios[row.label])]
    if level:
        verb = "is" if len(level) == 1 else "are"
        who = text.listing([_reached(row) for row in level]) if len(level) <= MOST_NAMED else f"{text.count(len(level))} others"
        clauses.append(f"{who} {verb} not measurably slower than it")
    if unknown:
        who = text.listing([row.label for row in unknown])
        clauses.append(f"too few steps were timed to compare it with {who} (no interval: train longer)")
    slower = [row for row in rest if row not in level and row not in unknown]
    spread = [row for row in others if row.workers > 1]
    best = max(spread, key=lambda row: row.speedup.median or 0, default=fastest)
    if best in slower:
        clauses.append(f"over several workers {_reached(best)} was the fastest")
        slower.remove(best)
    if slower:
        slowest = min(slower, key=lambda row: row.speedup.median or 0)
        clauses.append(f"{slowest.name} was the slowest at {text.shown(slowest.speedup, text.times)}")
    return clauses


def _against_base(row: Row) -> str:
    value = row.speedup.median or 0.0
    interval = _interval(row)
    if not differs(row.speedup) or value < 1:
        claim = "faster" if differs(row.speedup) else "measurably faster"
        why = interval or "no interval: too few steps"
        reached = f"reached {text.times(value)} of its throughput ({why})"
        return f"no run is {claim} than {row.base}: the fastest other, {row.name}, {reached}"
    efficiency = "" if row.efficiency.median is None else f", {text.whole_percent(row.efficiency.median)} efficiency"
    return f"{row.name} trained {text.times(value)} as fast as {row.base} ({interval}){efficiency}"


def _reached(row: Row) -> str:
    """``ddp × 2 (1.62×, 81 % efficiency)``."""
    efficiency = "" if row.efficiency.median is None else f", {text.whole_percent(row.efficiency.median)} efficiency"
    return f"{row.name} ({text.shown(row.speedup, text.times)}{efficiency})"


def _without_base(measured: Sequence[Row]) -> list[str]:
    order = sorted(measured, key=lambda row: row.images_per_second.median or 0, reverse=True)
    fastest, second = order[0], order[1]
    ratio = quotient(fastest.images_per_second, second.images_per_second)
    if not differs(ratio):
        return [f"{fastest.name} and {second.name} trained measurably alike, at {_rate(fastest)} and {_rate(second)}"]
    interval = text.interval(ratio, text.times).rstrip("×")
    ahead = f"{text.times(ratio.median or 0)} as fast as {second.name} (95 % interval {interval})"
    return [f"{fastest.name} was the fastest at {_rate(fastest)}, {ahead}"]


def _rate(row: Row) -> str:
    interval = text.interval(row.images_per_second, text.rate)
    return f"{text.shown(row.images_per_second, text.rate)} images/s" + (f" (95 % interval {interval})" if interval else "")


def _interval(row: Row) -> str:
    found = text.interval(row.speedup, text.times).rstrip("×")
    return f"95 % interval {found}" if found else ""


def _accuracy(members: Sequence[tuple[Row, TrainRecord]]) -> list[str]:
    """Accuracies of the runs that trained as long as the longest; the others can't be compared with them."""
    epochs = max((len(record.epochs) for _, record in members), default=0)
    known = [(row, record) for row, record in members if record.accuracy is not None and len(record.epochs) == epochs]
    if not known:
        return []
    values = sorted(((record.accuracy or 0.0), row.name, record.data.test if record.data else 0) for row, record in known)
    (low, worst, samples), (high, best, _) = values[0], values[-1]
    if len(values) == 1:
        return [f"{'it' if len(members) == 1 else best} reached {text.percent(high)} test accuracy"]
    who = f"{'both' if len(values) == 2 else f'all {text.count(len(values))}'} runs"
    if high - low <= resolution((low + high) / 2, samples, len(values)):
        points = 100 * (high - low)
        if not points:
            return [f"{who} reached the same test accuracy ({text.percent(high)})"]
        return [f"{who} reached the same test accuracy within {points:.1f} points ({100 * low:.1f}–{text.percent(high)})"]
    return [f"test accuracy ranges from {text.percent(low)} ({worst}) to {text.percent(high)} ({best}), one seed each"]


VERBS = {
    "failed": "failed",
    "queued": "waits in a queue",
    "interrupted": "was interrupted",
    "running": "is still running",
    "lost": "was lost",
}


def _unfinished(table: Sequence[Row]) -> list[str]:
    clauses = []
    for row in table:
        if row.status in VERBS:
            why = f" ({text.shorten(' '.join(row.failure.split()), 90)})" if row.failure else ""
            clauses.append(f"{row.name} {VERBS[row.status]}{why}")
    return clauses
