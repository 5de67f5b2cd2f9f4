"""Curves with few points: what the eye can tell apart at the figure's width, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scalelab.record.schema import Step


@dataclass(frozen=True)
class Curve:
    """Loss of one run: the points to draw as it is (``steps``, ``seconds``, ``loss``), and those of its moving mean (``smooth_…``).

    Equal lengths within each of the two.
    """

    steps: list[int]
    seconds: list[float]
    loss: list[float]
    smooth_steps: list[int]
    smooth_seconds: list[float]
    smooth_loss: list[float]
    window: int
    """steps in the moving mean; 1 when the curve is too short to smooth"""


def loss_curve(steps: Sequence[Step], points: int) -> Curve:
    """The loss of ``steps`` against step and training seconds, at most about ``points`` points a line.

    The raw line keeps each stretch's lowest and highest loss, so a spike stays visible.
    """
    clock = np.cumsum([step.seconds for step in steps]).tolist()
    losses = np.array([step.loss for step in steps])
    kept = extremes(losses, points)
    window = max(1, len(steps) // 40)
    smooth = moving_mean(losses, window)
    even = sorted(set(np.linspace(0, len(steps) - 1, min(points, len(steps))).round().astype(int).tolist())) if steps else []
    return Curve(
        steps=[steps[i].step for i in kept],
        seconds=[clock[i] for i in kept],
        loss=[float(losses[i]) for i in kept],
        smooth_steps=[steps[i].step for i in even],
        smooth_seconds=[clock[i] for i in even],
        smooth_loss=[float(smooth[i]) for i in even],
        window=window,
    )


def extremes(values: np.ndarray, points: int) -> list[int]:
    """Indices of the lowest and highest of each of ``points / 2`` stretches, in order, with both ends; all when few."""
    if len(values) <= points:
        return list(range(len(values)))
    kept = {0, len(values) - 1}
    for stretch in np.array_split(np.arange(len(values)), max(1, points // 2 - 1)):
        kept |= {int(stretch[values[stretch].argmin()]), int(stretch[values[stretch].argmax()])}
    return sorted(kept)


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over ``window`` neighbours, fewer at the ends; same length as ``values``."""
    if window <= 1 or len(values) == 0:
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low = np.maximum(place - window // 2, 0)
    high = np.minimum(place + (window + 1) // 2, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))
