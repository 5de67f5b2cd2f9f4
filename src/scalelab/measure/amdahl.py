"""How much of a training does not become faster with more workers: from speedups, each with its interval. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scalelab.measure.statistics import absent, student
from scalelab.record.schema import Figure

SLOWER = "more workers are slower than one: Amdahl's law, whose speedups are 1 or more, does not describe that"
NEARLY = 1e-9
"""of rounding that a fraction of 1 may have"""
ONE_POINT = "from one number of workers: no fit; it is that row's Karp-Flatt fraction"


def karp_flatt(speedup: Figure, workers: int) -> Figure:
    """The experimentally determined serial fraction e = (1/S - 1/n) / (1 - 1/n) (Karp & Flatt, CACM 33(5), 1990).

    A serial part gives the same e at each n; e that rises with n is overhead that grows with n: communication, waiting, shared memory.
    Its interval is the speedup's, turned round; below 0 the speedup is above n. Absent of a speedup below 1.
    """
    if speedup.median is None:
        return absent("ratio", speedup.reason or "no speedup was measured")
    if workers < 2:
        return absent("ratio", "of two workers or more")
    if speedup.median < 1 - NEARLY:
        return absent("ratio", SLOWER)
    ends = None if speedup.ci95 is None or speedup.ci95[0] <= 0 else speedup.ci95
    return Figure(
        unit="ratio", median=_fraction(speedup.median, workers), n=speedup.n, reason=speedup.reason,
        ci95=None if ends is None else (_fraction(ends[1], workers), _fraction(ends[0], workers)),
    )  # fmt: skip


def _fraction(speedup: float, workers: int) -> float:
    return (1 / speedup - 1 / workers) / (1 - 1 / workers)


def serial_fraction(speedups: Sequence[tuple[int, Figure]]) -> Figure:
    """Amdahl's serial fraction s (AFIPS 1967) that fits 1/S(n) = s + (1 - s)/n best, over (workers, speedup) of two workers or more.

    Least squares of 1/S - 1/n = s (1 - 1/n), a line through zero; its interval is Student's from what the fit leaves, with one degree
    of freedom less than there are points. One point is no fit: then it is Karp and Flatt's fraction, and the reason says so.
    Absent where it would be above 1: where more workers are slower.
    """
    known = [(n, one) for n, one in speedups if n >= 2 and one.median is not None]
    if not known:
        return absent("ratio", "no speedup of two workers or more was measured")
    if len(known) == 1:
        n, one = known[0]
        found = karp_flatt(one, n)
        if found.median is None:
            return found
        return Figure(unit="ratio", median=found.median, n=1, ci95=found.ci95, reason=ONE_POINT)
    x = [1 - 1 / n for n, _ in known]
    y = [1 / one.median - 1 / n for n, one in known if one.median is not None]
    squares = sum(value * value for value in x)
    s = sum(a * b for a, b in zip(x, y, strict=True)) / squares
    if s > 1 + NEARLY:
        return absent("ratio", SLOWER)
    left = sum((b - s * a) ** 2 for a, b in zip(x, y, strict=True)) / (len(x) - 1)
    half = student(len(x) - 1) * math.sqrt(left / squares)
    return Figure(unit="ratio", median=s, n=len(x), ci95=(s - half, s + half))


def speedup(serial: float, workers: float) -> float:
    """Amdahl's law: 1 / (s + (1 - s)/n)."""
    return 1 / (serial + (1 - serial) / workers)
