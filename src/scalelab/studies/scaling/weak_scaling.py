"""Each worker keeps its batch, and there are more and more workers: does a step still take as long as on one?

Weak scaling (Gustafson, CACM 31(5), 1988): the work grows with the workers. efficiency = throughput / (workers x the throughput of
``single`` with the same batch per worker and the same threads), which is the step time of ``single`` over that of the workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.measure.statistics import differs, quotient
from scalelab.record import text
from scalelab.record.study import Axis, Card, Column, Findings, Plot, Row, Series, Table
from scalelab.studies import shown
from scalelab.studies.figures import READ, told, versus
from scalelab.studies.scaling import scaling
from scalelab.studies.scaling.scaling import BASE, SPREAD, quoted, role, shared_figures, spread_over, table_row, workers_of
from scalelab.studies.shown import CEILING, EFFICIENCY, EXPOSED, SPEEDUP, STEP, THROUGHPUT
from scalelab.studies.study import Asked, Point, Result, Study

FIELD = "batch_per_worker"
COLUMNS = [
    *scaling.COLUMNS,
    Column(key=FIELD, title="Batch", sub="per worker", show="count"),
    STEP,
    Column(key="step_ratio", title="Step", sub="over single's", show="times"),
    THROUGHPUT,
    SPEEDUP,
    EFFICIENCY,
    EXPOSED,
    CEILING,
]
CAPTION = (
    "Each worker keeps its batch. The base is single with the threads of one worker; the strategy on one worker shows what its wrapper "
    "costs, for nothing is sent there."
)


def points(asked: Asked) -> list[Point]:
    """The serial base, one process on all cores, the strategy on one worker, and every number of workers, for each batch."""
    return scaling.groups(asked, FIELD)


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Step time, throughput, speedup and efficiency of each point against the serial run of the same batch per worker."""
    rows = [_row(result, results) for result in results]
    batches = sorted({int(result.point.factors[FIELD]) for result in results})
    sentences = [one for batch in batches for one in _sentences(results, batch)]
    table = Table(id="rows", title="Weak scaling", columns=COLUMNS, rows=rows, caption=CAPTION)
    return Findings(
        answer=_answer(results, rows, batches), sentences=sentences, tables=[table], plots=[_plot(rows, batches)],
        cards=_cards(results, rows, batches),
    )  # fmt: skip


def _cards(results: Sequence[Result], rows: Sequence[Row], batches: Sequence[int]) -> list[Card]:
    """The efficiency of the most workers, for each batch."""
    found = {r.label: r for r in rows}
    most = [(batch, one) for batch in batches if (one := _largest(results, batch)) is not None]
    cards = [
        scaling.card(
            "Efficiency", found[one.point.label].figures["efficiency"], text.percent, f"{workers_of(one)} workers, batch {batch}"
        )
        for batch, one in most
    ]
    return [card for some in cards for card in some][:4]


def _row(result: Result, results: Sequence[Result]) -> Row:
    base = role(results, BASE, **{FIELD: result.point.factors[FIELD]})
    assert base is not None, "points makes one for every batch"
    figures = shared_figures(result, base)
    if result is base:
        figures["step_ratio"] = figures["speedup"]
    else:
        figures["step_ratio"] = versus(result, base, READ["step_seconds"])
    return table_row(result, figures)


def _largest(results: Sequence[Result], batch: int) -> Result | None:
    """The point with the most workers that have cores of their own."""
    found = spread_over(results, **{FIELD: batch})
    return found[-1] if found else None


def _answer(results: Sequence[Result], rows: Sequence[Row], batches: Sequence[int]) -> str:
    found = {r.label: r for r in rows}
    known = [
        (one, found[one.point.label].figures) for batch in batches if (one := _largest(results, batch)) is not None
        and found[one.point.label].figures["efficiency"].median is not None
    ]  # fmt: skip
    if not known:
        return "No efficiency can be told: no training with a core for each of its workers has a throughput and a base."
    best, figures = max(known, key=lambda pair: pair[1]["efficiency"].median or 0.0)
    count, name, batch = workers_of(best), best.point.factors["strategy"], best.point.factors[FIELD]
    value = figures["efficiency"]
    base = role(results, BASE, **{FIELD: batch})
    assert value.median is not None
    assert base is not None
    arrives = (
        "and no loss was shown" if not differs(value) else
        "so more than each worker's share arrives; see the marks" if value.median > 1 else
        f"so {text.percent(1 - value.median)} of each worker is lost"
    )  # fmt: skip
    others = [quotient(value, other["efficiency"]) for one, other in known if one is not best]
    of = f"of the {len(known)} batches that were tried"
    rank = f" That is the best {of}." if all(map(differs, others)) else f" No other {of} was shown to be better."
    tried = rank if others else ""
    said = (
        f"On {count} workers with {batch} images each, {name} trains {quoted(figures['speedup'], text.times)} as many images a second as "
        f"one process: an efficiency of {quoted(value, text.percent)}, {arrives}.{tried}"
    )
    return told(said, best, base)


def _sentences(results: Sequence[Result], batch: int) -> list[str]:
    said, found = f"batch {batch}", []
    base, most = role(results, BASE, **{FIELD: batch}), _largest(results, batch)
    if base is not None and most is not None and base.completed:
        ratio = versus(most, base, READ["step_seconds"])
        if ratio.median is not None:
            claim = (
                "no difference was shown"
                if not differs(ratio)
                else f"a step is {'longer' if ratio.median > 1 else 'shorter'} than on one"
            )
            takes = f"a step takes {quoted(ratio, text.times)} single's time: {claim}."
            found.append(told(f"{said.capitalize()} per worker, {workers_of(most)} workers: {takes}", most, base))
        found.append(scaling.all_cores_sentence(results, most, **{FIELD: batch}) or "")
    found.append(scaling.wrapper_sentence(results, said, **{FIELD: batch}) or "")
    return [one for one in found if one]


def _plot(rows: Sequence[Row], batches: Sequence[int]) -> Plot:
    series, workers = [], sorted({int(r.factors["workers"]) for r in rows})
    for batch in batches:
        line = [r for r in rows if r.factors[FIELD] == batch and r.factors["role"] in (scaling.WRAPPER, SPREAD)]
        series.append(shown.line(f"batch {batch} per worker", line, "efficiency", "workers"))
    series.append(Series(name="nothing lost", x=list(workers), y=[1.0] * len(workers), style="ideal"))
    return Plot(
        id="efficiency", title="Efficiency", x=scaling.axis(workers),
        y=Axis(title="efficiency", show="percent"), series=series,
        caption="A step on n workers that takes as long as single's is 100 %. What is lost at 1 worker is the wrapper's, what is lost "
        "further on is communication, waiting for the slowest, and what cores share: memory, caches, clock.",
    )  # fmt: skip


STUDY = Study(
    name="weak-scaling",
    question="Each worker keeps its batch: how much of each further worker arrives as throughput?",
    points=points,
    subject=scaling.is_spread,
    analyse=analyse,
    example="  scalelab study weak-scaling --model resnet18 --data cifar10 --strategy ddp --workers 1 2 --batch-per-worker 32 128",
    base={"strategy": "ddp", "steps": 60, "evaluate": False, "checkpoint": False},
    varies={"workers": [1, 2], "batch_per_worker": [32, 128]},
    quick={"steps": 35, "batch_per_worker": [64]},
)
