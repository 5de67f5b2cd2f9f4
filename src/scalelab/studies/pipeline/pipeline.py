"""Layers cut into stages: which schedule, how many micro-batches, and is it worth it? With the bubble as it is, not as it should be.

Varied: stages, micro-batches (``--accumulate``) and schedules at one global batch; beside them ``single`` (the base), ``single`` on
all cores, and ``model``, where one stage computes at a time. More micro-batches leave less bubble, (p-1)/(m+p-1) for gpipe (Huang et
al. 2019) and 1f1b (Narayanan et al. 2021), and are smaller: an image of a small micro-batch takes longer. The best number lies between.

time per epoch   step time x steps of an epoch
bubble           scalelab.measure.bubble: from events on every worker, in steps that never train
compute/image    seconds in forward and backward passes, all workers together, for one image: what smaller micro-batches cost
"""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.errors import ScalelabError
from scalelab.measure.statistics import absent
from scalelab.record.study import Column, Findings, Row, Table
from scalelab.spec import Spec
from scalelab.studies import quiet
from scalelab.studies.figures import pooled, scaled
from scalelab.studies.pipeline import bubbles, splits
from scalelab.studies.points import serial, threads, with_values
from scalelab.studies.scaling.scaling import ALL_CORES, BASE, SPREAD, check_probed, oversubscribed, shared_figures, table_row
from scalelab.studies.shown import CEILING, EFFICIENCY, SPEEDUP, THROUGHPUT, WORKERS
from scalelab.studies.study import Asked, Point, Result, Study


def points(asked: Asked) -> list[Point]:
    """single, single on all cores, model for each number of stages, and every pipeline. Raises ScalelabError."""
    _refuse(asked)
    stages = asked.varied["stages"]
    each = threads(asked, max(_workers(asked.base, count) for count in stages))
    alone = serial(asked.base, threads_per_worker=each)
    found = [Point("single", _factors("single", alone), alone)]
    if asked.cores > each and asked.base.device != "cuda" and asked.base.threads_per_worker is None:
        whole = serial(asked.base, threads_per_worker=asked.cores)
        found.append(Point(f"single, all {asked.cores} cores", _factors("single, all cores", whole), whole))
    for count in stages:
        workers = _workers(asked.base, count)
        spec = with_values(
            asked.base, strategy="model", workers=workers, stages=count, threads_per_worker=each, pipeline_schedule="1f1b"
        )
        found.append(Point(f"model {_place(count, workers)}", _factors("model", spec), spec))
        for schedule in asked.varied["pipeline_schedule"]:
            for parts in asked.varied["accumulate"]:
                spec = with_values(
                    asked.base, strategy="pipeline", workers=workers, stages=count, threads_per_worker=each,
                    pipeline_schedule=schedule, accumulate=parts,
                )  # fmt: skip
                name = f"{schedule} {_place(count, workers)}, {parts} micro-batch{'es' * (parts > 1)}"
                found.append(Point(name, _factors(schedule, spec), spec))
    return found


def _refuse(asked: Asked) -> None:
    base, stages = asked.base, asked.varied["stages"]
    if base.strategy != "pipeline":
        raise ScalelabError(
            f"--strategy {base.strategy}: this study compares pipelines with single and model; `study strategies` has the others"
        )
    if base.engine != "torch":
        raise ScalelabError(f"--engine {base.engine}: only torch's passes can be recorded one by one; leave it out")
    for count in stages:
        if count < 2:
            raise ScalelabError(f"--stages {count}: a pipeline has at least 2; single is in the study anyway")
        if base.workers > 1 and base.workers % count:
            raise ScalelabError(
                f"--stages {count}: does not divide --workers {base.workers}; without --workers there are as many"
            )
    check_probed(asked)  # the bubble is measured in probe steps


def _workers(base: Spec, stages: int) -> int:
    """As many as stages, or --workers: then there are replicas."""
    return base.workers if base.workers > 1 else stages


def _place(stages: int, workers: int) -> str:
    return f"× {workers}" + (f" ({stages} stages × {workers // stages} replicas)" if workers > stages else "")


def _factors(schedule: str, spec: Spec) -> dict[str, str | int | float]:
    stages, parts = spec.stages or 1, spec.accumulate or 1
    role = SPREAD if spec.workers > 1 else BASE if schedule == "single" else ALL_CORES
    found: dict[str, str | int | float] = {
        "role": role,
        "schedule": schedule, "stages": stages, "workers": spec.workers, "micro_batches": parts,
        "threads": spec.threads_per_worker or 1,
    }  # fmt: skip
    return found


