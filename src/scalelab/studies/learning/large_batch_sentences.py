"""What ``large-batch`` answers in words: a difference only where its interval excludes 0, and what did not end is said."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.studies.figures import scaled
from scalelab.studies.learning.large_batch_compared import MARGIN, NONE, Compared, ended_badly, unlost, verdict
from scalelab.studies.learning.seeds import above, below


def points_of(figure: Figure) -> str:
    """A difference of accuracies in percentage points, with its interval: ``12.1 points (10.9 to 13.3)``."""
    if figure.median is None:
        return text.ABSENT
    value, *ends = (text.points(one) for one in (figure.median, *(figure.ci95 or ())))
    return f"{value} points" + (f" ({' to '.join(ends)})" if ends else "")


def accuracy_of(figure: Figure) -> str:
    """``68.1 % ± 0.4``; the standard deviation where there are several seeds."""
    if figure.median is None:
        return text.ABSENT
    return text.percent(figure.median) + (f" ± {100 * figure.mad:.1f}" if figure.mad is not None else "")


def answer(rows: Sequence[Compared], length: str) -> str:
    """The drop without a remedy, what is won back at the largest batch, and the largest batch that keeps the baseline's accuracy."""
    base, last = rows[0], max(row.tried.batch for row in rows)
    if base.accuracy.median is None:
        why = base.tried.result.refused or base.accuracy.reason
        return f"The baseline, batch {base.tried.batch} without a remedy, did not come to its end: {why}."
    worst = next(row for row in rows if (row.tried.batch, row.tried.remedy) == (last, NONE))
    said = f"After {length}, accuracy is {accuracy_of(base.accuracy)} with batch {base.tried.batch}"
    if last == base.tried.batch:
        return f"{said}; no larger batch was tried."
    said += _at_last(worst)
    if base.tried.failed:
        return f"{said} Of the baseline {ended_badly(base.tried)}, so nothing is compared with it."
    if base.accuracy.n == 1:
        return f"{said} {_one_seed(rows, last)}"
    return " ".join([said, *_won(rows, worst, last), _kept(rows, base)])


def _at_last(worst: Compared) -> str:
    """What became of the largest batch without a remedy."""
    tried = worst.tried
    if tried.result.refused:
        return f"; batch {tried.batch} without a remedy can't be trained here: {tried.result.refused}."
    if worst.accuracy.median is None:
        return f"; batch {tried.batch} without a remedy did not come to its end."
    partly = f", where {ended_badly(tried)}" if tried.failed else ""
    return f" and {accuracy_of(worst.accuracy)} with batch {tried.batch} without a remedy{partly}."


def _one_seed(rows: Sequence[Compared], last: int) -> str:
    best = max((row for row in rows if row.tried.batch == last), key=lambda row: row.accuracy.median or 0.0)
    found = f"The best there was {best.tried.remedy}, {accuracy_of(best.accuracy)}. " if best.accuracy.median is not None else ""
    return f"{found}That is one seed: no spread is known, so no difference is claimed; --seeds 3 gives one."


def _won(rows: Sequence[Compared], worst: Compared, last: int) -> list[str]:
    """What each remedy does at the largest batch, by its interval."""
    remedies = [row for row in rows if row.tried.batch == last and row.tried.remedy != NONE and not row.tried.same]
    if not remedies:
        return []
    if worst.to_baseline.median is None:
        told = text.listing([f"{row.tried.remedy} {_told(row)}" for row in remedies])
        return [f"What is won back there has no number; the remedies' accuracies are: {told}."]
    if not below(worst.to_baseline):
        shown = apart(remedies)
        return [f"That differs by {points_of(worst.to_baseline)}: {unlost(worst.to_baseline)}{f'; {shown}' if shown else ''}."]
    lost = f"Of the {points_of(scaled(worst.to_baseline, -1.0))} that are lost there"
    won = sorted((row for row in remedies if above(row.won_back)), key=lambda row: -(row.won_back.median or 0.0))
    said = [f"{row.tried.remedy} wins back {points_of(row.won_back)}" for row in won]
    kinds = {
        "{} nothing that could not be chance": [row for row in remedies if _undecided(row)],
        "with {} more is lost": [row for row in remedies if below(row.won_back)],
        "{} did not come to the end of every seed": [row for row in remedies if row.tried.failed],
        "{} can't be trained here": [row for row in remedies if row.tried.result.refused],
    }
    if not won:
        said = ["no remedy wins back any that could not be chance"]
        del kinds["{} nothing that could not be chance"]
    others = [what.format(text.listing([row.tried.remedy for row in found])) for what, found in kinds.items() if found]
    return ["; ".join([f"{lost}, {text.listing(said)}", *others]) + "."]


def _undecided(row: Compared) -> bool:
    return row.won_back.median is not None and not above(row.won_back) and not below(row.won_back)


def _kept(rows: Sequence[Compared], base: Compared) -> str:
    """The largest batch that keeps the accuracy, and the largest of which that is not decided."""
    larger = [row for row in rows if row.tried.batch > base.tried.batch]
    kept = _largest([row for row in larger if row.keeps])
    beyond = base.tried.batch if kept is None else kept.tried.batch
    doubtful = _largest([row for row in larger if row.undecided and row.tried.batch > beyond])
    within = f"the accuracy of batch {base.tried.batch} to within {100 * MARGIN:g} points"
    if kept is not None:
        said = f"The largest batch that keeps {within} is {_named(kept)}."
    else:
        said = f"No larger batch {'keeps' if doubtful is None else 'is shown to keep'} {within}."
    return said if doubtful is None else f"{said} Of {_named(doubtful)}, these seeds don't decide it."


def _largest(rows: Sequence[Compared]) -> Compared | None:
    """The row of the largest batch, of several the most accurate."""
    return max(rows, key=lambda row: (row.tried.batch, row.to_baseline.median or 0.0), default=None)


def _named(row: Compared) -> str:
    how = "without a remedy" if row.tried.remedy == NONE else f"with {row.tried.remedy}"
    return f"{row.tried.batch} {how}, {points_of(row.to_baseline)}"


def sentences(rows: Sequence[Compared], length: str) -> list[str]:
    """For each larger batch: what it loses, and what each remedy does; of the smallest what a remedy is shown to change."""
    first, *larger = sorted({row.tried.batch for row in rows})
    at_first = apart([row for row in rows if row.tried.batch == first])
    found = [f"Batch {first} after {length}: {at_first}."] if at_first else []
    for batch in larger:
        here = [row for row in rows if row.tried.batch == batch]
        plain = next(row for row in here if row.tried.remedy == NONE)
        said = f"Batch {batch} after {length}: {_told(plain)} without a remedy"
        others = [f"{row.tried.remedy} {_told(row)}" for row in here if row is not plain]
        found.append(
            "; ".join([said, *([text.listing(others)] if others else []), *([shown] if (shown := apart(here)) else [])]) + "."
        )
    return found


def apart(rows: Sequence[Compared]) -> str:
    """The remedies of one batch whose accuracy is shown to differ from that without one; empty where none is."""
    told = [
        f"{row.tried.remedy} is {points_of(row.won_back if above(row.won_back) else scaled(row.won_back, -1.0))} "
        f"{'above' if above(row.won_back) else 'below'} no remedy"
        for row in rows
        if above(row.won_back) or below(row.won_back)
    ]
    return text.listing(told) if told else ""


def _told(one: Compared) -> str:
    """A row's accuracy, and what may be said of it beside the baseline's where there are several seeds."""
    judged = "" if one.accuracy.n == 1 and not one.tried.failed else f" ({verdict(one)})"
    return accuracy_of(one.accuracy) + judged
