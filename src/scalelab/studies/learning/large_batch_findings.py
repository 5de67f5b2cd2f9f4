"""What the trainings of ``large-batch`` show: tables and figures of what was compared."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Column, Findings, Plot, Row, Series, Table
from scalelab.studies import figures
from scalelab.studies.learning.large_batch_compared import SAME, Compared, ended_badly, verdict
from scalelab.studies.learning.large_batch_sentences import answer, sentences
from scalelab.studies.learning.remedies import REMEDIES
from scalelab.studies.learning.seeds import ONE
from scalelab.studies.shown import drawn

COLUMNS = [
    Column(key="batch", title="Batch", show="count"),
    Column(key="remedy", title="Remedy", show="text"),
    Column(key="mean_accuracy", title="Accuracy", sub="mean over seeds", show="percent"),
    Column(key="std_accuracy", title="±", sub="standard deviation", show="percent"),
    Column(key="to_baseline", title="To the baseline", sub="points", show="points"),
    Column(key="won_back", title="Won back", sub="points over none", show="points"),
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
    failed = [ended_badly(tried)] if tried.failed else []
    factors = {"batch": tried.batch, "remedy": tried.remedy, "verdict": verdict(one)}
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
    return drawn(name, [row.tried.batch for row in rows], [row.accuracy for row in rows])


def won_back_plot(rows: Sequence[Compared]) -> Plot | None:
    """What each remedy wins back at each larger batch; None where nothing could be."""
    larger = sorted({row.tried.batch for row in rows})[1:]
    series = []
    for batch in larger:
        here = [row for row in rows if row.tried.batch == batch and row.won_back.median is not None]
        if here:
            series.append(drawn(f"batch {batch}", [row.tried.remedy for row in here], [row.won_back for row in here], "bars"))
    if not series:
        return None
    return Plot(
        id="won-back", title="What each remedy wins back", series=series,
        caption="Accuracy above that of the same batch without a remedy, with Welch's 95 % interval: chance where it holds 0.",
        x=Axis(title="remedy"), y=Axis(title="accuracy over none", show="points"),
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
