"""One host against several, the same spec: how much faster are they together, and what does each epoch cost on them?

Each host trains alone with all its workers, then all together, once with equal shares of each batch and once in proportion to their
measured speed. The global batch stays (strong scaling); with ``--weak`` each worker keeps its own. speedup = throughput / throughput of
the first host alone, paired by repeat; ideal = throughput / the sum of what the hosts train alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scalelab.batch import BATCH, MEASURED
from scalelab.errors import ScalelabError
from scalelab.record import text
from scalelab.record.study import Axis, Card, Column, Factor, Findings, Plot, Row, Series, Table
from scalelab.studies.figures import READ, once, pooled, row, share_of_ceiling
from scalelab.studies.hosts import epochs
from scalelab.studies.hosts.together import (
    BALANCED,
    FIRST,
    FURTHER,
    RATE,
    TOGETHER,
    answer,
    last_epoch,
    of_ideal,
    sentences,
    summed,
)
from scalelab.studies.points import with_values
from scalelab.studies.scaling.scaling import card, check_timed, exposed_share, over_base, oversubscribed
from scalelab.studies.shown import CEILING, EXPOSED, THROUGHPUT, WORKERS, drawn
from scalelab.studies.study import Asked, Option, Point, Result, Study

MOST_NAMES = 3
"""hosts that a label names; of more it gives the number"""
ROLES = {FIRST: "alone, the base", FURTHER: "alone", TOGETHER: "together", BALANCED: "measured shares"}
COLUMNS = [
    Column(key="hosts", title="Hosts", show="text"),
    Column(key="how", title="How", show="text"),
    WORKERS,
    Column(key="split", title="Split", sub="of a micro-batch", show="text"),
    THROUGHPUT,
    Column(key="speedup", title="Speedup", sub="over the first", show="times"),
    Column(key="ideal", title="Of the ideal", sub="sum of all alone", show="percent"),
    EXPOSED,
    CEILING,
    Column(key="seconds", title="Time", sub="training, evaluation", show="seconds"),
    Column(key="accuracy", title="Accuracy", show="percent"),
    Column(key="precision", title="Precision", sub="macro", show="percent"),
    Column(key="recall", title="Recall", sub="macro", show="percent"),
]
CAPTION = "The same training on each host alone and on all of them. The base of speedups is the first host."


def points(asked: Asked) -> list[Point]:
    """Each host alone, then all together, with equal and with measured shares. Raises ScalelabError without two hosts."""
    check(asked)
    names, total = [name for name, _ in asked.places], sum(slots for _, slots in asked.places)
    found = [_point(asked, FURTHER if place else FIRST, (name,), slots) for place, (name, slots) in enumerate(asked.places)]
    found.append(_point(asked, TOGETHER, tuple(names), total))
    if asked.base.shares is None:
        found.append(_point(asked, BALANCED, tuple(names), total, shares=MEASURED))
    return found


def check(asked: Asked) -> None:
    """Raises ScalelabError where there are no hosts to compare, or no batch to share out."""
    base, total = asked.base, sum(slots for _, slots in asked.places)
    if len(asked.places) < 2:
        raise ScalelabError(f"--hosts {asked.where}: one host has none to be compared with; name two or more")
    if base.strategy == "single":
        raise ScalelabError("--strategy single: has one worker, which runs on one host; name a parallel one, such as ddp")
    if base.workers not in (1, total):
        raise ScalelabError(f"--workers {base.workers}: each host of this study trains with all its workers; leave it out")
    if not base.evaluate:
        raise ScalelabError("--no-evaluate: study hosts compares accuracies too, epoch by epoch; leave it out")
    check_timed(asked)


def _point(asked: Asked, role: str, hosts: tuple[str, ...], workers: int, **values: Any) -> Point:
    shares = values.get("shares", asked.base.shares if len(hosts) > 1 else None)
    spec = with_values(asked.base, **{"workers": workers, "shares": shares, **_batch(asked)})
    said = "+".join(hosts) if len(hosts) <= MOST_NAMES else f"all {len(hosts)} hosts"
    factors: dict[str, Factor] = {"hosts": said, "role": role, "how": ROLES[role], "workers": workers}
    return Point(f"{said}{', measured' * (role == BALANCED)}", factors, spec, hosts)


def _batch(asked: Asked) -> dict[str, int]:
    """What ``--weak`` makes of the batch: each worker of any point keeps the share that it has on the first host."""
    batch, first = asked.base.batch or BATCH, asked.places[0][1]
    if not asked.options.get("weak") or asked.base.batch_per_worker is not None:
        return {}
    if batch % first:
        raise ScalelabError(f"--batch {batch}: does not divide over the {first} workers of {asked.places[0][0]}, as --weak needs")
    return {"batch_per_worker": batch // first}


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Throughput and what was learnt, over the whole training, by epoch, and what each host used."""
    alone = [one for one in results if len(one.point.hosts) == 1]
    seen = epochs.look(results)
    rows = [_row(result, alone) for result in results]
    tables = [Table(id="rows", title="Hosts", columns=COLUMNS, rows=rows, caption=CAPTION), epochs.table(results, seen)]
    tables.append(epochs.by_host(results, seen))
    return Findings(
        answer=answer(results), sentences=sentences(results), tables=tables, plots=_plots(results, rows, tables[1].rows, alone),
        cards=_cards(results, rows),
    )  # fmt: skip


