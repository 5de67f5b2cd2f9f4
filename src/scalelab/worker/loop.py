"""The training loop: read it top to bottom."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from scalelab.comm.batch_norm import average_buffers
from scalelab.comm.instruments import UnknownCollective
from scalelab.comm.world import seed
from scalelab.errors import RunError
from scalelab.measure import memory
from scalelab.measure.clock import clock
from scalelab.record.schema import Epoch, Step
from scalelab.record.timeline import Timeline
from scalelab.strategies.base import Batch
from scalelab.worker import checkpoint, timeline
from scalelab.worker.checkpoint import Progress
from scalelab.worker.evaluate import evaluate
from scalelab.worker.job import Job
from scalelab.worker.journal import Journal
from scalelab.worker.meter import Measured, Meter, gather
from scalelab.worker.plan import learning_rate
from scalelab.worker.probe import Readings, held, measure
from scalelab.worker.profiling import Profiler, Through
from scalelab.worker.resuming import own_statistics
from scalelab.worker.stopping import Stop

EVALUATION_BATCH = 256
"""samples of a forward pass in evaluation, on each rank; training's micro-batch where that is larger"""


@dataclass(frozen=True)
class Probed:
    """What probe steps found on this rank: communication; tensor bytes by category; the process's peak memory before they ran."""

    readings: Readings | None = None
    tensors: dict[str, int] | None = None
    peak: int | None = None
    timeline: Timeline | None = None
    """on the first rank only"""
    stopped: int | None = None
    """the step after which a stop was asked for and agreed on, before the plan's end; its checkpoint is saved"""


def train(job: Job, folder: Path, journal: Journal | None, start: Progress, stop: Stop) -> Probed:
    """Train from ``start`` to the plan's end, until the spec says enough or a rank is asked to ``stop``; what was probed on the way.

    ``journal`` is there on the first rank only.
    """
    spec, plan = job.spec, job.plan
    progress, probed = start, Probed()
    probing = spec.probe_steps > 0 and not spec.compile
    profiler = Profiler(folder, job.world, spec, start.step)
    meter = Meter(job.world, job.strategy.loss_weight, lambda measured: write_steps(job, journal, measured), stop)
    while progress.step < plan.total_steps:
        began, first = time.perf_counter() - progress.epoch_seconds, progress.step
        last = plan.epoch_end(first)
        profiler.train(first, last, lambda begin, end, through: train_steps(job, meter, begin, end, through))
        meter.flush()
        job.strategy.unite()
        trained, broken_off = time.perf_counter() - began, meter.reached < last
        refuse_broken_weights(job, meter.reached)
        progress = replace(progress, step=meter.reached, epoch_seconds=trained if broken_off else 0.0)
        inside = plan.inside_epoch(progress.step)  # the last step is not an epoch's: who resumes goes on as if nothing had been
        own = (
            own_statistics(job.strategy, job.world) if inside and spec.checkpoint else None
        )  # before the evaluation averages them
        if spec.evaluate and not broken_off:
            progress = judge(job, journal, progress, trained, inside)
        if spec.checkpoint:
            best = spec.evaluate and not inside and progress.epochs_without_better == 0
            save_checkpoint(job, folder, progress, own, best)
        if meter.stopping and progress.step < plan.total_steps:
            return replace(probed, stopped=progress.step)
        if probing:
            probing = False  # once, after the first epoch is safe
            probed = probe(job, journal, plan.stretch(first).segment.batch, endless(job, first, last))
        if enough(job, journal, progress):
            break
    return probed


def train_steps(job: Job, meter: Meter, start: int, stop: int, through: Through = iter) -> None:
    """The hot path: steps [start, stop) of one epoch, on the batches that come ``through``; fewer where all agree to stop."""
    spec, plan, strategy, now = job.spec, job.plan, job.strategy, clock(job.world.device)
    batches, rates = through(job.batches(start, stop)), [learning_rate(plan, spec, step) for step in range(start, stop)]
    for step, rate in zip(range(start, stop), rates, strict=True):
        if meter.stopping:
            return
        seed_step(job, step)
        for group in strategy.optimizer.param_groups:
            group["lr"] = rate
        began = now()
        micro_batches = next(batches)
        fetched = now()
        loss = strategy.step(micro_batches)
        meter.add(step + 1, loss, began, fetched, now())


def seed_step(job: Job, step: int) -> None:
    """Random numbers inside the model (dropout) follow from (seed, step, replica): nothing to save, resume is exact."""
    seed(job.world.device, ((job.spec.seed * 1_000_003 + step) * 1_000_003 + job.strategy.replica) % 2**63)


def write_steps(job: Job, journal: Journal | None, measured: list[Measured]) -> None:
    """Append measured steps to the run's folder, on the first rank."""
    if journal is None:
        return
    plan = job.plan
    batches = [plan.stretch(m.step - 1).segment.batch for m in measured]
    journal.add_steps(
        [
            Step(
                step=m.step,
                epoch=plan.epoch_of(m.step - 1) + 1,
                batch=batch,
                learning_rate=learning_rate(plan, job.spec, m.step - 1),
                loss=m.loss,
                seconds=m.seconds,
                data_seconds=m.data_seconds,
                at=m.at,
                bytes_sent=journal.bytes_sent.get(batch),
            )
            for m, batch in zip(measured, batches, strict=True)
        ]
    )


