"""The comparison: one row per run, with speedup and efficiency against the right base, or why not.

The rules of what is compared with what are in ``alike.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scalelab.measure.statistics import absent, quotient
from scalelab.record.naming import options
from scalelab.record.schema import Cell, Figure, TrainRecord, VerifyRecord
from scalelab.report import sheet
from scalelab.report.alike import base_of, share, task_names
from scalelab.report.labels import names
from scalelab.report.subject import Subject


@dataclass(frozen=True)
class Row:
    """One run. Every figure is present, or absent with its reason."""

    run: str
    label: str
    """short, unique in this report"""
    name: str
    """short, unique among the rows of its task: for a table or sentence about one task"""
    task: str
    """``model on data``, and what else tells this task from the report's others"""
    status: str
    failure: str | None
    strategy: str
    engine: str
    workers: int
    threads: int
    batch: int
    oversubscribed: bool
    base: str | None
    """name of the run that speedup is measured against, which is of the same task"""
    is_base: bool
    """whether other rows are measured against this one"""
    images_per_second: Figure
    speedup: Figure
    efficiency: Figure
    step_seconds: Figure
    compute_seconds: Figure
    exposed: Figure
    exposed_share: Figure
    data_wait: Figure
    peak_memory: Figure
    accuracy: Figure
    difference: Figure
    seconds: float | None


def rows(records: Sequence[TrainRecord], verify: VerifyRecord | None = None) -> list[Row]:
    """The comparison table, in the order of ``records``; none is dropped, whatever its status."""
    labels, tasks = names(records), task_names(records)
    short = list(labels)
    for task in dict.fromkeys(tasks):
        members = [place for place, name in enumerate(tasks) if name == task]
        for place, name in zip(members, names([records[place] for place in members]), strict=True):
            short[place] = name
    return [_row(index, records, Named(labels, short, tasks), verify) for index in range(len(records))]


class Named(NamedTuple):
    """What the records are called, in their order."""

    labels: Sequence[str]
    short: Sequence[str]
    tasks: Sequence[str]


def _row(index: int, records: Sequence[TrainRecord], named: Named, verify: VerifyRecord | None) -> Row:
    record = records[index]
    base = base_of(index, records)
    speedup = _speedup(record, None if base is None else records[base])
    return Row(
        run=record.run,
        label=named.labels[index],
        name=named.short[index],
        task=named.tasks[index],
        status=record.status,
        failure=record.failure.error if record.failure else None,
        strategy=record.strategy,
        engine=record.engine,
        workers=record.workers,
        threads=record.derived.threads,
        batch=record.derived.batch,
        oversubscribed=record.derived.oversubscribed,
        base=None if base is None else named.short[base],
        is_base=base == index,
        images_per_second=record.images_per_second,
        speedup=speedup,
        efficiency=_efficiency(record, speedup, base == index),
        step_seconds=record.step_seconds,
        compute_seconds=record.compute_seconds,
        exposed=record.communication_seconds.exposed,
        exposed_share=share(record.communication_seconds.exposed, record.step_seconds),
        data_wait=record.data_wait_seconds,
        peak_memory=record.memory_bytes.peak,
        accuracy=accuracy_figure(record),
        difference=_difference(record, verify),
        seconds=record.seconds,
    )


