"""Schedules against torch's own, step by step, and their warm-up."""

from __future__ import annotations

import re

import pytest
import torch
from torch.optim import lr_scheduler

from scalelab.errors import ScalelabError
from scalelab.optim.schedules import SCHEDULES, learning_rate
from scalelab.spec import Spec

PER_EPOCH, EPOCHS = 13, 9
TOTAL = PER_EPOCH * EPOCHS
LR = 0.4


def ours(**settings: object) -> list[float]:
    spec = Spec(lr=LR, epochs=EPOCHS, **settings)
    return [learning_rate(spec, spec.lr, step, PER_EPOCH, TOTAL) for step in range(TOTAL)]


def torchs(make, steps: int = TOTAL, every: int = 1) -> list[float]:
    """The rates of torch's scheduler, which is stepped after every ``every`` optimizer steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=LR)
    scheduler = make(optimizer)
    rates = []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0 and step + 1 < steps:
            scheduler.step()
    return rates


def test_constant():
    assert ours(schedule="constant") == [LR] * TOTAL


@pytest.mark.parametrize(("epochs", "gamma"), [(1, 0.5), (2, 0.1), (30, 0.1)])
def test_step_is_torchs(epochs, gamma):
    expected = torchs(lambda o: lr_scheduler.StepLR(o, epochs, gamma), every=PER_EPOCH)
    assert ours(schedule="step", step_epochs=epochs, step_gamma=gamma) == pytest.approx(expected, rel=1e-12)


def test_cosine_is_torchs():
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL))
    assert ours(schedule="cosine") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup_epochs", [1, 2.5])
def test_cosine_after_a_warm_up_is_torchs_over_the_rest(warmup_epochs):
    rates = ours(schedule="cosine", warmup_epochs=warmup_epochs)
    warm = round(warmup_epochs * PER_EPOCH)
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL - warm), TOTAL - warm)
    assert rates[warm:] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup_epochs", [0, 1, 4])
def test_one_cycle_is_torchs(warmup_epochs):
    share = warmup_epochs / EPOCHS or 0.3
    expected = torchs(lambda o: lr_scheduler.OneCycleLR(o, LR, TOTAL, pct_start=share, final_div_factor=400))
    rates = ours(schedule="one-cycle", warmup_epochs=warmup_epochs)
    assert rates == pytest.approx(expected, rel=1e-9)
    assert rates[0] == pytest.approx(LR / 25)
    assert rates[-1] == pytest.approx(LR / 1e4)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "one-cycle"])
def test_the_warm_up_rises_in_a_line_and_ends_at_the_peak(name):
    rates = ours(schedule=name, warmup_epochs=2)
    warm = 2 * PER_EPOCH
    assert rates[:warm] == pytest.approx([LR * (step + 1) / warm for step in range(warm)])
    assert max(rates) == pytest.approx(LR)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 5, TOTAL])
@pytest.mark.parametrize("warmup_epochs", [0, 0.01, 1, 100])
def test_every_rate_lies_between_0_and_the_peak(name, total, warmup_epochs):
    spec = Spec(lr=LR, schedule=name, warmup_epochs=warmup_epochs)
    rates = [learning_rate(spec, spec.lr, step, PER_EPOCH, total) for step in range(total)]
    assert all(0 < rate <= LR * (1 + 1e-12) for rate in rates)


def test_an_unknown_schedule_is_answered_with_the_list():
    expected = "unknown schedule 'cosin' (did you mean 'cosine'?); valid: constant, step, cosine, one-cycle"
    with pytest.raises(ScalelabError, match=re.escape(expected)):
        learning_rate(Spec(schedule="cosin"), 0.1, 0, 1, 1)
