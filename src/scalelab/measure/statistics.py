"""Medians with their spread and interval. Pure numpy; the definitions are in docs/numbers.md.

numpy is imported by what computes with it: it takes as long as all else in the start of most commands, and most compute nothing.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from scalelab.record.schema import Figure

if TYPE_CHECKING:
    import numpy as np

MAD_TO_SIGMA = 1.4826
Combine = Callable[[Any, Any], Any]
RESAMPLES = 2000
GRID = 20_001
ENOUGH = 8
"""values from which on the bootstrap of a median covers about what it says: 91 to 96 % of normal, heavy-tailed and skewed samples (of 7
values 87 %, where it is the second least to the second greatest; Student's 95 to 96 %)"""


def figure(values: Sequence[float], unit: str, reason: str | None = None, least: int = 3) -> Figure:
    """Median, scaled MAD and a 95 % interval of ``values``; no interval for fewer than ``least`` of them.

    From 8 values on the percentile bootstrap of the median (Efron 1979), seeded: the same values give the same interval. Below, the
    bootstrap can give no more than the least and the greatest, which hold the truth in 75 of 100 cases for 3 values: Student's
    interval of the mean (1908) stands in, on logarithms where all values are positive.
    """
    if len(values) == 0:
        return Figure(unit=unit, reason=reason or "nothing was measured")
    if len(values) == 1:
        return Figure(unit=unit, median=float(values[0]), n=1, reason=reason)
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    median = float(np.median(data))
    mad = float(MAD_TO_SIGMA * np.median(np.abs(data - median)))
    interval = None
    if len(data) >= ENOUGH:
        draws = np.random.default_rng(0).choice(data, size=(RESAMPLES, len(data)))
        low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
        interval = (float(low), float(high))
    elif len(data) >= max(least, 2):
        interval = _students(data, median)
    return Figure(unit=unit, median=median, n=len(data), mad=mad, ci95=interval, reason=reason)


def _students(data: np.ndarray, median: float) -> tuple[float, float]:
    """Student's interval of the mean of a few values, widened to hold their median; geometric where they are positive."""
    import numpy as np

    positive = bool(data.min() > 0)
    scaled = np.log(data) if positive else data
    half = student(len(data) - 1) * float(scaled.std(ddof=1)) / math.sqrt(len(data))
    ends = float(scaled.mean()) - half, float(scaled.mean()) + half
    low, high = (math.exp(min(end, 700.0)) for end in ends) if positive else ends
    return min(low, median), max(high, median)


def absent(unit: str, reason: str) -> Figure:
    """A figure that could not be measured."""
    return Figure(unit=unit, reason=reason)


def blocks(values: Sequence[float], size: int = 10) -> list[float]:
    """Means of consecutive blocks: neighbouring steps are not independent, blocks of 10 nearly are.

    A tail shorter than ``size`` is left out, unless it is all there is.
    """
    import numpy as np

    data = list(values)
    if len(data) < size:
        return [float(np.mean(data))] if data else []
    return [float(np.mean(data[i : i + size])) for i in range(0, len(data) - size + 1, size)]


def ratio(a: Sequence[float], b: Sequence[float], unit: str = "ratio") -> Figure:
    """Median of a over median of b, with a bootstrap interval in which both are resampled; of few values, that of ``quotient``."""
    return _combined(operator.truediv, a, b, unit)


def difference(a: Sequence[float], b: Sequence[float], unit: str) -> Figure:
    """Median of a minus median of b, with a bootstrap interval in which both are resampled.

    Of few values, the distances to the ends of both intervals add in quadrature (Zou & Donner 2008).
    """
    return _combined(operator.sub, a, b, unit)


def _combined(combine: Combine, a: Sequence[float], b: Sequence[float], unit: str) -> Figure:
    """``combine`` of the two medians; n is the shorter's. No interval for fewer than 3 values of either."""
    if len(a) == 0 or len(b) == 0:
        return Figure(unit=unit, reason="nothing was measured")
    import numpy as np

    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    value, n = float(combine(np.median(first), np.median(second))), min(len(first), len(second))
    if n < 3:
        return Figure(unit=unit, median=value, n=n)
    rng = np.random.default_rng(0)
    draws = combine(*(np.median(rng.choice(data, (RESAMPLES, len(data))), axis=1) for data in (first, second)))
    spread = float(MAD_TO_SIGMA * np.median(np.abs(draws - value)))
    if n < ENOUGH:
        ends = _joined(combine, figure(a, unit), figure(b, unit))
    else:
        low, high = np.percentile(draws, [2.5, 97.5])
        ends = (float(low), float(high))
    return Figure(unit=unit, median=value, n=n, mad=spread, ci95=ends)


def _joined(combine: Combine, a: Figure, b: Figure) -> tuple[float, float] | None:
    """The interval of a ratio or difference from the intervals of both sides."""
    if combine is operator.truediv:
        return quotient(a, b).ci95
    if a.median is None or b.median is None or a.ci95 is None or b.ci95 is None:
        return None
    value = a.median - b.median
    low = math.hypot(a.median - a.ci95[0], b.ci95[1] - b.median)
    high = math.hypot(a.ci95[1] - a.median, b.median - b.ci95[0])
    return value - low, value + high


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


@cache
def student(freedom: float) -> float:
    """The 97.5 % point of Student's t (1908) for ``freedom`` degrees, 1 or more, fractions too: half the width of a 95 % interval.

    With t = sqrt(freedom) * tan(a) the density is cos(a)^(freedom - 1), integrated here by trapezoids: right to 4 digits.
    """
    import numpy as np

    angle = np.linspace(0.0, math.pi / 2, GRID)
    density = np.cos(angle) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(float(np.interp(0.95, area / area[-1], angle)))


@cache
def widest(count: int) -> float:
    """The 95 % point of the range of ``count`` standard normal values, 2 or more: Tukey's q for a known variance (2.77 for two).

    P(range <= q) = count * integral of density(z) * (P(z) - P(z - q))^(count - 1), as a sum; q by halving: right to 3 digits.
    """
    import numpy as np

    z = np.linspace(-8.0, 8.0, 801)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    def below(x: np.ndarray) -> np.ndarray:
        return np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in x])

    mine, low, high = below(z), 0.0, 16.0
    for _ in range(20):
        q = (low + high) / 2
        held = float((count * density * (mine - below(z - q)) ** (count - 1)).sum()) * (z[1] - z[0])
        low, high = (q, high) if held < 0.95 else (low, q)
    return (low + high) / 2


def resolution(accuracy: float, samples: int, count: int = 2) -> float:
    """How far the best and the worst of ``count`` equal accuracies of ``samples`` test images are apart by chance, in 95 of 100 cases.

    Normal approximation; Tukey's range, because of ten the best and the worst are further apart than any two.
    """
    return widest(count) * math.sqrt(accuracy * (1 - accuracy) / samples) if samples else 0.0


def repeated(values: Sequence[float], unit: str) -> Figure:
    """What repeats of one training show: ``figure``, with an interval from two values on, as wide as two values make it."""
    return figure(values, unit, least=2)
