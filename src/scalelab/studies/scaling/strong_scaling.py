"""The global batch stays, and more workers share it: how much faster is it, what never becomes faster, and where does it stop paying?

Strong scaling: speedup S(n) = throughput on n workers / throughput of ``single`` with the same global batch and threads per worker.
Amdahl's serial fraction is fitted over all n; Karp and Flatt's is computed for each n, and how it moves with n tells a serial part from
overhead that grows (measure/amdahl.py). It pays up to the last n after which one more step in ``--workers`` still raised throughput by the
interval of the ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from scalelab.measure import amdahl
from scalelab.measure.statistics import absent, differs
from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Card, Column, Findings, Plot, Row, Series, Table
from scalelab.studies import shown
from scalelab.studies.figures import told, versus
from scalelab.studies.scaling import scaling
from scalelab.studies.scaling.scaling import BASE, RATE, SPREAD, quoted, role, shared_figures, spread_over, table_row, workers_of
from scalelab.studies.shown import CEILING, EFFICIENCY, EXPOSED, SPEEDUP, STEP, THROUGHPUT
from scalelab.studies.study import Asked, Point, Result, Study

FIELD = "batch"
COLUMNS = [
    *scaling.COLUMNS,
    Column(key=FIELD, title="Batch", sub="global", show="count"),
    STEP,
    THROUGHPUT,
    SPEEDUP,
    EFFICIENCY,
    Column(key="marginal", title="Marginal", sub="gain / worker added", show="percent"),
    Column(key="karp_flatt", title="Karp-Flatt", sub="serial fraction", show="percent"),
    EXPOSED,
    CEILING,
]
FITS = [
    Column(key=FIELD, title="Batch", sub="global", show="count"),
    Column(key="serial_fraction", title="Amdahl", sub="serial fraction", show="percent"),
    Column(key="at_most", title="At most", sub="speedup, 1 / fraction", show="times"),
    Column(key="pays_to", title="Pays up to", sub="workers", show="count"),
]
CAPTION = (
    "The global batch stays; the base is single with the threads of one worker. Marginal: what the speedup grew by, for each worker more "
    "than the row before. Karp-Flatt: the part that would have to be serial to give this speedup."
)


def points(asked: Asked) -> list[Point]:
    """The serial base, one process on all cores, the strategy on one worker, and every number of workers, for each batch."""
    return scaling.groups(asked, FIELD)


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Speedup, efficiency, serial fractions, and where it stops paying."""
    batches = sorted({int(result.point.factors[FIELD]) for result in results})
    rows = [_row(result, results) for result in results]
    fits = [_fit(results, batch) for batch in batches]
    tables = [
        Table(id="rows", title="Strong scaling", columns=COLUMNS, rows=rows, caption=CAPTION),
        Table(id="fits", title="Serial fraction", columns=FITS, rows=fits, caption=FIT_CAPTION),
    ]
    sentences = [one for batch in batches for one in _sentences(results, rows, batch)]
    return Findings(
        answer=_answer(results, fits, batches), sentences=sentences, tables=tables, plots=[_plot(rows, fits, batches)],
        cards=_cards(results, fits, batches),
    )  # fmt: skip


def _cards(results: Sequence[Result], fits: Sequence[Row], batches: Sequence[int]) -> list[Card]:
    """How far it pays, and the speedup there, for each batch."""
    cards: list[Card] = []
    for batch, fit in zip(batches, fits, strict=True):
        last, base = pays_to(results, batch), role(results, BASE, batch=batch)
        if last is not None and base is not None:
            count = workers_of(last[0])
            where = f"worker{'s' * (count > 1)}, batch {batch}"
            cards += scaling.card("Pays up to", fit.figures["pays_to"], lambda value: f"{value:.0f}", where)
            cards += scaling.card("Speedup there", scaling.over_base(last[0], base), text.times, f"{count} {where}")
    return cards[:4]


FIT_CAPTION = (
    "Least squares of Amdahl's law over the rows with a core for each worker. It extrapolates: a promise for more workers than were tried "
    "holds only where nothing new comes in the way, such as a slower network."
)


def _row(result: Result, results: Sequence[Result]) -> Row:
    batch = int(result.point.factors[FIELD])
    base = role(results, BASE, batch=batch)
    assert base is not None, "points makes one for every batch"
    figures = shared_figures(result, base)
    spread = result.point.factors["role"] == SPREAD
    crowded = scaling.oversubscribed(result)
    figures["karp_flatt"] = (
        absent("ratio", scaling.OVERSUBSCRIBED) if crowded else
        amdahl.karp_flatt(figures["speedup"], workers_of(result)) if spread else absent("ratio", "of two workers or more")
    )  # fmt: skip
    figures["marginal"] = _marginal(result, results, base)
    return table_row(result, figures)


