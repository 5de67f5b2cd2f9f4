"""Was the machine quiet? A process that has nothing to wait for gets its cores whole, unless something else takes them."""

from __future__ import annotations

from scalelab.record import text
from scalelab.studies.study import Result

WHOLE = 0.85
"""of its core that ``single`` with one thread uses on a quiet machine, at least"""


def share(base: Result) -> float | None:
    """Of its core's time, what the serial runs got, by the samples of their resources; None where that can't be said.

    On a GPU the process waits for it; several threads wait for the one that has a part which can't be divided; threads that decode
    images hold it up, or are counted with it.
    """
    found = [
        run.record.resources.cpu_percent.median / 100
        for run in base.completed
        if run.record.environment.device != "cuda"
        and run.record.derived.threads == 1
        and run.record.derived.data_threads == 0
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
        f"The machine was busy: single, which has nobody to wait for, got {text.whole_percent(got)} of its core's time. Workers that "
        "wait for each other suffer more from that than one process does, so this is not what a quiet machine would show."
    ]
