"""The comparison as cells: what the page, Markdown and a terminal show of each row, with numbered reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.report.table import Row


@dataclass(frozen=True)
class Column:
    """One figure of the table: where it stands in a row, how it is shown, and whether its interval is."""

    name: str
    unit: str
    read: Callable[[Row], Figure]
    show: text.Show
    bar: bool = False
    spread: bool = False


COLUMNS: tuple[Column, ...] = (
    Column("Throughput", "images/s", lambda row: row.images_per_second, text.rate, bar=True, spread=True),
    Column("Speedup", "over the base", lambda row: row.speedup, text.times),
    Column("Efficiency", "speedup / workers", lambda row: row.efficiency, text.whole_percent),
    Column("Exposed communication", "per step", lambda row: row.exposed, text.seconds),
    Column("Peak memory", "per worker", lambda row: row.peak_memory, text.size),
    Column("Final accuracy", "test", lambda row: row.accuracy, text.percent),
    Column("Largest difference", "from single, relative", lambda row: row.difference, lambda value: text.number(value, 2)),
)


@dataclass(frozen=True)
class Shown:
    """One cell. ``note`` is the number of its reason; ``sort`` is empty for an absent figure; ``bar`` is per cent."""

    main: str
    sub: str
    sort: str
    reason: str
    note: int | None
    bar: float | None


@dataclass
class Notes:
    """The reasons under a table, each once, numbered from 1."""

    texts: list[str] = field(default_factory=list)

    def number(self, reason: str | None) -> int | None:
        """The number of ``reason``, new or known; None for no reason."""
        if not reason:
            return None
        if reason not in self.texts:
            self.texts.append(reason)
        return self.texts.index(reason) + 1


def cells(row: Row, group: Sequence[Row], notes: Notes) -> list[Shown]:
    """The cells of ``row`` in the order of ``COLUMNS``; bars are relative to the largest of ``group``."""
    return [_cell(column, row, group, notes) for column in COLUMNS]


def _cell(column: Column, row: Row, group: Sequence[Row], notes: Notes) -> Shown:
    figure = column.read(row)
    bar = None
    if column.bar and figure.median is not None:
        largest = max(column.read(other).median or 0.0 for other in group)
        bar = round(100 * figure.median / largest, 1) if largest else None
    sub = text.interval(figure, column.show)
    if column.spread and text.spread(figure, column.show):
        sub = f"{sub}, {text.spread(figure, column.show)}".removeprefix(", ")
    if column.read(row) is row.exposed and row.exposed_share.median is not None:
        sub = f"{text.whole_percent(row.exposed_share.median)} of a step"
    return Shown(
        main=text.shown(figure, column.show),
        sub=sub,
        sort="" if figure.median is None else f"{figure.median:.9g}",
        reason=figure.reason or "",
        note=notes.number(figure.reason),
        bar=bar,
    )


def describe(row: Row) -> str:
    """``zero1 × 2, 1 thread each, batch 64``: what a run was, under its name, without repeating it."""
    workers = f"{row.strategy} × {row.workers}" if row.workers > 1 else row.strategy
    threads = f"{row.threads} thread{'s' if row.threads != 1 else ''}{' each' if row.workers > 1 else ''}"
    parts = [threads, f"batch {row.batch}"]
    return ", ".join(parts if row.name.startswith(workers) else [workers, *parts])
