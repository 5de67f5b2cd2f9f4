"""What a strategy is compared with: ``single`` on the same global batches, and which of its tensors hold nothing but rounding."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from safetensors.numpy import load_file

from scalelab import spec as specs
from scalelab.batch import Derived
from scalelab.errors import RunError
from scalelab.launch import training
from scalelab.launch.launcher import Launcher, Prepared
from scalelab.spec import Spec
from scalelab.studies.verifying.equivalence import Outcome, differences, is_buffer

Observe = Callable[[str], Callable[[Path], None]]


def unobserved(label: str) -> Callable[[Path], None]:
    """Nobody watches."""
    return lambda folder: None


def train(launcher: Launcher, row: Prepared, observe: Observe, label: str = "single") -> Outcome:
    """Train as every training does; the losses and the unsharded weights. Raises RunError with the training's own words."""
    spec, record = row.spec, training.train(launcher, row, sys.argv, observe(label))
    if record.status != "completed" or record.failure is not None:
        raise RunError(record.failure.error if record.failure else f"the training ended {record.status}")
    files = sorted(Path(spec.out, record.run, "checkpoints").glob("step-*.safetensors"))
    return Outcome(spec, record, {k: v for k, v in load_file(files[-1]).items() if k.startswith("model/")})


def serial(spec: Spec, batch: int | None) -> Spec:
    """``spec`` in one process: what only parallel strategies have is left out."""
    return msgspec.structs.replace(
        spec, **specs.PARALLEL, strategy="single", engine="torch", workers=1, batch=batch, batch_per_worker=None, micro_batch=None,
        accumulate=None, shares=None,
    )  # fmt: skip


def alone(spec: Spec, derived: Derived) -> Spec:
    """The serial training that ``spec`` must equal. Batch norm, when it is local, sees each replica's slice by itself."""
    slices = derived.replicas if spec.batch_norm == "local" else 1
    micro = None if spec.micro_batch is None else spec.micro_batch * derived.replicas  # where it is held, accumulate may change
    return msgspec.structs.replace(
        serial(spec, derived.batch), accumulate=None if micro else derived.accumulate, micro_batch=micro, norm_slices=slices,
        shares=spec.shares if slices > 1 else None,
    )  # fmt: skip


@dataclass
class Reference:
    """What ``single`` computed; and, once it is asked for, which tensors hold nothing but rounding."""

    outcome: Outcome
    rounding: frozenset[str] | None = None
    repeats: bool = True
    """whether a second run of ``single`` began with the same loss; known after ``rounding_only``"""

    def rounding_only(self, launcher: Launcher, tolerance: float) -> frozenset[str]:
        """Tensors that differ between two runs of ``single`` that only sum in another order (other memory layout and threads).

        Their gradients are zero in exact arithmetic, and an optimizer that divides by a gradient's size (Adam) makes steps of the
        rounding that is left: a bias before a batch norm, say. No strategy can agree on them.
        """
        if self.rounding is None:
            spec = self.outcome.spec
            other = msgspec.structs.replace(
                spec, channels_last="on" if spec.channels_last == "off" else "off", threads_per_worker=1
            )
            try:
                found = train(launcher, training.prepare(launcher, other), unobserved)
            except RunError:  # then nothing is excused, and the strategy's own difference is what there is to tell
                self.rounding = frozenset()
            else:
                first, again = self.outcome.record.losses[0], found.record.losses[0]
                self.repeats = abs(first - again) <= tolerance * abs(first)
                apart = differences(found.tensors, self.outcome.tensors)
                self.rounding = frozenset(name for name, value in apart.items() if not value <= tolerance / 10)
        return self.rounding

    def compared(self, left_out: frozenset[str]) -> tuple[int, int]:
        """(trained tensors that are not left out, all trained tensors)."""
        trained = [name for name in self.outcome.tensors if not is_buffer(name)]
        return sum(name not in left_out for name in trained), len(trained)
