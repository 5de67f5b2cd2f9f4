"""What do the workers' collectives cost, and does the network or the memory set that cost?

For each number of workers and batch per worker: computing, total, exposed and hidden communication of an epoch (docs/numbers.md), the
bytes that are really sent, and the bus bandwidth: that used while collectives were under way in a step, and that of the same collectives
by themselves on the same workers (comm/bare.py), against what the machine can carry (studies/wire.py).

The exposed time is read twice: by pairs of steps with and without communication (worker/probe.py), and from the time in which a rank
computed nothing while a collective was under way (comm/profiled.py). Where the two are more than 25 % apart the study says so, and why
that may be.
"""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.measure.statistics import differs, quotient
from scalelab.record import text
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Card, Column, Findings, Plot, Row, Series, Table
from scalelab.studies.communication import wire
from scalelab.studies.figures import READ, Read, over_runs, pooled, row, share_of_ceiling, told
from scalelab.studies.scaling import scaling
from scalelab.studies.scaling.scaling import BASE, SPREAD, exposed_share, is_spread, quoted, role, table_row, workers_of
from scalelab.studies.shown import CEILING, EFFICIENCY, EXPOSED, drawn
from scalelab.studies.study import Asked, Point, Result, Study

FIELD = "batch_per_worker"
TIMES: dict[str, Read] = {
    "compute": READ["compute_seconds"],
    "total": READ["total"],
    "exposed": READ["exposed"],
    "waited": lambda record: record.communication_seconds.waited,
    "hidden": READ["hidden"],
    "data_wait": READ["data_wait_seconds"],
}
"""seconds of an epoch in the first table, by their key"""
RATES: dict[str, Read] = {
    "bus_total": wire.bandwidth(READ["total"]),
    "bus_exposed": wire.bandwidth(READ["exposed"]),
    "bus_bare": wire.bandwidth(lambda record: record.communication_seconds.bare),
}
KEYS = [*scaling.COLUMNS, Column(key=FIELD, title="Batch", sub="per worker", show="count")]
COLUMNS = [
    *KEYS,
    Column(key="compute", title="Compute", sub="s / epoch", show="seconds"),
    Column(key="total", title="In collectives", sub="s / epoch", show="seconds"),
    Column(key="exposed", title="Exposed", sub="probe, s / epoch", show="seconds"),
    Column(key="waited", title="Exposed", sub="waits, s / epoch", show="seconds"),
    Column(key="hidden", title="Hidden", sub="s / epoch", show="seconds"),
    Column(key="data_wait", title="Data wait", sub="s / epoch", show="seconds"),
    EXPOSED,
    EFFICIENCY,
    CEILING,
]
BANDWIDTH = [
    *KEYS,
    Column(key="bytes_sent", title="Sent", sub="bytes / step", show="size"),
    Column(key="bytes_epoch", title="Sent", sub="bytes / epoch", show="size"),
    Column(key="bus_total", title="Bus", sub="over total", show="bandwidth"),
    Column(key="bus_exposed", title="Bus", sub="over exposed", show="bandwidth"),
    Column(key="bus_bare", title="Bus", sub="by themselves", show="bandwidth"),
    Column(key="of_bare", title="Reached", sub="total / by themselves", show="percent"),
    Column(key="limit", title="Limit", sub="of machine or link", show="bandwidth"),
    Column(key="of_limit", title="Reached", sub="by themselves / limit", show="percent"),
    Column(key="readings", title="Readings", sub="waits / probe", show="times"),
]
CAPTION = (
    "A worker's seconds of an epoch: those of a step times its steps. Total: at least one collective under way; exposed: what it adds to "
    "the step, by two readings; hidden: total - exposed. The base is single with the same batch per worker and threads."
)
BUS = (
    "Bytes that a worker sends by a ring, counted, over a time: the bus bandwidth of nccl-tests. Over total the waiting for slower workers "
    f"is in it; by themselves the same collectives have nothing beside them. Limit: {wire.LIMIT}."
)


def points(asked: Asked) -> list[Point]:
    """The serial base and every number of workers above one, for each batch. Raises ScalelabError where nothing would be sent or read."""
    scaling.check_probed(asked)
    return [point for point in scaling.groups(asked, FIELD) if point.factors["role"] in (BASE, SPREAD)]


