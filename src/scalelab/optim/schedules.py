"""The learning rate of every step: a pure function of the step, so that a resumed run needs no state.

``step`` counts optimizer steps from 0 over the whole run. Each function takes (spec, step, steps_per_epoch,
total_steps) after the warm-up was counted out, and gives a learning rate; ``learning_rate`` puts the warm-up before.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scalelab.errors import unknown
from scalelab.spec import Spec

Schedule = Callable[[Spec, int, int, int], float]


def learning_rate(spec: Spec, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """The learning rate at ``step`` (0-based). Raises ScalelabError for an unknown schedule.

    A linear warm-up reaches ``spec.lr`` on its last step; one-cycle has its own rise and takes warmup_epochs as its length.
    """
    if spec.schedule not in SCHEDULES:
        raise unknown("schedule", spec.schedule, SCHEDULES)
    warmup = warmup_steps(spec, steps_per_epoch)
    if spec.schedule not in OWN_WARMUP and step < warmup:
        return spec.lr * (step + 1) / warmup
    return SCHEDULES[spec.schedule](spec, step, steps_per_epoch, total_steps)


def warmup_steps(spec: Spec, steps_per_epoch: int) -> int:
    """Optimizer steps of warm-up; a fraction of an epoch is rounded to whole steps."""
    return round(spec.warmup_epochs * steps_per_epoch)


def _constant(spec: Spec, step: int, steps_per_epoch: int, total_steps: int) -> float:
    return spec.lr


def _step(spec: Spec, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Times ``step_gamma`` after every ``step_epochs`` epochs, counted from the start of the run."""
    return spec.lr * float(spec.step_gamma ** (step // steps_per_epoch // spec.step_epochs))


def _cosine(spec: Spec, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Half a cosine from ``lr`` at the end of the warm-up to 0 at ``total_steps`` (Loshchilov & Hutter 2017, no restarts)."""
    warmup = warmup_steps(spec, steps_per_epoch)
    return _anneal(spec.lr, 0.0, (step - warmup) / max(1, total_steps - warmup))


def _one_cycle(spec: Spec, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Smith 2018: up from lr/25 to lr in the first 30 % of the steps (or in warmup_epochs), down to lr/10⁴ at the last.

    Both ways follow half a cosine, as torch's OneCycleLR(anneal_strategy="cos", final_div_factor=400) does.
    """
    rise = (warmup_steps(spec, steps_per_epoch) or 0.3 * total_steps) - 1
    rise = min(rise, total_steps - 1)
    if step < rise:
        return _anneal(spec.lr / 25, spec.lr, step / rise)
    return _anneal(spec.lr, spec.lr / 1e4, (step - rise) / max(1, total_steps - 1 - rise))


def _anneal(start: float, end: float, share: float) -> float:
    """Half a cosine from ``start`` (share 0) to ``end`` (share 1 and beyond)."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, share)))) / 2


SCHEDULES: dict[str, Schedule] = {"constant": _constant, "step": _step, "cosine": _cosine, "one-cycle": _one_cycle}
OWN_WARMUP = frozenset({"one-cycle"})
