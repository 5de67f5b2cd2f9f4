"""A figure as plotly JSON in plain dicts. Colours are CSS variables, resolved in the browser for its theme.

Names pass through ``text.plain`` (plotly reads labels as pseudo-HTML) and never stand in a template string
(``%{…}`` in a name would be filled in). Categories are numbers with tick texts, so equal names stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scalelab.record.schema import TrainRecord
from scalelab.report.table import Row

COLOURS = 8


@dataclass(frozen=True)
class View:
    """One way of drawing a figure; several are switched by buttons above it."""

    label: str
    data: list[dict[str, Any]] | None
    """traces; None: those of the figure's first view, drawn with another layout"""
    layout: dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A figure with the sentence that says what one should see in it."""

    id: str
    title: str
    caption: str
    views: list[View]
    wide: bool = False


Runs = Sequence[tuple[Row, TrainRecord]]


def colour(place: int) -> str:
    """The CSS colour of the run at ``place``: the same in every figure and table."""
    return f"var(--run-{place % COLOURS})"


def digits(value: float) -> float | None:
    """Five significant digits: more can't be seen, and they would fill the page's megabytes. Not finite: None."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
