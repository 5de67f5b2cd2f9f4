"""Every strategy with every engine that has it, on one task: how fast, how much memory, what communication costs, and which to take.

All share the global batch, so all compute (nearly) the same; beside them ``single``, the base, and ``single`` on all cores. Hybrids are
there where the workers allow: shards of replicas (HSDP), replicas of pipelines. Pipelines train in micro-batches. Memory, front and the
recommended batch are defined in front.py; what one accuracy can tell from another in ``resolution``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from scalelab import strategies
from scalelab.errors import ScalelabError
from scalelab.measure.statistics import absent
from scalelab.record import text
from scalelab.record.schema import Figure, TrainRecord
from scalelab.record.study import Axis, Column, Findings, Plot, Row, Series, Table
from scalelab.spec import Spec
from scalelab.studies.figures import READ, of, pooled
from scalelab.studies.points import serial, threads, with_values
from scalelab.studies.scaling.scaling import ALL_CORES, BASE, SPREAD, check_probed, is_spread, shared_figures, table_row
from scalelab.studies.shown import CEILING, EFFICIENCY, EXPOSED, SPEEDUP, THROUGHPUT, drawn
from scalelab.studies.strategies import choosing, front
from scalelab.studies.study import Asked, Option, Point, Result, Study

HYBRIDS: dict[tuple[str, str], str] = {
    ("zero2", "torch"): "shard", ("zero3", "torch"): "shard", ("model", "torch"): "stages", ("pipeline", "torch"): "stages",
    ("pipeline", "deepspeed"): "stages",
}  # fmt: skip
"""the degree that may be smaller than the workers: the rest are replicas"""
LEAST = 1 << 20
"""bytes; no step of any model that is there holds less"""
PARTS = (8, 4, 2)
"""micro-batches of a pipeline: the first of these that divides the batch"""


def points(asked: Asked) -> list[Point]:
    """For each model: single, single on all cores, and every cell of the table for these workers. Raises ScalelabError."""
    workers = asked.base.workers
    if workers < 2:
        raise ScalelabError(f"--workers {workers}: there is nothing to spread; use 2 or more")
    check_probed(asked)  # a step's tensors are weighed in them, and communication silenced
    if asked.options["memory"]:
        _check_memory(asked.options["memory"])
    cells = list(_cells(asked.varied["strategy"], asked.varied["engine"]))
    if not cells:
        engines = ", ".join(asked.varied["engine"])
        raise ScalelabError(f"none of the strategies {', '.join(asked.varied['strategy'])} is there with the engine {engines}")
    each, base = threads(asked, workers), _one_batch(asked.base)
    found = []
    for model in asked.varied["model"]:
        alone = serial(base, model=model, threads_per_worker=each)
        found.append(_point(asked, model, "single", BASE, alone))
        if asked.cores > each and asked.base.device != "cuda" and asked.base.threads_per_worker is None:
            whole = serial(base, model=model, threads_per_worker=asked.cores)
            found.append(_point(asked, model, f"single, all {asked.cores} cores", ALL_CORES, whole))
        for name, engine in cells:
            one = strategies.entry(name).axis is None  # one process has the devices of all workers
            for degree in _degrees(name, engine, workers):
                values = {
                    "model": model, "strategy": name, "engine": engine, "workers": 1 if one else workers,
                    "threads_per_worker": each, **degree,
                }  # fmt: skip
                spec = with_values(base, **values, **_parts(base, name, workers, degree))
                found.append(_point(asked, model, _name(spec), SPREAD, spec))
    return found


def _check_memory(written: str) -> None:
    """Raises ScalelabError for what is no size, or holds no training whatever the strategy."""
    if front.size("--memory", written) < LEAST:
        raise ScalelabError(
            f"--memory {written}: holds no training, whatever the strategy; a worker needs {text.size(LEAST)} at least"
        )


def _one_batch(base: Spec) -> Spec:
    """``base`` with the batch of all workers, also where it is said by worker: the same task for every degree."""
    return base if base.batch_per_worker is None else with_values(base, batch=base.batch_per_worker * base.workers)


def _point(asked: Asked, model: str, name: str, role: str, spec: Spec) -> Point:
    label = f"{model}, {name}" if len(asked.varied["model"]) > 1 else name
    factors: dict[str, str | int | float] = {
        "model": model, "way": name, "strategy": spec.strategy, "engine": spec.engine, "workers": spec.workers, "role": role,
    }  # fmt: skip
    return Point(label, factors, spec)


def _cells(names: Sequence[str], engines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(strategy, engine) where the table has one. Raises ScalelabError for an unknown strategy."""
    for name in names:
        row = strategies.entry(name)
        if name != "single":
            yield from ((name, engine) for engine in engines if engine in row.where)


