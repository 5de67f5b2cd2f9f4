"""Medians, spreads and intervals, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from scalelab.measure.statistics import absent, blocks, difference, figure, quotient, ratio, repeated, resolution, widest


def test_median_and_scaled_mad() -> None:
    found = figure([1.0, 2.0, 4.0, 8.0, 100.0], "s")
    assert (found.median, found.n, found.unit) == (4.0, 5, "s")
    assert found.mad == pytest.approx(1.4826 * 3.0)  # deviations 3 2 0 4 96


def test_the_interval_of_three_values_is_students() -> None:
    """By hand, on logarithms: mean (ln 1 + ln 2 + ln 4) / 3 = ln 2, deviation ln 2, times 4.303 / √3."""
    low, high = figure([4.0, 1.0, 2.0], "s").ci95 or (0.0, 0.0)
    assert (low, high) == (
        pytest.approx(2 ** (1 - 4.3027 / 3**0.5), rel=1e-3),
        pytest.approx(2 ** (1 + 4.3027 / 3**0.5), rel=1e-3),
    )


def test_a_few_values_on_both_sides_of_zero_have_one_too() -> None:
    low, high = figure([-1.0, 0.0, 1.0], "s").ci95 or (0.0, 0.0)
    assert (low, high) == (pytest.approx(-4.3027 / 3**0.5, rel=1e-3), pytest.approx(4.3027 / 3**0.5, rel=1e-3))


def test_two_repeats_have_a_wide_interval_and_one_has_none() -> None:
    low, high = repeated([1.0, np.e], "s").ci95 or (0.0, 0.0)
    assert np.log(high) - np.log(low) == pytest.approx(2 * 12.706 / 2, rel=1e-3)
    assert repeated([1.0], "s").ci95 is None
    assert figure([1.0, 2.0], "s").ci95 is None


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8])
def test_the_interval_of_a_few_values_covers_the_true_median(count: int) -> None:
    """In at least 90 of 100 samples: the bootstrap alone would in 75, for three values."""
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(400):
        low, high = figure(list(rng.lognormal(0.0, 0.1, count)), "s").ci95 or (0.0, 0.0)
        hits += low <= 1.0 <= high
    assert 0.90 <= hits / 400 <= 0.98


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
    assert found.ci95 == quotient(figure([2.0, 4.0, 6.0], "x"), figure([1.0, 2.0, 4.0], "x")).ci95
    assert ratio([2.0, 4.0], [1.0]).median == 3.0
    assert ratio([2.0, 4.0], [1.0]).ci95 is None
    assert ratio([], [1.0]).median is None


def test_difference_of_medians() -> None:
    found = difference([5.0, 6.0, 7.0], [1.0, 1.0, 1.0], "s")
    assert (found.median, found.unit, found.ci95) == (5.0, "s", tuple(v - 1 for v in figure([5.0, 6.0, 7.0], "s").ci95 or ()))
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


@pytest.mark.parametrize(("count", "q"), [(2, 2.772), (3, 3.314), (5, 3.858), (10, 4.474), (20, 5.012)])
def test_the_range_of_several_is_the_tables(count: int, q: float) -> None:
    """Tukey's studentized range, 5 %, infinitely many degrees of freedom: as statistical tables print it."""
    assert widest(count) == pytest.approx(q, abs=0.002)


def test_what_a_test_set_can_tell_apart() -> None:
    assert resolution(0.5, 10_000) == pytest.approx(1.96 * (2 * 0.25 / 10_000) ** 0.5, rel=1e-3)
    assert resolution(0.5, 10_000, 10) == pytest.approx(4.474 * 0.005, rel=1e-3)
    assert resolution(0.5, 0) == 0
