"""What trainings with several seeds show: means, and whether two of them differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scalelab.measure.statistics import student
from scalelab.record.schema import Figure

ONE = "one seed: no spread, so no interval"

MOST = {"accuracy": 1.0}
"""the largest value of a unit that has one, from 0: an interval ends there, for nothing beyond is possible"""


def mean(values: Sequence[float], unit: str) -> Figure:
    """The mean (in ``median``'s place) with Student's 95 % interval; None for a single seed. ``mad`` is the standard deviation."""
    if not values:
        return Figure(unit=unit, reason="no seed was completed")
    centre, n = float(np.mean(values)), len(values)
    if n == 1:
        return Figure(unit=unit, median=centre, n=1, reason=ONE)
    std = float(np.std(values, ddof=1))
    half = student(n - 1) * std / math.sqrt(n)
    low, high = (0.0, MOST[unit]) if unit in MOST else (-math.inf, math.inf)
    return Figure(unit=unit, median=centre, n=n, mad=std, ci95=(max(low, centre - half), min(high, centre + half)))


def welch(a: Sequence[float], b: Sequence[float], unit: str) -> Figure:
    """Mean of ``a`` minus mean of ``b`` with its 95 % interval for unequal variances (Welch, Biometrika 34, 1947).

    Its degrees of freedom are Satterthwaite's. No interval where one of the two has a single seed.
    """
    if not a or not b:
        return Figure(unit=unit, reason="no seed of one of the two was completed")
    value, n = float(np.mean(a) - np.mean(b)), min(len(a), len(b))
    if n == 1:
        return Figure(unit=unit, median=value, n=1, reason=ONE)
    parts = [float(np.var(v, ddof=1)) / len(v) for v in (a, b)]
    error = math.sqrt(sum(parts))
    if error == 0.0:
        return Figure(unit=unit, median=value, n=n, mad=0.0, ci95=(value, value))
    degrees = error**4 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (a, b), strict=True))
    half = student(degrees) * error
    most = MOST.get(unit, math.inf)
    return Figure(unit=unit, median=value, n=n, mad=error, ci95=(max(-most, value - half), min(most, value + half)))


def share_of(remedied: Sequence[float], plain: Sequence[float], base: Sequence[float]) -> Figure:
    """(remedied - plain) / (base - plain) of the means: the share of a loss that was won back, with its 95 % interval.

    Fieller's (J. R. Statist. Soc. B 16, 1954), for the doubt is in what was lost too, and ``plain`` is in both; with the fewest degrees of
    freedom of the three. It has none where by that measure the loss may be 0.
    """
    if not remedied or not plain or not base:
        return Figure(unit="ratio", reason="no seed of one of the three was completed")
    won, lost = (float(np.mean(v) - np.mean(plain)) for v in (remedied, base))
    n = min(len(remedied), len(plain), len(base))
    if lost == 0:
        return Figure(unit="ratio", reason="nothing was lost")
    if n == 1:
        return Figure(unit="ratio", median=won / lost, n=1, reason=ONE)
    own, common, other = (student(n - 1) ** 2 * float(np.var(v, ddof=1)) / len(v) for v in (remedied, plain, base))
    a, b, c = lost**2 - common - other, won * lost - common, won**2 - common - own
    if a <= 0:
        return Figure(
            unit="ratio", median=won / lost, n=n, reason="what was lost is too uncertain for an interval of a share of it"
        )
    half = math.sqrt(max(0.0, b**2 - a * c))
    return Figure(unit="ratio", median=won / lost, n=n, ci95=((b - half) / a, (b + half) / a))


def below(difference: Figure) -> bool:
    """Whether a difference is one, and downwards: its interval lies below 0."""
    return difference.ci95 is not None and difference.ci95[1] < 0


def above(difference: Figure) -> bool:
    """Whether a difference is one, and upwards: its interval lies above 0."""
    return difference.ci95 is not None and difference.ci95[0] > 0
