"""What a training sends, how fast, and what stands in the way: bandwidths by nccl-tests' definitions, limits, two readings of one time.

busbw (nccl-tests, doc/PERFORMANCE.md) is algbw = bytes / time, times 2 (n-1)/n for an all-reduce and (n-1)/n for an all-gather or a
reduce-scatter: the bytes that a ring makes each worker send, which is what ``bytes_sent`` counts. So busbw = bytes sent / time.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scalelab.measure.statistics import absent, quotient
from scalelab.record import text
from scalelab.record.schema import Ceiling, Figure, TrainRecord
from scalelab.studies.figures import Read, scaled
from scalelab.studies.study import Run

APART = 0.25
"""two readings of one time that differ by more than this share of the probe's are said to disagree"""
LIMIT = (
    "the most that a worker could send: on one machine every byte is read and written at least once, so half of the bytes that each of so "
    "many workers copies in a second; between machines the speed of the slowest one's fastest link"
)


def steps_of_epoch(record: TrainRecord) -> int:
    """Steps of an epoch of this training: the last partial batch is dropped."""
    return 0 if record.data is None else record.data.train // record.derived.batch


def per_epoch(read: Read) -> Read:
    """A figure of a step as one of an epoch."""

    def found(record: TrainRecord) -> Figure:
        figure, steps = read(record), steps_of_epoch(record)
        if not steps and figure.median is not None:
            return absent(figure.unit, "the size of the data is not known, so neither are the steps of an epoch")
        return scaled(figure, steps)

    return found


def bandwidth(read: Read) -> Read:
    """Bytes that a worker sends in a step, over a time of it (``read``), in bytes/s: busbw. The interval is the time's."""

    def found(record: TrainRecord) -> Figure:
        sent, seconds = record.bytes_sent, read(record)
        if sent.median is None or seconds.median is None:
            return absent("bytes/s", sent.reason or seconds.reason or "nothing was measured")
        if seconds.median <= 0 or (seconds.ci95 is not None and seconds.ci95[0] <= 0):
            return absent("bytes/s", "the time it would be over is not distinguishable from zero")
        ends = None if seconds.ci95 is None else (sent.median / seconds.ci95[1], sent.median / seconds.ci95[0])
        return Figure(unit="bytes/s", median=sent.median / seconds.median, n=seconds.n, ci95=ends, reason=seconds.reason)

    return found


def waits_over_probe(record: TrainRecord) -> Figure:
    """The waits' reading of the exposed communication over the probe's."""
    exposed, waited = record.communication_seconds.exposed, record.communication_seconds.waited
    if exposed.median is None or waited.median is None:
        return absent("ratio", exposed.reason or waited.reason or "nothing was measured")
    if exposed.median <= 0 or (exposed.ci95 is not None and exposed.ci95[0] <= 0):
        by_waits = f"the waits read {text.seconds(waited.median)}"
        return absent("ratio", f"the probe can't tell it from nothing ({text.seconds(exposed.median)}), {by_waits} of a step")
    return quotient(waited, exposed)


def disagree(ratio: Figure) -> bool:
    """Whether the two readings differ by more than a quarter of the probe's."""
    return ratio.median is not None and abs(ratio.median - 1) > APART


def likely_reason(ratio: Figure, device: str) -> str:
    """Why two readings that disagree may do so."""
    assert ratio.median is not None
    if ratio.ci95 is not None and ratio.ci95[0] <= 1 <= ratio.ci95[1]:
        return "their intervals are wide enough for that: more --probe-steps on a quiet machine narrow them"
    if ratio.median > 1:
        between = (
            "between two kernels, when the host is late," if device == "cuda" else "between two operators, where it is long,"
        )
        return f"the profiler slows what is computed beside the collectives, and time {between} counts as waiting"
    who = "kernels" if device == "cuda" else "threads"
    return f"the backend's {who} also slow what is computed beside them, and gradients are copied into buckets: only the probe sees that"


def limit(run: Run) -> Figure:
    """Bytes that a worker of this training could send in a second at most; see ``LIMIT``."""
    record = run.record
    hosts = record.environment.hosts
    if len(hosts) > 1:
        speeds = [max(host.links.values(), default=0) for host in hosts]
        return absent("bytes/s", "a host does not tell the speed of its link") if not all(speeds) else _exact(min(speeds))
    if record.environment.device == "cuda":
        return absent("bytes/s", "the speed of the links between this machine's GPUs is not known")
    return _copying(next(iter(run.ceilings), None))


def _copying(ceiling: Ceiling | None) -> Figure:
    copied = ceiling.copy_bytes_per_second if ceiling is not None else None
    if copied is None or copied.median is None:
        return absent("bytes/s", (copied and copied.reason) or "the machine's copy bandwidth was not measured")
    return _exact(copied.median / 2)


def _exact(value: float) -> Figure:
    return Figure(unit="bytes/s", median=value, n=1)


def impossible(record: TrainRecord, limit: Figure) -> list[str]:
    """What can't be as it was measured, each with both numbers."""
    seconds, step = record.communication_seconds, record.step_seconds.median
    found = []
    for name, read in (("in the step", seconds.total), ("by themselves", seconds.bare)):
        used = bandwidth(lambda _, figure=read: figure)(record)  # type: ignore[misc]
        if used.median is not None and limit.median is not None and used.median > limit.median:
            found.append(
                f"impossible: {text.size(used.median)}/s on the bus {name}, and this machine carries {text.size(limit.median)}/s at most; "
                "the two were not measured under the same load, or the buckets never left the caches"
            )
    if step is not None and seconds.exposed.median is not None and seconds.exposed.median > step:
        found.append(f"impossible: {seconds.exposed.reason}")
    if step is not None and seconds.total.median is not None and seconds.total.median > step:
        found.append(
            f"in collectives for {text.seconds(seconds.total.median)} of a step that takes {text.seconds(step)}: the profiled steps met "
            "other load than the training; measure on a quiet machine"
        )
    return found


def distinct(marks: Sequence[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(marks))


def share(part: Figure, whole: Figure) -> Figure:
    """One figure over another as a ratio; absent with the reason of the one that is."""
    if whole.median is None:
        return absent("ratio", whole.reason or "nothing was measured")
    if whole.n == 1 and whole.ci95 is None and part.median is not None:  # an exact limit: the interval is the part's
        return msgspec.structs.replace(scaled(part, 1 / whole.median, "ratio"), reason=None)
    return quotient(part, whole)
