"""The comparison: one row per run, with speedup and efficiency against the right base, or why not.

Only like is compared with like. Two runs are alike when model, data, precision and hardware agree
(``task``); the base of a run is the ``single`` run of its task with the same threads per worker.
"""

from __future__ import annotations

import csv as comma
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.measure.statistics import absent
from scalelab.record.export import cell
from scalelab.record.schema import Cell, Figure, Step, TrainRecord, VerifyRecord

# What must agree before two throughputs are compared: anything else would be measured along with the strategy.
TASK_KEYS = ("model", "model_args", "data", "image_size", "classes", "precision", "compile", "channels_last", "optimizer")


@dataclass(frozen=True)
class Row:
    """One run. Every figure is present, or absent with its reason."""

    run: str
    label: str
    """short, unique in this report"""
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
    """label of the run that speedup is measured against; its own label when it is that run"""
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

    @property
    def is_base(self) -> bool:
        """Whether other rows are measured against this one."""
        return self.base == self.label


def rows(records: Sequence[TrainRecord], verify: VerifyRecord | None = None) -> list[Row]:
    """The comparison table, in the order of ``records``; none is dropped, whatever its status."""
    labels = names(records)
    tasks = task_names(records)
    return [_row(index, records, labels, tasks, verify) for index in range(len(records))]


def _row(index: int, records: Sequence[TrainRecord], labels: Sequence[str], tasks: Sequence[str], verify: VerifyRecord | None) -> Row:
    record = records[index]
    base = base_of(index, records)
    speedup = _speedup(record, None if base is None else records[base])
    return Row(
        run=record.run,
        label=labels[index],
        task=tasks[index],
        status=record.status,
        failure=record.failure.error if record.failure else None,
        strategy=record.strategy,
        engine=record.engine,
        workers=record.workers,
        threads=record.derived.threads,
        batch=record.derived.batch,
        oversubscribed=record.derived.oversubscribed,
        base=None if base is None else labels[base],
        images_per_second=record.images_per_second,
        speedup=speedup,
        efficiency=_efficiency(record, speedup, base == index),
        step_seconds=record.step_seconds,
        compute_seconds=record.compute_seconds,
        exposed=record.communication_seconds.exposed,
        exposed_share=share(record.communication_seconds.exposed, record.step_seconds),
        data_wait=record.data_wait_seconds,
        peak_memory=record.memory_bytes.peak,
        accuracy=_accuracy(record),
        difference=_difference(record, verify),
        seconds=record.seconds,
    )


def task(record: TrainRecord) -> tuple[str, ...]:
    """What must be equal in two runs whose throughputs are compared."""
    spec = [json.dumps(record.spec.get(key), sort_keys=True, default=str) for key in TASK_KEYS]
    hosts = record.environment.hosts
    hardware = sorted({host.processor for host in hosts} | {device for host in hosts for device in host.devices})
    return (*spec, record.environment.device, *hardware)


def task_names(records: Sequence[TrainRecord]) -> list[str]:
    """A name per record, equal exactly where ``task`` is equal: ``basic_cnn on digits``, and more where that is not enough."""
    keys = [task(record) for record in records]
    plain_names = [f"{record.spec.get('model', '?')} on {record.spec.get('data', '?')}" for record in records]
    order: dict[str, list[tuple[str, ...]]] = {}
    for name, key in zip(plain_names, keys, strict=True):
        if key not in order.setdefault(name, []):
            order[name].append(key)
    return [_task_name(name, key, order[name]) for name, key in zip(plain_names, keys, strict=True)]


def _task_name(name: str, key: tuple[str, ...], same: Sequence[tuple[str, ...]]) -> str:
    if len(same) == 1:
        return name
    words = (*TASK_KEYS, "device", *("hardware" for _ in key[len(TASK_KEYS) + 1 :]))
    other = [part for part in same if part != key]
    differing = [
        f"{words[place]} {value.strip(chr(34))}"
        for place, value in enumerate(key)
        if any(place >= len(part) or part[place] != value for part in other)
    ]
    return f"{name} ({', '.join(differing) or f'hardware {same.index(key) + 1}'})"