def analyse(asked: Asked, results: Sequence[Result]) -> Findings:
    """Times of an epoch, bandwidths against the bare collectives and the limit, both readings of the exposed time."""
    sent = [result for result in results if result.point.factors["role"] == SPREAD]
    rows, bus = [_row(result, results) for result in results], [_bus_row(result) for result in sent]
    tables = [
        Table(id="rows", title="An epoch", columns=COLUMNS, rows=rows, caption=CAPTION),
        Table(id="bandwidth", title="Bandwidth", columns=BANDWIDTH, rows=bus, caption=BUS),
    ]
    plots = [_parts_plot(sent, rows), _bus_plot(bus), _readings_plot(sent, rows)]
    sentences = [*_bandwidth_sentences(sent, bus), *_reading_sentences(sent, bus)]
    return Findings(answer=_answer(sent), sentences=sentences, tables=tables, plots=plots, cards=_cards(sent, bus))


def _cards(sent: Sequence[Result], bus: Sequence[Row]) -> list[Card]:
    """What communication adds to a step of the first point, and its bandwidths."""
    if not sent:
        return []
    name, rates = _name(sent[0]), bus[0].figures
    return [
        *scaling.card("Communication adds", pooled(sent[0], exposed_share), text.percent, f"of a step, {name}"),
        *scaling.card("Bus in a step", rates["bus_total"], _speed, name),
        *scaling.card("Bus by themselves", rates["bus_bare"], _speed, name),
        *scaling.card("Of the limit", rates["of_limit"], text.percent, f"by themselves, {name}"),
    ]


def _speed(value: float) -> str:
    return f"{text.size(value)}/s"


def _row(result: Result, results: Sequence[Result]) -> Row:
    base = role(results, BASE, **{FIELD: result.point.factors[FIELD]})
    assert base is not None, "points makes one for every batch"
    figures = {key: pooled(result, wire.per_epoch(read)) for key, read in TIMES.items()}
    figures["exposed_share"] = pooled(result, exposed_share)
    figures["efficiency"] = scaling.efficiency(result, scaling.over_base(result, base))
    figures["achieved"] = share_of_ceiling(result)
    return table_row(result, figures, _marks(result))


def _bus_row(result: Result) -> Row:
    figures = {key: pooled(result, read) for key, read in RATES.items()}
    figures["bytes_sent"] = pooled(result, READ["bytes_sent"])
    figures["bytes_epoch"] = pooled(result, wire.per_epoch(READ["bytes_sent"]))
    figures["limit"] = over_runs(result, wire.limit)
    figures["of_bare"] = pooled(result, lambda record: quotient(RATES["bus_total"](record), RATES["bus_bare"](record)))
    figures["of_limit"] = over_runs(result, lambda run: wire.share(RATES["bus_bare"](run.record), wire.limit(run)))
    figures["readings"] = pooled(result, wire.waits_over_probe)
    return row(result, figures, _marks(result))


def _marks(result: Result) -> list[str]:
    return wire.distinct([mark for run in result.completed for mark in wire.impossible(run.record, wire.limit(run))])


def _name(result: Result) -> str:
    return f"{workers_of(result)} workers x {result.point.factors[FIELD]}"


def _answer(sent: Sequence[Result]) -> str:
    """What communication adds where it adds most and least, and whether the batch made that difference."""
    known = [(one, share) for one in sent if (share := pooled(one, exposed_share)).median is not None]
    if not known:
        why = next((pooled(one, exposed_share).reason for one in sent), None)
        return f"What communication adds to a step could not be told: {why or 'no training on several workers was completed'}."
    ordered = sorted(known, key=lambda pair: pair[1].median or 0.0)
    (least, low), (most, high) = ordered[0], ordered[-1]
    strategy = most.point.factors["strategy"]
    if most is least or high.median is None or high.median <= 0:
        said = f"With {strategy}, {_name(most)} images, communication adds {quoted(high, text.percent)} of a step{_told(high)}."
        return told(said, most)
    ratio = quotient(high, low)
    differ = "a difference that the intervals show" if ratio.median is not None and differs(ratio) else (
        "the intervals do not tell the two apart"
    )  # fmt: skip
    said = (
        f"With {strategy}, communication adds {quoted(high, text.percent)} of a step at {_name(most)} images{_told(high)} and "
        f"{quoted(low, text.percent)} at {_name(least)}{_told(low)}: {differ}."
    )
    return told(said, most, least)


def _told(share: Figure) -> str:
    """That a share can't be told from nothing, where it can't."""
    return ", which can't be told from nothing" if share.ci95 is not None and share.ci95[0] <= 0 <= share.ci95[1] else ""


