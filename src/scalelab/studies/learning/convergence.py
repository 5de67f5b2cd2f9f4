"""How many epochs, images and seconds to a target accuracy, for several strategies and batches? Runs that never reach it are counted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from scalelab import strategies
from scalelab.errors import ScalelabError
from scalelab.measure.statistics import differs, repeated
from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Column, Factor, Findings, Plot, Row, Series, Table
from scalelab.spec import Spec
from scalelab.studies import figures
from scalelab.studies.learning.reaching import COARSE, COSTS, COUNTED, Time, coarse, median, one_epoch, time_of
from scalelab.studies.learning.seeds import mean
from scalelab.studies.points import serial, spread, threads, with_values
from scalelab.studies.shown import THROUGHPUT, WORKERS
from scalelab.studies.study import Asked, Point, Result, Run, Study

UNITED = ("cosine", "one-cycle")
"""schedules that end with --epochs"""


def points(asked: Asked) -> list[Point]:
    """Every strategy with every batch. Raises ScalelabError where no target is said."""
    if asked.base.target_accuracy is None:
        raise ScalelabError("study convergence: say with --target-accuracy what is to be reached, such as 0.6")
    if not asked.base.evaluate:
        raise ScalelabError("--no-evaluate: study convergence looks at the test accuracy after each epoch; leave it out")
    if asked.base.batch_per_worker is not None:
        raise ScalelabError(
            f"--batch-per-worker {asked.base.batch_per_worker}: study convergence varies the global --batch; say that"
        )
    found = []
    for name in asked.varied["strategy"]:
        for batch in asked.varied["batch"]:
            spec = _spec(asked, name, batch)
            factors: dict[str, Factor] = {"strategy": spread(spec), "workers": spec.workers, "batch": batch}
            found.append(Point(f"{spread(spec)} × {spec.workers}, batch {batch}", factors, spec))
    return found


def _spec(asked: Asked, name: str, batch: int) -> Spec:
    common = {"batch": batch, "threads_per_worker": threads(asked, asked.base.workers)}
    if name == "single":
        return serial(asked.base, **common)
    workers = 1 if strategies.entry(name).axis is None else asked.base.workers
    return with_values(asked.base, strategy=name, workers=workers, **common)


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """What the target costs each point, over all its seeds."""
    target = asked.base.target_accuracy or 1.0
    rows = [_row(result, results[0], target) for result in results]
    table = Table(
        id="rows", title=f"To an accuracy of {text.percent(target)}", columns=COLUMNS, rows=rows,
        caption="Medians over all seeds; one that never reached the target counts as longer than it trained.",
    )  # fmt: skip
    plots = [_plot(results, target, name, title) for name, title in (("seconds", "training seconds"), ("epochs", "epochs"))]
    sentences = [said for row in rows if (said := _sentence(row, rows[0]))]
    return Findings(answer=_answer(asked, rows, results), sentences=sentences, tables=[table], plots=plots, notes=_notes(asked))


COLUMNS = [
    Column(key="strategy", title="Strategy", show="text"),
    WORKERS,
    Column(key="batch", title="Batch", show="count"),
    Column(key="reached", title="Reached it", sub="of the seeds", show="text"),
    Column(key="epochs", title="Epochs", sub="to the target", show="number"),
    Column(key="images", title="Images", sub="to the target", show="count"),
    Column(key="seconds", title="Time", sub="training, to the target", show="seconds"),
    Column(key="ratio", title="Time", sub="of the first row's", show="times"),
    THROUGHPUT,
    Column(key="best", title="Best accuracy", sub="mean over seeds", show="percent"),
]


def _times(result: Result, target: float, name: str) -> list[Time]:
    """Of all that was started: a training that failed never reached the target, either, unless it had before."""
    return [time_of(run, target, COSTS[name][0]) for run in result.runs]


def _row(result: Result, base: Result, target: float) -> Row:
    found = {
        name: median(_times(result, target, name), unit, one_epoch(result.runs, cost) if name in COUNTED else 0.0)
        for name, (cost, unit) in COSTS.items()
    }
    if result.refused:
        found = {name: Figure(unit=COSTS[name][1], reason=result.refused) for name in found}
    best = [run.record.best_accuracy for run in result.runs if run.record.best_accuracy is not None]
    reached = sum(time.reached for time in _times(result, target, "epochs"))
    found |= {
        "ratio": _ratio(result, base, target), "best": mean(best, "accuracy"),
        "images_per_second": figures.pooled(result, figures.READ["images_per_second"]),
    }  # fmt: skip
    made = figures.row(result, found)
    return msgspec.structs.replace(made, factors={**made.factors, "reached": f"{reached} of {len(result.runs)}"})


def _ratio(result: Result, base: Result, target: float, name: str = "seconds") -> Figure:
    """What the target costs over what it costs the first row, paired by seed; absent where not all reached it."""
    if result is base:
        return Figure(unit="ratio", reason="the row that the others are measured against")
    mine, its = ({run.repeat: time_of(run, target, COSTS[name][0]) for run in one.runs} for one in (result, base))
    both = [repeat for repeat in mine if repeat in its]
    if not both:
        return Figure(unit="ratio", reason=result.refused or base.refused or "nothing was trained")
    if not all(times[repeat].reached for times in (mine, its) for repeat in both):
        return Figure(unit="ratio", reason="not all trainings of the two reached the target")
    found = repeated([mine[repeat].value / its[repeat].value for repeat in both], "ratio")
    return msgspec.structs.replace(found, ci95=None, reason=COARSE) if name in COUNTED and coarse(found) else found


def _answer(asked: Asked, rows: Sequence[Row], results: Sequence[Result]) -> str:
    target = text.percent(asked.base.target_accuracy or 1.0)
    known = [row for row in rows if row.figures["seconds"].median is not None]
    tried = sum(len(result.runs) for result in results)
    reached = sum(int(str(row.factors["reached"]).split()[0]) for row in rows)
    if reached == 0:
        best = max((run.record.best_accuracy or 0.0, result.point.label) for result in results for run in result.runs)
        return (
            f"No training reached {target} within {asked.base.epochs} epochs: the best was {text.percent(best[0])} ({best[1]}). "
            "Ask for less with --target-accuracy, or train longer with --epochs."
        )
    counted = f"{reached} of {tried} trainings reached {target}"
    if not known:
        return f"{counted}, in no row more than half of them, so no median is known; train longer with --epochs."
    first = min(known, key=lambda row: row.figures["seconds"].median or 0.0)
    least = min(known, key=lambda row: row.figures["images"].median or 0.0)
    said = f"{counted}; the soonest was {first.label}, in {_cost(first, 'seconds')} and {_cost(first, 'epochs')}"
    if least is not first:
        said += f", the one with the fewest images {least.label}, with {_cost(least, 'images')}"
        by_label = {row.label: result for row, result in zip(rows, results, strict=True)}
        fewer = _ratio(by_label[least.label], by_label[first.label], asked.base.target_accuracy or 1.0, "images")
        said += "" if differs(fewer) else ", fewer than the soonest by what may be chance"
    return f"{said}.{_rivals(first, rows, results, asked.base.target_accuracy or 1.0)}"


def _rivals(first: Row, rows: Sequence[Row], results: Sequence[Result], target: float) -> str:
    """Whose time can't be told from the shortest; empty where all others take longer."""
    by_label = {row.label: result for row, result in zip(rows, results, strict=True)}
    others = [row.label for row in rows if row is not first and not str(row.factors["reached"]).startswith("0 ")]
    alike = [name for name in others if not differs(_ratio(by_label[name], by_label[first.label], target))]
    if not alike:
        return ""
    if max(len(result.runs) for result in results) == 1:
        return " That is one seed: no spread is known, so no difference is claimed; --seeds 3 gives one."
    return f" As far as these seeds can tell, {text.listing(alike)} may be as soon."


