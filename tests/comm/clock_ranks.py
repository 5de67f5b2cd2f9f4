"""What each rank runs in the test of clocks."""

from __future__ import annotations

import time

import torch.distributed as dist

from scalelab.comm.clocks import offset
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