def _bandwidth_sentences(sent: Sequence[Result], bus: Sequence[Row]) -> list[str]:
    found = []
    for result, one in zip(sent, bus, strict=True):
        used, bare, ratio, limit = (one.figures[key] for key in ("bus_total", "bus_bare", "of_bare", "of_limit"))
        if used.median is None or bare.median is None or ratio.median is None:
            continue
        slower = "slowed by waiting for one another and by what is computed beside them"
        faster = "faster than by themselves, so the two met other load"
        claim = "no difference was shown" if not differs(ratio) else slower if ratio.median < 1 else faster
        within = f"; by themselves they use {text.percent(limit.median)} of the limit" if limit.median is not None else ""
        said = (
            f"{_name(result)} images: the collectives go at {text.size(used.median)}/s in a step and {text.size(bare.median)}/s by "
            f"themselves ({quoted(ratio, text.percent)}): {claim}{within}."
        )
        found.append(told(said, result))
    return found


def _reading_sentences(sent: Sequence[Result], bus: Sequence[Row]) -> list[str]:
    """Where the probe and the waits disagree on the exposed time, both numbers, and the likely reason; how many agree."""
    found, agreed = [], 0
    compared = [(result, one.figures["readings"]) for result, one in zip(sent, bus, strict=True)]
    known = [(result, ratio) for result, ratio in compared if ratio.median is not None]
    for result, ratio in known:
        if not wire.disagree(ratio):
            agreed += 1
            continue
        probe, waits = pooled(result, TIMES["exposed"]), pooled(result, TIMES["waited"])
        device = result.completed[0].record.environment.device
        said = (
            f"{_name(result)} images: the two readings of the exposed time of a step disagree: {quoted(probe, text.seconds)} by the probe, "
            f"{quoted(waits, text.seconds)} by the waits. The likely reason: {wire.likely_reason(ratio, device)}."
        )
        found.append(told(said, result))
    if known:
        found.append(f"The two readings of the exposed time are within 25 % of each other in {agreed} of {len(known)} cases.")
    for result, ratio in compared:
        if ratio.median is None and result.completed:
            found.append(f"{_name(result)} images: the two readings can't be compared: {ratio.reason}.")
    return found


def _parts_plot(sent: Sequence[Result], rows: Sequence[Row]) -> Plot:
    names, by_label = [_name(one) for one in sent], {one.label: one for one in rows}
    parts = {"compute": "compute", "exposed": "exposed communication", "data_wait": "waiting for data"}
    series = [
        Series(name=title, x=list(names), y=[_positive(by_label[one.point.label].figures[key]) for one in sent], style="stacked")
        for key, title in parts.items()
    ]
    return Plot(
        id="parts", title="Where an epoch goes", x=Axis(title="workers x batch per worker", show="text"),
        y=Axis(title="seconds of an epoch", show="seconds"), series=series,
        caption="The exposed part is what communication costs; the hidden part passes behind computing, and is not added.",
    )  # fmt: skip


def _positive(figure: Figure) -> float | None:
    return None if figure.median is None else max(0.0, figure.median)


def _bus_plot(bus: Sequence[Row]) -> Plot:
    names = [f"{one.factors['workers']} workers x {one.factors[FIELD]}" for one in bus]
    titles = {"bus_total": "in a step", "bus_bare": "by themselves"}
    series = [drawn(title, names, [one.figures[key] for one in bus], "bars") for key, title in titles.items()]
    return Plot(
        id="bus", title="Bus bandwidth", x=Axis(title="workers x batch per worker", show="text"),
        y=Axis(title="bytes/s of a worker", show="bandwidth"), series=series,
        caption="The same collectives of the same sizes. Where the bars of a pair differ, it is not the network that sets the time.",
    )  # fmt: skip


def _readings_plot(sent: Sequence[Result], rows: Sequence[Row]) -> Plot:
    names, by_label = [_name(one) for one in sent], {one.label: one for one in rows}
    titles = {"exposed": "probe", "waited": "waits"}
    series = [
        drawn(title, names, [by_label[one.point.label].figures[key] for one in sent], "bars") for key, title in titles.items()
    ]
    return Plot(
        id="readings", title="Two readings of the exposed time", x=Axis(title="workers x batch per worker", show="text"),
        y=Axis(title="seconds of an epoch", show="seconds"), series=series,
        caption="Two independent measurements of one time, with their intervals: what only one of them shows is not to be trusted.",
    )  # fmt: skip


STUDY = Study(
    name="communication",
    question="What do the workers' collectives cost an epoch, and is it the network that sets the cost?",
    points=points,
    subject=is_spread,
    analyse=analyse,
    example="  scalelab study communication --model resnet18 --data cifar10 --strategy ddp --workers 2 --batch-per-worker 32 128",
    base={"strategy": "ddp", "steps": 40, "probe_steps": 12, "evaluate": False, "checkpoint": False},
    varies={"workers": [2], "batch_per_worker": [32, 128]},
    quick={"steps": 35, "batch_per_worker": [32, 128]},
)
