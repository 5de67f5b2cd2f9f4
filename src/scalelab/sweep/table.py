"""The tasks of a sweep as rows: for a table, a CSV file, a Parquet file, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from scalelab.record.sweep import PlannedTask, SweepRecord, TaskRecord, TaskState
from scalelab.sweep.standing import value, why


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """A task with what became of it. Of one that is not completed the metrics are left out: they are of no use."""

    task: int
    state: TaskState
    reason: str | None = None
    values: dict[str, str] = {}
    repeat: int = 0
    seed: int = 0
    metrics: dict[str, float | None] = {}
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    exit_status: int | None = None
    signal: str | None = None
    attempts: int = 0
    host: str = ""
    started: str = ""
    ended: str | None = None
    slurm_job: str = ""
    argv: list[str] = []


def rows(
    sweep: SweepRecord, tasks: Sequence[PlannedTask], states: Sequence[TaskState], records: Mapping[int, TaskRecord]
) -> list[TaskRow]:
    """A row for each task, in their order."""
    return [_row(sweep, task, states[task.task], records.get(task.task)) for task in tasks]


def _row(sweep: SweepRecord, task: PlannedTask, state: TaskState, record: TaskRecord | None) -> TaskRow:
    base = TaskRow(task=task.task, state=state, values=task.values, repeat=task.repeat, seed=task.seed, argv=task.argv)
    if record is None or state in ("queued", "missing"):
        return base
    slurm = record.slurm
    job = f"{slurm['array']}_{slurm['index']}" if {"array", "index"} <= slurm.keys() else slurm.get("job", "")
    return msgspec.structs.replace(
        base,
        reason=None if state in ("completed", "running") else why(record, state),
        metrics={one.name: value(record, one.name) for one in sweep.metrics},
        seconds=record.seconds,
        cpu_seconds=record.cpu_seconds,
        peak_memory_bytes=record.peak_memory_bytes,
        exit_status=record.exit_status,
        signal=record.signal,
        attempts=len(record.attempts) + 1,
        host=record.host,
        started=record.started,
        ended=record.ended,
        slurm_job=job,
    )


def best_first(sweep: SweepRecord, found: Sequence[TaskRow], by: str | None) -> list[TaskRow]:
    """Rows by a metric or parameter, ``by`` or the sweep's goal, the best first; those that lack it come last."""
    name = by or sweep.goal
    if not name:
        return list(found)
    if name in sweep.parameters:
        return sorted(
            found, key=lambda row: (number(row.values[name]) is None, number(row.values[name]) or 0.0, row.values[name])
        )
    sign = 1.0 if (sweep.least if name == sweep.goal else True) else -1.0

    def place(row: TaskRow) -> tuple[bool, float]:
        known = _measured(row, name)
        return known is None, sign * (known or 0.0)

    return sorted(found, key=place)


def _measured(row: TaskRow, name: str) -> float | None:
    found = row.metrics.get(name) if name in row.metrics else getattr(row, name, None)
    return float(found) if isinstance(found, int | float) and row.state == "completed" else None


def number(text: str) -> float | None:
    """A value as a number, where it is one."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) != float("inf") and found == found else None


def flat(sweep: SweepRecord, found: Sequence[TaskRow], typed: bool) -> list[dict[str, Any]]:
    """A dict a row, equal keys in all: ``task``, ``status``, ``param.NAME``, ``metric.NAME``, then what every record has.

    ``typed``: a parameter whose values are all numbers is a column of numbers; else values are as they were given.
    """
    numeric = {name for name in sweep.parameters if typed and all(number(row.values[name]) is not None for row in found)}
    shown = [name for name in TaskRow.__struct_fields__ if name not in ("task", "state", "reason", "values", "metrics", "argv")]
    return [
        {
            "task": row.task,
            "status": row.state,
            "reason": row.reason,
            **{f"param.{name}": _value(row.values[name], name in numeric) for name in sweep.parameters},
            **{f"metric.{one.name}": row.metrics.get(one.name) for one in sweep.metrics},
            **{name: getattr(row, name) for name in shown},
        }
        for row in found
    ]


def _value(text: str, numeric: bool) -> str | int | float:
    if not numeric:
        return text
    return int(text) if text.lstrip("+-").isdecimal() and abs(int(text)) < 1 << 63 else float(text)
