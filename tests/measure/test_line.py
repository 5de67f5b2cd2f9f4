"""The cost of a step and of an image are told apart."""

from __future__ import annotations

import pytest

from scalelab.measure.line import fit

BATCHES = [32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0]


def test_a_line_is_found_again() -> None:
    line = fit(BATCHES, [0.004 + 0.0001 * batch for batch in BATCHES])
    assert line.a.median == pytest.approx(0.004)
    assert line.b.median == pytest.approx(0.0001)
    assert line.half.median == pytest.approx(40)
    assert line.off.median == pytest.approx(0, abs=1e-9)
    assert line.at(100) == pytest.approx(0.014)


def test_a_large_batch_does_not_outweigh_a_small_one() -> None:
    """5 % more for the largest step is 50 times the smallest one's time."""
    seconds = [0.004 + 0.0001 * batch for batch in BATCHES]
    line = fit(BATCHES, [*seconds[:-1], seconds[-1] * 1.05])
    assert line.a.median == pytest.approx(0.004, rel=0.1)


def test_the_interval_holds_the_truth_and_the_worst_point_is_told() -> None:
    wobble = [1.05, 0.95, 1.04, 0.96, 1.05, 0.95, 1.03, 0.97]
    line = fit(BATCHES, [(0.004 + 0.0001 * batch) * one for batch, one in zip(BATCHES, wobble, strict=True)])
    assert line.a.ci95 is not None
    assert line.a.ci95[0] < 0.004 < line.a.ci95[1]
    assert 0.03 < (line.off.median or 0) < 0.1


def test_without_overhead_there_is_no_half() -> None:
    line = fit([1.0, 2.0, 4.0], [0.9, 2.0, 4.1])
    assert line.half.median is None
    assert "no overhead" in (line.half.reason or "")


def test_two_points_are_no_fit() -> None:
    line = fit([1.0, 2.0], [1.0, 2.0])
    assert line.a.reason == "a fit needs three batch sizes or more, there are 2"
    assert line.at(3) is None
