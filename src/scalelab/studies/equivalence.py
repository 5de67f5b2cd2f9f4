"""Two trainings that should have computed the same: how far they are apart, and what usually is the cause."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from scalelab.record.schema import Cell, TrainRecord
from scalelab.spec import Spec

FLOOR = 1e-6
"""tensors whose values stay below this share of the model's largest are compared on that scale: they hold rounding only"""

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What a few steps of training gave: the losses, and the unsharded tensors by name."""

    spec: Spec
    record: TrainRecord
    tensors: State


def compare(blank: Cell, reference: Outcome, outcome: Outcome, tolerance: float, left_out: Collection[str] = ()) -> Cell:
    """``blank`` with the largest differences, and whether they pass. ``left_out`` tensors are not looked at."""
    losses = [abs(a - b) / max(abs(b), 1e-300) for a, b in zip(outcome.record.losses, reference.record.losses, strict=True)]
    missing = sorted(set(reference.tensors) ^ set(outcome.tensors))
    if missing:
        return msgspec.structs.replace(blank, status="failed", reason=f"its state has other tensors: {', '.join(missing[:3])}")
    apart = {name: value for name, value in differences(outcome.tensors, reference.tensors).items() if name not in left_out}
    buffers = {name for name in apart if _is_buffer(name)}
    worst = {kind: max((apart[n] for n in names), default=0.0) for kind, names in (("p", apart.keys() - buffers), ("b", buffers))}
    drift = [note for note in outcome.record.notes if "ranks' parameters differ" in note]
    passed = max(*losses, worst["p"], worst["b"]) <= tolerance and not drift  # a NaN never passes
    return msgspec.structs.replace(
        blank, status="passed" if passed else "failed", max_loss_difference=max(losses), max_parameter_difference=worst["p"],
        max_buffer_difference=worst["b"], reason=None if passed else diagnosis(losses, apart, drift, tolerance),
    )  # fmt: skip


def differences(mine: State, reference: State) -> dict[str, float]:
    """For each tensor, max |a - b| / max |b|. Integer tensors (counters) too."""
    wide = {name: value.astype(np.float64) for name, value in reference.items()}
    largest = max((float(np.abs(v).max()) for v in wide.values() if v.size), default=1.0)
    return {
        name: float(np.abs(mine[name].astype(np.float64) - value).max()) / max(float(np.abs(value).max()), FLOOR * largest)
        for name, value in wide.items()
        if value.size
    }


def diagnosis(losses: Sequence[float], apart: dict[str, float], drift: Sequence[str], tolerance: float) -> str:
    """Where the two part, and what usually is the cause: what a person needs to find the bug."""
    off = sorted(
        (name for name, value in apart.items() if not value <= tolerance and not _is_buffer(name)), key=lambda n: -apart[n]
    )
    parameters = [name for name in apart if not _is_buffer(name)]
    if not losses[0] <= tolerance:
        return "the first step's loss already differs: ranks see other samples than the global batch's, or the loss is scaled"
    if off and len(off) < len(parameters):
        names = ", ".join(name.removeprefix("model/") for name in off[:3])
        return f"{len(off)} of {len(parameters)} parameters differ ({names}…): their gradients are left out or changed"
    if drift:
        return f"{drift[0]}: gradients are not averaged over the ranks"
    if off:
        return "all parameters differ after an equal first loss: gradients are scaled, or summed where they should be averaged"
    return "the parameters agree but losses or buffers differ: batch statistics, or the running averages"


def _is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))
