"""The figures of a run's steps: how fast they were, after the warm-up. Of a run that was ended, too, from the steps that it wrote."""

from __future__ import annotations

from collections.abc import Sequence

from scalelab.measure.statistics import blocks, figure
from scalelab.record.schema import Step, TrainRecord


def summed_up(record: TrainRecord, steps: Sequence[Step]) -> None:
    """Set the figures of ``record`` that are made of its ``steps``; a short further attempt keeps those of the one before."""
    timed = timed_steps(record, steps)
    if not timed and record.images_per_second.median is not None:
        return
    seconds, why = blocks([s.seconds for s in timed]), None if timed else short(record)
    images = blocks([float(s.batch) for s in timed])
    waits = blocks([s.data_seconds for s in timed])
    record.step_seconds = figure(seconds, "s", why or mixed(timed))
    record.images_per_second = figure([n / s for n, s in zip(images, seconds, strict=True)], "images/s", why)
    record.data_wait_seconds = figure(waits, "s", why)
    record.data_wait_share = figure([wait / step for wait, step in zip(waits, seconds, strict=True)], "share", why)


def timed_steps(record: TrainRecord, steps: Sequence[Step]) -> list[Step]:
    """Those of the last attempt after its warm-up, and after those that were traced."""
    first = record.attempts[-1].first_step + int(record.spec["warmup_steps"]) + int(record.spec["profile"])
    return [s for s in steps if s.step > first]


def short(record: TrainRecord) -> str:
    """Why there are no timed steps."""
    warmup, traced = (int(record.spec[name]) for name in ("warmup_steps", "profile"))
    if traced:
        return f"no steps but the {warmup} of warm-up and the {traced} that were traced: train longer"
    return f"fewer steps than the {warmup} of warm-up: train longer, or lower --warmup-steps"


def mixed(timed: Sequence[Step]) -> str | None:
    """What to know before trusting the time of a step, where the batch changed on the way."""
    sizes = sorted({s.batch for s in timed})
    return f"over steps of {sizes[0]} to {sizes[-1]} images: the batch changes" if len(sizes) > 1 else None