SHOWN: dict[str, text.Show] = {
    "seconds": text.seconds, "images": lambda value: f"{value:,.0f} images",
    "epochs": lambda value: f"{value:g} epoch{'s' * (value != 1)}",
}  # fmt: skip


def _cost(row: Row, name: str) -> str:
    return text.shown(row.figures[name], SHOWN[name])


def _sentence(row: Row, base: Row) -> str:
    """What a row says beside the first, as far as its interval does; empty where there is nothing to say."""
    ratio = row.figures["ratio"]
    missed = row.figures["seconds"].median is None
    if missed:
        return f"{row.label}: {row.figures['seconds'].reason}."
    if ratio.median is None:
        return ""
    if ratio.ci95 is None:
        return f"{row.label} took {text.times(ratio.median)} the time of {base.label}, in one seed: that may be chance."
    if not differs(ratio):
        return (
            f"{row.label} may take as long as {base.label}: {text.times(ratio.median)} its time "
            f"({text.interval(ratio, text.times)}), which these seeds can't tell from 1."
        )
    return f"{row.label} takes {text.times(ratio.median)} the time of {base.label} ({text.interval(ratio, text.times)})."


def _notes(asked: Asked) -> list[str]:
    found = [
        "a target counts as reached with the first epoch whose test accuracy is not below it; times are training without evaluation"
    ]
    if asked.base.schedule in UNITED:
        found.append(
            f"--schedule {asked.base.schedule} ends at --epochs {asked.base.epochs}: what is reached before is reached with a rate "
            "meant to fall further; --schedule constant or step have no such end"
        )
    return found


