"""Thinned curves keep what an eye would see."""

from __future__ import annotations

import numpy as np
import pytest

from scalelab.report.series import extremes, loss_curve, moving_mean
from tests.report import samples


def test_a_spike_survives_thinning() -> None:
    values = np.ones(10_000)
    values[7_777] = 50
    kept = extremes(values, 100)
    assert 7_777 in kept
    assert len(kept) <= 100


def test_few_points_are_all_kept() -> None:
    assert extremes(np.arange(20.0), 100) == list(range(20))


def test_the_moving_mean_is_centred_and_keeps_a_constant() -> None:
    assert moving_mean(np.full(9, 3.0), 4) == pytest.approx(np.full(9, 3.0))
    assert moving_mean(np.arange(9.0), 3)[4] == pytest.approx(4.0)


def test_seconds_count_every_step_also_those_not_drawn() -> None:
    steps = samples.steps_of(8, 0, count=1000)
    curve = loss_curve(steps, 50)
    assert curve.seconds[-1] == pytest.approx(sum(step.seconds for step in steps))
    assert len(curve.smooth_loss) == 50


def test_no_steps_give_no_curve() -> None:
    assert loss_curve([], 100).loss == []
