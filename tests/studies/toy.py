"""The smallest study: a batch for each point, images/s against the first. What the framework does with any study is tried with it."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.errors import ScalelabError
from scalelab.record.study import Axis, Column, Findings, Plot, Series, Table
from scalelab.studies.figures import READ, pooled, row, share_of_ceiling, versus
from scalelab.studies.points import with_values
from scalelab.studies.study import Asked, Option, Point, Result, Study

COLUMNS = [
    Column(key="batch", title="Batch", show="count"),
    Column(key="images_per_second", title="Throughput", sub="images/s", show="rate"),
    Column(key="speedup", title="Speedup", sub="over the first", show="times"),
    Column(key="achieved", title="Ceiling", sub="share achieved", show="percent"),
]


def points(asked: Asked) -> list[Point]:
    """One for each batch."""
    if asked.options.get("most", 1 << 20) < max(asked.varied["batch"]):
        raise ScalelabError(f"--most {asked.options['most']}: is less than the largest --batch")
    specs = [with_values(asked.base, batch=batch, **asked.options.get("values", {})) for batch in asked.varied["batch"]]
    return [Point(f"batch {spec.batch}", {"batch": spec.batch or 0}, spec) for spec in specs]


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Throughput against the first batch's."""
    read = READ["images_per_second"]
    rows = [
        row(r, {"images_per_second": pooled(r, read), "speedup": versus(r, results[0], read), "achieved": share_of_ceiling(r)})
        for r in results
    ]
    series = Series(name="throughput", x=asked.varied["batch"], y=[one.figures["images_per_second"].median for one in rows])
    x, y = (
        Axis(title="batch", log=True, ticks=list(map(float, asked.varied["batch"])), show="count"),
        Axis(title="images/s", show="rate"),
    )
    plot = Plot(id="rate", title="Throughput", caption="Higher is better.", x=x, y=y, series=[series])
    table = Table(id="rows", title="Batches", columns=COLUMNS, rows=rows)
    done = sum(len(result.completed) for result in results)
    return Findings(answer=f"{done} trainings were completed.", tables=[table], plots=[plot], notes=["a toy"])


STUDY = Study(
    name="toy",
    question="Does a larger batch train more images a second?",
    points=points,
    analyse=analyse,
    example="  scalelab study toy --batch 8 12",
    base={
        "data": "synthetic", "image_size": 8, "classes": 4, "train_limit": 96, "test_limit": 30, "model_args": {"width": 4},
        "threads_per_worker": 1, "probe_steps": 0, "warmup_steps": 0, "evaluate": False, "checkpoint": False, "steps": 4,
    },
    varies={"batch": [8, 12]},
    quick={"batch": [12], "most": 64},
    options=(
        Option("most", 1 << 20, "largest batch that is allowed", "N"),
        Option("fractions", [0.5], "nothing", "X"),
        Option("remedies", [], "nothing either"),
        Option("tell", False, "a switch"),
        Option("other", None, "some text"),
    ),
    repeats=2,
)  # fmt: skip
