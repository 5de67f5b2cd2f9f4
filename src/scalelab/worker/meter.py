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
from scalelab.worker.stopping import Stop

CHUNK = 10
"""steps between two exchanges: also the block of the bootstrap (docs/numbers.md)"""
PATIENCE = 5.0
"""seconds between two exchanges of slow steps: who is asked to stop has about half a minute (Slurm's KillWait) to do so"""


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
    """Collects (loss, start, data ready, end) of each step; every CHUNK steps, or fewer slow ones, all ranks exchange them."""

    def __init__(self, world: World, weight: float, publish: Callable[[list[Measured]], None], stop: Stop) -> None:
        """``weight`` of this rank's loss in the global one."""
        self.world, self.weight, self.publish, self.stop = world, weight, publish, stop
        self.stopping = False
        """whether a rank was asked to stop; all ranks learn it at the same step"""
        self.reached = 0
        """the last step that was exchanged"""
        self.every = CHUNK
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
        if len(self.steps) == self.every:
            self.flush()

    def flush(self) -> None:
        """Exchange what is noted; publish it; raise RunError at the first step whose loss is not finite. All ranks do so together."""
        if not self.steps:
            return
        steps, self.steps = self.steps, []
        ends, self.ends = [self.origin + end / 1e9 for end in self.ends], []
        losses = torch.stack(self.losses).double().unsqueeze(1) * self.weight
        times = torch.tensor(self.times, dtype=torch.float64, device=losses.device) / 1e9
        mine = torch.cat([losses, times, torch.full_like(losses, self.stop.asked)], dim=1)
        self.losses, self.times = [], []
        table = gather(mine, self.world)  # [ranks, steps, (loss, seconds, data, asked to stop)]
        mean, slowest = table[:, :, 0].sum(0), table[:, :, 1:3].amax(0)
        self.stopping, self.reached = bool(table[:, :, 3].any()), steps[-1]
        self.every = max(1, min(CHUNK, int(PATIENCE / max(float(slowest[:, 0].amax()), 1e-9))))
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
    mine = mine.cpu() if world.backend == "gloo" else mine  # where some ranks have no GPU, gloo carries what lies on the host
    table = mine.new_empty(world.size, *mine.shape)
    dist.all_gather_into_tensor(table.view(-1), mine.contiguous().view(-1))
    return table.cpu()
