"""The few big figures under the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalelab.record import text
from scalelab.record.schema import VerifyRecord
from scalelab.report.table import Row

MOST = 4


@dataclass(frozen=True)
class Card:
    """A figure large enough to be read from across the room: what it is of, its value and unit, and its interval below."""

    label: str
    value: str
    unit: str
    sub: str


def cards(table: Sequence[Row], verify: VerifyRecord | None) -> list[Card]:
    """At most four cards, of the task with the most runs; a figure that is absent has no card."""
    tasks = [row.task for row in table]
    main = max(dict.fromkeys(tasks), key=tasks.count)
    group = [row for row in table if row.task == main]
    completed = [row for row in group if row.status == "completed"] or group
    found = [
        _speedup(completed),
        _throughput(completed),
        _verified(verify),
        _exposed(completed),
        _accuracy(completed),
        _memory(completed),
    ]
    return [card for card in found if card is not None][:MOST]


def _throughput(group: Sequence[Row]) -> Card | None:
    known = [row for row in group if row.images_per_second.median is not None]
    if not known:
        return None
    best = max(known, key=lambda row: row.images_per_second.median or 0)
    sub = text.interval(best.images_per_second, text.rate)
    label = "Highest throughput" if len(known) > 1 else "Throughput"
    return Card(
        label, text.shown(best.images_per_second, text.rate), "images/s", f"{best.name}{f'; 95 % interval {sub}' if sub else ''}"
    )


def _speedup(group: Sequence[Row]) -> Card | None:
    known = [row for row in group if row.speedup.median is not None and not row.is_base]
    if not known:
        return None
    best = max(known, key=lambda row: row.speedup.median or 0)
    efficiency = "" if best.efficiency.median is None else f"; {text.whole_percent(best.efficiency.median)} efficiency"
    interval = text.interval(best.speedup, text.times)
    return Card(
        f"Best speedup, {best.name}",
        text.shown(best.speedup, text.times),
        f"over {best.base}",
        f"{interval and f'95 % interval {interval}'}{efficiency}".removeprefix("; "),
    )


def _exposed(group: Sequence[Row]) -> Card | None:
    known = [row for row in group if row.exposed_share.median is not None and row.workers > 1]
    if not known:
        return None
    best = max(known, key=lambda row: row.images_per_second.median or 0)
    return Card(
        f"Exposed communication, {best.name}",
        text.shown(best.exposed_share, text.whole_percent),
        "of a step",
        f"{text.shown(best.exposed, text.seconds)} of {text.shown(best.step_seconds, text.seconds)}",
    )


def _accuracy(group: Sequence[Row]) -> Card | None:
    values = sorted((row.accuracy.median, row.name) for row in group if row.accuracy.median is not None)
    if not values:
        return None
    (low, _), (high, best) = values[0], values[-1]
    if len(values) == 1 or low == high:
        return Card("Test accuracy", text.percent(high), "", best if len(values) == 1 else f"the same in all {len(values)} runs")
    return Card("Test accuracy", f"{100 * low:.1f}–{100 * high:.1f} %", "", f"lowest and highest of {len(values)} runs")


def _memory(group: Sequence[Row]) -> Card | None:
    known = [row for row in group if row.peak_memory.median is not None]
    if not known:
        return None
    best = min(known, key=lambda row: row.peak_memory.median or 0)
    return Card("Least memory per worker", text.shown(best.peak_memory, text.size), "", best.name)


def _verified(verify: VerifyRecord | None) -> Card | None:
    cells = [cell for cell in verify.cells if cell.status in ("passed", "failed")] if verify else []
    if not cells:
        return None
    passed = [cell for cell in cells if cell.status == "passed"]
    found = [
        v
        for cell in cells
        for v in (cell.max_loss_difference, cell.max_parameter_difference, cell.max_buffer_difference)
        if v is not None
    ]
    largest = f"largest relative difference {text.number(max(found), 2)}" if found else ""
    return Card("Equal to one process", f"{len(passed)} of {len(cells)}", "strategies", largest)
