"""Each epoch of each training: how fast, what was learnt, and what its workers used meanwhile, by the samples of their resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scalelab.measure.statistics import absent
from scalelab.record import folder as records
from scalelab.record import samples
from scalelab.record.schema import Epoch, Figure, Sample, Step, TrainRecord
from scalelab.record.study import Axis, Column, Plot, Row, Table
from scalelab.studies.figures import over_runs, row
from scalelab.studies.shown import THROUGHPUT, WORKERS, line
from scalelab.studies.study import Result, Run

NO_GPU = "its workers compute on no GPU, or the GPU does not tell"
NO_NETWORK = "one worker sends nothing, or its interface is not known"
SHORT = "no sample fell into it: it is shorter than --sample-seconds, or they are off"


@dataclass(frozen=True)
class Used:
    """A quantity of the samples: what it is called in tables, of one sample, and over the samples of several workers."""

    title: str
    sub: str
    unit: str
    read: Callable[[Sample], float | None]
    over: Callable[[Sequence[float]], float]
    missing: str = ""


def mean(values: Sequence[float]) -> float:
    """The mean of samples that each cover as much time."""
    return sum(values) / len(values)


USED = {
    "cpu": Used("CPU", "of a core, a worker", "ratio", lambda s: s.cpu_percent / 100, mean),
    "memory": Used("Memory", "most of a worker", "bytes", lambda s: s.resident_bytes, max),
    "sent": Used("Sent", "a host", "bytes/s", lambda s: s.sent_per_second, mean, NO_NETWORK),
    "gpu": Used("GPU", "busy, a worker", "ratio", lambda s: None if s.gpu_percent is None else s.gpu_percent / 100, mean, NO_GPU),
    "gpu_memory": Used("GPU memory", "most of a GPU", "bytes", lambda s: s.gpu_memory_bytes, max, NO_GPU),
}
SHOWN = {"cpu": "percent", "memory": "size", "sent": "bandwidth", "gpu": "percent", "gpu_memory": "size"}
USED_COLUMNS = [Column(key=name, title=used.title, sub=used.sub, show=SHOWN[name]) for name, used in USED.items()]  # type: ignore[arg-type]
LEARNT = ("accuracy", "precision", "recall")
COLUMNS = [
    Column(key="hosts", title="Hosts", show="text"),
    Column(key="how", title="How", show="text"),
    Column(key="epoch", title="Epoch", show="count"),
    THROUGHPUT,
    Column(key="seconds", title="Time", sub="of training", show="seconds"),
    *(Column(key=name, title=name.capitalize(), sub="" if name == "accuracy" else "macro", show="percent") for name in LEARNT),
    *(one for one in USED_COLUMNS if one.key != "sent"),
]
BY_HOST = [
    Column(key="hosts", title="Hosts", show="text"),
    Column(key="how", title="How", show="text"),
    Column(key="host", title="Host", show="text"),
    WORKERS,
    *USED_COLUMNS,
]


@dataclass(frozen=True)
class Seen:
    """A training's epochs as (begin, end) in seconds since 1970 by the first worker's clock, and all its samples."""

    windows: dict[int, tuple[float, float]]
    taken: list[Sample]
    every: float

    def of(self, epoch: int | None, ranks: range | None = None) -> list[Sample]:
        """The samples whose middle lies in an epoch (None: all), of some ranks or of all."""
        mine = [one for one in self.taken if ranks is None or one.rank in ranks]
        if epoch is None:
            return mine
        begin, end = self.windows.get(epoch, (0.0, 0.0))
        return [one for one in mine if begin <= one.at - self.every / 2 < end]


Looked = Mapping[Path, Seen]


def look(results: Sequence[Result]) -> Looked:
    """What each completed training's folder tells, by the folder."""
    return {run.folder: seen(run) for result in results for run in result.completed}


def seen(run: Run) -> Seen:
    """What one training's folder tells."""
    steps: dict[int, list[Step]] = {}
    for step in records.read_steps(run.folder):
        steps.setdefault(step.epoch, []).append(step)
    windows = {
        epoch: (mine[0].at - mine[0].seconds, mine[-1].at)
        for epoch, mine in steps.items()
        if mine[0].at is not None and mine[-1].at is not None
    }
    return Seen(windows, samples.read(run.folder), float(run.record.spec.get("sample_seconds", 0)))


def ranks_of(record: TrainRecord) -> dict[str, range]:
    """The ranks of each host, by its name: they are counted host by host."""
    found, first = {}, 0
    for host in record.environment.hosts:
        found[host.name] = range(first, first + host.workers)
        first += host.workers
    return found


