"""Each worker keeps its batch, and there are more and more workers: does a step still take as long as on one?"""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Column, Findings, Plot, Row, Series, Table
from scalelab.studies.figures import READ, of, pooled, row, scaled, versus
from scalelab.studies.points import serial, spread, threads, with_values
from scalelab.studies.study import Asked, Point, Result, Study


def points(asked: Asked) -> list[Point]:
    """The serial base, the strategy on one worker (what the wrapper costs), and every number of workers, for each batch."""
    workers, batches = sorted({1, *asked.varied["workers"]}), asked.varied["batch_per_worker"]
    each = threads(asked, max(workers))
    found = []
    for batch in batches:
        common = {"batch_per_worker": batch, "threads_per_worker": each}
        alone = serial(asked.base, **common)
        found.append(Point(f"single, batch {batch}", {"strategy": "single", "workers": 1, "batch_per_worker": batch}, alone))
        for count in workers:
            spec = with_values(asked.base, workers=count, **common)
            name = spread(spec)
            found.append(
                Point(
                    f"{name} × {count}, batch {batch} each", {"strategy": name, "workers": count, "batch_per_worker": batch}, spec
                )
            )
    return found


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Step time, throughput, speedup and efficiency of each point against the serial run of the same batch per worker."""
    rows = [_row(result, results) for result in results]
    table = Table(
        id="rows", title="Weak scaling", columns=COLUMNS, rows=rows, caption="Each worker keeps its batch; the base is single."
    )
    return Findings(answer=_answer(rows), tables=[table], plots=[_plot(asked, rows)])


COLUMNS = [
    Column(key="strategy", title="Strategy", show="text"),
    Column(key="workers", title="Workers", show="count"),
    Column(key="batch_per_worker", title="Batch", sub="per worker", show="count"),
    Column(key="step_seconds", title="Step", show="seconds"),
    Column(key="images_per_second", title="Throughput", sub="images/s", show="rate"),
    Column(key="speedup", title="Speedup", sub="over single", show="times"),
    Column(key="efficiency", title="Efficiency", sub="speedup / workers", show="percent"),
]


def _row(result: Result, results: Sequence[Result]) -> Row:
    factors = result.point.factors
    figures: dict[str, Figure] = {key: pooled(result, READ[key]) for key in ("step_seconds", "images_per_second")}
    base = of(results, strategy="single", batch_per_worker=factors["batch_per_worker"])
    assert base is not None, "points makes one for every batch"
    figures["speedup"] = versus(result, base, READ["images_per_second"])
    figures["efficiency"] = scaled(figures["speedup"], 1 / int(factors["workers"]))
    return row(result, figures)


def _answer(rows: Sequence[Row]) -> str:
    best = max(
        (r for r in rows if r.figures["efficiency"].median is not None), key=lambda r: int(r.factors["workers"]), default=None
    )
    if best is None:
        return "No throughput was measured."
    return (
        f"On {best.factors['workers']} workers {best.factors['strategy']} reaches "
        f"{text.shown(best.figures['speedup'], text.times)} of the throughput of one process "
        f"({text.interval(best.figures['speedup'], text.times)})."
    )


def _plot(asked: Asked, rows: Sequence[Row]) -> Plot:
    series = []
    for batch in asked.varied["batch_per_worker"]:
        line = [r for r in rows if r.factors["batch_per_worker"] == batch and r.factors["strategy"] != "single"]
        figures = [r.figures["efficiency"] for r in line]
        series.append(
            Series(
                name=f"batch {batch} per worker", x=[r.factors["workers"] for r in line], y=[f.median for f in figures],
                low=[f.ci95[0] if f.ci95 else None for f in figures], high=[f.ci95[1] if f.ci95 else None for f in figures],
            )
        )  # fmt: skip
    axis = Axis(title="workers", ticks=[float(w) for w in asked.varied["workers"]], show="count")
    return Plot(
        id="efficiency", title="Efficiency", caption="1 is a step that takes as long as on one worker.", x=axis,
        y=Axis(title="efficiency", show="percent"), series=series,
    )  # fmt: skip


STUDY = Study(
    name="weak-scaling",
    question="Each worker keeps its batch: how much of each further worker arrives as throughput?",
    points=points,
    analyse=analyse,
    example="  scalelab study weak-scaling --model resnet18 --data cifar10 --strategy ddp --workers 1 2 --batch-per-worker 32 128",
    base={"strategy": "ddp", "steps": 60, "evaluate": False, "checkpoint": False},
    varies={"workers": [1, 2], "batch_per_worker": [32, 128]},
    quick={"steps": 30, "batch_per_worker": [64]},
)
