"""Rows as lines of text, where one column, such as a folder, has to stay whole however narrow the terminal is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from rich.cells import cell_len

GAP, INDENT = "  ", "  "


def lines(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int, least: Mapping[str, int]) -> list[str]:
    """The titles and the rows, in columns, in lines of ``width`` at most; columns in which nothing stands are left out.

    Where that is too wide, the columns of ``least`` give way, in its order, down to so many letters, their text then in several lines:
    the first of them; then the first column, which stands on a line of its own; then the others. What is wider still stays as it is.
    """
    used = [at for at in range(len(titles)) if any(row[at] for row in rows)]
    names, cells = [titles[at] for at in used], [[row[at] for at in used] for row in rows]
    first = list(least)[:1]
    widths = _widths(names, cells, width, {name: least[name] for name in first})
    if _sum(widths) <= width:
        return [line for row in [names, *cells] for line in _row(row, widths)]
    widths = _widths(names[1:], [row[1:] for row in cells], width - len(INDENT), least)
    found = [names[0], *(INDENT + line for line in _row(names[1:], widths))]
    for row in cells:
        found += [row[0], *(INDENT + line for line in _row(row[1:], widths))]
    return found


def _widths(names: Sequence[str], rows: Sequence[Sequence[str]], width: int, least: Mapping[str, int]) -> list[int]:
    widths = [max(cell_len(row[at]) for row in [names, *rows]) for at in range(len(names))]
    for name, floor in least.items():
        if name in names and (over := _sum(widths) - width) > 0:
            at = names.index(name)
            widths[at] = max(widths[at] - over, min(widths[at], max(floor, len(name))))
    return widths


def _sum(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _row(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    parts = [_wrapped(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return [
        GAP.join(part + " " * (width - cell_len(part)) for part, width in zip(line, widths, strict=True)).rstrip()
        for line in zip_longest(*parts, fillvalue="")
    ]


def _wrapped(cell: str, width: int) -> list[str]:
    return [cell] if cell_len(cell) <= width else textwrap.wrap(cell, width, break_on_hyphens=False)
