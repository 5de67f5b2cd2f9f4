"""Losses and times of the steps, kept on the rank and shared once in a while: the hot path only appends to lists."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from scalelab.comm.world import World
from scalelab.errors import RunError

CHUNK = 10
"""steps between two exchanges: also the block of the bootstrap (docs/numbers.md)"""


@dataclass(frozen=True)
class Measured:
    """One step over all ranks: mean loss over the replicas, and the slowest rank's seconds."""

    step: int
    loss: float
    seconds: float
    data_seconds: float
    at: float
    """when it ended on this rank, seconds since 1970"""


class Meter:
    """Collects (loss, start, data ready, end) of each step; every CHUNK steps all ranks exchange them."""

    def __init__(self, world: World, weight: float, publish: Callable[[list[Measured]], None]) -> None:
        """``weight`` of this rank's loss in the global one."""
        self.world, self.weight, self.publish = world, weight, publish
        self.steps: list[int] = []
        self.losses: list[Tensor] = []
        self.times: list[tuple[int, int]] = []
        self.ends: list[int] = []
        self.origin = time.time() - time.perf_counter()  # of the steps' clock, in seconds since 1970

    def add(self, step: int, loss: Tensor, start: int, fetched: int, end: int) -> None:
        """Note a step. Times are nanoseconds of one clock."""
        self.steps.append(step)
        self.losses.append(loss)
        self.times.append((end - start, fetched - start))
        self.ends.append(end)
        if len(self.steps) == CHUNK:
            self.flush()

    def flush(self) -> None:
        """Exchange what is noted; publish it; raise RunError at the first step whose loss is not finite. All ranks do so together."""
        if not self.steps:
            return
        steps, self.steps = self.steps, []
        ends, self.ends = [self.origin + end / 1e9 for end in self.ends], []
        losses = torch.stack(self.losses).double().unsqueeze(1) * self.weight
        mine = torch.cat([losses, torch.tensor(self.times, dtype=torch.float64, device=losses.device) / 1e9], dim=1)
        self.losses, self.times = [], []
        table = gather(mine, self.world)  # [ranks, steps, (loss, seconds, data)]
        mean, slowest = table[:, :, 0].sum(0), table[:, :, 1:].amax(0)
        rows = torch.cat([mean.unsqueeze(1), slowest], 1).tolist()
        measured = [
            Measured(step, loss, slow, data, end) for step, (loss, slow, data), end in zip(steps, rows, ends, strict=True)
        ]
        good = [m for m in measured if math.isfinite(m.loss)]
        self.publish(good)
        for m in measured:
            if not math.isfinite(m.loss):
                raise RunError(f"the loss became {m.loss} at step {m.step}: try a lower --lr, or --warmup-epochs 1")


def gather(mine: Tensor, world: World) -> Tensor:
    """[*shape] of this rank → [ranks, *shape], on the CPU. A collective."""
    table = mine.new_empty(world.size, *mine.shape)
    dist.all_gather_into_tensor(table.view(-1), mine.contiguous().view(-1))
    return table.cpu()
