"""When a rank's collectives were under way, and when it could only wait for them: read from torch.profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Interval = tuple[float, float]
GAP = 100.0
"""microseconds: a shorter time between two operators is Python's or autograd's own; no collective is waited for in less (gloo: 160)"""


@dataclass(frozen=True)
class Timed:
    """Seconds of one step of one rank: with a collective under way; of these, with nothing being computed (None: can't be told)."""

    total: float
    waited: float | None = None


def collective_seconds(step: Callable[[], None], count: int) -> list[Timed]:
    """``Timed`` for each of ``count`` calls of ``step``.

    A collective is under way in torch.profiler's events of the backend (``gloo:…``; ``nccl…`` kernels). Computing is what happens in
    operators of torch (``aten::…``) on a CPU, in other kernels on a GPU: what is left is the exposed communication of Holistic Trace
    Analysis (github.com/facebookresearch/HolisticTraceAnalysis). What lies between two of them is no waiting where it is short (``GAP``).
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
    busy = merged(computing, GAP)
    waited = union([*collectives, *busy]) - union(busy)
    return Timed(union(collectives) / 1e6, waited / 1e6)


def merged(intervals: Sequence[Interval], gap: float) -> list[Interval]:
    """The intervals in their order, those that overlap or are less than ``gap`` apart made one."""
    found: list[Interval] = []
    for start, end in sorted(intervals):
        if found and start - found[-1][1] < gap:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def union(intervals: Sequence[Interval]) -> float:
    """The length of what [start, end] intervals cover together."""
    return sum(end - start for start, end in merged(intervals, 0.0))


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
