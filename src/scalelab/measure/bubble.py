"""From recorded steps of a pipeline to its bubble, and what the bubble is made of.

The bubble of a step is the share of its span in which a worker computes no chunk, mean over the workers; the span goes from the
first forward pass that begins on any worker of a pipeline to the last backward pass that ends. That is the definition under which
gpipe and 1f1b have (p-1)/(m+p-1) (Huang et al. 2019; Narayanan et al. 2021). The optimizer's update lies behind it.

What it is made of is found by replaying the recorded order of chunks, on workers that never wait for a message, only for what they need:
a forward pass for the stage before, a backward pass for the stage after, everything for the worker's chunk before it. Each replay
takes durations that are one thing less alike, so the parts add up to what was measured:

    order     all stages equal (each kind of chunk takes its mean)             → what the order itself costs
    unequal   each stage's chunks take that stage's median                     → + unequal stages
    jitter    each chunk takes what it took                                    → + chunks of one stage that take longer now and then
    rest      as measured                                                      → + messages, and the schedule's own work between chunks
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scalelab.record.timeline import Event, Lane

Chunk = tuple[str, int, int]
"""(kind, stage, micro-batch)"""
Length = Callable[[Event], float]


@dataclass(frozen=True)
class Parts:
    """Shares of a step's span: the whole bubble, and the parts that add up to it. ``busy``: seconds of computing, by place."""

    bubble: float
    order: float
    unequal: float
    jitter: float
    rest: float
    span: float
    busy: tuple[float, ...]


def parts(step: Sequence[Lane]) -> Parts:
    """What one recorded step shows; of several replicas the mean. Raises ValueError where a worker computed nothing."""
    replicas: dict[int, list[Lane]] = defaultdict(list)
    for lane in step:
        replicas[lane.replica].append(lane)
    found = [_parts(sorted(lanes, key=lambda lane: lane.place)) for lanes in replicas.values()]

    def mean(read: Callable[[Parts], float]) -> float:
        return statistics.fmean(read(one) for one in found)

    busy = tuple(statistics.fmean(values) for values in zip(*(one.busy for one in found), strict=True))
    return Parts(
        mean(lambda p: p.bubble), mean(lambda p: p.order), mean(lambda p: p.unequal), mean(lambda p: p.jitter),
        mean(lambda p: p.rest), mean(lambda p: p.span), busy,
    )  # fmt: skip


def _parts(lanes: Sequence[Lane]) -> Parts:
    if not all(lane.chunks for lane in lanes):
        raise ValueError("a worker of this pipeline computed nothing")
    chunks = [event for lane in lanes for event in lane.chunks]
    by_kind, by_stage = defaultdict(list), defaultdict(list)
    for event in chunks:
        by_kind[event.kind].append(event.end - event.start)
        by_stage[event.kind, event.stage].append(event.end - event.start)
    means = {kind: statistics.fmean(values) for kind, values in by_kind.items()}
    medians = {key: statistics.median(values) for key, values in by_stage.items()}
    alike = replayed(lanes, lambda event: means[event.kind])
    apart = replayed(lanes, lambda event: medians[event.kind, event.stage])
    own = replayed(lanes, lambda event: event.end - event.start)
    span = max(e.end for e in chunks) - min(e.start for e in chunks)
    busy = tuple(sum(e.end - e.start for e in lane.chunks) for lane in lanes)
    whole = 1 - statistics.fmean(busy) / span
    return Parts(whole, alike, apart - alike, own - apart, whole - own, span, busy)


def replayed(lanes: Sequence[Lane], length: Length) -> float:
    """The bubble when each chunk takes ``length`` and messages nothing, the order on each worker as it was."""
    ends = _ends([lane.chunks for lane in lanes], length)
    busy = [sum(length(event) for event in lane.chunks) for lane in lanes]
    span = max(ends.values())
    return 1 - statistics.fmean(busy) / span if span > 0 else 0.0


def _ends(queues: Sequence[Sequence[Event]], length: Length) -> dict[Chunk, float]:
    """When each chunk ends. Raises ValueError where the order can't be carried out: something waits for what comes after it."""
    last = max(event.stage or 0 for queue in queues for event in queue)
    ends: dict[Chunk, float] = {}
    free, next_one = [0.0] * len(queues), [0] * len(queues)
    while True:
        moved = False
        for place, queue in enumerate(queues):
            while next_one[place] < len(queue):
                event = queue[next_one[place]]
                ready = _ready(event, last, ends)
                if ready is None:
                    break
                free[place] = max(free[place], ready) + length(event)
                ends[_name(event)] = free[place]
                next_one[place] += 1
                moved = True
        if all(next_one[place] == len(queue) for place, queue in enumerate(queues)):
            return ends
        if not moved:
            raise ValueError("the recorded order of chunks can't be carried out")


def _name(event: Event) -> Chunk:
    return event.kind, event.stage or 0, event.micro_batch or 0


def _ready(event: Event, last: int, ends: dict[Chunk, float]) -> float | None:
    """When what a chunk needs from other workers is there; None: not known yet."""
    kind, stage, micro_batch = _name(event)
    if kind == "forward":
        return 0.0 if stage == 0 else ends.get(("forward", stage - 1, micro_batch))
    if kind == "weight":
        return 0.0  # its first half is before it on the same worker
    if stage == last:
        return ends.get(("forward", stage, micro_batch))
    return next((ends[k, stage + 1, micro_batch] for k in ("backward", "input") if (k, stage + 1, micro_batch) in ends), None)