def _plot(results: Sequence[Result], target: float, name: str, title: str) -> Plot:
    """Accuracy over what it cost, of each point's run in the middle."""
    lines = [(result.point.label, *_curve(run, name)) for result in results if (run := _middle(result, target)) is not None]
    longest = max((xs[-1] for _, xs, _ in lines if xs), default=1.0)
    aim = Series(name="target", x=[0.0, longest], y=[target, target], style="ideal")
    return Plot(
        id=f"by-{name}", title=f"Accuracy over {title}", wide=True,
        caption="Of each row the seed whose time to the target is in the middle; it stops where the target is reached.",
        x=Axis(title=title, show="seconds" if name == "seconds" else "number"), y=Axis(title="accuracy on the test set", show="percent"),
        series=[*(Series(name=label, x=list(xs), y=list(ys)) for label, xs, ys in lines), aim],
    )  # fmt: skip


def _middle(result: Result, target: float) -> Run | None:
    """The run whose time to the target is the (lower) middle one; those that never reached it come last."""
    runs = [run for run in result.runs if run.record.epochs]
    times = {run.repeat: time_of(run, target, COSTS["seconds"][0]) for run in runs}
    ordered = sorted(runs, key=lambda run: (not times[run.repeat].reached, times[run.repeat].value))
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _curve(run: Run, name: str) -> tuple[list[float], list[float]]:
    epochs = run.record.epochs
    costs = [epoch.seconds if name == "seconds" else 1.0 for epoch in epochs]
    return list(accumulate(costs)), [epoch.accuracy for epoch in epochs]


STUDY = Study(
    name="convergence",
    question="How many epochs, images and seconds does a target accuracy take?",
    points=points,
    analyse=analyse,
    example="  scalelab study convergence --strategy single ddp --workers 2 --target-accuracy 0.9\n"
    "  scalelab study convergence --data cifar10 --data-dir data/cifar10 --strategy single --batch 64 256 1024 --target-accuracy 0.6",
    base={
        "model": "basic_cnn", "workers": 2, "target_accuracy": 0.9, "epochs": 20, "lr": 0.02, "checkpoint": False, "probe_steps": 0,
    },
    varies={"strategy": ["single", "ddp"], "batch": [64, 256]},
    quick={"epochs": 6, "train_limit": 10_000},
    repeats=3,
    seeded=True,
)  # fmt: skip
