"""What several processes did at the same time."""

from __future__ import annotations

import pytest

from scalelab.measure.together import rates


def test_a_rate_is_the_sum_of_all_who_are_at_work() -> None:
    steady = [float(second) for second in range(11)]
    twice = [second / 2 for second in range(21)]
    assert rates([steady, twice], [3.0, 5.0], 1.0) == pytest.approx([3 + 10] * 10)


def test_only_the_time_that_all_share_counts() -> None:
    early, late = [0.0, 1.0, 2.0, 3.0], [1.5, 2.5, 3.5]
    assert rates([early, late], [1.0, 1.0], 10.0) == pytest.approx([2.0])


def test_a_process_that_pauses_lowers_that_stretch() -> None:
    paused = [0.0, 1.0, 3.0, 4.0]
    assert rates([paused], [1.0], 1.0) == pytest.approx([1.0, 0.5, 0.5, 1.0])


def test_those_who_never_met_have_no_rate() -> None:
    assert rates([[0.0, 1.0], [2.0, 3.0]], [1.0, 1.0], 0.1) == []
