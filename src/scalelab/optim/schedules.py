"""The learning rate of every step: a pure function of the step, so that a resumed run needs no state.

``step`` counts optimizer steps from 0 over the whole run; where the batch changes on the way, steps of the first batch, which may then be
fractions: what a schedule follows is the share of the epochs that has passed. Each function takes (spec, peak, step, steps_per_epoch,
total_steps) and gives a learning rate; ``learning_rate`` puts the warm-up before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scalelab.errors import unknown
from scalelab.spec import Spec

Schedule = Callable[[Spec, float, float, int, float], float]


def learning_rate(spec: Spec, peak: float, step: float, steps_per_epoch: int, total_steps: float) -> float:
    """The learning rate at ``step`` (0-based). Raises ScalelabError for an unknown schedule.

    A linear warm-up reaches ``peak`` on its last step (as Goyal et al. 2017, section 2.2, but from zero); one-cycle has its own rise and
    takes warmup_epochs as its length.
    """
    if spec.schedule not in SCHEDULES:
        raise unknown("schedule", spec.schedule, SCHEDULES)
    warmup = warmup_steps(spec, steps_per_epoch)
    if spec.schedule not in OWN_WARMUP and step < warmup:
        return peak * min(1.0, (step + 1) / warmup)  # a fraction of a step before its end, a whole one more is too much
    return SCHEDULES[spec.schedule](spec, peak, step, steps_per_epoch, total_steps)


def warmup_steps(spec: Spec, steps_per_epoch: int) -> int:
    """Optimizer steps of warm-up; a fraction of an epoch is rounded to whole steps."""
    return round(spec.warmup_epochs * steps_per_epoch)


def _constant(spec: Spec, peak: float, step: float, steps_per_epoch: int, total_steps: float) -> float:
    return peak


def _step(spec: Spec, peak: float, step: float, steps_per_epoch: int, total_steps: float) -> float:
    """Times ``step_gamma`` after every ``step_epochs`` epochs, counted from the start of the run."""
    return peak * float(spec.step_gamma ** (step // steps_per_epoch // spec.step_epochs))


def _cosine(spec: Spec, peak: float, step: float, steps_per_epoch: int, total_steps: float) -> float:
    """Half a cosine from ``lr`` at the end of the warm-up to 0 at ``total_steps`` (Loshchilov & Hutter 2017, no restarts)."""
    warmup = warmup_steps(spec, steps_per_epoch)
    return _anneal(peak, 0.0, (step - warmup) / max(1, total_steps - warmup))


def _one_cycle(spec: Spec, peak: float, step: float, steps_per_epoch: int, total_steps: float) -> float:
    """Smith 2018: up from lr/25 to lr in the first 30 % of the steps (or in warmup_epochs), down to lr/10⁴ at the last.

    Both ways follow half a cosine, as torch's OneCycleLR(anneal_strategy="cos", final_div_factor=400) does.
    """
    rise = (warmup_steps(spec, steps_per_epoch) or 0.3 * total_steps) - 1
    rise = min(rise, total_steps - 1)
    if step < rise:
        return _anneal(peak / 25, peak, step / rise)
    return _anneal(peak, peak / 1e4, (step - rise) / max(1, total_steps - 1 - rise))


def _anneal(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` (share 0) to ``end`` (share 1 and beyond)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2


SCHEDULES: dict[str, Schedule] = {"constant": _constant, "step": _step, "cosine": _cosine, "one-cycle": _one_cycle}
OWN_WARMUP = frozenset({"one-cycle"})
