"""Means over seeds, and when two of them differ."""

from __future__ import annotations

import numpy as np
import pytest

from scalelab.measure.statistics import student
from scalelab.studies.learning.seeds import ONE, above, below, mean, share_of, welch


@pytest.mark.parametrize(
    ("degrees", "point"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_students_points_are_the_printed_tables(degrees, point):
    assert student(degrees) == pytest.approx(point, abs=6e-4)


def test_welch_is_the_textbooks():
    """Two samples worked by hand: variances 1 and 4, 3 and 4 seeds."""
    a, b = [9.0, 10.0, 11.0], [4.0, 6.0, 6.0 + 2 * 6**0.5 / 3, 8.0]
    v, w = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 4
    degrees = (v + w) ** 2 / (v**2 / 2 + w**2 / 3)
    half = student(degrees) * (v + w) ** 0.5
    found = welch(a, b, "s")
    assert found.median == pytest.approx(np.mean(a) - np.mean(b))
    assert found.ci95 == pytest.approx((found.median - half, found.median + half))
    assert 2 < degrees < 5


def test_the_interval_covers_a_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        low, high = welch(rng.normal(1.0, 1.0, 3).tolist(), rng.normal(0.0, 3.0, 3).tolist(), "s").ci95
        hits += low <= 1.0 <= high
    assert 930 <= hits <= 985


def test_one_seed_has_no_interval_and_no_difference_is_one():
    found = welch([0.9], [0.1, 0.2], "accuracy")
    assert (found.ci95, found.reason) == (None, ONE)
    assert not above(found)
    assert not below(found)
    assert mean([0.5], "accuracy").reason == ONE


def test_seeds_that_all_agree_have_an_interval_of_no_width():
    assert welch([0.5, 0.5], [0.4, 0.4], "accuracy").ci95 == pytest.approx((0.1, 0.1))
    assert mean([0.5, 0.5], "accuracy").ci95 == (0.5, 0.5)


def test_no_interval_goes_beyond_what_an_accuracy_can_be():
    assert mean([0.6, 0.9], "accuracy").ci95 == (0.0, 1.0)
    assert welch([0.1, 0.2], [0.8, 0.95], "accuracy").ci95[0] == -1.0
    assert mean([0.6, 0.9], "s").ci95[1] > 1.0


def test_none_completed_says_so():
    assert mean([], "accuracy").reason
    assert welch([], [0.5], "accuracy").median is None


@pytest.mark.parametrize("spreads", [(0.03, 0.03, 0.03), (0.005, 0.005, 0.03)])
def test_a_share_of_a_loss_is_covered_as_often_as_it_says(spreads):
    """With the second spreads an interval of what was won alone, the loss taken as measured, holds the truth in 64 of 100."""
    rng, hits, known = np.random.default_rng(0), 0, 0
    for _ in range(500):
        found = share_of(*(rng.normal(*one, 3).tolist() for one in zip((0.6, 0.4, 0.7), spreads, strict=True)))
        known += found.ci95 is not None
        hits += found.ci95 is not None and found.ci95[0] <= 2 / 3 <= found.ci95[1]
    assert known > 475
    assert hits / known >= 0.93


def test_a_share_of_what_may_be_nothing_has_no_interval():
    found = share_of([0.5, 0.6, 0.7], [0.4, 0.6, 0.8], [0.5, 0.7, 0.9])
    assert (found.median, found.ci95) == (pytest.approx(0.0, abs=1e-9), None)
    assert "too uncertain" in found.reason
    assert share_of([0.6], [0.4], [0.7]).reason == ONE
    assert share_of([], [0.4], [0.7]).reason
