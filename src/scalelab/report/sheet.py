"""Figures in a spreadsheet: one way to write them, in every CSV of ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from scalelab.record.export import cell
from scalelab.record.schema import Figure

PARTS = ("", "_low", "_high", "_n", "_unit", "_reason")


def heading(names: Iterable[str]) -> list[str]:
    """The columns of the figures: ``NAME``, ``NAME_low``, ``NAME_high``, ``NAME_n``, ``NAME_unit``, ``NAME_reason``."""
    return [f"{name}{part}" for name in names for part in PARTS]


def values(figures: Iterable[Figure]) -> list[Any]:
    """What stands in those columns; None, an empty cell, for what is absent."""
    return [
        value for figure in figures
        for value in (figure.median, *(figure.ci95 or (None, None)), figure.n, figure.unit, figure.reason)
    ]  # fmt: skip


def text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The file. Text that a spreadsheet would run as a formula is quoted."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([cell(name) for name in header])
    writer.writerows([cell(value) for value in row] for row in rows)
    return output.getvalue()
