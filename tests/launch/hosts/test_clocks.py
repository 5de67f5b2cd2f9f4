"""A clock that can only be asked over a line."""

from __future__ import annotations

import time

from scalelab.launch.hosts.clocks import ahead


def test_a_clocks_offset_is_read_in_the_middle_of_the_shortest_way() -> None:
    found, error = ahead(lambda: time.time() + 30)
    assert abs(found - 30) <= error + 1e-3


def test_slow_answers_do_not_count() -> None:
    answers = iter([0.05, 0.0, 0.05, 0.0, 0.05, 0.0, 0.0, 0.0])

    def now() -> float:
        time.sleep(next(answers))
        return time.time() - 5

    _, error = ahead(now)
    assert error < 0.025
