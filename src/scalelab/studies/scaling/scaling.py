"""What the studies of scaling share: the serial base, the wrapper on one worker, one process on all cores; speedups and their marks.

speedup = throughput / throughput of ``single`` with the threads of one worker, paired by repeat; efficiency = speedup / workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.errors import ScalelabError
from scalelab.measure.statistics import absent, differs
from scalelab.record import text
from scalelab.record.schema import Figure, TrainRecord
from scalelab.record.study import Axis, Card, Column, Factor, Row
from scalelab.spec import Spec
from scalelab.studies.figures import READ, once, pooled, row, scaled, share_of_ceiling, told, versus
from scalelab.studies.points import serial, spread, threads, with_values
from scalelab.studies.shown import WORKERS
from scalelab.studies.study import Asked, Point, Result

RATE = READ["images_per_second"]
BASE, WRAPPER, SPREAD, ALL_CORES = "serial base", "wrapper", "workers", "all cores"
"""what a point is for, its factor ``role``"""
MANY = 16
"""workers from which on their axis is logarithmic"""
OVERSUBSCRIBED = "more workers than cores: they take turns, and no efficiency is claimed"
COLUMNS = [
    Column(key="strategy", title="Strategy", show="text"),
    WORKERS,
]
ABOVE = (
    "the usual causes: each worker's share fits the caches better, the base was slowed (other load, fewer threads, another memory layout), "
    "a processor that clocks higher, or noise"
)


def groups(asked: Asked, field: str) -> list[Point]:
    """For each value of ``field`` (a batch): ``single``, ``single`` on all cores, and the strategy on 1 and on every number of workers.

    Threads per worker are the same in all but the row on all cores. Raises ScalelabError where nothing is spread.
    """
    workers = check(asked)
    each = threads(asked, max(workers))
    found = []
    for value in sorted(set(asked.varied[field])):
        common = {field: value, "threads_per_worker": each}

        def point(role: str, name: str, count: int, spec: Spec, label: str, value: int = value) -> Point:
            factors: dict[str, Factor] = {"strategy": name, "workers": count, field: value, "role": role}
            return Point(label, factors, spec)

        said = f"{field.replace('_', ' ')} {value}"
        found.append(point(BASE, "single", 1, serial(asked.base, **common), f"single, {said}"))
        if asked.cores > each and asked.base.device != "cuda":
            whole = serial(asked.base, **{**common, "threads_per_worker": asked.cores})
            name = f"single, all {asked.cores} cores"
            found.append(point(ALL_CORES, name, 1, whole, f"{name}, {said}"))
        for count in sorted({1, *workers}):
            spec = with_values(asked.base, workers=count, **common)
            role = SPREAD if count > 1 else WRAPPER
            found.append(point(role, spread(spec), count, spec, f"{spread(spec)} × {count}, {said}"))
    return found


def check(asked: Asked) -> list[int]:
    """The numbers of workers. Raises ScalelabError where nothing is spread."""
    workers = sorted(set(asked.varied["workers"]))
    if asked.base.strategy == "single":
        raise ScalelabError("--strategy single: is the base that this study compares with; name a parallel one, such as ddp")
    if max(workers) < 2:
        raise ScalelabError(f"--workers {workers[0]}: needs two or more, such as --workers 2 4")
    check_timed(asked)
    return workers


def is_spread(point: Point) -> bool:
    """Whether a point is what a study of workers is about: two of them or more."""
    return point.factors["role"] == SPREAD


def check_timed(asked: Asked) -> None:
    """Raises ScalelabError where no step would be timed."""
    base = asked.base
    left_out = base.warmup_steps + base.profile
    if base.steps is not None and base.steps <= left_out:
        traced = f" and the {base.profile} that are traced" if base.profile else ""
        raise ScalelabError(
            f"--steps {base.steps}: no step is left to be timed beside the {base.warmup_steps} of --warmup-steps{traced}; "
            f"give at least {left_out + 1}"
        )


def check_probed(asked: Asked) -> None:
    """Raises ScalelabError where the readings that a study needs are switched off."""
    if asked.base.probe_steps == 0 or asked.base.compile:
        flag = "--compile" if asked.base.compile else "--probe-steps 0"
        raise ScalelabError(f"{flag}: leaves out the probes that this study reads; leave it away")
    check_timed(asked)


def role(results: Sequence[Result], name: str, **factors: Factor) -> Result | None:
    """The result with this role and these factors, or None."""
    wanted = {"role": name, **factors}
    return next((r for r in results if all(r.point.factors.get(key) == value for key, value in wanted.items())), None)


def spread_over(results: Sequence[Result], **factors: Factor) -> list[Result]:
    """The completed points of two workers or more with these factors, by workers, those with cores of their own."""
    found = [
        r for r in results
        if r.point.factors["role"] == SPREAD and r.completed and not oversubscribed(r)
        and all(r.point.factors.get(key) == value for key, value in factors.items())
    ]  # fmt: skip
    return sorted(found, key=workers_of)


def workers_of(result: Result) -> int:
    """Its number of workers."""
    return int(result.point.factors["workers"])


def oversubscribed(result: Result) -> bool:
    """Whether its workers had to share cores."""
    return any(run.record.derived.oversubscribed for run in result.completed)


def shared_figures(result: Result, base: Result) -> dict[str, Figure]:
    """Step time, throughput, speedup, efficiency, exposed communication's share of a step, share of the ceiling."""
    speedup = over_base(result, base)
    return {
        "step_seconds": pooled(result, READ["step_seconds"]),
        "images_per_second": pooled(result, RATE),
        "speedup": speedup,
        "efficiency": efficiency(result, speedup),
        "exposed_share": pooled(result, exposed_share),
        "achieved": share_of_ceiling(result),
    }


