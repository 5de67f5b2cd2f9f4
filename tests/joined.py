"""A function as the body of a rank that others run too, for ``Pool.start``. Imports little: each rank pays for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import wraps

import torch
import torch.distributed as dist

Body = Callable[[int, int], None]


def joined(body: Body) -> Callable[[str, str, str], None]:
    """Join the ranks around ``body(rank, size)``."""

    @wraps(body)
    def run(store: str, rank: str, size: str) -> None:
        torch.set_num_threads(1)
        file = dist.FileStore(store, int(size))
        dist.init_process_group("gloo", store=file, rank=int(rank), world_size=int(size), timeout=timedelta(seconds=60))
        body(int(rank), int(size))
        dist.barrier()
        dist.destroy_process_group()

    return run
