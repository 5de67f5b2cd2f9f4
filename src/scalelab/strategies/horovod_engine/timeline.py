"""When Horovod was reducing: from its own timeline, which the first rank writes. Its thread is nothing that torch.profiler sees.

HOROVOD_TIMELINE=DYNAMIC, set before it starts, makes it ready to write one; it writes between start and stop only.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import horovod.torch as hvd
import torch.distributed as dist

from scalelab.comm.profiled import Timed, collective_seconds, union

METHOD = {
    "communication_seconds.total": "union of the intervals between a gradient being ready on the first rank and its average being there, "
    "by Horovod's timeline, in a few probe steps; the waits for other ranks included; torch's own collectives (batch norm) are added to it",
}


def seconds(step: Callable[[], None], count: int) -> list[Timed]:
    """Seconds in which an all-reduce was under way, for each of ``count`` calls of ``step``; 0 but on the first rank. A collective."""
    others = collective_seconds(step, count)
    with tempfile.TemporaryDirectory(prefix="scalelab-") as folder:
        return [Timed(other.total + _traced(step, Path(folder, f"{number}.json"))) for number, other in enumerate(others)]


def _traced(step: Callable[[], None], file: Path) -> float:
    hvd.start_timeline(str(file))
    dist.barrier()  # no rank may ask for a reduction before the first one listens
    step()
    hvd.stop_timeline()
    return union(intervals(json.loads(file.read_text()))) / 1e6 if file.exists() else 0.0


def intervals(events: list[dict[str, object]]) -> list[tuple[float, float]]:
    """[start, end] in microseconds of each tensor of one step (a ``pid`` of Horovod's trace), from Chrome's trace events."""
    times: dict[object, list[float]] = {}
    for event in events:
        if event.get("ph") in ("B", "E"):
            times.setdefault(event["pid"], []).append(float(str(event["ts"])))
    return [(min(found), max(found)) for found in times.values()]
