"""Steps of a pipeline, recorded on every rank: real events, in steps that never train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from scalelab.comm.clocks import aligned
from scalelab.comm.world import World
from scalelab.measure.bubble import parts
from scalelab.measure.clock import clock
from scalelab.measure.statistics import absent, figure
from scalelab.record.schema import Bubble
from scalelab.record.timeline import Event, Lane, Timeline, write
from scalelab.strategies.base import Batch, Strategy
from scalelab.strategies.stages.recording import Noted, recording
from scalelab.strategies.stages.staged import Staged

METHOD = {
    "bubble.measured": "share of the time from the first forward to the last backward pass in which a worker is in none, mean over the "
    "workers; in recorded steps that never train, each call of a pass noted with perf_counter_ns on its rank",
    "bubble.order": "the same of the recorded order, replayed with equal stages and no messages; unequal, jitter, rest: what unequal "
    "stages, uneven passes, and messages with all else add (scalelab.measure.bubble)",
}

NOT_RECORDED: tuple[tuple[Callable[[Staged], bool], str], ...] = (
    (lambda strategy: strategy.spec.probe_steps == 0, "not recorded: --probe-steps 0"),
    (lambda strategy: strategy.spec.compile, "not recorded: --compile has no probe steps"),
    (lambda strategy: True, "not recorded: the engine's passes can't be told apart from outside; --engine torch can"),
)
"""why there is no timeline: the first that holds"""


def record(strategy: Strategy, world: World, batches: Iterator[Sequence[Batch]], steps: int) -> Timeline | None:
    """``steps`` recorded steps, after one that is dropped, on the first rank; None elsewhere, and where nothing can be noted.

    A collective; ``batches`` must not end. The training state is restored bit for bit.
    """
    if not isinstance(strategy, Staged) or strategy.relay is None or not strategy.watched():
        return None
    now = clock(world.device)
    shift, error = aligned(now, world.rank, world.size, world.host)
    restore = strategy.snapshot()
    noted: list[list[Noted]] = []
    sizes = (0, 0)
    try:
        with strategy.probing(), recording(strategy.watched(), now) as recorder:
            for _ in range(steps + 1):
                micro_batches = next(batches)
                sizes = len(micro_batches), len(micro_batches[0][1])
                dist.barrier()
                recorder.take()  # the barrier's own wait
                strategy.step(micro_batches)
                noted.append(recorder.take())
    finally:
        restore()
    mine = [[_moved(event, shift) for event in step] for step in noted[1:]]
    everyone: list[Any] | None = [None] * world.size if world.first else None
    dist.gather_object((world.stage, world.replica, error, mine), everyone)
    return None if everyone is None else _timeline(strategy, world, everyone, sizes)


def _moved(event: Noted, shift: int) -> Noted:
    return Noted(event.kind, event.start + shift, event.end + shift, event.stage, event.micro_batch)


def _timeline(strategy: Staged, world: World, everyone: Sequence[Any], sizes: tuple[int, int]) -> Timeline:
    steps = []
    for index in range(len(everyone[0][3])):
        first = min(event.start for _, _, _, mine in everyone for event in mine[index])
        steps.append(
            [
                Lane(rank=rank, place=place, replica=replica, events=[_event(noted, first) for noted in mine[index]])
                for rank, (place, replica, _, mine) in enumerate(everyone)
            ]
        )
    schedule = strategy.spec.pipeline_schedule if strategy.spec.strategy == "pipeline" else strategy.spec.strategy
    assert strategy.relay is not None, "the model is cut"
    return Timeline(
        schedule=schedule, workers=world.stages, stages=strategy.relay.total, micro_batches=sizes[0], micro_batch=sizes[1],
        clock_error=2 * max(error for _, _, error, _ in everyone) / 1e9, steps=steps,
    )  # fmt: skip


def _event(noted: Noted, first: int) -> Event:
    return Event(
        kind=noted.kind, start=round((noted.start - first) / 1e9, 9), end=round((noted.end - first) / 1e9, 9), stage=noted.stage,
        micro_batch=noted.micro_batch,
    )  # fmt: skip


def keep(folder: Path, strategy: Strategy, timeline: Timeline | None) -> Bubble | None:
    """Write ``timeline`` into the run's folder; what the record says of it. None where the strategy is no pipeline."""
    if not isinstance(strategy, Staged) or strategy.relay is None:
        return None
    if timeline is None:
        why = next(text for holds, text in NOT_RECORDED if holds(strategy))
        none = absent("ratio", why)
        no_time = absent("s", why)
        return Bubble(
            measured=none, order=none, unequal=none, jitter=none, rest=none, span_seconds=no_time, compute_seconds=no_time
        )
    write(folder, timeline)
    found = [parts(step) for step in timeline.steps]
    least = strategy.least_bubble(strategy.spec, timeline.workers, timeline.micro_batches)
    busy = [figure(values, "s") for values in zip(*(one.busy for one in found), strict=True)]
    return Bubble(
        measured=figure([one.bubble for one in found], "ratio"), order=figure([one.order for one in found], "ratio"),
        unequal=figure([one.unequal for one in found], "ratio"), jitter=figure([one.jitter for one in found], "ratio"),
        rest=figure([one.rest for one in found], "ratio"), span_seconds=figure([one.span for one in found], "s"), theory=least,
        compute_seconds=figure([sum(one.busy) for one in found], "s"), busy_seconds=busy, schedule=timeline.schedule,
        workers=timeline.workers, micro_batches=timeline.micro_batches, micro_batch=timeline.micro_batch, clock_error=timeline.clock_error,
    )  # fmt: skip