def over_base(result: Result, base: Result) -> Figure:
    """Speedup over the serial base; 1 for the base itself."""
    if result is base and base.completed:
        return Figure(unit="ratio", median=1.0, n=len(base.completed), reason="this row is the base")
    return versus(result, base, RATE)


def efficiency(result: Result, speedup: Figure) -> Figure:
    """speedup / workers, where each has cores of its own."""
    if result.point.factors["role"] == ALL_CORES:
        return absent("ratio", "one process that has the cores of all workers")
    if oversubscribed(result):
        return absent("ratio", OVERSUBSCRIBED)
    return scaled(speedup, 1 / workers_of(result))


def exposed_share(record: TrainRecord) -> Figure:
    """Exposed communication as a share of the step; its interval is that of the exposed time."""
    exposed, step = record.communication_seconds.exposed, record.step_seconds
    if exposed.median is None or not step.median:
        return absent("ratio", exposed.reason or step.reason or "no step was timed")
    return scaled(exposed, 1 / step.median, "ratio")


def table_row(result: Result, figures: dict[str, Figure], marks: Sequence[str] = ()) -> Row:
    """The point as a row, with what is to be known of its efficiency."""
    found = list(marks)
    if oversubscribed(result):
        found.append(OVERSUBSCRIBED)
    sent = figures.get("exposed_share")
    if sent is not None and sent.median is not None and sent.median > 1 and sent.reason is None:
        found.append("impossible: exposed communication of more than a whole step; the probes met other load than the training")
    value = figures["efficiency"]
    if value.median is not None and value.median > 1:
        where = " in a single training" if once(result) else ""
        unsure = (
            ", without an interval: too few blocks or repeats" if value.ci95 is None else
            "" if differs(value) else ", which its interval does not exclude to be 1 or less"
        )  # fmt: skip
        found.append(f"efficiency above 1{where}{unsure}; {ABOVE}")
    return row(result, figures, found)


def quoted(figure: Figure, show: text.Show) -> str:
    """``1.62× (1.55–1.70×)``; without an interval that is said."""
    if figure.median is None:
        return text.ABSENT
    return f"{show(figure.median)} ({text.interval(figure, show) or 'no interval'})"


def card(label: str, figure: Figure, show: text.Show, sub: str) -> list[Card]:
    """A card of a figure with its interval below; none where the figure is absent."""
    if figure.median is None:
        return []
    ends = text.interval(figure, show)
    return [Card(label=label, value=show(figure.median), sub=f"{sub}; {ends}" if ends else sub)]


def wrapper_sentence(results: Sequence[Result], said: str, **factors: Factor) -> str | None:
    """What the strategy itself costs on one worker, where nothing is sent."""
    base, alone = role(results, BASE, **factors), role(results, WRAPPER, **factors)
    if base is None or alone is None or not (base.completed and alone.completed):
        return None
    ratio, name = versus(alone, base, RATE), alone.point.factors["strategy"]
    if ratio.median is None:
        return None
    what = (
        "no cost of the wrapper was shown" if not differs(ratio) else
        f"the wrapper itself costs {text.percent(1 - ratio.median)}" if ratio.median < 1 else
        "more, which no wrapper brings about: other load, or another memory layout"
    )  # fmt: skip
    return told(f"{name} on one worker, {said}: {quoted(ratio, text.times)} of single's throughput: {what}.", alone, base)


def all_cores_sentence(results: Sequence[Result], best: Result, **factors: Factor) -> str | None:
    """The workers against one process that has all their cores: what a person would do without them."""
    whole = role(results, ALL_CORES, **factors)
    if whole is None or not whole.completed:
        return None
    ratio = versus(best, whole, RATE)
    if ratio.median is None:
        return None
    names = (
        f"{best.point.factors['strategy']} on {workers_of(best)} workers",
        f"one process on all {whole.completed[0].record.derived.threads} cores",
    )
    if not differs(ratio):
        said = f"Against {names[1]}, {names[0]} was not shown to be faster or slower: {quoted(ratio, text.times)}."
    else:
        said = f"Against {names[1]}, {names[0]} has {quoted(ratio, text.times)} of the throughput."
    return told(said, best, whole)


def axis(workers: Sequence[int]) -> Axis:
    """The axis of numbers of workers; logarithmic where the few would else lie on one another."""
    return Axis(title="workers", ticks=[float(count) for count in workers], show="count", log=max(workers) >= MANY)