def base_of(index: int, records: Sequence[TrainRecord]) -> int | None:
    """The place of the ``single`` run that ``records[index]`` is measured against, or None.

    Same task and same threads per worker; among several, a completed one first, then the same global batch, then the same batch
    per worker, then the newest. A ``single`` run on more threads than another (all cores) is measured
    against the one with the fewest.
    """
    record = records[index]
    alike = [
        place
        for place, other in enumerate(records)
        if other.strategy == "single" and other.images_per_second.median is not None and task(other) == task(record)
    ]
    threads = record.derived.threads
    if record.strategy == "single" and alike:
        threads = min(records[place].derived.threads for place in alike)
    alike = [place for place in alike if records[place].derived.threads == threads]
    if not alike:
        return None
    derived = record.derived

    def preference(place: int) -> tuple[bool, bool, bool, str]:
        batch, completed = records[place].derived.batch, records[place].status == "completed"
        return completed, batch == derived.batch, batch * derived.replicas == derived.batch, records[place].run

    return max(alike, key=preference)


def quotient(a: Figure, b: Figure, unit: str = "ratio") -> Figure:
    """Median of a over median of b of two runs, with a 95 % interval made of theirs.

    On logarithms the distances to the ends add in quadrature: the method of variance estimates recovery
    (Zou & Donner, Statistics in Medicine 27, 2008). Needs no raw values, and never excludes 1 by rounding alone.
    """
    if a.median is None or b.median is None or a.median <= 0 or b.median <= 0:
        return absent(unit, a.reason or b.reason or "nothing was measured")
    value = a.median / b.median
    count = min(a.n, b.n)
    if a.ci95 is None or b.ci95 is None or min(*a.ci95, *b.ci95) <= 0:
        return Figure(unit=unit, median=value, n=count, reason="too few blocks of steps for an interval")
    low = math.hypot(math.log(a.median / a.ci95[0]), math.log(b.ci95[1] / b.median))
    high = math.hypot(math.log(a.ci95[1] / a.median), math.log(b.median / b.ci95[0]))
    return Figure(unit=unit, median=value, n=count, ci95=(value * math.exp(-low), value * math.exp(high)))


def differs(figure: Figure) -> bool:
    """Whether a ratio's interval excludes 1: the only ground on which a difference is claimed."""
    return figure.ci95 is not None and not figure.ci95[0] <= 1 <= figure.ci95[1]


def share(part: Figure, whole: Figure) -> Figure:
    """``part`` as a fraction of ``whole``'s median. Both are of the same steps, so ``part``'s interval is scaled."""
    if part.median is None or not whole.median:
        return absent("ratio", part.reason or whole.reason or "nothing was measured")
    scaled = None if part.ci95 is None else (part.ci95[0] / whole.median, part.ci95[1] / whole.median)
    return Figure(unit="ratio", median=part.median / whole.median, n=part.n, ci95=scaled, reason=part.reason)


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
    note = f"the base trained with batch {base.derived.batch}, this run with {record.derived.batch}: part of the difference may be the batch's"
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


def _accuracy(record: TrainRecord) -> Figure:
    if record.accuracy is None:
        return absent("ratio", "no epoch was evaluated" if record.status == "completed" else f"the run is {record.status}: no epoch was evaluated")
    return Figure(unit="ratio", median=record.accuracy, n=record.data.test if record.data else 0)


