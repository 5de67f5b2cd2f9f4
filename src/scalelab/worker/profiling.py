"""``--profile N``: a Chrome trace of N training steps, all ranks in one file.

The steps after the warm-up are traced. They train, and are left out of every timing figure: the profiler slows them. Each rank leaves its
own part; they become one file when the training is over, so that no timed step waits for that.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from scalelab.comm.clocks import aligned
from scalelab.comm.world import World
from scalelab.errors import ScalelabError
from scalelab.record.folder import TRACE, write_atomic
from scalelab.spec import Spec
from scalelab.worker.handing import brought
from scalelab.worker.meter import gather

PARTS = "profile"
"""folder of the ranks' own traces, until they are one"""
ANOTHER = 1000
"""between the process numbers of a rank and those of its devices: rank, 1000 + rank, 2000 + rank"""
Through = Callable[[Iterable[Any]], Iterator[Any]]
"""what a step's batches pass on their way: ``iter``, or ``marked``"""
Train = Callable[[int, int, Through], None]


def check(spec: Spec, steps: int) -> None:
    """Raises ScalelabError where a training of so many ``steps`` ends before all that are to be traced are made."""
    if spec.profile and spec.resume is None and spec.warmup_steps + spec.profile > steps:
        raise ScalelabError(
            f"--profile {spec.profile}: the training has {steps} step{'s' * (steps != 1)}, of which the first {spec.warmup_steps} are "
            f"warm-up; train longer, or lower --warmup-steps"
        )


class Profiler:
    """Traces steps [first + warm-up, + N) of a training that begins at step ``first``."""

    def __init__(self, folder: Path, world: World, spec: Spec, first: int) -> None:
        self.folder, self.world = folder, world
        self.start, self.stop = first + spec.warmup_steps, first + spec.warmup_steps + spec.profile
        self.parts = 0

    def train(self, first: int, stop: int, train: Train) -> None:
        """Call ``train`` for the steps [first, stop), for those that are traced apart."""
        begin, end = max(first, min(self.start, stop)), max(first, min(self.stop, stop))
        if begin < end:
            train(first, begin, iter)
            self._trace(lambda: train(begin, end, lambda batches: marked(batches, begin)))
            first = end
        train(first, stop, iter)

    def _trace(self, work: Callable[[], None]) -> None:
        """A collective: ranks go on together, so that what writing took is in no later step."""
        cuda = self.world.device.type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
        with torch.profiler.profile(activities=activities) as profile:
            work()
        place = self.folder / PARTS
        place.mkdir(exist_ok=True)
        profile.export_chrome_trace(str(place / f"rank-{self.world.rank}-{self.parts}.json"))
        self.parts += 1
        dist.barrier()


def finish(folder: Path, world: World) -> Path | None:
    """Put all ranks' parts into one file; its path, on the first rank where something was traced. A collective."""
    ahead = _clocks(world)
    brought(folder, PARTS, world)
    if not world.first or not (folder / PARTS).exists():
        return None
    found = [
        (rank, ahead[rank], json.loads(path.read_bytes()))
        for rank in range(world.size)
        for path in sorted((folder / PARTS).glob(f"rank-{rank}-*.json"))
    ]
    body = json.dumps(merged(found), separators=(",", ":")).encode()
    write_atomic(folder / TRACE, gzip.compress(body, compresslevel=5, mtime=0))
    for path in (folder / PARTS).glob("rank-*.json"):
        path.unlink()
    (folder / PARTS).rmdir()
    return folder / TRACE


def note(spec: Spec, first: int, reached: int) -> str:
    """What a reader of the record should know of a training that began at step ``first`` and came to ``reached``."""
    begin = first + spec.warmup_steps + 1
    end = min(begin + spec.profile - 1, reached)  # it may have reached its target in between
    return (
        f"steps {begin} to {end} were traced, and are in no figure of a step's time: "
        f"{TRACE} opens in chrome://tracing or Perfetto"
    )


def marked(batches: Iterable[Any], first: int) -> Iterator[Any]:
    """``batches``, each with a span in the trace from when it is taken until the next is asked for: the step on it."""
    for number, batch in enumerate(batches, first + 1):
        with torch.profiler.record_function(f"step {number}"):
            yield batch


def _clocks(world: World) -> list[float]:
    """Microseconds that each rank's clock is ahead of the first rank's. A collective."""
    shift, _ = aligned(time.time_ns, world.rank, world.size, world.host)
    table = gather(torch.tensor([shift], dtype=torch.float64, device=world.device), world)
    return [-found / 1e3 for found in table[:, 0].tolist()]


def merged(traces: list[tuple[int, float, dict[str, Any]]]) -> dict[str, Any]:
    """One Chrome trace of (rank, microseconds its clock is ahead, its trace as torch.profiler writes it).

    Process r is rank r, process 1000 + r its first GPU; each is named. Times are microseconds since the first event.
    Format: "Trace Event Format", Google, 2016.
    """
    events: list[dict[str, Any]] = []
    known: dict[tuple[int, int], int] = {}
    for rank, ahead, trace in traces:
        origin = float(trace.get("baseTimeNanoseconds", 0)) / 1e3 - ahead
        for event in _told(trace["traceEvents"]):
            moved = {**event, "pid": _process(known, rank, event["pid"])}
            if "ts" in event:
                moved["ts"] = event["ts"] + origin
            if isinstance(event.get("id"), int):
                moved["id"] = rank * 10**9 + event["id"]  # arrows are joined by it, over all processes
            events.append(moved)
    begin = min((event["ts"] for event in events if "dur" in event), default=0.0)
    for event in events:
        if "ts" in event:
            event["ts"] = round(event["ts"] - begin, 3)
    names = [part for (rank, what), pid in known.items() for part in _named(rank, what, pid)]
    return {"displayTimeUnit": "ms", "traceEvents": names + events}


def _told(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What processes and devices did, the host's process first; the profiler's own marks are left out."""
    own = [
        e for e in events if isinstance(e.get("pid"), int) and (e.get("ph") in ("X", "s", "f") or e.get("name") == "thread_name")
    ]
    return sorted(own, key=lambda event: event.get("cat") not in ("cpu_op", "user_annotation"))


def _process(known: dict[tuple[int, int], int], rank: int, pid: int) -> int:
    """The number of a rank's process, the first that is asked for, or of a device, with a number of its own."""
    if (rank, pid) not in known:
        known[rank, pid] = rank + ANOTHER * sum(other == rank for other, _ in known)
    return known[rank, pid]


def _named(rank: int, device: int, pid: int) -> list[dict[str, Any]]:
    name = f"rank {rank}" if pid == rank else f"rank {rank}: GPU {device}"
    return [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}},
        {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": 100 * rank + pid // ANOTHER}},
    ]
