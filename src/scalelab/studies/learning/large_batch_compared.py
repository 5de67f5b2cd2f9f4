"""Batches with remedies beside each other: differences between means over seeds, and what may be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scalelab.record.schema import Figure
from scalelab.studies.learning.seeds import above, below, mean, share_of, welch
from scalelab.studies.study import Result

NONE = "none"
BASELINE = "the baseline itself"
MARGIN = 0.02
"""of accuracy that may be lost where it is said to be kept: nothing shown to be lost is not enough, with few seeds anything passes"""
SAME = "the same training as without a remedy: here it changes nothing"


@dataclass(frozen=True)
class Tried:
    """A batch with a remedy and what came of it; ``steps`` None: trained for the epochs."""

    batch: int
    remedy: str
    steps: int | None
    result: Result
    same: bool = False
    """whether its training is that without a remedy"""

    @property
    def accuracies(self) -> list[float]:
        """On the test set at the end of each completed training, one a seed."""
        return [run.record.accuracy for run in self.result.completed if run.record.accuracy is not None]

    @property
    def failed(self) -> int:
        """Trainings that did not come to their end: most often because the loss became infinite."""
        return len(self.result.runs) - len(self.result.completed)


@dataclass(frozen=True)
class Compared:
    """A row of the table, with its differences from the baseline and from ``none`` at the same batch."""

    tried: Tried
    accuracy: Figure
    to_baseline: Figure
    won_back: Figure
    recovered: Figure

    @property
    def keeps(self) -> bool:
        """Whether the baseline's accuracy is kept: its interval leaves no loss of more than ``MARGIN`` (a test of non-inferiority)."""
        return self.to_baseline.ci95 is not None and self.to_baseline.ci95[0] >= -MARGIN

    @property
    def judged(self) -> list[Figure]:
        """Its differences that have an interval; at the baseline's own batch both are one."""
        return list({one.ci95: one for one in (self.to_baseline, self.won_back) if one.ci95 is not None}.values())

    @property
    def undecided(self) -> bool:
        """Whether it may have lost nothing, or more than ``MARGIN``."""
        return self.to_baseline.ci95 is not None and not self.keeps and not below(self.to_baseline)


def compare(tried: Sequence[Tried]) -> list[Compared]:
    """Trainings of one length, each against ``none`` at its own and at the smallest batch."""
    base = min(tried, key=lambda one: (one.batch, one.remedy != NONE))
    return [_compared(one, next(t for t in tried if (t.batch, t.remedy) == (one.batch, NONE)), base) for one in tried]


def _compared(one: Tried, plain: Tried, base: Tried) -> Compared:
    to_baseline, won = _difference(one, base), _difference(one, plain)
    if one is base or (one.same and one.batch == base.batch):
        to_baseline = Figure(unit="accuracy", reason=BASELINE)
    if one.remedy == NONE or one.same:
        won = Figure(unit="accuracy", reason=SAME if one.same else "the row that the others are measured against")
    why = _no_share(won, _difference(plain, base), plain is base)
    recovered = Figure(unit="ratio", reason=why) if why else share_of(one.accuracies, plain.accuracies, base.accuracies)
    return Compared(one, mean(one.accuracies, "accuracy"), to_baseline, won, recovered)


def _no_share(won: Figure, drop: Figure, at_base: bool) -> str | None:
    """Why there is no share of a loss that was won back; None where there is one."""
    if won.median is None:
        return won.reason
    if at_base:
        return "the baseline's own batch"
    return None if below(drop) else drop.reason or f"{unlost(drop)} without a remedy"


def unlost(drop: Figure) -> str:
    """What is known where no loss of accuracy is shown: that is no sign yet that there is none."""
    if drop.ci95 is None:
        return "one seed shows no loss"
    if above(drop):
        return "nothing is lost there"
    if drop.ci95[0] >= -MARGIN:
        return f"no more than {100 * MARGIN:g} points are lost there"
    return "these seeds don't decide whether anything is lost there"


def _difference(one: Tried, other: Tried) -> Figure:
    """Of two means. Absent unless all seeds of both came to their end: those that did are the better ones, no fair sample."""
    for tried in (one, other):
        if tried.failed:
            return Figure(unit="accuracy", reason=f"batch {tried.batch}, {tried.remedy}: {ended_badly(tried)}")
    return welch(one.accuracies, other.accuracies, "accuracy")


def ended_badly(tried: Tried) -> str:
    """``1 of 3 trainings did not come to their end``."""
    return f"{tried.failed} of {len(tried.result.runs)} trainings did not come to their end"


def verdict(one: Compared) -> str:
    """What may be said of a row, in a word or two."""
    if one.accuracy.median is None:
        return "not completed"
    if one.tried.failed:
        return "not all seeds completed"
    if one.to_baseline.reason == BASELINE:
        return "the baseline"
    if one.to_baseline.median is None:
        return "not all seeds of the baseline completed"
    if one.to_baseline.ci95 is None:
        return "one seed: not known"
    if below(one.to_baseline):
        return "lower"
    return "higher" if above(one.to_baseline) else "kept" if one.keeps else "not decided"