def _degrees(name: str, engine: str, workers: int) -> list[dict[str, int]]:
    """As it is, and the hybrids: degrees between 1 and the workers that divide them."""
    degree = HYBRIDS.get((name, engine))
    between = [n for n in range(2, workers) if workers % n == 0] if degree else []
    return [{}, *({str(degree): n} for n in between)]


def _parts(base: Spec, name: str, workers: int, degree: dict[str, int]) -> dict[str, Any]:
    """A pipeline's micro-batches, where the user does not say how many."""
    if name != "pipeline" or base.accumulate is not None or base.micro_batch is not None or base.batch is None:
        return {}
    replicas = workers // degree.get("stages", workers)
    return {"accumulate": next((n for n in PARTS if base.batch % (n * replicas) == 0), 1)}


def _name(spec: Spec) -> str:
    data, shard, pipe = strategies.degrees(spec)
    hybrid = [f"{n} {what}" for n, what in ((data, "replicas"), (shard, "shards"), (pipe, "stages")) if n > 1]
    spread = f" ({' × '.join(hybrid)})" if len(hybrid) > 1 else ""
    workers = f" × {spec.workers}" if spec.workers > 1 else ""
    return f"{spec.strategy}{workers}{spread}" + (f" on {spec.engine}" if spec.engine != "torch" else "")


COLUMNS = [
    Column(key="way", title="Strategy", show="text"),
    THROUGHPUT,
    SPEEDUP,
    EFFICIENCY,
    Column(key="memory", title="Memory", sub="of a step, per worker", show="size"),
    Column(key="peak_memory", title="Peak", sub="of a process", show="size"),
    EXPOSED,
    Column(key="accuracy", title="Accuracy", sub="one seed", show="percent"),
    Column(key="front", title="Front", sub="speed and memory", show="text"),
    CEILING,
]
BATCHES = [
    Column(key="model", title="Model", show="text"),
    Column(key="way", title="Strategy", show="text"),
    THROUGHPUT,
    Column(key="memory", title="Memory", sub="of a step, per worker", show="size"),
    Column(key="largest_batch", title="Largest batch", sub="that fits, all workers", show="count"),
    Column(key="recommended_batch", title="Recommended batch", sub="all workers", show="count"),
    CEILING,
]
CAPTION = (
    "One global batch for all; the base is single with the threads of one worker. Front: no other holds less and is as fast, or is "
    "faster and holds no more; open: the intervals can't tell. Memory is that of the worker with most; Peak is the whole process, "
    "interpreter and libraries too."
)


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """The table of each model, the front of speed against memory, which to take and what the accuracies can tell."""
    given = front.size("--memory", asked.options["memory"]) if asked.options["memory"] else None
    groups = {model: [r for r in results if r.point.factors["model"] == model] for model in asked.varied["model"]}
    several = len(groups) > 1
    rows = {model: [_row(result, members, given) for result in members] for model, members in groups.items()}
    tables = [
        Table(id="rows" if place == 0 else f"rows-{place}", title=f"{model}: strategies" if several else "Strategies",
              caption=CAPTION, columns=COLUMNS, rows=rows[model])
        for place, model in enumerate(groups)
    ]  # fmt: skip
    all_rows = [one for members in rows.values() for one in members]
    caption = _batch_caption(results, given)
    tables.append(Table(id="batches", title="Recommended batch", caption=caption, columns=BATCHES, rows=all_rows))
    answers = [(model, choosing.answer(members, given)) for model, members in groups.items()]
    told = [said for model, members in groups.items() for said in choosing.sentences(members, model if several else "")]
    plots = [plot for model, members in groups.items() for plot in _plots(model if several else "", members)]
    answer = " ".join(f"{model}: {said}" if several else said for model, said in answers)
    return Findings(answer=answer, sentences=told, tables=tables, plots=plots, notes=_notes(asked, results))


def _row(result: Result, members: Sequence[Result], given: int | None) -> Row:
    base = of(members, role=BASE)
    assert base is not None, "points makes one for every model"
    figures = shared_figures(result, base)
    figures |= {key: pooled(result, READ[key]) for key in ("exposed", "peak_memory", "bytes_sent")}
    figures["memory"] = pooled(result, front.memory)
    figures["accuracy"] = pooled(result, accuracy)
    figures["largest_batch"] = pooled(result, lambda record: front.largest(record, given))
    figures["recommended_batch"] = pooled(result, lambda record: front.recommended(record, given))
    if strategies.entry(result.point.spec.strategy).axis is None and result.point.factors["role"] == SPREAD:
        figures["efficiency"] = absent("ratio", "one process that has the devices of all workers")
    made = table_row(result, figures)
    return msgspec.structs.replace(made, factors={**made.factors, "front": _standing(result, members)})