def _row(result: Result, alone: Sequence[Result]) -> Row:
    found = {
        "images_per_second": pooled(result, RATE),
        "speedup": over_base(result, alone[0]),
        "ideal": of_ideal(result, alone),
        "exposed_share": pooled(result, exposed_share),
        "achieved": share_of_ceiling(result),
        "step_seconds": pooled(result, READ["step_seconds"]),
        "seconds": pooled(result, epochs.whole),
        **{name: pooled(result, last_epoch(name)) for name in ("accuracy", "precision", "recall")},
        "peak_memory": pooled(result, READ["peak_memory"]),
    }
    marks = ["more threads than cores on a host: they take turns"] if oversubscribed(result) else []
    made = row(result, found, marks)
    made.factors["split"] = _split(result)
    return made


def _split(result: Result) -> str:
    """``12 + 20``: what each worker gets of a micro-batch; of several repeats that differ, the first's with a mark of that."""
    found = list(dict.fromkeys(run.record.derived.samples for run in result.completed))
    if not found:
        return text.ABSENT
    even = len(set(found[0])) == 1 and len(found[0]) > 2
    said = f"{len(found[0])} × {found[0][0]}" if even else " + ".join(map(str, found[0]))
    return said + (", and others" if len(found) > 1 else "")


def _cards(results: Sequence[Result], rows: Sequence[Row]) -> list[Card]:
    """The speedups, and how much of the hosts' sum arrives."""
    found: list[Card] = []
    for result, made in zip(results, rows, strict=True):
        role = result.point.factors["role"]
        if role in (TOGETHER, BALANCED):
            how = ("equal shares" if role == TOGETHER else "measured shares") + ("; one training" if once(result) else "")
            found += card("Speedup", made.figures["speedup"], text.times, how)
            found += card("Of the ideal", made.figures["ideal"], text.percent, how)
    return found[:4]


def _plots(results: Sequence[Result], rows: Sequence[Row], by_epoch: Sequence[Row], alone: Sequence[Result]) -> list[Plot]:
    labels: list[Factor] = [one.label for one in rows]
    rates = [one.figures["images_per_second"] for one in rows]
    ideal = summed([pooled(one, RATE) for one in alone]).median
    bars = drawn("throughput", labels, rates, "bars")
    line = Series(name="sum of all alone", x=labels, y=[ideal] * len(labels), style="ideal")
    throughput = Plot(
        id="throughput", title="Throughput", x=Axis(title=""), y=Axis(title="images/s", show="rate"), series=[bars, line],
        caption="The dashed line is what the hosts train alone, added up: what is missing below it is communication, and waiting for the "
        "slowest.",
    )  # fmt: skip
    return [throughput, *epochs.plots(results, by_epoch)]


STUDY = Study(
    name="hosts",
    question="One host, or several together: how much faster, by epoch and to the end, and is the same learnt?",
    points=points,
    subject=lambda point: len(point.hosts) > 1,
    analyse=analyse,
    example="  scalelab study hosts --hosts h1:2,h2:2 --model resnet18 --data cifar10 --epochs 3 --csv hosts.csv",
    base={"strategy": "ddp", "epochs": 3, "sample_seconds": 0.5, "checkpoint": False},
    quick={"epochs": 2},
    options=(Option("weak", False, "each worker keeps the share of the batch that it has on the first host alone"),),
    hosts=True,
)
