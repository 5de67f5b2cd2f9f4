"""Short names of runs, unique in a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from scalelab.record.naming import options, spread
from scalelab.record.schema import TrainRecord
from scalelab.record.text import harmless, shorten

LONGEST = 48


def names(records: Sequence[TrainRecord]) -> list[str]:
    """A short label per record, unique in ``records``: the user's name or strategy, then what tells equals apart."""
    labels = [_label(record) for record in records]
    for attribute in (_by("model"), _by("data"), _batch, _thread, _by("precision"), _by("seed"), _short):
        repeated = {label for label, n in Counter(labels).items() if n > 1}
        if not repeated:
            break
        labels = [
            _extended(place, records, labels, attribute) if label in repeated else label for place, label in enumerate(labels)
        ]
    return [label if labels.count(label) == 1 else f"{label} #{place + 1}" for place, label in enumerate(labels)]


def _extended(place: int, records: Sequence[TrainRecord], labels: Sequence[str], attribute: Callable[[TrainRecord], str]) -> str:
    values = {attribute(record) for record, label in zip(records, labels, strict=True) if label == labels[place]}
    return f"{labels[place]} · {attribute(records[place])}" if len(values) > 1 else labels[place]


def _label(record: TrainRecord) -> str:
    chosen = record.spec.get("name")
    if chosen:
        return shorten(harmless(" ".join(str(chosen).split())), LONGEST)
    said = shorten(harmless(spread(record.strategy, record.engine, options(record.spec))), LONGEST)
    return said if record.workers == 1 else f"{said} × {record.workers}"


def _by(key: str) -> Callable[[TrainRecord], str]:
    return lambda record: str(record.spec.get(key)) if key in ("model", "data", "precision") else f"{key} {record.spec.get(key)}"


def _batch(record: TrainRecord) -> str:
    return f"batch {record.derived.batch}"


def _thread(record: TrainRecord) -> str:
    return f"{record.derived.threads} thread{'s' if record.derived.threads > 1 else ''}"


def _short(record: TrainRecord) -> str:
    return record.run.rsplit("-", 1)[-1]
