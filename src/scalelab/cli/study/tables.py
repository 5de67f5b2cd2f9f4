"""A study's table in the terminal: whole where there is room, else as several below one another, each with the rows' names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import HEAVY_HEAD
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table as Grid

from scalelab.record.study import Table
from scalelab.report.columns import Notes
from scalelab.report.study_table import Head, Laid, Line, lay

NAME = 24
"""columns of a terminal that a row's name takes in a narrow table, before it is wrapped"""


def grids(table: Table, notes: Notes, room: int) -> list[Grid]:
    """The table, no wider than ``room`` columns of a terminal, with intervals below the figures; footnotes go into ``notes``."""
    laid = lay(table, notes)
    every = range(len(laid.heads))
    if sum(width(laid, place) + 3 for place in every) < room:
        return [grid(laid, list(every), boxed=True)]
    widths = [width(laid, place, wrapped=True) for place in every]
    return [
        grid(laid, places, boxed=False, titled=first, widths=widths)
        for first, places in zip([True, *[False] * len(widths)], parts(widths, named(laid), room), strict=False)
    ]


def parts(widths: Sequence[int], names: int, room: int) -> list[list[int]]:
    """The columns, by place, of each of the tables below one another: the first ``names`` in all of them, the others in one each.

    As many as ``room`` holds, a column apart; one at least.
    """
    found, taken = [list(range(names))], sum(widths[:names]) + names
    used = taken
    for place, wide in enumerate(widths[names:], names):
        if used + wide > room and len(found[-1]) > names:
            found.append(list(range(names)))
            used = taken
        found[-1].append(place)
        used += wide + 1
    return found


def named(laid: Laid) -> int:
    """How many of the first columns say which row it is: what was varied, no figures."""
    figures = {key for line in laid.lines for key in line.row.figures}
    count = next((place for place, head in enumerate(laid.heads) if head.column.key in figures), len(laid.heads))
    return max(1, count)


def width(laid: Laid, place: int, wrapped: bool = False) -> int:
    """What a column needs; ``wrapped``: with what is not a figure broken between words."""
    head = laid.heads[place]
    cells = [text for line in laid.lines for text in shown(line, place)]
    heading = head.column.title + raised(head.notes)
    if not wrapped:
        return max(map(cell_len, [heading, head.column.sub, *cells]))
    words = max(map(cell_len, [*head.column.title.split(), *head.column.sub.split(), ""]))
    most = max(map(cell_len, cells), default=1)
    return max(words, min(most, NAME) if place < named(laid) else most)


def shown(line: Line, place: int) -> Iterator[str]:
    """The lines of a cell."""
    cell = line.cells[place]
    yield cell.main + raised(cell.notes)
    if cell.sub:
        yield cell.sub
    if place == 0 and line.row.status != "completed":
        yield line.row.status


def grid(laid: Laid, places: Sequence[int], boxed: bool, titled: bool = True, widths: Sequence[int] = ()) -> Grid:
    """The columns at ``places``; not ``boxed``: each as wide as ``widths`` says."""
    made = Grid(
        title=escape(laid.table.title) if titled else None, title_justify="left", box=HEAVY_HEAD if boxed else None, pad_edge=boxed,
        padding=(0, 1) if boxed else (0, 1, 0, 0),
    )  # fmt: skip
    for place in places:
        head = laid.heads[place]
        made.add_column(
            heading(head), justify="left" if head.column.show == "text" else "right", overflow="fold",
            width=None if boxed else widths[place],
        )  # fmt: skip
    for line in laid.lines:
        status = "" if line.row.status == "completed" else f"\n[red]{line.row.status}[/]"
        cells = [line.cells[place] for place in places]
        texts = [f"{escape(c.main)}{raised(c.notes)}" + (f"\n[dim]{escape(c.sub)}[/]" if c.sub else "") for c in cells]
        made.add_row(texts[0] + status, *texts[1:])
    return made


def heading(head: Head) -> str:
    """A column's title and what it is of."""
    return escape(head.column.title) + raised(head.notes) + (f"\n[dim]{escape(head.column.sub)}[/]" if head.column.sub else "")


def raised(numbers: tuple[int, ...]) -> str:
    """`` (1, 3)``: the numbers of footnotes."""
    return f" ({', '.join(map(str, numbers))})" if numbers else ""
