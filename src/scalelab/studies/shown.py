"""What several studies show in the same way: columns of their tables, and figures drawn with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from scalelab.record.figure import Figure
from scalelab.record.study import Column, Factor, Row, Series

WORKERS = Column(key="workers", title="Workers", show="count")
STEP = Column(key="step_seconds", title="Step", show="seconds")
THROUGHPUT = Column(key="images_per_second", title="Throughput", sub="images/s", show="rate")
SPEEDUP = Column(key="speedup", title="Speedup", sub="over single", show="times")
EFFICIENCY = Column(key="efficiency", title="Efficiency", sub="speedup / workers", show="percent")
EXPOSED = Column(key="exposed_share", title="Exposed", sub="communication / step", show="percent")
CEILING = Column(key="achieved", title="Ceiling", sub="share achieved", show="percent")


def drawn(
    name: str,
    x: Sequence[Factor],
    figures: Sequence[Figure],
    style: Literal["line", "points", "bars"] = "line",
    text: Sequence[str] = (),
) -> Series:
    """Figures at ``x``, each with the ends of its 95 % interval where it has one; an absent figure leaves a gap."""
    return Series(
        name=name, x=list(x), y=[one.median for one in figures], low=[one.ci95[0] if one.ci95 else None for one in figures],
        high=[one.ci95[1] if one.ci95 else None for one in figures], style=style, text=list(text),
    )  # fmt: skip


def line(name: str, rows: Sequence[Row], key: str, x: str) -> Series:
    """The figure ``key`` of some rows over their factor ``x``."""
    return drawn(name, [one.factors[x] for one in rows], [one.figures[key] for one in rows])
