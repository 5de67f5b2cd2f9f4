"""What each parameter does to a metric by itself: the medians at its values, and the share of the spread that goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scalelab.measure.statistics import figure
from scalelab.record.schema import Figure
from scalelab.record.sweep import SweepRecord, TaskRecord
from scalelab.sweep.standing import OWN_METRICS, value
from scalelab.sweep.table import number

MOST_VALUES = 12
"""different numbers of a parameter that are shown one by one; more are taken together in bins of as many tasks each"""
BINS = 8
SPREAD = 30.0
"""ratio of the largest to the least value from which on a scale is logarithmic"""


@dataclass(frozen=True)
class Level:
    """A value of a parameter, or the middle of a bin, with the metric's figure over all tasks that have it."""

    at: str | float
    figure: Figure


@dataclass(frozen=True)
class Effect:
    """What one parameter does to a metric.

    ``tasks``: (value, metric) of each task. ``share``: that of the metric's variance which goes with this parameter alone (epsilon
    squared, Kelley 1935: corrected for the number of values); None where there are as many values as tasks.
    """

    name: str
    numeric: bool
    log: bool
    levels: list[Level]
    tasks: list[tuple[str | float, float]]
    share: float | None
    binned: bool = False


def effects(sweep: SweepRecord, records: Mapping[int, TaskRecord]) -> list[Effect]:
    """The effect of each parameter that has several values, on the sweep's goal, the largest share first."""
    known = [(record, goal) for record in records.values() if (goal := value(record, sweep.goal)) is not None]
    varied = [name for name in sweep.parameters if len({record.values[name] for record, _ in known}) > 1]
    found = [
        _effect(name, [(record.values[name], goal) for record, goal in known], OWN_METRICS.get(sweep.goal, "")) for name in varied
    ]
    return sorted(found, key=lambda one: -(one.share or 0.0))


def _effect(name: str, pairs: Sequence[tuple[str, float]], unit: str) -> Effect:
    numbers = [number(text) for text, _ in pairs]
    goals = [goal for _, goal in pairs]
    if any(one is None for one in numbers):
        places: list[str | float] = [text for text, _ in pairs]
        groups = _grouped(places, goals)
        return Effect(
            name, False, False, _levels(groups, unit), list(zip(places, goals, strict=True)), share(list(groups.values()))
        )
    at = [one for one in numbers if one is not None]
    binned = len(set(at)) > MOST_VALUES
    keys = _bins(at) if binned else at
    groups = _grouped(keys, goals)
    levels = sorted(_levels(groups, unit), key=lambda level: float(level.at))
    return Effect(name, True, logarithmic(at), levels, list(zip(at, goals, strict=True)), share(list(groups.values())), binned)


def _grouped(keys: Sequence[str | float], goals: Sequence[float]) -> dict[str | float, list[float]]:
    found: dict[str | float, list[float]] = {}
    for key, goal in zip(keys, goals, strict=True):
        found.setdefault(key, []).append(goal)
    return found


def _levels(groups: Mapping[str | float, list[float]], unit: str) -> list[Level]:
    return [Level(at, figure(goals, unit, least=2)) for at, goals in groups.items()]


def _bins(values: Sequence[float]) -> list[float]:
    """For each value the median of its bin; bins have as many values each."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values))
    for part in np.array_split(order, min(BINS, max(2, len(values) // 4))):
        found[part] = np.median(np.asarray(values)[part])
    return [float(one) for one in found]


def share(groups: Sequence[Sequence[float]]) -> float | None:
    """Epsilon squared: (between - (k - 1) × mean square within) / total, at least 0."""
    count, k = sum(map(len, groups)), len(groups)
    if count <= k or k < 2:
        return None
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in groups])
    total = float(((every - every.mean()) ** 2).sum())
    if total == 0:
        return None
    within = sum(float(((np.asarray(one) - np.mean(one)) ** 2).sum()) for one in groups)
    return max(0.0, (total - within - (k - 1) * within / (count - k)) / total)


def logarithmic(values: Sequence[float]) -> bool:
    """Whether a scale of these values is better a logarithmic one."""
    return min(values) > 0 and max(values) / min(values) >= SPREAD