def _difference(record: TrainRecord, verify: VerifyRecord | None) -> Figure:
    """The largest relative difference that ``verify`` found for this strategy."""
    if record.strategy == "single":
        return absent("relative", "the reference itself")
    if verify is None:
        return absent("relative", "not verified here; `scalelab verify` measures it")
    found = matching_cell(record, verify)
    if found is None:
        return absent("relative", f"verified were {verify.model} on {verify.data}, not this strategy on {record.workers} workers")
    values = [v for v in (found.max_loss_difference, found.max_parameter_difference, found.max_buffer_difference) if v is not None]
    if not values:
        return absent("relative", found.reason or found.status.replace("_", " "))
    reason = None if found.status == "passed" else f"verify: {found.status.replace('_', ' ')}{f' ({found.reason})' if found.reason else ''}"
    return Figure(unit="relative", median=max(values), n=verify.steps, reason=reason)


def matching_cell(record: TrainRecord, verify: VerifyRecord) -> Cell | None:
    """The cell of ``verify`` with the record's model, data, strategy, engine and workers."""
    if (verify.model, verify.data) != (record.spec.get("model"), record.spec.get("data")):
        return None
    wanted = (record.strategy, record.engine, record.workers)
    return next((found for found in verify.cells if (found.strategy, found.engine, found.workers) == wanted), None)


def names(records: Sequence[TrainRecord]) -> list[str]:
    """A short label per record, unique in ``records``: the user's name or strategy, then what tells equals apart."""
    labels = [_label(record) for record in records]
    for attribute in (_by("model"), _by("data"), _batch, _thread, _by("precision"), _by("seed"), _short):
        repeated = {label for label, n in Counter(labels).items() if n > 1}
        if not repeated:
            break
        labels = [_extended(place, records, labels, attribute) if label in repeated else label for place, label in enumerate(labels)]
    return [label if labels.count(label) == 1 else f"{label} #{place + 1}" for place, label in enumerate(labels)]


def _extended(place: int, records: Sequence[TrainRecord], labels: Sequence[str], attribute: Any) -> str:
    values = {attribute(record) for record, label in zip(records, labels, strict=True) if label == labels[place]}
    return f"{labels[place]} · {attribute(records[place])}" if len(values) > 1 else labels[place]


def _label(record: TrainRecord) -> str:
    chosen = record.spec.get("name")
    if chosen:
        return str(chosen)
    return record.strategy if record.workers == 1 else f"{record.strategy} × {record.workers}"


def _by(key: str) -> Any:
    return lambda record: str(record.spec.get(key)) if key in ("model", "data", "precision") else f"{key} {record.spec.get(key)}"


def _batch(record: TrainRecord) -> str:
    return f"batch {record.derived.batch}"


def _thread(record: TrainRecord) -> str:
    return f"{record.derived.threads} thread{'s' if record.derived.threads > 1 else ''}"


def _short(record: TrainRecord) -> str:
    return record.run.rsplit("-", 1)[-1]


FIGURES = ("images_per_second", "speedup", "efficiency", "step_seconds", "compute_seconds", "exposed", "exposed_share", "data_wait", "peak_memory", "accuracy", "difference")
PLAIN = ("run", "label", "task", "status", "strategy", "engine", "workers", "threads", "batch", "oversubscribed", "base", "seconds", "failure")


def csv(
    records: Sequence[TrainRecord],
    steps: Mapping[str, Sequence[Step]],
    title: str,
    question: str,
    answer: str | None = None,
    verify: VerifyRecord | None = None,
) -> str:
    """The comparison as CSV: a figure is the columns ``NAME``, ``NAME_low``, ``NAME_high``, ``NAME_unit``, ``NAME_reason``.

    An absent figure is an empty cell. A user's text that a spreadsheet would run as a formula is quoted.
    """
    output = io.StringIO()
    writer = comma.writer(output, lineterminator="\n")
    writer.writerow([*PLAIN, *(f"{name}{part}" for name in FIGURES for part in ("", "_low", "_high", "_unit", "_reason"))])
    for row in rows(records, verify):
        values: list[Any] = [getattr(row, name) for name in PLAIN]
        for name in FIGURES:
            figure: Figure = getattr(row, name)
            values += [figure.median, *(figure.ci95 or (None, None)), figure.unit, figure.reason]
        writer.writerow([cell(value) for value in values])
    return output.getvalue()
