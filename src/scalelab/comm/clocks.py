"""How far the ranks' clocks are apart: a clock of one host is no other host's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

ROUNDS = 20


def aligned(now: Callable[[], int], rank: int, size: int, host: str) -> tuple[int, int]:
    """``offset`` of all ranks; (0, 0) for those on the first rank's host, whose processes read one clock. A collective of all ranks."""
    hosts: list[Any] = [None] * size
    dist.all_gather_object(hosts, host)
    if len(set(hosts)) == 1:
        return 0, 0
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup), "every rank is in it"
    found = offset(now, rank, size, group)
    dist.destroy_process_group(group)
    return (0, 0) if host == hosts[0] else found


def offset(now: Callable[[], int], rank: int, size: int, group: dist.ProcessGroup) -> tuple[int, int]:
    """(nanoseconds to add to this rank's clock to have the first rank's, by how much that may be wrong). A collective of ``group``.

    The first rank asks each other one for its time: it is the middle of the way there and back, wrong by at most half of that way;
    of a few rounds the shortest way is taken (Cristian 1989). ``group``'s backend takes tensors of the CPU, and its ranks are 0 … size - 1.
    """
    if rank != 0:
        for _ in range(ROUNDS):
            dist.recv(torch.empty(1, dtype=torch.int64), group=group, group_src=0)
            dist.send(torch.tensor([now()]), group=group, group_dst=0)
        found = torch.empty(2, dtype=torch.int64)
        dist.recv(found, group=group, group_src=0)
        return int(found[0]), int(found[1])
    for other in range(1, size):
        best = min(_asked(now, other, group) for _ in range(ROUNDS))
        dist.send(torch.tensor([best[1], best[0]]), group=group, group_dst=other)
    return 0, 0


def _asked(now: Callable[[], int], other: int, group: dist.ProcessGroup) -> tuple[int, int]:
    """(half the way there and back, this clock minus the other's)."""
    theirs = torch.empty(1, dtype=torch.int64)
    start = now()
    dist.send(torch.zeros(1, dtype=torch.int64), group=group, group_dst=other)
    dist.recv(theirs, group=group, group_src=other)
    end = now()
    return (end - start) // 2, (start + end) // 2 - int(theirs[0])
