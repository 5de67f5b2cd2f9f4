"""Medians with their spread and interval. Pure numpy; the definitions are in docs/numbers.md."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scalelab.record.schema import Figure

MAD_TO_SIGMA = 1.4826
RESAMPLES = 2000


def figure(values: Sequence[float], unit: str, reason: str | None = None) -> Figure:
    """Median, scaled MAD and the 95 % percentile-bootstrap interval of the median (Efron 1979) of ``values``.

    The interval is None for fewer than 3 values. The resampling is seeded: the same values give the same interval.
    """
    if len(values) == 0:
        return Figure(unit=unit, reason=reason or "nothing was measured")
    data = np.asarray(values, dtype=np.float64)
    median = float(np.median(data))
    mad = float(MAD_TO_SIGMA * np.median(np.abs(data - median))) if len(data) > 1 else None
    interval = None
    if len(data) >= 3:
        draws = np.random.default_rng(0).choice(data, size=(RESAMPLES, len(data)))
        low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
        interval = (float(low), float(high))
    return Figure(unit=unit, median=median, n=len(data), mad=mad, ci95=interval, reason=reason)


def absent(unit: str, reason: str) -> Figure:
    """A figure that could not be measured."""
    return Figure(unit=unit, reason=reason)


def blocks(values: Sequence[float], size: int = 10) -> list[float]:
    """Means of consecutive blocks: neighbouring steps are not independent, blocks of 10 nearly are.

    A tail shorter than ``size`` is left out, unless it is all there is.
    """
    data = list(values)
    if len(data) < size:
        return [float(np.mean(data))] if data else []
    return [float(np.mean(data[i : i + size])) for i in range(0, len(data) - size + 1, size)]


def ratio(a: Sequence[float], b: Sequence[float], unit: str = "ratio") -> Figure:
    """Median of a over median of b, with a bootstrap interval in which both are resampled."""
    return _combined(np.divide, a, b, unit)


def difference(a: Sequence[float], b: Sequence[float], unit: str) -> Figure:
    """Median of a minus median of b, with a bootstrap interval in which both are resampled."""
    return _combined(np.subtract, a, b, unit)


def _combined(combine: np.ufunc, a: Sequence[float], b: Sequence[float], unit: str) -> Figure:
    """``combine`` of the two medians; n is the shorter's. No interval for fewer than 3 values of either."""
    if len(a) == 0 or len(b) == 0:
        return Figure(unit=unit, reason="nothing was measured")
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    value, n = float(combine(np.median(first), np.median(second))), min(len(first), len(second))
    if n < 3:
        return Figure(unit=unit, median=value, n=n)
    rng = np.random.default_rng(0)
    draws = combine(*(np.median(rng.choice(data, (RESAMPLES, len(data))), axis=1) for data in (first, second)))
    low, high = np.percentile(draws, [2.5, 97.5])
    spread = float(MAD_TO_SIGMA * np.median(np.abs(draws - value)))
    return Figure(unit=unit, median=value, n=n, mad=spread, ci95=(float(low), float(high)))


def quotient(a: Figure, b: Figure, unit: str = "ratio") -> Figure:
    """Median of a over median of b of two runs, with a 95 % interval made of theirs.

    On logarithms the distances to the ends add in quadrature: the method of variance estimates recovery
    (Zou & Donner, Statistics in Medicine 27, 2008). Needs no raw values, and never excludes 1 by rounding alone.
    """
    if a.median is None or b.median is None or a.median <= 0 or b.median <= 0:
        return absent(unit, a.reason or b.reason or "nothing was measured")
    value = a.median / b.median
    count = min(a.n, b.n)
    if a.ci95 is None or b.ci95 is None or min(*a.ci95, *b.ci95) <= 0:
        return Figure(unit=unit, median=value, n=count, reason="no interval: one of the two figures has none")
    low = math.hypot(math.log(a.median / a.ci95[0]), math.log(b.ci95[1] / b.median))
    high = math.hypot(math.log(a.ci95[1] / a.median), math.log(b.median / b.ci95[0]))
    return Figure(unit=unit, median=value, n=count, ci95=(value * math.exp(-low), value * math.exp(high)))


def differs(figure: Figure) -> bool:
    """Whether a ratio's interval excludes 1: the only ground on which a difference is claimed."""
    return figure.ci95 is not None and not figure.ci95[0] <= 1 <= figure.ci95[1]


T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % points of Student's t (1908) with 1, 2 … 9 degrees of freedom"""


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t; from 10 degrees of freedom on by its expansion (Abramowitz & Stegun 26.7.5), good to 0.001."""
    if freedom <= len(T95):
        return T95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def repeated(values: Sequence[float], unit: str) -> Figure:
    """What repeats of one training show: their median, with a 95 % interval of what another repeat's median would be.

    From 6 values on the bootstrap of ``figure``. Below, a bootstrap can give no more than the least and the greatest, which
    is too narrow: Student's interval of the mean of the logarithms, which needs positive values (without them: no interval).
    One value has no interval.
    """
    if len(values) >= 6 or not values:
        return figure(values, unit)
    data = np.asarray(values, dtype=np.float64)
    median = float(np.median(data))
    if len(data) == 1:
        return Figure(unit=unit, median=median, n=1)
    mad = float(MAD_TO_SIGMA * np.median(np.abs(data - median)))
    if data.min() <= 0:
        return Figure(unit=unit, median=median, n=len(data), mad=mad, reason="too few repeats for an interval")
    logs = np.log(data)
    half = student(len(data) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(data))
    centre = float(logs.mean())
    low, high = math.exp(centre - half), math.exp(centre + half)
    return Figure(unit=unit, median=median, n=len(data), mad=mad, ci95=(min(low, median), max(high, median)))
