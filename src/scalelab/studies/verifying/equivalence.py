"""Two trainings that should have computed the same: how far they are apart, and what usually is the cause."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from scalelab.record.schema import Cell, TrainRecord
from scalelab.spec import Spec

FLOOR = 1e-6
"""tensors whose values stay below this share of the median tensor's are compared on that scale: they hold rounding only"""

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What a few steps of training gave: the losses, and the unsharded tensors by name."""

    spec: Spec
    record: TrainRecord
    tensors: State


def compare(blank: Cell, reference: Outcome, outcome: Outcome, tolerance: float, left_out: Collection[str] = ()) -> Cell:
    """``blank`` with the largest differences, and whether they pass. ``left_out`` tensors are not looked at."""
    unlike = _unlike(outcome.tensors, reference.tensors)
    if unlike is not None:
        return msgspec.structs.replace(blank, status="failed", reason=unlike)
    losses = loss_differences(reference, outcome)
    apart = {name: value for name, value in differences(outcome.tensors, reference.tensors).items() if name not in left_out}
    worst = [largest(value for name, value in apart.items() if is_buffer(name) is buffer) for buffer in (False, True)]
    drift = drifted(outcome)
    passed = all(value <= tolerance for value in (*losses, *apart.values())) and not drift  # a NaN is not <= anything
    return msgspec.structs.replace(
        blank, status="passed" if passed else "failed", max_loss_difference=largest(losses), max_parameter_difference=worst[0],
        max_buffer_difference=worst[1], reason=None if passed else diagnosis(losses, apart, drift, tolerance),
    )  # fmt: skip


def loss_differences(reference: Outcome, outcome: Outcome) -> list[float]:
    """For each step's loss, |a - b| / |b|."""
    return [abs(a - b) / max(abs(b), 1e-300) for a, b in zip(outcome.record.losses, reference.record.losses, strict=True)]


def drifted(outcome: Outcome) -> list[str]:
    """What the record notes of ranks whose parameters should be equal and are not."""
    return [note for note in outcome.record.notes if "ranks' parameters differ" in note]


def largest(values: Iterable[float]) -> float:
    """The largest of ``values``, 0 of none; NaN when one of them is, which ``max`` may overlook."""
    return float(np.max([0.0, *values]))


def _unlike(mine: State, reference: State) -> str | None:
    """Why two states can't be compared: names or shapes that only one has."""
    missing = sorted(set(reference) ^ set(mine))
    if missing:
        return f"its state has other tensors: {', '.join(missing[:3])}"
    reshaped = [name for name in reference if mine[name].shape != reference[name].shape]
    if not reshaped:
        return None
    shapes = [f"{n.removeprefix('model/')} {list(mine[n].shape)} for {list(reference[n].shape)}" for n in reshaped[:3]]
    return f"its tensors have other shapes: {', '.join(shapes)}"


def differences(mine: State, reference: State) -> dict[str, float]:
    """For each tensor, max |a - b| / max |b|. Integer tensors (counters) too; equal infinities (a mask) do not differ."""
    wide = {name: value.astype(np.float64) for name, value in reference.items() if value.size}
    sizes = {name: float(np.abs(value[np.isfinite(value)]).max(initial=0.0)) for name, value in wide.items()}
    scale = float(np.median(list(sizes.values()))) if sizes else 1.0  # not the largest: one huge buffer would hide everything
    return {
        name: _apart(mine[name].astype(np.float64), value) / max(sizes[name], FLOOR * scale, 1e-300)
        for name, value in wide.items()
    }


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):  # inf - inf, where the two are equal
        return float(np.where(a == b, 0.0, np.abs(a - b)).max())


def diagnosis(losses: Sequence[float], apart: dict[str, float], drift: Sequence[str], tolerance: float) -> str:
    """Where the two part, and what usually is the cause: what a person needs to find the bug."""
    off = sorted(
        (name for name, value in apart.items() if not value <= tolerance and not is_buffer(name)), key=lambda n: -apart[n]
    )
    lost = [name.removeprefix("model/") for name, value in apart.items() if not math.isfinite(value)]
    parameters = [name for name in apart if not is_buffer(name)]
    if not losses[0] <= tolerance:
        return (
            "the first step's loss already differs: ranks see other samples than the global batch's, the loss is scaled, "
            "or the model's own forward mixes a batch's samples or draws random numbers"
        )
    if lost:
        return f"{len(lost)} of {len(apart)} tensors are not finite ({', '.join(lost[:3])}{'…' if len(lost) > 3 else ''})"
    if off and len(off) < len(parameters):
        names = ", ".join(name.removeprefix("model/") for name in off[:3])
        return f"{len(off)} of {len(parameters)} parameters differ ({names}…): their gradients are left out or changed"
    if drift:
        return f"{drift[0]}: gradients are not averaged over the ranks"
    if off:
        return "all parameters differ after an equal first loss: gradients are scaled, or summed where they should be averaged"
    return "the parameters agree but losses or buffers differ: batch statistics, or the running averages"


def is_buffer(name: str) -> bool:
    """Whether a tensor of this name is a running statistic of batch norm, and not trained."""
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))
