"""From the trainings of a point to its figures, and from two points to their ratio: the same in every study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from scalelab.measure.statistics import absent, quotient, repeated
from scalelab.record.schema import Figure, TrainRecord
from scalelab.record.study import Row
from scalelab.studies.running.ceiling import achieved
from scalelab.studies.study import Result, Run

Read = Callable[[TrainRecord], Figure]
Status = Literal["completed", "partly", "failed", "refused"]
ONE = "one training: the interval is of blocks of 10 steps within it, not of repeats"
SINGLE = "In these single trainings, "
UNPAIRED = "fewer than two repeats were completed by this point and by its base: the two are not paired"

READ: dict[str, Read] = {
    "images_per_second": lambda record: record.images_per_second,
    "step_seconds": lambda record: record.step_seconds,
    "compute_seconds": lambda record: record.compute_seconds,
    "data_wait_seconds": lambda record: record.data_wait_seconds,
    "total": lambda record: record.communication_seconds.total,
    "exposed": lambda record: record.communication_seconds.exposed,
    "hidden": lambda record: record.communication_seconds.hidden,
    "bytes_sent": lambda record: record.bytes_sent,
    "peak_memory": lambda record: record.memory_bytes.peak,
}
"""the figures that every training has, by the name they have in rows"""


def pooled(result: Result, read: Read) -> Figure:
    """A figure over the repeats of a point. Of one training: its own; of several: their medians, the repeat being the unit."""
    return over_runs(result, lambda run: read(run.record))


def share_of_ceiling(result: Result) -> Figure:
    """What the trainings of a point get out of their hosts: the share of these hosts' measured ceilings, over the repeats."""
    return over_runs(result, lambda run: achieved(run.record, run.ceilings), doubted=True)


def over_runs(result: Result, read: Callable[[Run], Figure], doubted: bool = False) -> Figure:
    """``pooled`` for a figure that needs more of a training than its record, such as a file in its folder.

    ``doubted``: the reasons of present figures are about their values, not their intervals, and so hold of the repeats' median too.
    """
    found = [read(run) for run in result.completed]
    known = [figure for figure in found if figure.median is not None]
    if not known:
        return absent(*_unit(result, found))
    if len(known) > 1:
        over = repeated([figure.median for figure in known if figure.median is not None], known[0].unit)
        return msgspec.structs.replace(over, reason=_doubt(known)) if doubted else over
    if len(result.runs) == 1 or known[0].reason:
        return known[0]
    left = f"of {len(result.runs)} trainings one has this figure: the interval is of blocks within it, not of repeats"
    return msgspec.structs.replace(known[0], reason=left)


def _doubt(known: Sequence[Figure]) -> str | None:
    """What is to be known of some of the values, and of how many."""
    reasons = [figure.reason for figure in known if figure.reason]
    if len(reasons) in (0, len(known)):
        return reasons[0] if reasons else None
    return f"of {len(reasons)} of {len(known)} trainings: {reasons[0]}"


def versus(result: Result, base: Result, read: Read) -> Figure:
    """The ratio of a point's figure to another's, paired by repeat (they ran interleaved: what drifts, drifts in both).

    Of one training each: the quotient of their figures, with the interval that their blocks give, and a reason that says so. Where
    fewer than two repeats were completed by both: the quotient of what there is, which is said too.
    """
    return runs_versus(result, base, lambda run: read(run.record))


def runs_versus(result: Result, base: Result, read: Callable[[Run], Figure]) -> Figure:
    """``versus`` for a figure that needs more of a training than its record, such as a file in its folder."""
    pairs = _pairs(result, base, read)
    if len(pairs) >= 2:
        return repeated([a / b for a, b in pairs], "ratio")
    ratio = quotient(over_runs(result, read), over_runs(base, read))
    if ratio.median is None or ratio.reason:
        return ratio
    return msgspec.structs.replace(ratio, reason=ONE if len(result.completed) == len(base.completed) == 1 else UNPAIRED)


def _pairs(result: Result, base: Result, read: Callable[[Run], Figure]) -> list[tuple[float, float]]:
    others = {run.repeat: read(run).median for run in base.completed}
    mine = ((read(run).median, others.get(run.repeat)) for run in result.completed)
    return [(a, b) for a, b in mine if a is not None and b]


def once(*results: Result) -> bool:
    """Whether any of them was completed once only: its interval, of blocks of its steps, knows nothing of another training."""
    return any(len(result.completed) == 1 for result in results)


def told(sentence: str, *results: Result) -> str:
    """``sentence``, which compares ``results``, as one about these trainings and no others where ``once`` says so."""
    if not sentence or not once(*results):
        return sentence
    if sentence.startswith(tuple(host for one in results for host in one.point.hosts)):
        return f"{SINGLE}{sentence}"
    return f"{SINGLE}{sentence[0].lower()}{sentence[1:]}"


def said_once(answer: str, sentences: Sequence[str], names: Sequence[str]) -> list[str]:
    """``sentences`` of a study in which all trainings are single ones: that is said by the first of them, or by ``answer`` before them.

    ``names``, of strategies and the like, stay as they are written where a sentence begins with one.
    """
    found, said = [], SINGLE in answer
    for one in sentences:
        rest = one.removeprefix(SINGLE)
        named = any(rest.startswith(name) for name in names if name)
        found.append(one if rest == one or not said else rest if named else rest[0].upper() + rest[1:])
        said = said or rest != one
    return found


def _unit(result: Result, figures: Sequence[Figure]) -> tuple[str, str]:
    """The figure's unit, and why no training has it."""
    if result.refused is not None:
        return "", result.refused
    failures = [f"the training failed: {run.record.failure.error}" for run in result.runs if run.record.failure is not None]
    reasons = [*(figure.reason for figure in figures if figure.reason), *failures]
    return (figures[0].unit if figures else ""), (reasons[0] if reasons else "no training of this point was completed")


def scaled(figure: Figure, factor: float, unit: str | None = None) -> Figure:
    """``figure`` times a constant, its spread and interval too."""
    if figure.median is None:
        return msgspec.structs.replace(figure, unit=unit or figure.unit)
    return msgspec.structs.replace(
        figure,
        unit=unit or figure.unit,
        median=figure.median * factor,
        mad=None if figure.mad is None else figure.mad * abs(factor),
        ci95=None if figure.ci95 is None else tuple(sorted((figure.ci95[0] * factor, figure.ci95[1] * factor))),
    )


def of(results: Sequence[Result], **factors: object) -> Result | None:
    """The result whose factors are these, or None."""
    return next((r for r in results if all(r.point.factors.get(name) == value for name, value in factors.items())), None)


def row(result: Result, figures: dict[str, Figure], marks: Sequence[str] = ()) -> Row:
    """A point as a row of a table, whatever became of it."""
    done, tried = len(result.completed), len(result.runs)
    failures = [run.record.failure.error for run in result.runs if run.record.failure is not None]
    status: Status = "refused" if result.refused else "failed" if not done else "partly" if done < tried else "completed"
    return Row(
        label=result.point.label, factors=result.point.factors, figures=figures, status=status,
        reason=result.refused or (failures[0] if failures else None), marks=list(marks), runs=[run.folder.name for run in result.runs],
    )  # fmt: skip
