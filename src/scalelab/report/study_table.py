"""A study's tables as cells, the same in a terminal and on the page: figures with their intervals, reasons and marks as numbered notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Column, Row, Table
from scalelab.report.columns import Notes
from scalelab.report.plots import SHOW


@dataclass(frozen=True)
class Cell:
    """What is shown: the value, its interval below, the numbers of its notes, what it is sorted by, and its bar in per cent."""

    main: str
    sub: str = ""
    notes: tuple[int, ...] = ()
    sort: str = ""
    bar: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """A row: its cells in the order of the columns; the first holds the notes of the whole row."""

    row: Row
    cells: list[Cell]


@dataclass(frozen=True)
class Head:
    """A column's heading, and the numbers of what is to be known of all its figures."""

    column: Column
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Laid:
    """A table as it is shown."""

    table: Table
    heads: list[Head]
    lines: list[Line]


def lay(table: Table, notes: Notes) -> Laid:
    """The table's headings and cells; reasons and marks go into ``notes``.

    What all present figures of a column have in common stands at its heading once. An absent figure of a row that did not run
    has the row's own reason, and needs no number of its own.
    """
    common = {column.key: shared(table.rows, column.key) for column in table.columns}
    heads = [Head(column, _numbers(notes, [common[column.key]])) for column in table.columns]
    return Laid(table, heads, [line(row, table, common, notes) for row in table.rows])


def shared(rows: Sequence[Row], key: str) -> str | None:
    """The reason that all present figures of a column have, where there are several."""
    present = [figure for row in rows if (figure := row.figures.get(key)) is not None and figure.median is not None]
    reasons = {figure.reason for figure in present}
    return reasons.pop() if len(present) > 1 and len(reasons) == 1 else None


def line(row: Row, table: Table, common: dict[str, str | None], notes: Notes) -> Line:
    """The cells of a row."""
    of_row = _numbers(notes, [row.reason if row.status != "completed" else None, *row.marks])
    found = []
    for place, column in enumerate(table.columns):
        made = cell(row, column, table, common[column.key], notes)
        found.append(Cell(made.main, made.sub, of_row + made.notes, made.sort, made.bar, made.reason) if place == 0 else made)
    return Line(row, found)


def cell(row: Row, column: Column, table: Table, common: str | None, notes: Notes) -> Cell:
    """One value: a figure of the row, else what was varied."""
    figure = row.figures.get(column.key)
    if figure is None:
        return _factor(row, column)
    reason = None if figure.reason in (common, row.reason) else figure.reason
    sub = text.interval(figure, SHOW[column.show])
    sort = "" if figure.median is None else f"{figure.median:.9g}"
    return Cell(
        text.shown(figure, SHOW[column.show]),
        sub,
        _numbers(notes, [reason]),
        sort,
        _bar(figure, column, table),
        figure.reason or "",
    )


def _factor(row: Row, column: Column) -> Cell:
    value = row.factors.get(column.key)
    if value is None:
        return Cell(text.ABSENT)
    plain = isinstance(value, str) or column.show == "text"
    return Cell(str(value) if plain else SHOW[column.show](float(value)), sort=str(value))


def _bar(figure: Figure, column: Column, table: Table) -> float | None:
    if column.show != "rate" or figure.median is None:
        return None
    values = [
        found.median for row in table.rows if (found := row.figures.get(column.key)) is not None and found.median is not None
    ]
    return round(100 * figure.median / max(values), 1) if max(values) > 0 else None


def _numbers(notes: Notes, reasons: Sequence[str | None]) -> tuple[int, ...]:
    return tuple(number for reason in dict.fromkeys(reasons) if (number := notes.number(reason)) is not None)