def used(run: Run, looked: Looked, name: str, epoch: int | None = None, ranks: range | None = None) -> Figure:
    """A quantity of ``USED`` over the samples of an epoch, or of all of them, of some ranks or all."""
    what = USED[name]
    taken = looked[run.folder].of(epoch, ranks)
    known = [value for one in taken if (value := what.read(one)) is not None]
    if not known:
        return absent(what.unit, SHORT if not taken else what.missing or SHORT)
    return Figure(unit=what.unit, median=float(what.over(known)), n=1)


def table(results: Sequence[Result], looked: Looked) -> Table:
    """A row for each epoch of each point, over its repeats."""
    rows = [
        _epoch_row(result, epoch, looked)
        for result in results
        for epoch in sorted({one.epoch for run in result.completed for one in run.record.epochs})
    ]
    caption = (
        "Medians over the repeats. Accuracy, macro precision and macro recall are of the test set after the epoch; time and throughput "
        "are of its training. What was used is of the samples in the epoch: the mean over them and the workers, of memory the most."
    )
    return Table(id="epochs", title="Each epoch", columns=COLUMNS, rows=rows, caption=caption)


def _epoch_row(result: Result, number: int, looked: Looked) -> Row:
    def of(name: str, unit: str) -> Figure:
        return over_runs(result, lambda run: _value(_epoch(run.record, number), name, unit))

    found = {
        "images_per_second": of("images_per_second", "images/s"), "seconds": of("seconds", "s"),
        **{name: of(name, "accuracy" if name == "accuracy" else "ratio") for name in LEARNT},
        **{name: over_runs(result, lambda run, name=name: used(run, looked, name, number)) for name in USED},  # type: ignore[misc]
    }  # fmt: skip
    made = row(result, found)
    return Row(label=f"{made.label}, epoch {number}", factors={**made.factors, "epoch": number}, figures=found, runs=made.runs)


def _epoch(record: TrainRecord, number: int) -> Epoch | None:
    return next((one for one in record.epochs if one.epoch == number), None)


def _value(epoch: Epoch | None, name: str, unit: str) -> Figure:
    value = None if epoch is None else getattr(epoch, name)
    return absent(unit, "this repeat has no such epoch") if value is None else Figure(unit=unit, median=value, n=1)


def by_host(results: Sequence[Result], looked: Looked) -> Table:
    """A row for each host of each point: what its workers used over the whole training."""
    rows = []
    for result in results:
        names = list(dict.fromkeys(name for run in result.completed for name in ranks_of(run.record)))
        rows += [_host_row(result, name, looked) for name in names]
    caption = (
        "The whole training, evaluation included: means over the samples of the host's workers, of memory the most; n is repeats."
    )
    return Table(id="by-host", title="Each host", columns=BY_HOST, rows=rows, caption=caption)


def _host_row(result: Result, host: str, looked: Looked) -> Row:
    def of(name: str) -> Figure:
        return over_runs(result, lambda run: used(run, looked, name, None, ranks_of(run.record).get(host, range(0))))

    made = row(result, {name: of(name) for name in USED})
    workers = max(len(ranks_of(run.record).get(host, ())) for run in result.completed)
    factors = {**made.factors, "host": host, "workers": workers}
    return Row(label=f"{made.label}: {host}", factors=factors, figures=made.figures, runs=made.runs)


def whole(record: TrainRecord) -> Figure:
    """Seconds of training and evaluation, without the start."""
    if record.seconds is None:
        return absent("s", "the training did not come to its end")
    return Figure(unit="s", median=record.seconds, n=1)


def plots(results: Sequence[Result], rows: Sequence[Row]) -> list[Plot]:
    """Throughput and accuracy over the epochs, a line for each point."""
    ticks = sorted({float(one.factors["epoch"]) for one in rows})
    found = []
    captions = {
        "images_per_second": "The first epoch also warms up: caches, the allocator, the processor's clock.",
        "accuracy": "The same global batch learns the same on any number of hosts and with any shares, but for rounding; and but for batch "
        "norm, whose statistics are each worker's own unless --batch-norm is sync.",
    }
    for key, title, show in (("images_per_second", "throughput", "rate"), ("accuracy", "test accuracy", "percent")):
        lines = [
            line(result.point.label, [one for one in rows if one.runs == [run.folder.name for run in result.runs]], key, "epoch")
            for result in results
        ]
        y = Axis(title="images/s" if show == "rate" else title, show=show)  # type: ignore[arg-type]
        axes, name = (Axis(title="epoch", ticks=ticks, show="count"), y), f"{title.capitalize()} by epoch"
        found.append(Plot(id=f"by-epoch-{key}", title=name, x=axes[0], y=axes[1], series=lines, caption=captions[key]))
    return found
