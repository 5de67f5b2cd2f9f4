"""How a sweep stands: counts, the best so far, what failed, how long the rest may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from scalelab.measure.statistics import figure
from scalelab.record.sweep import Best, SweepRecord, SweepStatus, TaskRecord, TaskState

SHOWN_FAILURES = 10
OWN_METRICS = {"seconds": "s", "peak_memory_bytes": "B", "cpu_seconds": "s"}
"""what every task's record has, and may be a goal too, with its unit"""
LESS = ("loss", "error", "seconds", "time", "latency", "memory", "bytes", "perplexity")
"""in the name of a metric of which less is better, where nobody says otherwise"""


def goal_of(metrics: Sequence[str], least: str | None, most: str | None) -> tuple[str, bool]:
    """The metric that *best* is about, and whether less of it is better: ``--minimize``, ``--maximize``, else the first metric."""
    if least is not None or most is not None:
        return least or most or "", least is not None
    if not metrics:
        return "", False
    return metrics[0], any(word in metrics[0].lower() for word in LESS)


def value(record: TaskRecord, metric: str) -> float | None:
    """A metric of a completed task."""
    if record.status != "completed":
        return None
    found = getattr(record, metric) if metric in OWN_METRICS else record.metrics.get(metric)
    return None if found is None else float(found)


Key = tuple[tuple[str, str], ...]


def key(values: Mapping[str, str]) -> Key:
    """What tells a point from others: its parameters but the seed."""
    return tuple(sorted(one for one in values.items() if one[0] != "seed"))


def points(records: Mapping[int, TaskRecord]) -> dict[Key, list[TaskRecord]]:
    """The records by their points, in the order of the tasks: repeats, and seeds that were a parameter, come together."""
    found: dict[Key, list[TaskRecord]] = {}
    for task in sorted(records):
        found.setdefault(key(records[task].values), []).append(records[task])
    return found


def ranked(
    sweep: SweepRecord, records: Mapping[int, TaskRecord], metric: str, least: bool, most: int | None = None
) -> list[Best]:
    """Points that have the metric, the best first; of several repeats the median counts. ``most``: of the figures, which take long."""
    unit = OWN_METRICS.get(metric, "")
    medians = []
    for group in points(records).values():
        known = sorted(found for one in group if (found := value(one, metric)) is not None)
        if known:
            half = len(known) // 2
            median = known[half] if len(known) % 2 else (known[half - 1] + known[half]) / 2
            medians.append((median, known, group))
    medians.sort(key=lambda one: one[0] if least else -one[0])
    return [
        Best(values=_shown(group[0].values, len(group)), tasks=[one.task for one in group], figure=figure(known, unit, least=2))
        for _, known, group in medians[:most]
    ]


def _shown(values: Mapping[str, str], several: int) -> dict[str, str]:
    return {name: text for name, text in values.items() if name != "seed" or several == 1}


def status(
    folder: Path,
    sweep: SweepRecord,
    states: Sequence[TaskState],
    records: Mapping[int, TaskRecord],
    at_once: int | None,
    notes: Sequence[str] = (),
    silent: Sequence[str] = (),
) -> SweepStatus:
    """How it stands. ``at_once``: how many tasks run at a time, where that is known; ``silent``: of what failed without a record."""
    counts = Counter[str](states)
    best = ranked(sweep, records, sweep.goal, sweep.least, 1) if sweep.goal else []
    failed = [
        records[task] for task, state in enumerate(states) if state in ("failed", "interrupted", "lost") and task in records
    ]
    lines = [f"task {one.task}: {why(one, states[one.task])}" for one in failed[:SHOWN_FAILURES]]
    return SweepStatus(
        sweep=str(folder),
        tasks=sweep.tasks,
        **{name: counts[name] for name in ("completed", "failed", "interrupted", "lost", "running", "queued", "missing")},  # type: ignore[arg-type]
        best=best[0] if best else None,
        remaining_seconds=remaining(records, counts, at_once),
        failures=[*lines, *silent],
        notes=list(notes),
    )


def why(record: TaskRecord, state: TaskState) -> str:
    """Why a task is not completed."""
    if state == "lost":
        return f"began on {record.host} and was never heard of again"
    return record.reason or state


def remaining(records: Mapping[int, TaskRecord], counts: Mapping[str, int], at_once: int | None) -> float | None:
    """The mean time of the tasks that ended, times those that are left, over those that run at once."""
    took = [one.seconds for one in records.values() if one.seconds is not None and one.status in ("completed", "failed")]
    left = counts["running"] / 2 + counts["queued"]
    if not took or not left or not at_once:
        return None
    return sum(took) / len(took) * left / at_once
