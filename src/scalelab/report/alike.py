"""Only like is compared with like: which runs are alike, which one is the base, and how two figures are divided.

Two runs are alike when model, data, precision and hardware agree (``task``); the base of a run is the
``single`` run of its task with the same threads per worker.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from scalelab.measure.statistics import absent
from scalelab.record.schema import Figure, TrainRecord

# What must agree before two throughputs are compared: anything else would be measured along with the strategy.
TASK_KEYS = (
    "model",
    "model_args",
    "weights",
    "freeze",
    "data",
    "image_size",
    "classes",
    "frames",
    "resize",
    "precision",
    "compile",
    "channels_last",
    "optimizer",
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


def share(part: Figure, whole: Figure) -> Figure:
    """``part`` as a fraction of ``whole``'s median. Both are of the same steps, so ``part``'s interval is scaled."""
    if part.median is None or not whole.median:
        return absent("ratio", part.reason or whole.reason or "nothing was measured")
    scaled = None if part.ci95 is None else (part.ci95[0] / whole.median, part.ci95[1] / whole.median)
    return Figure(unit="ratio", median=part.median / whole.median, n=part.n, ci95=scaled, reason=part.reason)
