"""Which samples, in which step, on which replica, at which learning rate: decided by the spec and the data alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from scalelab.batch import Derived, Segment
from scalelab.data.order import epoch_order
from scalelab.errors import ScalelabError
from scalelab.optim import schedules
from scalelab.spec import Spec


@dataclass(frozen=True)
class Stretch:
    """Steps of one batch size: from ``step`` on (from 0), the first of an epoch."""

    step: int
    steps_per_epoch: int
    segment: Segment

    def epoch_of(self, step: int) -> int:
        """The epoch (from 0) that ``step`` of this stretch belongs to."""
        return self.segment.epoch + (step - self.step) // self.steps_per_epoch

    def in_epoch(self, step: int) -> int:
        """The place of ``step`` in its epoch, from 0."""
        return (step - self.step) % self.steps_per_epoch


@dataclass(frozen=True)
class Plan:
    """The steps of a training: one stretch, or several under ``--batch-schedule``."""

    samples: int
    total_steps: int
    stretches: tuple[Stretch, ...]

    @property
    def batch(self) -> int:
        """The global batch, of the first stretch."""
        return self.stretches[0].segment.batch

    @property
    def steps_per_epoch(self) -> int:
        """Of the first stretch."""
        return self.stretches[0].steps_per_epoch

    @property
    def dropped(self) -> int:
        """Samples, the last partial batch, that are left out of each epoch of the first stretch."""
        return self.samples % self.batch

    @property
    def told(self) -> dict[str, int]:
        """The numbers that are printed before the start."""
        names = ("samples", "batch", "steps_per_epoch", "total_steps", "dropped", "whole_schedule")
        return {name: getattr(self, name) for name in names}

    @property
    def whole_schedule(self) -> bool:
        """Whether the training comes to all stretches."""
        return self.stretches[-1].step < self.total_steps

    @property
    def trained(self) -> list[Stretch]:
        """The stretches that the training comes to."""
        return [stretch for stretch in self.stretches if stretch.step < self.total_steps]

    def stretch(self, step: int) -> Stretch:
        """The one that ``step`` (from 0) belongs to."""
        return next(stretch for stretch in reversed(self.stretches) if stretch.step <= step)

    def epoch_of(self, step: int) -> int:
        """The epoch (from 0) that ``step`` (from 0) belongs to."""
        return self.stretch(step).epoch_of(step)

    def epoch_end(self, step: int) -> int:
        """The first step after the epoch of ``step``, or the end of the training if that is sooner."""
        stretch = self.stretch(step)
        return min(step - stretch.in_epoch(step) + stretch.steps_per_epoch, self.total_steps)

    def inside_epoch(self, step: int) -> bool:
        """Whether ``step`` is not the first of an epoch."""
        return self.stretch(step).in_epoch(step) != 0

    def time(self, step: int) -> float:
        """Where ``step`` is between the training's beginning and end, in steps of the first stretch: half an epoch is half an epoch."""
        stretch = self.stretch(step)
        if stretch is self.stretches[0]:
            return step
        return (stretch.epoch_of(step) + stretch.in_epoch(step) / stretch.steps_per_epoch) * self.steps_per_epoch


def _said(spec: Spec, batch: int) -> str:
    """The global batch by the flag that said it."""
    if spec.batch_per_worker is None:
        return f"--batch {batch}"
    return f"--batch-per-worker {spec.batch_per_worker}: a batch of {batch}"


def make(spec: Spec, derived: Derived, samples: int) -> Plan:
    """The plan for ``samples`` training samples.

    Raises ScalelabError when a batch needs more than there are, or a schedule begins a part after the last epoch.
    """
    stretches: list[Stretch] = []
    for segment in derived.segments or (_whole(spec, derived),):
        flag = (
            f"--batch-schedule {spec.batch_schedule}: a batch of {segment.batch}"
            if derived.segments
            else _said(spec, segment.batch)
        )
        if segment.batch > samples:
            raise ScalelabError(f"{flag} is more than the {samples} training samples; use at most {samples}")
        begins = _step_of(stretches[-1], segment.epoch) if stretches else 0
        stretches.append(Stretch(begins, samples // segment.batch, segment))
    epochs = None if spec.epochs is None and spec.steps else spec.epochs or 1
    last = stretches[-1]
    if epochs is not None and last.segment.epoch >= epochs:
        raise ScalelabError(
            f"--batch-schedule {spec.batch_schedule}: epoch {last.segment.epoch}, counted from 0, is after the last of --epochs {epochs}"
        )
    by_epochs = None if epochs is None else _step_of(last, epochs)
    total = min(length for length in (by_epochs, spec.steps) if length is not None)
    return Plan(samples, total, tuple(stretches))


def _whole(spec: Spec, derived: Derived) -> Segment:
    """The one part of a training whose batch stays."""
    lr = spec.lr if derived.lr is None else derived.lr
    return Segment(epoch=0, batch=derived.batch, micro_batch=derived.micro_batch, accumulate=derived.accumulate, lr=lr)


def _step_of(stretch: Stretch, epoch: int) -> int:
    """The step at which ``epoch`` begins, if the batch stays that of ``stretch``."""
    return stretch.step + (epoch - stretch.segment.epoch) * stretch.steps_per_epoch


def learning_rate(plan: Plan, spec: Spec, step: int) -> float:
    """The learning rate at ``step`` (0-based): the schedule over epochs, its peak that of the step's batch."""
    peak = plan.stretch(step).segment.lr
    return schedules.learning_rate(spec, peak, plan.time(step), plan.steps_per_epoch, plan.time(plan.total_steps))


def shares(plan: Plan, spec: Spec, derived: Derived, replica: int, start: int, stop: int) -> Iterator[Tensor]:
    """For each step in [start, stop), all of one epoch: the sample indices of a replica, [micro-batches, samples].

    The global batch is laid out as [micro, replica, sample], the replicas' samples one after the other where their number differs;
    the order depends on (seed, epoch) only.
    """
    stretch = plan.stretch(start)
    segment = stretch.segment
    samples = derived.shares or (segment.micro_batch,) * derived.replicas
    first = sum(samples[:replica])
    order = epoch_order(plan.samples, spec.seed, stretch.epoch_of(start))
    for step in range(start, stop):
        at = stretch.in_epoch(step) * segment.batch
        yield order[at : at + segment.batch].view(segment.accumulate, sum(samples))[:, first : first + samples[replica]]


def notes(plan: Plan) -> list[str]:
    """What a reader of the record should know: samples left out, and changes of the batch."""
    found = []
    for stretch in plan.trained:
        batch = stretch.segment.batch
        if left := plan.samples % batch:
            when = f" of batch {batch}" if len(plan.stretches) > 1 else ""
            found.append(f"the last {left} of {plan.samples} samples, a partial batch, are left out of each epoch{when}")
    if len(plan.stretches) > 1:
        parts = ", ".join(f"{s.segment.batch} from step {s.step + 1} on (epoch {s.segment.epoch + 1})" for s in plan.trained[1:])
        if parts:
            probed = "communication and memory are those of the batch with which an attempt begins"
            found.append(f"the batch changes from {plan.batch} to {parts}; {probed}")
    if not plan.whole_schedule:
        found.append(f"the training ends before the batch changes to {plan.stretches[len(plan.trained)].segment.batch}")
    return found
