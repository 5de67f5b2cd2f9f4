"""Was the machine quiet? A process that has nothing to wait for gets its cores whole, unless something else takes them."""

from __future__ import annotations

from scalelab.record import text
from scalelab.studies.study import Result

WHOLE = 0.85
"""of its threads' cores that ``single`` uses on a quiet machine, at least: the rest are moments of one thread"""


def share(base: Result) -> float | None:
    """Of the cores of its threads, what the serial runs got, by the samples of their resources; None where there are none, or on a GPU."""
    found = [
        run.record.resources.cpu_percent.median / (100 * run.record.derived.threads)
        for run in base.completed
        if run.record.environment.device != "cuda"
        and run.record.resources is not None
        and run.record.resources.cpu_percent.median is not None
    ]
    return min(found) if found else None


def sentences(base: Result) -> list[str]:
    """That the machine was busy, where it was."""
    got = share(base)
    if got is None or got >= WHOLE:
        return []
    return [
        f"The machine was busy: single, which has nobody to wait for, got {text.whole_percent(got)} of its cores' time. Workers that "
        "wait for each other suffer more from that than one process does, so this is not what a quiet machine would show."
    ]