def _standing(result: Result, members: Sequence[Result]) -> str:
    if result not in front.compared(members):
        return text.ABSENT
    beater = front.beaten_by(result, members)
    if beater is not None:
        return f"beaten by {beater.point.factors['way']}"
    return "on it" if result in front.front(members) else "open"


def accuracy(record: TrainRecord) -> Figure:
    """On the test set at the end."""
    if record.accuracy is None:
        return absent("ratio", "not evaluated: --no-evaluate")
    return Figure(unit="ratio", median=record.accuracy, n=1)


def _batch_caption(results: Sequence[Result], given: int | None) -> str:
    record = next(run.record for result in results for run in result.completed)
    room, source = front.available(record, given)
    where = (
        f"{text.size(given)} for each worker ({source})"
        if given is not None
        else source
        if room is None
        else f"each worker's {source[4:]}"
    )
    return (
        f"Largest: its micro-batch is the largest power of two that fits into {where}, {text.whole_percent(front.KEPT_FREE)} left free; "
        "parameters, gradients and the optimizer's state stay as measured at a step's peak, activations and all else grow with it. "
        f"Recommended: the same, but an epoch keeps {front.FEWEST_STEPS} steps. Whether it is faster, and what it learns: the studies "
        "batch-size and large-batch."
    )


def _plots(model: str, members: Sequence[Result]) -> list[Plot]:
    """Throughput against memory with the front, and exposed communication."""
    known = front.compared(members)
    tail = f", {model}" if model else ""
    mark = f"-{''.join(c if c.isalnum() else '-' for c in model)}" if model else ""
    plots = []
    if known:
        best = front.front(known)
        engines = dict.fromkeys(str(r.point.factors["engine"]) for r in known)
        series = [_cloud(engine, [r for r in known if r.point.factors["engine"] == engine]) for engine in engines]
        line = Series(name="front", x=[front.held(r) for r in best], y=[front.rate(r) for r in best], style="ideal")
        plots.append(
            Plot(
                id=f"front{mark}", title=f"Speed against memory{tail}", wide=True, series=[*series, line],
                x=Axis(title="memory of a step, per worker", show="size"), y=Axis(title="images/s", show="rate"),
                caption="Up is faster, left is smaller. What lies below and to the right of the front is beaten by something on it, "
                "where the intervals say so.",
            )
        )  # fmt: skip
    exposed = [(r, pooled(r, READ["exposed"])) for r in members]
    shown = [(r, f) for r, f in exposed if f.median is not None]
    if shown:
        bars = drawn("exposed communication", [str(r.point.factors["way"]) for r, _ in shown], [f for _, f in shown], "bars")
        plots.append(
            Plot(
                id=f"exposed{mark}", title=f"Exposed communication of a step{tail}", series=[bars], x=Axis(title="strategy", show="text"),
                y=Axis(title="seconds", show="seconds"), caption="What a step would save if nothing had to be sent. An interval that "
                "holds zero: nothing was shown.",
            )
        )  # fmt: skip
    return plots


def _cloud(engine: str, members: Sequence[Result]) -> Series:
    rates, names = [pooled(r, front.RATE) for r in members], [str(r.point.factors["way"]) for r in members]
    return drawn(engine, [front.held(r) for r in members], rates, "points", names)


def _notes(asked: Asked, results: Sequence[Result]) -> list[str]:
    found = []
    if (
        any(r.point.spec.strategy == "pipeline" for r in results)
        and asked.base.accumulate is None
        and asked.base.micro_batch is None
    ):
        found.append("pipelines train in micro-batches, of the same global batch: local batch norm sees each of them by itself")
    left = [engine for engine in strategies.ENGINES if engine not in asked.varied["engine"]]
    if left:
        found.append(
            f"not tried: the engine{'s' * (len(left) > 1)} {text.listing(left)}; --engine {' '.join(strategies.ENGINES)} tries all"
        )
    return found


STUDY = Study(
    name="strategies",
    question="Every strategy on one task: how fast is each, how much memory does a worker need, and which should I take?",
    points=points,
    subject=is_spread,
    analyse=analyse,
    example="  scalelab study strategies --model resnet18 --data cifar10 --workers 2\n"
    "  scalelab study strategies --model resnet18 vgg16 --data cifar10 --strategy ddp zero3 --memory 8GiB",
    base={"workers": 2, "batch": 128, "steps": 65, "checkpoint": False},
    varies={
        "model": ["basic_cnn"],
        "strategy": [name for name in strategies.STRATEGIES if name != "single"],
        "engine": list(strategies.ENGINES),
    },
    quick={"engine": ["torch"], "test_limit": 2000},
    options=(Option("memory", "", "what a worker may hold, such as 8GiB (default: on a CPU its part of the host's)", "SIZE"),),
)
