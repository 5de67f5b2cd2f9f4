"""When a rank's collectives were under way, and when it could only wait for them: read from torch.profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Interval = tuple[float, float]


@dataclass(frozen=True)
class Timed:
    """Seconds of one step of one rank: with a collective under way; of these, with nothing being computed (None: can't be told)."""

    total: float
    waited: float | None = None


def collective_seconds(step: Callable[[], None], count: int) -> list[Timed]:
    """``Timed`` for each of ``count`` calls of ``step``.

    A collective is under way in torch.profiler's events of the backend (``gloo:…``; ``nccl…`` kernels). Computing is what happens in
    operators of torch (``aten::…``) on a CPU, in other kernels on a GPU: what is left is the exposed communication of Holistic Trace
    Analysis (github.com/facebookresearch/HolisticTraceAnalysis), with Python's own time between two operators on a CPU.
    """
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    activities = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if cuda else [])
    found = []
    for _ in range(count):
        with torch.profiler.profile(activities=activities) as profile:
            step()
        found.append(timed(*_intervals(profile, cuda)))
    return found


def timed(collectives: Sequence[Interval], computing: Sequence[Interval]) -> Timed:
    """From intervals in microseconds."""
    total = union(collectives)
    either = union([*collectives, *computing])
    return Timed(total / 1e6, (either - union(computing)) / 1e6)


def union(intervals: Sequence[Interval]) -> float:
    """The length of what [start, end] intervals cover together."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _intervals(profile: Any, cuda: bool) -> tuple[list[Interval], list[Interval]]:
    """(collectives, computing) of a profile, in microseconds."""
    collectives, computing = [], []
    for event in profile.events():
        within = (event.time_range.start, event.time_range.end)
        if event.name.startswith("gloo:") or "nccldevkernel" in event.name.lower():
            collectives.append(within)
        elif _computes(event, cuda):
            computing.append(within)
    return collectives, computing


def _computes(event: Any, cuda: bool) -> bool:
    if cuda:
        kernel = event.device_type == torch.autograd.DeviceType.CUDA
        return kernel and not event.name.startswith(("Memcpy", "Memset"))
    return str(event.name).startswith("aten::")
