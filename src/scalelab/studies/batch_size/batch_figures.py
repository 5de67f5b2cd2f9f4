"""The figures of a training of batch-size: its epochs from the second on, its activations, the line through all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from scalelab.measure import line
from scalelab.measure.statistics import absent, figure
from scalelab.record import folder as records
from scalelab.record.schema import Figure, Step, TrainRecord
from scalelab.studies.communication.wire import steps_of_epoch
from scalelab.studies.figures import ONE, over_runs, runs_versus, scaled
from scalelab.studies.running.ceiling import achieved
from scalelab.studies.study import Result, Run

EPOCHS = "one training: the interval is of its epochs, not of repeats"
NO_EPOCH = "no second epoch was trained whole"
WITHIN = 0.05
"""a batch whose throughput is at most this share below the best is as good"""


def batch_of(result: Result) -> int:
    """Its batch."""
    return int(result.point.factors["batch"])


def whole_epochs(steps: Sequence[Step], each: int) -> list[list[Step]]:
    """The steps of each epoch from the second on, those that were trained whole."""
    by_epoch: dict[int, list[Step]] = {}
    for step in steps:
        by_epoch.setdefault(step.epoch, []).append(step)
    return [mine for epoch, mine in sorted(by_epoch.items()) if epoch > 1 and len(mine) == each]


def of_epochs(run: Run, read: Callable[[Step], float], instead: Figure) -> Figure:
    """Seconds of an epoch, one value an epoch from the second on; where none was whole, ``instead`` (of a step) times the steps."""
    each = steps_of_epoch(run.record)
    epochs = whole_epochs(list(records.read_steps(run.folder)), each) if each else []
    if epochs:
        return figure([sum(map(read, steps)) for steps in epochs], "s")
    if instead.median is None or not each:
        return absent("s", instead.reason or "the steps of an epoch are not known")
    found = scaled(instead, each)
    why = f"{NO_EPOCH}: {instead.n} blocks of steps times the {each} steps of an epoch"
    return Figure(unit="s", median=found.median, n=found.n, mad=found.mad, ci95=found.ci95, reason=why)


def epoch_seconds(run: Run) -> Figure:
    """Of whole steps."""
    return of_epochs(run, lambda step: step.seconds, run.record.step_seconds)


def epoch_data(run: Run) -> Figure:
    """Waiting for data."""
    return of_epochs(run, lambda step: step.data_seconds, run.record.data_wait_seconds)


def epoch_compute(run: Run) -> Figure:
    """The rest: one worker has no communication."""
    return of_epochs(run, lambda step: step.seconds - step.data_seconds, run.record.compute_seconds)


def _per(run: Run, epoch: Figure, amount: float, unit: str) -> Figure:
    """``amount`` an epoch, over the epoch's seconds."""
    if epoch.median is None or epoch.median <= 0:
        return absent(unit, epoch.reason or "an epoch took no time")
    ends = None if epoch.ci95 is None or epoch.ci95[0] <= 0 else (amount / epoch.ci95[1], amount / epoch.ci95[0])
    return Figure(unit=unit, median=amount / epoch.median, n=epoch.n, ci95=ends, reason=epoch.reason)


def rate(run: Run) -> Figure:
    """Images/s of whole epochs."""
    images = steps_of_epoch(run.record) * run.record.derived.batch
    return _per(run, epoch_seconds(run), images, "images/s")


def step_compute(run: Run) -> Figure:
    """Seconds of a step, waiting for data left out."""
    each = steps_of_epoch(run.record)
    return scaled(epoch_compute(run), 1 / each) if each else absent("s", "the steps of an epoch are not known")


def compared(a: Result, b: Result) -> Figure:
    """Throughput of ``a`` over that of ``b``, paired by repeat."""
    ratio = runs_versus(a, b, rate)
    whole = all(pooled_epochs(one, rate).reason is None for one in (a, b))
    return msgspec.structs.replace(ratio, reason=EPOCHS) if ratio.reason == ONE and whole else ratio


def pooled_epochs(result: Result, read: Callable[[Run], Figure]) -> Figure:
    """A figure of epochs over the repeats; where they were no epochs, that is said of the median too."""
    return over_runs(result, read, doubted=True)


def share(result: Result) -> Figure:
    """Of the machine's ceiling, by the throughput of whole epochs."""

    def found(run: Run) -> Figure:
        return achieved(msgspec.structs.replace(run.record, images_per_second=rate(run)), run.ceilings)

    return over_runs(result, found, doubted=True)


def activations(record: TrainRecord) -> Figure:
    """Bytes kept for the backward pass, when they are most."""
    held = record.memory_bytes.tensors
    if held is None:
        return absent("bytes", "the tensors of a step were not looked at: --probe-steps 0, or --compile")
    return Figure(unit="bytes", median=float(held.most_activations), n=1)


def activations_over_cache(record: TrainRecord) -> Figure:
    """The same over the largest cache that a core sees; above 1 they are written to memory and read back."""
    size, held = max((host.cache_bytes for host in record.environment.hosts), default=0), activations(record)
    if record.environment.device == "cuda":
        return absent("ratio", "of processors; this ran on a GPU")
    return scaled(held, 1 / size, "ratio") if size else absent("ratio", "this system does not tell the size of its caches")


def fit(done: Sequence[Result]) -> line.Line:
    """a + b x batch over the completed batches."""
    known = [(float(batch_of(one)), seconds) for one in done if (seconds := over_runs(one, step_compute).median)]
    return line.fit([batch for batch, _ in known], [seconds for _, seconds in known])


def as_good(result: Result, best: Result) -> bool | None:
    """Whether the intervals show ``result`` within 5 % of the best throughput, or show that it is not; None where they don't tell."""
    ends = compared(result, best).ci95
    if result is best:
        return True
    if ends is None or ends[0] < 1 - WITHIN <= ends[1]:
        return None
    return ends[0] >= 1 - WITHIN


def off_the_line(done: Sequence[Result], fitted: line.Line) -> bool:
    """Whether the interval of a step's time leaves the line out: only then it is shown to be none."""
    both = [(over_runs(one, step_compute).ci95, fitted.at(batch_of(one))) for one in done]
    return any(ends is not None and at is not None and not ends[0] <= at <= ends[1] for ends, at in both)


def bend(done: Sequence[Result]) -> tuple[Result, Result] | None:
    """(the smallest batch within 5 % of the best throughput, the best); None where no throughput is known."""
    known = [(one, value) for one in done if (value := over_runs(one, rate).median) is not None]
    if not known:
        return None
    best, most = max(known, key=lambda pair: pair[1])
    return next(one for one, value in known if value >= (1 - WITHIN) * most), best