def endless(job: Job, start: int, stop: int) -> Iterator[list[Batch]]:
    """The epoch's batches, over and over: what probe steps run on."""
    while True:
        yield from job.batches(start, stop)


def probe(job: Job, journal: Journal | None, batch: int, batches: Iterator[list[Batch]]) -> Probed:
    """What a step of ``batch`` samples holds, and what communication costs it; no readings where a collective is not known."""
    peak = memory.peak(job.world.device)  # the probes' snapshots are no part of a training
    tensors = held(job.strategy, batches)
    recorded = timeline.record(job.strategy, job.world, batches, job.spec.probe_steps)
    return Probed(_readings(job, journal, batch, batches) if job.world.size > 1 else None, tensors, peak, recorded)


def _readings(job: Job, journal: Journal | None, batch: int, batches: Iterator[list[Batch]]) -> Readings | None:
    try:
        readings = measure(job.strategy, job.world, batches, job.spec.probe_steps)
    except UnknownCollective as error:  # on all ranks alike: they run the same steps
        print(error, file=sys.stderr)
        return None
    if journal is not None:
        journal.bytes_sent[batch] = round(readings.bytes_sent)
    return readings


def refuse_broken_weights(job: Job, step: int) -> None:
    """Raises RunError, on all ranks, where the last update left a weight that is not finite: no checkpoint may hold it."""
    local = [*job.strategy.weights(), *(buffer.detach() for buffer in job.strategy.module.buffers())]
    none = torch.zeros((), dtype=torch.bool, device=job.world.device)  # a stage may hold no weights
    found = [(~torch.isfinite(value)).any() for value in local if value.is_floating_point()]
    broken = torch.stack([none, *found]).any()
    if gather(broken.double().view(1), job.world).any():
        raise RunError(f"the weights are no longer finite after step {step}: try a lower --lr, or --warmup-epochs 1")


def judge(job: Job, journal: Journal | None, progress: Progress, seconds: float, inside: bool) -> Progress:
    """Evaluate on all ranks; note the epoch on the first, whole where an earlier attempt ended inside it.

    ``inside`` an epoch the counters stay: an unbroken run would not have evaluated here.
    """
    scores = evaluate(job.strategy, job.test, job.world, job.dataset.num_classes, max(EVALUATION_BATCH, job.derived.micro_batch))
    if not inside:
        better = scores.accuracy > progress.best_accuracy
        progress = replace(
            progress,
            best_accuracy=max(scores.accuracy, progress.best_accuracy),
            epochs_without_better=0 if better else progress.epochs_without_better + 1,
        )
    if journal is not None:
        number = job.plan.epoch_of(progress.step - 1) + 1
        steps = [s for s in journal.steps if s.epoch == number]
        seconds += sum(e.seconds for e in journal.record.epochs if e.epoch == number)
        journal.add_epoch(
            Epoch(
                epoch=number,
                steps=len(steps),
                train_loss=math.fsum(s.loss for s in steps) / len(steps),
                test_loss=scores.loss,
                accuracy=scores.accuracy,
                precision=scores.precision,
                recall=scores.recall,
                learning_rate=steps[-1].learning_rate,
                seconds=seconds,
                images_per_second=sum(s.batch for s in steps) / seconds,
                confusion=scores.confusion,
            )
        )
    return progress


def save_checkpoint(job: Job, folder: Path, progress: Progress, own: dict[str, Tensor] | None, best: bool) -> None:
    """All ranks gather the unsharded state; the first one writes it. ``own`` is each replica's running statistics, inside an epoch."""
    average_buffers(job.strategy.module, job.world.across)
    state = job.strategy.state()
    if job.world.first:
        state["own"] = own
        checkpoint.save(folder, state, progress, best)


def enough(job: Job, journal: Journal | None, progress: Progress) -> bool:
    """Whether the spec's target, patience or epoch to stop after is reached. The same on every rank."""
    spec = job.spec
    epoch = job.plan.epoch_of(progress.step - 1) + 1
    reasons: list[tuple[bool, Callable[[], str]]] = [
        (
            spec.target_accuracy is not None and progress.best_accuracy >= spec.target_accuracy,
            lambda: f"reached --target-accuracy in epoch {epoch}",
        ),
        (
            spec.early_stop is not None and progress.epochs_without_better >= spec.early_stop,
            lambda: f"stopped early: {spec.early_stop} epochs without a better accuracy",
        ),
        (
            spec.stop_after_epoch is not None and epoch >= spec.stop_after_epoch,
            lambda: f"stopped after epoch {epoch}; --resume goes on",
        ),
    ]
    for met, why in reasons:
        if met:
            if journal is not None:
                journal.note(why())
            return True
    return False
