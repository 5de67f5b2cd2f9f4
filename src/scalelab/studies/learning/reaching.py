"""How long trainings take to a target accuracy, where some of them never reach it: those are counted, and bound what is known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from scalelab.batch import Derived
from scalelab.measure.statistics import repeated
from scalelab.record.schema import Epoch, Figure, TrainRecord
from scalelab.studies.study import Run

Cost = Callable[[TrainRecord, Sequence[Epoch]], float]


def _batch(derived: Derived, epoch: int) -> int:
    """The global batch of ``epoch`` (from 1)."""
    return next((part.batch for part in reversed(derived.segments) if part.epoch < epoch), derived.batch)


COSTS: dict[str, tuple[Cost, str]] = {
    "epochs": (lambda record, epochs: float(len(epochs)), "epochs"),
    "images": (lambda record, epochs: float(sum(e.steps * _batch(record.derived, e.epoch) for e in epochs)), "images"),
    "seconds": (lambda record, epochs: sum(e.seconds for e in epochs), "s"),
}
"""what a target costs, of the epochs that it took: training only, without evaluation; and the unit"""


COUNTED = ("epochs", "images")
"""costs that are counted in whole epochs"""
COARSE = "seeds took the same whole epochs: too coarse for an interval"


@dataclass(frozen=True)
class Time:
    """What one training took, to the target if it ``reached`` it, else to its end: then the target costs more than that."""

    value: float
    reached: bool


def time_of(run: Run, target: float, cost: Cost) -> Time:
    """Of one run. It reached the target with the first epoch whose test accuracy is not below it."""
    epochs = run.record.epochs
    count = next((place for place, epoch in enumerate(epochs, 1) if epoch.accuracy >= target), None)
    return Time(cost(run.record, epochs[:count]), count is not None)


def one_epoch(runs: Sequence[Run], cost: Cost) -> float:
    """What the cheapest first epoch of some runs took: nothing counted in whole epochs can be less. 0 where none had one."""
    return min((cost(run.record, run.record.epochs[:1]) for run in runs if run.record.epochs), default=0.0)


def median(times: Sequence[Time], unit: str, whole: float = 0.0) -> Figure:
    """The median over all runs; one that never reached the target counts as longer than all that did.

    Nothing is assumed of when it would have, as a survival curve (Kaplan & Meier 1958) does: its runs leave by chance, these because they
    learn too slowly or diverge. Where all reached the target, with the interval of ``repeated``. Where the middle one never did, it is
    absent, and the reason bounds it: each run takes at least as long as it trained.

    ``whole``: what one epoch takes, where costs are counted in whole epochs: no interval begins below it, and the same count in all runs
    has none, for whole epochs are too coarse to show their spread.
    """
    reached, n = sum(time.reached for time in times), len(times)
    if not times:
        return Figure(unit=unit, reason="no training of this point was started")
    if reached == n:
        found = repeated([time.value for time in times], unit)
        return _counted(found, whole) if whole and found.ci95 else found
    told = f"{reached} of {n} trainings reached the target"
    middle = statistics.median(time.value if time.reached else math.inf for time in times)
    if math.isinf(middle):
        least = statistics.median(time.value for time in times)
        return Figure(unit=unit, reason=f"{told}: the median is more than {least:,.4g} {unit}")
    return Figure(unit=unit, median=middle, n=n, reason=f"{told}: the others count as longer, so there is no interval")


def _counted(found: Figure, whole: float) -> Figure:
    """The interval of a count of whole epochs."""
    if coarse(found):
        return msgspec.structs.replace(found, mad=None, ci95=None, reason=COARSE)
    low, high = found.ci95 or (whole, whole)
    return msgspec.structs.replace(found, ci95=(max(whole, low), high))


def coarse(found: Figure) -> bool:
    """Whether an interval has no width (but for rounding), since the same whole epochs were counted again and again."""
    return found.ci95 is not None and math.isclose(*found.ci95, rel_tol=1e-9)
