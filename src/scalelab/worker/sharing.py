"""``--shares measured``: how fast each replica is, found out before the first step, and what it then gets of each batch."""

from __future__ import annotations

import time
from dataclasses import replace

import msgspec
import torch
import torch.distributed as dist
from torch import nn

from scalelab.batch import Derived, divided
from scalelab.comm.world import World
from scalelab.strategies.base import Batch
from scalelab.worker.meter import gather

REPEATS = 3
"""timed forward and backward passes, after one that is dropped; the fastest counts"""


def measured(model: nn.Module, batch: Batch, derived: Derived, world: World) -> tuple[Derived, World]:
    """Both with a micro-batch's samples dealt out to the replicas in proportion to their speed on ``batch``. A collective.

    All ranks compute at the same time, as they will. A replica is as fast as the slowest of its stages' workers.
    """
    dist.barrier()
    times = [_seconds(model, batch, world) for _ in range(REPEATS + 1)]
    speed = torch.tensor([len(batch[1]) / min(times[1:])], dtype=torch.float64, device=world.device)
    slowest = gather(speed, world).view(world.replicas, world.stages).amin(1)
    shares = divided(sum(derived.samples), tuple(slowest.tolist()))
    return (
        msgspec.structs.replace(derived, shares=shares, micro_batch=max(shares)),
        replace(world, share=shares[world.replica] / sum(shares)),
    )


def _seconds(model: nn.Module, batch: Batch, world: World) -> float:
    start = time.perf_counter()
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)
    return time.perf_counter() - start
