"""How long a step of a model takes on one process, found out in a second before any training: what a study's estimate is made of."""

from __future__ import annotations

import time
from collections.abc import Callable

from scalelab.batch import BATCH
from scalelab.errors import ScalelabError
from scalelab.worker import alone
from scalelab.worker.asked import answering

SECONDS = 0.4
"""of steps of each of the two sizes, at least"""
LONGEST = 3.0
"""seconds that a step of the larger size may take; else the smaller one stands for both"""


def pace(spec_file: str, answer_file: str) -> int:
    """Write {"fixed", "each"}: a step of n images takes ``fixed + each * n`` seconds, from steps of two sizes up to ``--batch``.

    And "fails": why a step of ``--batch`` images can't be taken, where a smaller one can.
    """

    def found() -> dict[str, float | str]:
        task = alone.task(spec_file)
        large = task.spec.batch or BATCH
        small = max(1, large // 4)
        step = alone.begin(task).step
        few = timed(lambda: step(small))
        if small == large or few * large / small > LONGEST:
            return {"fixed": 0.0, "each": few / small}
        try:
            many = timed(lambda: step(large))
        except ScalelabError as error:
            return {"fixed": 0.0, "each": few / small, "fails": str(error)}
        each = max((many - few) / (large - small), many / large / 2)  # noise must not make images cost nothing
        return {"fixed": max(0.0, many - each * large), "each": each}

    return answering(answer_file, found)


def timed(step: Callable[[], None]) -> float:
    """The median seconds of a few steps, after one that is not counted."""
    step()
    began = time.perf_counter()
    seconds: list[float] = []
    while not seconds or (time.perf_counter() - began < SECONDS and len(seconds) < 20):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]
