"""Series of one figure that look different, and none of which hides another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scalelab.report.chart import COLOURS
from scalelab.report.curves import SYMBOLS

ORDER = (2, 3, 6, 4, 7, 5, 1, 0)
"""of the palette for series: neighbours look different, and its two oranges are not among the first four"""
NEAR, RING, RINGS = 0.02, 4, 3
"""of the axis: points as near as this hide one another; then one that is behind is so much larger for each before it, so often at most"""


def place_of(number: int) -> int:
    """The place in the palette of a figure's series, counted from 0."""
    return ORDER[number % COLOURS] + number // COLOURS * COLOURS


def ringed(lines: Sequence[dict[str, Any]], log: bool) -> None:
    """Make those points larger that points of later lines would hide: they are seen as rings around them."""
    most = max((abs(y) for one in lines for y in one["y"] if y is not None), default=0.0)
    for number, one in enumerate(lines):
        points = list(zip(one["x"], one["y"], strict=True))
        before = [list(zip(other["x"], other["y"], strict=True)) for other in lines[number + 1 :]]
        hidden = [sum(any(_meet(point, other, 0.0 if log else most) for other in row) for row in before) for point in points]
        if any(hidden):
            one["marker"]["size"] = [one["marker"]["size"] + RING * min(RINGS, count) for count in hidden]


def _meet(one: tuple[Any, Any], other: tuple[Any, Any], most: float) -> bool:
    if one[1] is None or other[1] is None or one[0] != other[0]:
        return False
    return bool(abs(one[1] - other[1]) <= NEAR * (most or abs(one[1])))


def symbol(place: int) -> str:
    """The marker of the colour at ``place``."""
    return SYMBOLS[ORDER.index(place % COLOURS)]