def _speedup(record: TrainRecord, base: TrainRecord | None) -> Figure:
    if record.images_per_second.median is None:
        return absent("ratio", record.images_per_second.reason or "no throughput was measured")
    if base is None:
        return absent("ratio", f"no 'single' run of the same task with {_threads(record)} is in this report")
    if base is record:
        return Figure(unit="ratio", median=1.0, n=record.images_per_second.n, reason="the base of the others")
    figure = quotient(record.images_per_second, base.images_per_second)
    if base.derived.batch in (record.derived.batch, record.derived.batch // record.derived.replicas):
        return figure
    batches = f"the base trained with batch {base.derived.batch}, this run with {record.derived.batch}"
    note = f"{batches}: part of the difference may be the batch's"
    return Figure(unit="ratio", median=figure.median, n=figure.n, ci95=figure.ci95, reason=note)


def _efficiency(record: TrainRecord, speedup: Figure, is_base: bool) -> Figure:
    if is_base:
        return absent("ratio", "the base itself")
    if speedup.median is None:
        return absent("ratio", speedup.reason or "no speedup")
    if record.derived.oversubscribed:
        return absent("ratio", "oversubscribed: more threads than cores, so its workers slow each other down")
    if record.strategy == "single":
        return absent("ratio", "one worker: its speedup comes from threads")
    ends = None if speedup.ci95 is None else (speedup.ci95[0] / record.workers, speedup.ci95[1] / record.workers)
    return Figure(unit="ratio", median=speedup.median / record.workers, n=speedup.n, ci95=ends, reason=speedup.reason)


def _threads(record: TrainRecord) -> str:
    count = record.derived.threads
    return f"{count} thread{'s' if count > 1 else ''} per worker"


def accuracy_figure(record: TrainRecord) -> Figure:
    """The last test accuracy (a fraction; n test images), or why there is none."""
    if record.accuracy is None:
        return absent(
            "ratio",
            "no epoch was evaluated" if record.status == "completed" else f"the run is {record.status}: no epoch was evaluated",
        )
    return Figure(unit="ratio", median=record.accuracy, n=record.data.test if record.data else 0)


def _difference(record: TrainRecord, verify: VerifyRecord | None) -> Figure:
    """The largest relative difference that ``verify`` found for this strategy."""
    if record.strategy == "single":
        return absent("relative", "the reference itself")
    if verify is None:
        return absent("relative", "not verified here; 'scalelab verify' measures it")
    found = matching_cell(record, verify)
    if found is None:
        return absent("relative", f"verified were {verify.model} on {verify.data}, not this strategy on {record.workers} workers")
    values = [
        v for v in (found.max_loss_difference, found.max_parameter_difference, found.max_buffer_difference) if v is not None
    ]
    if not values:
        return absent("relative", found.reason or found.status.replace("_", " "))
    reason = (
        None
        if found.status == "passed"
        else f"verify: {found.status.replace('_', ' ')}{f' ({found.reason})' if found.reason else ''}"
    )
    return Figure(unit="relative", median=max(values), n=verify.steps, reason=reason)


def matching_cell(record: TrainRecord, verify: VerifyRecord) -> Cell | None:
    """The cell of ``verify`` with the record's model, data, strategy, engine, workers and options."""
    if (verify.model, verify.data) != (record.spec.get("model"), record.spec.get("data")):
        return None
    wanted = (record.strategy, record.engine, record.workers, options(record.spec), None)
    cells = (
        (found, (found.strategy, found.engine, found.workers, options(found.options), found.shape)) for found in verify.cells
    )
    return next((found for found, said in cells if said == wanted), None)


FIGURES = (
    "images_per_second",
    "speedup",
    "efficiency",
    "step_seconds",
    "compute_seconds",
    "exposed",
    "exposed_share",
    "data_wait",
    "peak_memory",
    "accuracy",
    "difference",
)
PLAIN = (
    "run",
    "label",
    "name",
    "task",
    "status",
    "strategy",
    "engine",
    "workers",
    "threads",
    "batch",
    "oversubscribed",
    "base",
    "seconds",
    "failure",
)


def csv(subject: Subject) -> str:
    """The comparison as CSV: a figure is the columns ``NAME``, ``NAME_low``, ``NAME_high``, ``NAME_n``, ``NAME_unit``, ``NAME_reason``.

    An absent figure is an empty cell. A user's text that a spreadsheet would run as a formula is quoted.
    """
    lines = rows(subject.records, subject.verify)
    body = [[*(getattr(row, name) for name in PLAIN), *sheet.values(getattr(row, name) for name in FIGURES)] for row in lines]
    return sheet.text([*PLAIN, *sheet.heading(FIGURES)], body)
