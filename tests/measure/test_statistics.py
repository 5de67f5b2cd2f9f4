"""Medians, spreads and intervals, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scalelab.measure.statistics import absent, blocks, difference, figure, ratio


def test_median_and_scaled_mad() -> None:
    found = figure([1.0, 2.0, 4.0, 8.0, 100.0], "s")
    assert (found.median, found.n, found.unit) == (4.0, 5, "s")
    assert found.mad == pytest.approx(1.4826 * 3.0)  # deviations 3 2 0 4 96


def test_the_interval_of_three_values_by_counting() -> None:
    """The median of 3 draws of {1, 2, 9} is 1 or 9 in 7 of 27 cases each: far more than 2.5 %, so the interval is all of it."""
    assert figure([9.0, 1.0, 2.0], "s").ci95 == (1.0, 9.0)


def test_the_interval_is_of_order_statistics() -> None:
    """For an odd n, resampled medians are values of the sample; the 2.5 % points of 1..21 are its 6th and 16th (± 1)."""
    low, high = figure([float(v) for v in range(1, 22)], "s").ci95 or (0.0, 0.0)
    assert (low, high) == (pytest.approx(6, abs=1), pytest.approx(16, abs=1))


@pytest.mark.parametrize(("values", "mad", "interval"), [([], None, None), ([3.0], None, None), ([3.0, 5.0], 1.4826, None)])
def test_few_values_have_no_interval(values: list[float], mad: float | None, interval: None) -> None:
    found = figure(values, "s")
    assert found.median == (np.median(values) if values else None)
    assert found.mad == (None if mad is None else pytest.approx(mad))
    assert found.ci95 is interval
    assert (found.reason is None) == bool(values)


def test_the_same_values_give_the_same_interval() -> None:
    values = list(np.random.default_rng(5).normal(size=20))
    assert figure(values, "s") == figure(values, "s")


def test_an_absent_figure_says_why_and_is_not_zero() -> None:
    found = absent("bytes", "one worker")
    assert (found.median, found.n, found.reason) == (None, 0, "one worker")
    assert figure([], "s", "too short").reason == "too short"


def test_blocks_are_means_of_ten() -> None:
    assert blocks(range(25)) == [4.5, 14.5]
    assert blocks([1.0, 2.0]) == [1.5]
    assert blocks([]) == []
    assert blocks(range(4), size=2) == [0.5, 2.5]


def test_ratio_of_medians() -> None:
    found = ratio([2.0, 4.0, 6.0], [1.0, 2.0, 4.0])
    assert (found.median, found.n) == (2.0, 3)
    assert found.ci95 == (pytest.approx(0.5, abs=0.01), pytest.approx(6.0, abs=0.01))
    assert ratio([2.0, 4.0], [1.0]).median == 3.0
    assert ratio([2.0, 4.0], [1.0]).ci95 is None
    assert ratio([], [1.0]).median is None


def test_difference_of_medians() -> None:
    found = difference([5.0, 6.0, 7.0], [1.0, 1.0, 1.0], "s")
    assert (found.median, found.unit, found.ci95) == (5.0, "s", (4.0, 6.0))
    assert difference([1.0], [], "s").median is None
    assert difference([1.0, 3.0], [5.0, 5.0], "s").median == -3.0


@pytest.mark.parametrize("draw", ["normal", "exponential", "lognormal"])
def test_the_interval_covers_the_true_median(draw: str) -> None:
    """In about 95 of 100 samples of 30; the percentile bootstrap of a median is known to be a little short or wide."""
    rng = np.random.default_rng(1)
    true = {"normal": 0.0, "exponential": np.log(2), "lognormal": 1.0}[draw]
    hits = 0
    for _ in range(300):
        low, high = figure(getattr(rng, draw)(size=30), "s").ci95 or (0.0, 0.0)
        hits += low <= true <= high
    assert 0.90 <= hits / 300 <= 0.99


def test_the_ratios_interval_covers_the_true_ratio() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = ratio(rng.normal(3.0, 0.3, 25), rng.normal(2.0, 0.2, 25)).ci95 or (0.0, 0.0)
        hits += low <= 1.5 <= high
    assert 0.90 <= hits / 200 <= 0.99
