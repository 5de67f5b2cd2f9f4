"""The time of a step as a line over its batch: what each step costs, and what each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalelab.measure.statistics import absent, student
from scalelab.record.schema import Figure


@dataclass(frozen=True)
class Line:
    """seconds = a + b x batch. ``half``: a / b, the batch of which half a step is overhead. ``off``: the worst point's relative error."""

    a: Figure
    b: Figure
    half: Figure
    off: Figure

    def at(self, batch: float) -> float | None:
        """Seconds of a step of ``batch``; None without a fit."""
        return None if self.a.median is None or self.b.median is None else self.a.median + self.b.median * batch


def fit(batches: Sequence[float], seconds: Sequence[float]) -> Line:
    """Least squares of the relative errors: a step of 4096 images must not outweigh one of 32.

    Hockney's r_inf and n_1/2 of a pipelined unit (Hockney & Jesshope, Parallel Computers, 1981): r_inf = 1/b, n_1/2 = a/b. Intervals of
    a and b are Student's of the fit. Fewer than 3 points are no fit. Without a positive a there is no overhead, and no ``half``.
    """
    if len(batches) < 3:
        none = absent("s", f"a fit needs three batch sizes or more, there are {len(batches)}")
        return Line(none, none, absent("images", none.reason or ""), absent("ratio", none.reason or ""))
    t = np.asarray(seconds, dtype=np.float64)
    rows = np.stack([np.ones(len(t)), np.asarray(batches, dtype=np.float64)], 1) / t[:, None]
    found, *_ = np.linalg.lstsq(rows, np.ones(len(t)), rcond=None)
    left = rows @ found - 1
    freedom = len(t) - 2
    spread = np.sqrt(np.diag(np.linalg.inv(rows.T @ rows)) * float(left @ left) / freedom) * student(freedom)
    a, b = (
        Figure(unit=unit, median=float(value), n=len(t), ci95=(float(value - half), float(value + half)))
        for unit, value, half in zip(("s", "s/image"), found, spread, strict=True)
    )
    worst = Figure(unit="ratio", median=float(np.abs(left).max()), n=len(t))
    return Line(a, b, _half(a, b), worst)


def _half(a: Figure, b: Figure) -> Figure:
    assert a.median is not None
    assert b.median is not None
    if a.median <= 0 or b.median <= 0:
        return absent("images", "the fit has no overhead: small batches are not slower by the image")
    low, high = (a.ci95[0] / b.median, a.ci95[1] / b.median) if a.ci95 else (0.0, 0.0)
    return Figure(unit="images", median=a.median / b.median, n=a.n, ci95=(max(0.0, low), high))
