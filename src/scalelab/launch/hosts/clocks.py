"""How far another host's clock is from this one's."""

from __future__ import annotations

import time
from collections.abc import Callable

ROUNDS = 8


def ahead(now: Callable[[], float]) -> tuple[float, float]:
    """(seconds by which the clock that ``now`` asks is ahead of this host's, how far off that may be).

    The answer was given somewhere between question and arrival: at the middle, wrong by half of that time at most. Of several questions
    the quickest tells most (Cristian 1989).
    """
    found = []
    for _ in range(ROUNDS):
        asked = time.time()
        there = now()
        came = time.time()
        found.append(((came - asked) / 2, there - (asked + came) / 2))
    error, offset = min(found)
    return offset, error
