"""What communication costs a step, measured on steps that never train.

Probe steps run on a snapshot of the training state that is restored bit for bit. Pairs of a step with its collectives and
the same step with local copies in their place, in alternating order, give the exposed time; a few profiled steps give
the total, and the time in which a rank could only wait; a counted one gives the bytes, and the collectives to be timed by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

from scalelab.comm import bare
from scalelab.comm.instruments import CommunicationOff, CountBytes
from scalelab.comm.profiled import Timed
from scalelab.comm.world import World, subgroup
from scalelab.measure import memory, tensors
from scalelab.measure.clock import clock
from scalelab.strategies.base import Batch, Strategy
from scalelab.worker.meter import gather

PROFILED = 5
"""profiled steps at most: the profiler slows the compute, so few are enough for the collectives' own time"""


@dataclass(frozen=True)
class Readings:
    """Seconds of the slowest rank, a value a probe; bytes of the mean rank, a step. ``exposed`` is empty where nothing can be silenced.

    ``waited``, of the rank that waits least, is empty where the profiler can't tell; ``bare`` where ``not_bare`` says why.
    """

    exposed: list[float]
    total: list[float]
    bytes_sent: float
    waited: list[float]
    bare: list[float]
    not_bare: str | None = None


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
            sent = _counted(strategy, world, batches)
            timed = strategy.collective_seconds(lambda: (strategy.step(next(batches)), None)[1], min(PROFILED, pairs))
        local = _counted(strategy, world, batches) if strategy.period > 1 else None  # these steps send too: batch norm
    finally:
        restore()
    total, waited = _over_ranks(timed, world)
    per = strategy.period
    bytes_sent = (sent.sent + (per - 1) * (local.sent if local else 0.0)) / per
    mean = gather(torch.tensor([bytes_sent], dtype=torch.float64, device=world.device), world).mean()
    alone, not_bare = _bare(sent, local, per, world)
    each = ([value / per for value in values] for values in (exposed, total, waited))
    return Readings(next(each), next(each), float(mean), next(each), alone, not_bare)


def _counted(strategy: Strategy, world: World, batches: Iterator[Sequence[Batch]]) -> CountBytes:
    """The bytes that this rank sends in one step, and its collectives."""
    counted = CountBytes(world.backend)
    with counted:
        strategy.step(next(batches))
    return counted


def _over_ranks(timed: Sequence[Timed], world: World) -> tuple[list[float], list[float]]:
    """(total of the slowest rank, waited of the one that waits least: for it the others wait), a value a step; [] where it can't tell."""
    rows = [[one.total, math.nan if one.waited is None else one.waited] for one in timed]
    found = gather(torch.tensor(rows, dtype=torch.float64, device=world.device), world)
    waited = found[:, :, 1].amin(0).tolist()
    return found[:, :, 0].amax(0).tolist(), waited if all(map(math.isfinite, waited)) else []


def _bare(sent: CountBytes, local: CountBytes | None, period: int, world: World) -> tuple[list[float], str | None]:
    """Seconds of the collectives of a step by themselves (the mean step of a ``period``), or why there are none. A collective."""
    calls = [sent.calls, local.calls if local else []]
    every = [call for some in calls for call in some]
    room = memory.left(world.device, world.size)
    why = bare.unknown(every) or bare.too_large(every, room) or (None if sent.calls else "the step has no collectives")
    able = torch.tensor([why is None], dtype=torch.float64, device=world.device)
    if not gather(able, world).all():  # all or none: a pipeline's ranks have different ones
        return [], why or "another worker's collectives can't be done by themselves"
    exchange, others = ([*bare.seconds(some, clock(world.device)), *[0.0] * bare.TIMES][: bare.TIMES] for some in calls)
    mine = [(a + (period - 1) * b) / period for a, b in zip(exchange, others, strict=True)]
    return gather(torch.tensor(mine, dtype=torch.float64, device=world.device), world).amax(0).tolist(), None


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
