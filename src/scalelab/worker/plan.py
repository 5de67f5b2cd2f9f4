"""Which samples, in which step, on which replica: decided by the spec and the data alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from scalelab.batch import Derived
from scalelab.data.order import epoch_order
from scalelab.errors import ScalelabError
from scalelab.spec import Spec


@dataclass(frozen=True)
class Plan:
    """The steps of a training. ``dropped`` samples, the last partial batch, are left out of each epoch."""

    samples: int
    batch: int
    steps_per_epoch: int
    total_steps: int
    dropped: int

    def epoch_of(self, step: int) -> int:
        """The epoch (from 0) that ``step`` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def epoch_end(self, step: int) -> int:
        """The first step after the epoch of ``step``, or the end of the training if that is sooner."""
        return min((self.epoch_of(step) + 1) * self.steps_per_epoch, self.total_steps)


def make(spec: Spec, derived: Derived, samples: int) -> Plan:
    """The plan for ``samples`` training samples. Raises ScalelabError when a batch needs more than there are."""
    if derived.batch > samples:
        raise ScalelabError(f"--batch {derived.batch} is more than the {samples} training samples; use at most {samples}")
    per_epoch = samples // derived.batch
    by_epochs = None if spec.epochs is None and spec.steps else per_epoch * (spec.epochs or 1)
    total = min(length for length in (by_epochs, spec.steps) if length is not None)
    return Plan(samples, derived.batch, per_epoch, total, samples - per_epoch * derived.batch)


def shares(plan: Plan, spec: Spec, derived: Derived, replica: int, start: int, stop: int) -> Iterator[Tensor]:
    """For each step in [start, stop), all of one epoch: the sample indices of a replica, [micro-batches, samples].

    The global batch is laid out as [micro, replica, sample], the replicas' samples one after the other where their number differs;
    the order depends on (seed, epoch) only.
    """
    samples = derived.samples
    first = sum(samples[:replica])
    order = epoch_order(plan.samples, spec.seed, plan.epoch_of(start))
    for step in range(start, stop):
        at = step % plan.steps_per_epoch * plan.batch
        yield order[at : at + plan.batch].view(derived.accumulate, sum(samples))[:, first : first + samples[replica]]
