"""The collectives of a step by themselves: the same sizes, the same groups, nothing else to do. What the backend can do with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMES = 10
"""how often the collectives of a step are done, after a first time that is not counted"""
METHOD = (
    f"the collectives of one probe step again, of the same sizes in the same groups, all started and then waited for, {TIMES} times with a "
    "barrier before each, nothing being computed; the slowest rank's"
)


@dataclass(frozen=True)
class Call:
    """One collective of a step: its operator (``allreduce_``), (elements, type, device) of its tensors, its group (None: all ranks)."""

    operator: str
    tensors: tuple[tuple[int, torch.dtype, torch.device], ...]
    group: dist.ProcessGroup | None


def _all_reduce(tensors: Sequence[Tensor], group: dist.ProcessGroup | None) -> Any:
    return dist.all_reduce(tensors[0], group=group, async_op=True)


def _broadcast(tensors: Sequence[Tensor], group: dist.ProcessGroup | None) -> Any:
    return dist.broadcast(tensors[0], group=group, group_src=0, async_op=True)


def _all_gather(tensors: Sequence[Tensor], group: dist.ProcessGroup | None) -> Any:
    return dist.all_gather_into_tensor(tensors[0], tensors[1], group=group, async_op=True)


def _reduce_scatter(tensors: Sequence[Tensor], group: dist.ProcessGroup | None) -> Any:
    return dist.reduce_scatter_tensor(tensors[0], tensors[1], group=group, async_op=True)


AGAIN: dict[str, Callable[[Sequence[Tensor], dist.ProcessGroup | None], Any]] = {
    "allreduce_": _all_reduce,
    "broadcast_": _broadcast,
    "_allgather_base_": _all_gather,
    "_reduce_scatter_base_": _reduce_scatter,
}
"""how each is done again; a broadcast from the group's first rank, whichever it was"""


def unknown(calls: Sequence[Call]) -> str | None:
    """Why these collectives can't be done by themselves; None where they can."""
    names = sorted({call.operator.strip("_") for call in calls if call.operator not in AGAIN})
    return f"the step's {', '.join(names)} can't be done by themselves" if names else None


def too_large(calls: Sequence[Call], room: int) -> str | None:
    """Why they must not all be under way at once: their tensors take more than half of ``room`` bytes; None where they may.

    A step that gathers a layer at a time, and forgets it, never holds them together.
    """
    needed = sum(count * dtype.itemsize for call in calls for count, dtype, _ in call.tensors)
    if 2 * needed <= room:
        return None
    return f"all collectives of a step at once would take {needed >> 20:,} MiB, more than half of the {room >> 20:,} MiB that are free"


def seconds(calls: Sequence[Call], now: Callable[[], int]) -> list[float]:
    """Seconds of this rank, for each of ``TIMES`` times that ``calls`` are done by themselves. A collective; empty without calls.

    ``now`` waits for the device and tells nanoseconds.
    """
    if not calls:
        return []
    found = []
    tensors = [[torch.zeros(n, dtype=dtype, device=where) for n, dtype, where in call.tensors] for call in calls]
    for _ in range(TIMES + 1):
        dist.barrier()
        start = now()
        under_way = [AGAIN[call.operator](mine, call.group) for call, mine in zip(calls, tensors, strict=True)]
        for work in under_way:
            work.wait()
        found.append((now() - start) / 1e9)
    return found[1:]
