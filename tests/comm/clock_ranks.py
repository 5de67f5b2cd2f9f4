"""What each rank runs in the test of clocks."""

from __future__ import annotations

import time

import torch.distributed as dist

from scalelab.comm.clocks import aligned, offset
from tests.joined import joined

APART = 10**12


@joined
def clocks_that_are_apart_are_aligned(rank: int, size: int) -> None:
    """Rank r's clock is r · 1000 s ahead; what remains is within the error that is told."""
    group = dist.group.WORLD
    assert isinstance(group, dist.ProcessGroup)
    shift, error = offset(lambda: time.perf_counter_ns() + rank * APART, rank, size, group)
    assert abs(shift + rank * APART) <= error, (shift, error)
    assert error < 10**8
    assert (rank == 0) == (error == 0)


@joined
def one_host_is_one_clock(rank: int, size: int) -> None:
    """The first two ranks share a host; the last one's clock is 1000 s ahead."""
    host, ahead = ("one", 0) if rank < 2 else ("another", APART)
    shift, error = aligned(lambda: time.perf_counter_ns() + ahead, rank, size, host)
    assert abs(shift + ahead) <= error, (shift, error)
    assert (rank < 2) == (error == 0)
    assert aligned(time.perf_counter_ns, rank, size, "one") == (0, 0)
