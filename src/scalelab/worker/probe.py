"""What communication costs a step, measured on steps that never train.

Probe steps run on a snapshot of the training state that is restored bit for bit. Pairs of a step with its collectives and
the same step with local copies in their place, in alternating order, give the exposed time; a few profiled steps give
the total; a counted one gives the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from scalelab.comm.instruments import CommunicationOff, CountBytes
from scalelab.comm.world import World, subgroup
from scalelab.measure import tensors
from scalelab.measure.clock import clock
from scalelab.strategies.base import Batch, Strategy
from scalelab.worker.meter import gather

PROFILED = 5
"""profiled steps at most: the profiler slows the compute, so few are enough for the collectives' own time"""


@dataclass(frozen=True)
class Readings:
    """Seconds of the slowest rank, a value a probe; bytes of the mean rank, a step. ``exposed`` is empty where nothing can be silenced."""

    exposed: list[float]
    total: list[float]
    bytes_sent: float


class _PassThrough(TorchDispatchMode):
    """The cost of a dispatch mode, and nothing else: so that both steps of a pair carry it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return func(*args, **(kwargs or {}))


def held(strategy: Strategy, batches: Iterator[Sequence[Batch]]) -> dict[str, int]:
    """Tensor bytes of this rank at the peak of a step, by category. A collective; nothing is trained."""
    restore = strategy.snapshot()
    try:
        return tensors.largest(strategy.module, strategy.local_optimizer, lambda: strategy.step(next(batches)))
    finally:
        restore()


def measure(strategy: Strategy, world: World, batches: Iterator[Sequence[Batch]], pairs: int) -> Readings:
    """Probe ``pairs`` pairs (after one that is dropped). A collective; ``batches`` must not end."""
    restore = strategy.snapshot()
    try:
        with strategy.probing():
            exposed = [] if strategy.not_silenced else _exposed(strategy, world, batches, pairs, restore)
            sent = _sent(strategy, world, batches)
            total = strategy.collective_seconds(lambda: (strategy.step(next(batches)), None)[1], min(PROFILED, pairs))
        local = (
            _sent(strategy, world, batches) if strategy.period > 1 else 0.0
        )  # the steps between two exchanges send too: batch norm
    finally:
        restore()
    totals = gather(torch.tensor(total, dtype=torch.float64, device=world.device), world).amax(0)
    per = strategy.period
    mean = gather(torch.tensor([(sent + (per - 1) * local) / per], dtype=torch.float64, device=world.device), world).mean()
    return Readings([value / per for value in exposed], [value / per for value in totals.tolist()], float(mean))


def _sent(strategy: Strategy, world: World, batches: Iterator[Sequence[Batch]]) -> float:
    """Bytes that this rank sends in one step."""
    with CountBytes(world.backend) as counted:
        strategy.step(next(batches))
    return float(counted.sent)


def _exposed(
    strategy: Strategy, world: World, batches: Iterator[Sequence[Batch]], pairs: int, restore: Callable[[], None]
) -> list[float]:
    """Seconds that communication adds to a step, of the slowest rank, for each pair.

    After each step without communication the state is restored: what it leaves grows towards infinity, is another on each rank, and
    DeepSpeed decides by it whether to update.
    """
    alone = subgroup([world.rank])
    now = clock(world.device)

    def timed(mode: TorchDispatchMode) -> float:
        micro_batches = next(batches)
        dist.barrier()
        start = now()
        with mode:
            strategy.step(micro_batches)
        return (now() - start) / 1e9

    modes: tuple[Callable[[], TorchDispatchMode], ...] = (_PassThrough, lambda: CommunicationOff(alone))
    rows = []
    for pair in range(pairs + 1):
        seconds = [0.0, 0.0]
        for which in (0, 1) if pair % 2 else (1, 0):
            seconds[which] = timed(modes[which]())
            if which == 1:
                restore()
                strategy.settle()
        rows.append(seconds)
    dist.destroy_process_group(alone)
    on_off = gather(torch.tensor(rows[1:], dtype=torch.float64, device=world.device), world).amax(0)
    return (on_off[:, 0] - on_off[:, 1]).tolist()
