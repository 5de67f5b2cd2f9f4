"""Medians with their spread and interval. Pure numpy; the definitions are in docs/numbers.md."""

from __future__ import annotations

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