COLUMNS = [
    Column(key="schedule", title="Schedule", show="text"),
    Column(key="stages", title="Stages", show="count"),
    WORKERS,
    Column(key="micro_batches", title="Micro-batches", show="count"),
    Column(key="epoch_seconds", title="Epoch", show="seconds"),
    THROUGHPUT,
    SPEEDUP,
    EFFICIENCY,
    Column(key="bubble", title="Bubble", sub="measured", show="percent"),
    Column(key="theory", title="Bubble", sub="in theory", show="percent"),
    Column(key="compute_per_image", title="Compute", sub="for an image", show="seconds"),
    CEILING,
]
PART_COLUMNS = [
    Column(key="schedule", title="Schedule", show="text"),
    Column(key="stages", title="Stages", show="count"),
    Column(key="micro_batches", title="Micro-batches", show="count"),
    Column(key="theory", title="Theory", show="percent"),
    Column(key="order", title="Order", sub="equal stages, no messages", show="percent"),
    Column(key="unequal", title="Unequal stages", sub="add", show="percent"),
    Column(key="jitter", title="Uneven passes", sub="add", show="percent"),
    Column(key="rest", title="Messages, the rest", sub="add", show="percent"),
    Column(key="bubble", title="Bubble", sub="measured", show="percent"),
    CEILING,
]


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Time per epoch and speedup of every point, every pipeline's bubble and what it is made of, the best split."""
    base = results[0]
    rows = [_row(result, base) for result in results]
    piped = [pair for pair in zip(results, rows, strict=True) if pair[0].point.spec.strategy == "pipeline"]
    staged = [r for result, r in zip(results, rows, strict=True) if result.point.spec.strategy != "single"]
    measured = [(result, r) for result, r in piped if r.figures["images_per_second"].median is not None]
    crowded = [r for result, r in zip(results, rows, strict=True) if oversubscribed(result)]
    tables = [
        Table(id="rows", title="Pipelines", columns=COLUMNS, rows=rows, caption=CAPTION),
        Table(id="parts", title="Where the workers wait", columns=PART_COLUMNS, rows=staged, caption=PARTS_CAPTION),
    ]
    told = [*splits.best_splits(measured), *splits.against_model(results, measured), *splits.small(measured)]
    told += [*quiet.sentences(base), *bubbles.sentences([r for _, r in piped if r.figures["bubble"].median is not None], crowded)]
    return Findings(
        answer=splits.answer(results, measured), sentences=told, tables=tables, plots=splits.plots(asked, rows, staged, measured)
    )


CAPTION = (
    "One global batch for all; the base is single with the threads of one worker. Compute for an image counts the passes of all workers: "
    "where it grows with the number of micro-batches, they are too small to be computed well."
)
PARTS_CAPTION = (
    "Shares of a step's span (first forward to last backward pass), mean over the workers. Each part is what a replay of the recorded "
    "order shows when it is let in after those to its left; together they are the measured bubble (nearly: they are medians)."
)


def _row(result: Result, base: Result) -> Row:
    figures = shared_figures(result, base)
    steps, step = _steps_of_an_epoch(result), figures["step_seconds"]
    figures["epoch_seconds"] = scaled(step, steps) if steps else absent("s", step.reason or "no training was completed")
    figures |= bubbles.figures(result)
    figures["compute_per_image"] = pooled(result, bubbles.COMPUTE)
    return table_row(result, figures)


def _steps_of_an_epoch(result: Result) -> int:
    record = result.completed[0].record if result.completed else None
    return record.data.train // record.derived.batch if record is not None and record.data is not None else 0


STUDY = Study(
    name="pipeline",
    question="The layers cut into stages: which schedule, how many micro-batches, and how long do the workers wait?",
    points=points,
    subject=lambda point: point.spec.strategy == "pipeline",
    analyse=analyse,
    example="  scalelab study pipeline --model resnet18 --data cifar10 --stages 2 4 --accumulate 2 4 8 --pipeline-schedule gpipe 1f1b",
    base={"strategy": "pipeline", "batch": 128, "steps": 65, "evaluate": False, "checkpoint": False},
    varies={"stages": [2], "accumulate": [2, 4, 8, 16], "pipeline_schedule": ["gpipe", "1f1b", "interleaved", "zero-bubble"]},
    quick={"accumulate": [2, 8]},
)
