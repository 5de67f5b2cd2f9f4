"""What the trainings of ``large-batch`` show: differences between means over seeds, called so only where their interval excludes 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Column, Findings, Plot, Row, Series, Table
from scalelab.studies import figures
from scalelab.studies.remedies import REMEDIES
from scalelab.studies.seeds import ONE, above, below, mean, welch
from scalelab.studies.study import Result

NONE = "none"
SAME = "the same training as without a remedy: at this batch there is nothing to scale"


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
        """Whether the baseline's accuracy is kept: every seed came to its end, and the difference's interval is not below 0."""
        whole = not self.tried.failed and self.to_baseline.ci95 is not None
        return whole and not below(self.to_baseline)


def compare(tried: Sequence[Tried]) -> list[Compared]:
    """Trainings of one length, each against ``none`` at its own and at the smallest batch."""
    base = min(tried, key=lambda one: (one.batch, one.remedy != NONE))
    return [_compared(one, next(t for t in tried if (t.batch, t.remedy) == (one.batch, NONE)), base) for one in tried]


def _compared(one: Tried, plain: Tried, base: Tried) -> Compared:
    to_baseline = welch(one.accuracies, base.accuracies, "accuracy")
    won = welch(one.accuracies, plain.accuracies, "accuracy")
    if one is base:
        to_baseline = Figure(unit="accuracy", reason="the baseline itself")
    if one.remedy == NONE or one.same:
        won = Figure(unit="accuracy", reason=SAME if one.same else "the row that the others are measured against")
    drop = welch(plain.accuracies, base.accuracies, "accuracy")
    return Compared(one, mean(one.accuracies, "accuracy"), to_baseline, won, _recovered(won, drop, plain is base))


def _recovered(won: Figure, drop: Figure, at_base: bool) -> Figure:
    """What was won back as a share of what was lost; the interval is that of what was won, the loss taken as it was measured."""
    if won.median is None:
        return Figure(unit="ratio", reason=won.reason)
    if at_base or drop.median is None or not below(drop):
        why = "the baseline's own batch" if at_base else drop.reason or "this batch loses nothing that could not be chance"
        return Figure(unit="ratio", reason=why)
    lost = -drop.median
    ends = None if won.ci95 is None else (won.ci95[0] / lost, won.ci95[1] / lost)
    return Figure(unit="ratio", median=won.median / lost, n=won.n, ci95=ends)


COLUMNS = [
    Column(key="batch", title="Batch", show="count"),
    Column(key="remedy", title="Remedy", show="text"),
    Column(key="mean_accuracy", title="Accuracy", sub="mean over seeds", show="percent"),
    Column(key="std_accuracy", title="±", sub="standard deviation", show="percent"),
    Column(key="to_baseline", title="To the baseline", sub="points", show="percent"),
    Column(key="won_back", title="Won back", sub="points over none", show="percent"),
    Column(key="recovered", title="Recovered", sub="of what none lost", show="percent"),
    Column(key="verdict", title="Against the baseline", show="text"),
    Column(key="seconds", title="Time", sub="a training", show="seconds"),
]


def table(name: str, title: str, caption: str, rows: Sequence[Compared]) -> Table:
    """All that was compared, a row each."""
    return Table(id=name, title=title, caption=caption, columns=COLUMNS, rows=[_row(one) for one in rows])


def _row(one: Compared) -> Row:
    tried, refused = one.tried, one.tried.result.refused
    found = {name: msgspec.structs.replace(f, reason=refused) if refused else f for name, f in _figures(one).items()}
    made = figures.row(tried.result, found, [SAME] if tried.same else [])
    failed = [f"{tried.failed} of {len(tried.result.runs)} trainings did not come to their end"] if tried.failed else []
    factors = {"batch": tried.batch, "remedy": tried.remedy, "verdict": _verdict(one)}
    return msgspec.structs.replace(
        made, label=f"batch {tried.batch}, {tried.remedy}", factors=factors, marks=[*made.marks, *failed]
    )


def _figures(one: Compared) -> dict[str, Figure]:
    spread = one.accuracy.mad
    why = one.accuracy.reason or ONE
    return {
        "mean_accuracy": msgspec.structs.replace(one.accuracy, reason=one.accuracy.reason or "the mean, with Student's interval"),
        "std_accuracy": Figure(unit="accuracy", reason=why) if spread is None else
        Figure(unit="accuracy", median=spread, n=one.accuracy.n),
        "to_baseline": one.to_baseline, "won_back": one.won_back, "recovered": one.recovered,
        "seconds": figures.over_runs(one.tried.result, lambda run: Figure(unit="s", median=run.record.seconds, n=1)),
    }  # fmt: skip


def _verdict(one: Compared) -> str:
    """What may be said of a row, in a word or two."""
    if one.accuracy.median is None:
        return "not completed"
    if one.tried.failed:
        return "not all seeds completed"
    if one.to_baseline.median is None:
        return "the baseline"
    if one.to_baseline.ci95 is None:
        return "one seed: not known"
    return "lower" if below(one.to_baseline) else "higher" if above(one.to_baseline) else "may be the same"


def points_of(figure: Figure) -> str:
    """A difference of accuracies in percentage points, with its interval: ``12.1 points (10.9 to 13.3)``."""
    if figure.median is None:
        return text.ABSENT
    ends = "" if figure.ci95 is None else f" ({100 * figure.ci95[0]:.1f} to {100 * figure.ci95[1]:.1f})"
    return f"{100 * figure.median:.1f} points{ends}"


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
    said += (
        f" and {accuracy_of(worst.accuracy)} with batch {last} without a remedy."
        if worst.accuracy.median is not None
        else f"; batch {last} without a remedy did not come to its end."
    )
    if base.accuracy.n == 1:
        return f"{said} {_one_seed(rows, last)}"
    return " ".join([said, *_won(rows, worst, last), _kept(rows, base)])


def _one_seed(rows: Sequence[Compared], last: int) -> str:
    best = max((row for row in rows if row.tried.batch == last), key=lambda row: row.accuracy.median or 0.0)
    found = f"The best there was {best.tried.remedy}, {accuracy_of(best.accuracy)}. " if best.accuracy.median is not None else ""
    return f"{found}That is one seed: no spread is known, so no difference is claimed; --seeds 3 gives one."


def _won(rows: Sequence[Compared], worst: Compared, last: int) -> list[str]:
    remedies = [row for row in rows if row.tried.batch == last and row.tried.remedy != NONE]
    if not remedies:
        return []
    if not below(worst.to_baseline):
        return [f"That difference may be chance ({points_of(worst.to_baseline)}), so there is nothing to win back."]
    lost = f"Of the {points_of(scaled_back(worst.to_baseline))} that are lost there"
    won = sorted((row for row in remedies if above(row.won_back)), key=lambda row: -(row.won_back.median or 0.0))
    if not won:
        return [f"{lost}, no remedy wins back any that could not be chance."]
    parts = text.listing([f"{row.tried.remedy} wins back {points_of(row.won_back)}" for row in won])
    others = [row.tried.remedy for row in remedies if row not in won]
    return [f"{lost}, {parts}" + (f"; {text.listing(others)} nothing that could not be chance." if others else ".")]


def scaled_back(difference: Figure) -> Figure:
    """A difference with its sign turned: what was lost."""
    ends = None if difference.ci95 is None else (-difference.ci95[1], -difference.ci95[0])
    value = None if difference.median is None else -difference.median
    return msgspec.structs.replace(difference, median=value, ci95=ends)


def _kept(rows: Sequence[Compared], base: Compared) -> str:
    keeping = [row for row in rows if row.keeps and row.tried.batch > base.tried.batch]
    if not keeping:
        return f"No larger batch keeps the accuracy of batch {base.tried.batch}."
    largest = max(row.tried.batch for row in keeping)
    best = max((row for row in keeping if row.tried.batch == largest), key=lambda row: row.to_baseline.median or 0.0)
    low = best.to_baseline.ci95[0] if best.to_baseline.ci95 else 0.0
    how = "without a remedy" if best.tried.remedy == NONE else f"with {best.tried.remedy}"
    doubt = f", though it may be up to {-100 * low:.1f} points lower" if low < 0 else ""
    return f"The largest batch that keeps the accuracy of batch {base.tried.batch} is {largest}, {how}{doubt}."


def sentences(rows: Sequence[Compared], length: str) -> list[str]:
    """For each larger batch: what it loses, and what each remedy does."""
    found = []
    for batch in sorted({row.tried.batch for row in rows})[1:]:
        here = [row for row in rows if row.tried.batch == batch]
        plain = next(row for row in here if row.tried.remedy == NONE)
        said = f"Batch {batch} after {length}: {_told(plain)} without a remedy"
        others = [f"{row.tried.remedy} {_told(row)}" for row in here if row is not plain]
        found.append(f"{said}; {text.listing(others)}." if others else f"{said}.")
    return found


def _told(one: Compared) -> str:
    """A row's accuracy, and what may be said of it beside the baseline's where there are several seeds."""
    verdict = "" if one.accuracy.n == 1 and not one.tried.failed else f" ({_verdict(one)})"
    return accuracy_of(one.accuracy) + verdict


def plot(name: str, title: str, rows: Sequence[Compared]) -> Plot:
    """Accuracy against the batch, a line for each remedy."""
    batches = sorted({row.tried.batch for row in rows})
    names = list(dict.fromkeys(row.tried.remedy for row in rows))
    series = [_line(remedy, [row for row in rows if row.tried.remedy == remedy]) for remedy in names]
    several = max(row.accuracy.n for row in rows) > 1
    bars = "Mean over seeds with Student's 95 % interval." if several else "One seed: no interval."
    return Plot(
        id=name, title=title, caption=f"{bars} A line that stays level is a remedy that loses nothing.", series=series, wide=True,
        x=Axis(title="global batch", log=True, ticks=[float(batch) for batch in batches], show="count"),
        y=Axis(title="accuracy on the test set", show="percent"),
    )  # fmt: skip


def _line(name: str, rows: Sequence[Compared]) -> Series:
    return Series(
        name=name, x=[row.tried.batch for row in rows], y=[row.accuracy.median for row in rows],
        low=[row.accuracy.ci95[0] if row.accuracy.ci95 else None for row in rows],
        high=[row.accuracy.ci95[1] if row.accuracy.ci95 else None for row in rows],
    )  # fmt: skip


def won_back_plot(rows: Sequence[Compared]) -> Plot | None:
    """What each remedy wins back at each larger batch; None where nothing could be."""
    larger = sorted({row.tried.batch for row in rows})[1:]
    series = []
    for batch in larger:
        here = [row for row in rows if row.tried.batch == batch and row.won_back.median is not None]
        if here:
            series.append(
                Series(
                    name=f"batch {batch}", style="bars", x=[row.tried.remedy for row in here],
                    y=[row.won_back.median for row in here],
                    low=[row.won_back.ci95[0] if row.won_back.ci95 else None for row in here],
                    high=[row.won_back.ci95[1] if row.won_back.ci95 else None for row in here],
                )
            )  # fmt: skip
    if not series:
        return None
    return Plot(
        id="won-back", title="What each remedy wins back", series=series,
        caption="Accuracy above that of the same batch without a remedy, with Welch's 95 % interval: chance where it holds 0.",
        x=Axis(title="remedy"), y=Axis(title="accuracy over none", show="percent"),
    )  # fmt: skip


def findings(epochs: Sequence[Compared], steps: Sequence[Compared], length: str, notes: Sequence[str]) -> Findings:
    """All that is told; ``steps`` is empty where no trainings of equal steps were made."""
    tables = [table("rows", f"After {length} each", "The same images, so fewer steps where the batch is larger.", epochs)]
    bars = won_back_plot(epochs)
    plots = [plot("accuracy", f"Accuracy after {length}", epochs), *([bars] if bars else [])]
    said = sentences(epochs, length)
    if steps:
        count = f"{next(row.tried.steps for row in steps if row.tried.steps):,} steps"
        tables.append(
            table("equal-steps", f"After {count} each", "As many updates, so more images where the batch is larger.", steps)
        )
        plots.append(plot("accuracy-steps", f"Accuracy after {count}", steps))
        said += sentences(steps, count)
    remedies = list(dict.fromkeys(row.tried.remedy for row in epochs))
    meant = [f"{name}: {REMEDIES[name].says} ({REMEDIES[name].source})" for name in remedies if REMEDIES[name].source]
    return Findings(answer=answer(epochs, length), sentences=said, tables=tables, plots=plots, notes=[*meant, *notes])
