"""Serial fractions that were put in are found again."""

from __future__ import annotations

import pytest

from scalelab.measure.amdahl import ONE_POINT, SLOWER, karp_flatt, serial_fraction, speedup
from scalelab.measure.statistics import figure
from scalelab.record.schema import Figure


def measured(value: float, low: float | None = None, high: float | None = None) -> Figure:
    ends = None if low is None or high is None else (low, high)
    return Figure(unit="ratio", median=value, n=5, ci95=ends)


@pytest.mark.parametrize("workers", [2, 4, 64])
@pytest.mark.parametrize("serial", [0.0, 0.05, 0.3, 1.0])
def test_karp_flatt_finds_the_serial_part(serial: float, workers: int) -> None:
    assert karp_flatt(measured(speedup(serial, workers)), workers).median == pytest.approx(serial, abs=1e-12)


def test_the_interval_is_turned_round() -> None:
    found = karp_flatt(measured(1.6, 1.5, 1.7), 2)
    assert found.ci95 == pytest.approx((2 / 1.7 - 1, 2 / 1.5 - 1))
    assert karp_flatt(measured(2.2, 2.1, 2.3), 2).ci95[1] < 0  # type: ignore[index]


def test_one_worker_has_no_serial_fraction() -> None:
    assert karp_flatt(measured(1.0), 1).reason == "of two workers or more"
    assert karp_flatt(figure([], "ratio", "it failed"), 2).reason == "it failed"


def test_a_law_that_holds_is_fitted_exactly() -> None:
    found = serial_fraction([(n, measured(speedup(0.1, n))) for n in (1, 2, 4, 8)])
    assert found.median == pytest.approx(0.1)
    assert found.n == 3  # one worker says nothing of it
    assert found.ci95 == pytest.approx((0.1, 0.1))


def test_a_law_that_does_not_hold_has_a_wide_interval() -> None:
    found = serial_fraction([(2, measured(1.8)), (4, measured(2.4)), (8, measured(2.0))])
    assert found.ci95 is not None
    assert found.ci95[0] < found.median < found.ci95[1]  # type: ignore[operator]
    assert found.ci95[1] - found.ci95[0] > 0.1


def test_one_number_of_workers_is_no_fit() -> None:
    found = serial_fraction([(2, measured(1.6, 1.5, 1.7))])
    assert (found.reason, found.n) == (ONE_POINT, 1)
    assert found.median == pytest.approx(0.25)
    assert serial_fraction([(1, measured(1.0))]).median is None


def test_more_workers_that_are_slower_have_no_serial_fraction() -> None:
    slow = measured(0.65, 0.6, 0.7)
    for found in (karp_flatt(slow, 2), serial_fraction([(2, slow)]), serial_fraction([(2, slow), (4, slow)])):
        assert (found.median, found.reason) == (None, SLOWER)