def chain(results: Sequence[Result], batch: int) -> list[Result]:
    """The base, then each number of workers that has cores of its own; empty without a base."""
    base = role(results, BASE, batch=batch)
    return [base, *spread_over(results, batch=batch)] if base is not None and base.completed else []


def _marginal(result: Result, results: Sequence[Result], base: Result) -> Figure:
    """(S(n) - S(m)) / (n - m), m the row before; its interval is that of the ratio of the two throughputs."""
    steps = chain(results, int(result.point.factors[FIELD]))
    if result not in steps[1:]:
        whole = "of two workers or more with cores of their own"
        return absent("ratio", whole if steps else "no serial base was completed: there is nothing to gain from")
    before = steps[steps.index(result) - 1]
    ratio, reached = versus(result, before, RATE), scaling.over_base(before, base)
    if ratio.median is None or reached.median is None:
        return absent("ratio", ratio.reason or reached.reason or "no speedup was measured")
    unit = reached.median / (workers_of(result) - workers_of(before))
    ends = None if ratio.ci95 is None else ((ratio.ci95[0] - 1) * unit, (ratio.ci95[1] - 1) * unit)
    return Figure(unit="ratio", median=(ratio.median - 1) * unit, n=ratio.n, ci95=ends, reason=ratio.reason)


def pays_to(results: Sequence[Result], batch: int) -> tuple[Result, Result | None, Figure | None] | None:
    """(the last point to which each step raised throughput by its interval, the first that was not shown to, its ratio); None: no base."""
    steps = chain(results, batch)
    for before, after in pairwise(steps):
        ratio = versus(after, before, RATE)
        if ratio.ci95 is None or ratio.ci95[0] <= 1:
            return before, after, ratio
    return (steps[-1], None, None) if steps else None


def _fit(results: Sequence[Result], batch: int) -> Row:
    base = role(results, BASE, batch=batch)
    assert base is not None, "points makes one for every batch"
    speedups = _speedups(results, base, batch)
    serial, last = amdahl.serial_fraction(speedups), pays_to(results, batch)
    found = {
        "serial_fraction": serial,
        "at_most": _limit(serial),
        "pays_to": absent("workers", "no base was completed") if last is None else
        Figure(unit="workers", median=float(workers_of(last[0])), n=len(speedups)),
    }  # fmt: skip
    return Row(label=f"batch {batch}", factors={FIELD: batch}, figures=found)


def _speedups(results: Sequence[Result], base: Result, batch: int) -> list[tuple[int, Figure]]:
    return [(workers_of(one), scaling.over_base(one, base)) for one in spread_over(results, batch=batch)]


def _limit(serial: Figure) -> Figure:
    """1 / s: what no number of workers comes above."""
    if serial.median is None or serial.median <= 0:
        return absent("ratio", serial.reason or "no serial fraction was seen: nothing bounds it here")
    ends = None if serial.ci95 is None or serial.ci95[0] <= 0 else (1 / serial.ci95[1], 1 / serial.ci95[0])
    why = (
        serial.reason if ends else
        "no interval: the serial fraction has none, too few blocks or repeats" if serial.ci95 is None else
        "no interval: that of the serial fraction reaches down to 0, which bounds nothing"
    )  # fmt: skip
    return Figure(unit="ratio", median=1 / serial.median, n=serial.n, ci95=ends, reason=why)


def _answer(results: Sequence[Result], fits: Sequence[Row], batches: Sequence[int]) -> str:
    said = [one for batch in batches if (one := _paying(results, batch))]
    tried = [one for batch in batches for one in chain(results, batch)]
    return (
        told(" ".join(said), *tried)
        or "Nothing can be told: neither the serial base nor a training on more workers has a throughput."
    )


def _paying(results: Sequence[Result], batch: int) -> str | None:
    found, base = pays_to(results, batch), role(results, BASE, batch=batch)
    steps = chain(results, batch)
    if found is None or base is None or len(steps) < 2:
        return None
    last, after, ratio = found
    name = steps[1].point.factors["strategy"]
    gain = scaling.over_base(last, base)
    if after is None:
        tried = f"the {workers_of(last)} workers that were tried"
        return f"Batch {batch}: {name} paid up to {tried}: {quoted(gain, text.times)} as fast as one process."
    assert ratio is not None
    reached = f", {quoted(gain, text.times)} as fast as one process" if last is not base else ""
    count = workers_of(last)
    what = "made it slower" if differs(ratio) else "were not shown to raise throughput"
    return (
        f"Batch {batch}: {name} pays up to {count} worker{'s' * (count > 1)}{reached}; {workers_of(after)} {what} "
        f"({quoted(ratio, text.times)} of that on {count})."
    )


