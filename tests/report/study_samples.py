"""A study's record with every kind of column, row, mark and figure that studies make."""

from __future__ import annotations

from scalelab.measure.statistics import absent, repeated
from scalelab.record.schema import Figure
from scalelab.record.study import Axis, Column, Plot, Row, Series, StudyRecord, Table, Trained

WORKERS = [1, 2, 4, 8]
COLUMNS = [
    Column(key="strategy", title="Strategy", show="text"),
    Column(key="workers", title="Workers", show="count"),
    Column(key="images_per_second", title="Throughput", sub="images/s", show="rate"),
    Column(key="step_seconds", title="Step", show="seconds"),
    Column(key="speedup", title="Speedup", sub="over single", show="times"),
    Column(key="efficiency", title="Efficiency", show="percent"),
    Column(key="peak", title="Memory", show="size"),
]
ABOVE = "efficiency above 1: often caches, or a base that was slow for another reason"
NOTE = "paired by repeat"


def figure(value: float, unit: str, reason: str | None = None) -> Figure:
    made = repeated([value * 0.98, value, value * 1.03], unit)
    return Figure(unit=unit, median=made.median, n=made.n, mad=made.mad, ci95=made.ci95, reason=reason)


def row(workers: int) -> Row:
    rate = 1000 * workers**0.8
    return Row(
        label=f"ddp × {workers}",
        factors={"strategy": "ddp", "workers": workers},
        figures={
            "images_per_second": figure(rate, "images/s"),
            "step_seconds": figure(0.064, "s"),
            "speedup": figure(rate / 1000, "ratio", NOTE),
            "efficiency": figure(rate / 1000 / workers, "ratio") if workers < 8 else absent("ratio", "oversubscribed"),
            "peak": figure(4e8 / workers, "bytes"),
        },
        marks=[ABOVE] if workers == 2 else [],
        runs=[f"run-{workers}"],
    )


def refused() -> Row:
    why = "<script>alert(1)</script> cuts nothing"
    none = {column.key: absent("", why) for column in COLUMNS[2:]}
    return Row(label="zero9 × 2", factors={"strategy": "zero9", "workers": 2}, figures=none, status="refused", reason=why)


def line(name: str, power: float, count: int = 4) -> Series:
    xs = [float(2**n) for n in range(count)] if count < 10 else [float(n + 1) for n in range(count)]
    ys = [x**power for x in xs]
    return Series(name=name, x=list(xs), y=list(ys), low=[y * 0.9 for y in ys], high=[y * 1.1 for y in ys])


def plots() -> list[Plot]:
    log = Axis(title="workers", log=True, ticks=[1, 2, 4, 8], show="count")
    ideal = Series(name="linear", x=[1, 8], y=[1, 8], style="ideal")
    names: list[str | int | float] = ["ddp × 2", "zero1 × 2", "zero3 × 2 with offload", "pipeline gpipe stages 2"]
    stacked = [
        Series(name="compute", x=names, y=[0.02, 0.021, 0.024, 0.03], style="stacked"),
        Series(name="exposed <b>", x=names, y=[0.004, 0.005, None, 0.001], style="stacked"),
        Series(name="in theory", x=names, y=[0.025, 0.024, 0.03, 0.028], style="points"),
    ]
    memory = Series(
        name="strategies", x=[1e9, 2.2e9, 0.4e9], y=[900.0, 1800.0, 300.0], style="points", text=["ddp", "zero1", "a % b"]
    )
    lanes: list[str | int | float] = ["worker 0", "worker 1", "worker 0", "worker 1"]
    forward = Series(
        name="forward", x=lanes, y=[None] * 4, low=[0, 0.002, 0.002, 0.004], high=[0.002, 0.004, 0.004, 0.006], style="spans",
        text=["1", "1", "2", "2"],
    )  # fmt: skip
    backward = Series(
        name="backward",
        x=["worker 1", "worker 0"],
        y=[None, None],
        low=[0.006, 0.010],
        high=[0.010, 0.014],
        style="spans",
        text=["1", "1"],
    )
    accuracy = [line(f"curve {n}", 0.2 + n / 10, 60) for n in range(2)]
    words, seconds = Axis(title="", show="text"), Axis(title="a step", show="seconds")
    size, rate = Axis(title="memory", show="size"), Axis(title="images/s", show="rate")
    batch, share = Axis(title="batch", show="count"), Axis(title="accuracy", show="percent")
    images, plain = Axis(title="images", show="count"), Axis(title="accuracy")
    time, worker = Axis(title="time", show="seconds"), Axis(title="worker", show="text")
    speed = [line("ddp", 0.8), line("zero3", 0.6), ideal]
    bars = [
        Series(name=name, x=[128, 2048], y=[0.61, y], low=[0.6, y - 0.01], high=[0.62, y + 0.01], style="bars")
        for name, y in (("none", 0.41), ("lars", 0.55))
    ]
    return [
        Plot(id="speedup", title="Speedup", caption="c", x=log, y=Axis(title="speedup", log=True, show="times"), series=speed),
        Plot(id="parts", title="Parts of a step", caption="c", x=words, y=seconds, series=stacked),
        Plot(id="front", title="Speed against memory", caption="c", x=size, y=rate, series=[memory]),
        Plot(id="bars", title="Accuracy", caption="c", x=batch, y=share, series=bars),
        Plot(id="long", title="Over time", caption="c", x=images, y=plain, series=accuracy),
        Plot(id="timeline", title="A step", caption="c", x=time, y=worker, series=[forward, backward], wide=True),
        Plot(id="nothing", title="Nothing", caption="c", x=log, y=log, series=[Series(name="a", x=[1.0], y=[None])]),
    ]


def study() -> StudyRecord:
    rows = [*(row(n) for n in WORKERS), refused()]
    trainings = [
        Trained(label=one.label, repeat=0, status="completed", run=one.runs[0], seconds=3.2, expected=2.9)
        for one in rows
        if one.runs
    ]
    trainings.append(Trained(label="zero9 × 2", repeat=0, status="refused", reason=rows[-1].reason))
    return StudyRecord(
        study="weak-scaling", question="Each worker keeps its batch: what is gained?", status="completed",
        answer="On 8 workers ddp trains 5.28× as many images.", sentences=["Nothing was shown for zero3."], rows=rows,
        tables=[Table(id="rows", title="Weak scaling", caption="The base is single.", columns=COLUMNS, rows=rows),
                Table(id="short", title="Another", columns=COLUMNS[:2], rows=rows[:2])],
        plots=plots(), notes=["one repeat: no spread is known"], quick=True, repeats=1, trainings=trainings,
        command=["scalelab", "study", "weak-scaling", "--quick"], started="2026-01-02T03:04:05.000Z", runs=[f"run-{n}" for n in WORKERS],
    )  # fmt: skip