def _sentences(results: Sequence[Result], rows: Sequence[Row], batch: int) -> list[str]:
    found, steps = [], chain(results, batch)
    mine = [r for r in rows if r.factors[FIELD] == batch and r.figures["karp_flatt"].median is not None]
    found.append(told(_trend(mine, batch), *steps) if len(mine) >= 2 else "")
    if steps:
        found.append(told(_amdahl(_speedups(results, steps[0], batch), batch), *steps))
    if len(steps) > 1:
        found.append(scaling.all_cores_sentence(results, steps[-1], batch=batch) or "")
    found.append(scaling.wrapper_sentence(results, f"batch {batch}", batch=batch) or "")
    return [one for one in found if one]


def _amdahl(speedups: Sequence[tuple[int, Figure]], batch: int) -> str:
    """The serial fraction, where the speedups leave room for one; empty without speedups."""
    serial = amdahl.serial_fraction(speedups)
    if serial.median is None:
        return ""
    if serial.median < 0:
        return (
            f"Batch {batch}: no serial fraction explains speedups above the number of workers; the one of Amdahl's law would be "
            f"{quoted(serial, text.percent)}."
        )
    if len(speedups) == 1:
        return (
            f"Batch {batch}: one number of workers is no fit of Amdahl's law; the serial fraction that would give its speedup is "
            f"{quoted(serial, text.percent)}."
        )
    return (
        f"Batch {batch}: Amdahl's law fits best with a serial fraction of {quoted(serial, text.percent)} over {len(speedups)} numbers of "
        "workers."
    )


def _trend(rows: Sequence[Row], batch: int) -> str:
    """How the Karp-Flatt fraction moves from the fewest to the most workers."""
    first, last = rows[0], rows[-1]
    a, b = first.figures["karp_flatt"], last.figures["karp_flatt"]
    ends = f"from {quoted(a, text.percent)} on {first.factors['workers']} workers to {quoted(b, text.percent)} on {last.factors['workers']}"
    if a.ci95 is None or b.ci95 is None:
        return f"Batch {batch}: the Karp-Flatt fraction goes {ends}; without intervals that shows no trend."
    if b.ci95[0] > a.ci95[1]:
        return (
            f"Batch {batch}: the Karp-Flatt fraction rises {ends}: overhead that grows with the workers, such as communication."
        )
    if b.ci95[1] < a.ci95[0]:
        return f"Batch {batch}: the Karp-Flatt fraction falls {ends}: each worker gains from its smaller share, as in caches."
    return f"Batch {batch}: the Karp-Flatt fraction was not shown to move ({ends}); that of a serial part would not."


def _plot(rows: Sequence[Row], fits: Sequence[Row], batches: Sequence[int]) -> Plot:
    workers = sorted({int(r.factors["workers"]) for r in rows})
    series = [Series(name="linear", x=list(workers), y=[float(w) for w in workers], style="ideal")]
    for batch, fit in zip(batches, fits, strict=True):
        line = [r for r in rows if r.factors[FIELD] == batch and r.factors["role"] in (scaling.WRAPPER, SPREAD)]
        series.append(shown.line(f"batch {batch}", line, "speedup", "workers"))
        serial = fit.figures["serial_fraction"].median
        if serial is not None and 0 < serial < 1:
            series.append(
                Series(
                    name=f"Amdahl, batch {batch}", x=list(workers), y=[amdahl.speedup(serial, w) for w in workers], style="ideal"
                )
            )
    return Plot(
        id="speedup", title="Speedup", x=scaling.axis(workers),
        y=Axis(title="speedup over single", show="times", log=scaling.axis(workers).log), series=series,
        caption="Below the line of linear speedup lies what is lost; a measured curve that leaves Amdahl's downwards has overhead that "
        "grows with the workers.",
    )  # fmt: skip


STUDY = Study(
    name="strong-scaling",
    question="The global batch stays and more workers share it: how much faster is it, and where does it stop paying?",
    points=points,
    subject=scaling.is_spread,
    analyse=analyse,
    example="  scalelab study strong-scaling --model resnet18 --data cifar10 --strategy ddp --workers 1 2 4 --batch 256",
    base={"strategy": "ddp", "steps": 60, "evaluate": False, "checkpoint": False},
    varies={"workers": [1, 2], "batch": [256]},
    quick={"steps": 35, "batch": [128]},
)
