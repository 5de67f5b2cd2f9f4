"""Does a strategy compute the same thing as one process would, for this model and data?

The strategy and ``single`` train a few steps on the same global batches, by the path that every training takes: the
worker, its losses in steps.jsonl, its unsharded state in a checkpoint. The two are compared here, in float64, so that a bug (1e-2)
can't hide behind rounding (1e-15).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import load_file

from scalelab import spec as specs
from scalelab import strategies
from scalelab.errors import RunError, ScalelabError
from scalelab.launch import local
from scalelab.launch.pool import Pool
from scalelab.record.schema import Cell, TrainRecord, VerifyRecord
from scalelab.spec import Spec

TOLERANCE = {"fp64": 1e-9, "fp32": 1e-2}
"""largest relative difference that passes; float32's is what rounding, amplified by ReLU's kink, was seen to add"""
FLOOR = 1e-6
"""tensors whose values stay below this share of the model's largest are compared on that scale: they hold rounding only"""
DEFAULTS = {"steps": 4, "batch": 32}

State = dict[str, np.ndarray]
Observe = Callable[[str], Callable[[Path], None]]


def unobserved(strategy: str) -> Callable[[Path], None]:
    """Nobody watches."""
    return lambda folder: None


@dataclass(frozen=True)
class Outcome:
    """What a few steps of training gave: the losses, and the unsharded tensors by name."""

    spec: Spec
    record: TrainRecord
    tensors: State


def verify(
    pool: Pool, base: Spec, names: Sequence[str], float32: bool, on_cell: Callable[[Cell], None], observe: Observe = unobserved
) -> VerifyRecord:
    """Compare each strategy of ``names`` on ``base.workers`` workers with ``single``. Raises ScalelabError when ``single`` can't run.

    ``on_cell`` hears of each result; ``observe(strategy)`` gives the function that follows a training's folder.
    """
    precision = "fp32" if float32 else "fp64"
    for name in names:
        strategies.entry(name)  # an unknown name is told before anything starts
    with tempfile.TemporaryDirectory(prefix="scalelab-verify-") as scratch:
        common = msgspec.structs.replace(
            base, precision=precision, out=scratch, epochs=None, evaluate=False, probe_steps=0, warmup_steps=0, dropout=False,
            checkpoint=True, resume=None, early_stop=None, target_accuracy=None, stop_after_epoch=None,
        )  # fmt: skip
        slices = base.workers if base.batch_norm == "local" else 1
        derived = specs.derive(common, (base.workers, 1, 1), 1)
        alone = msgspec.structs.replace(
            common, strategy="single", workers=1, batch=derived.batch, batch_per_worker=None, micro_batch=None,
            accumulate=derived.accumulate, norm_slices=slices,
        )  # fmt: skip
        reference = _train(pool, alone, observe)
        result = VerifyRecord(
            model=base.model, data=base.data, precision=precision, tolerance=TOLERANCE[precision], steps=len(reference.record.losses),
            batch=reference.record.derived.batch, notes=_notes(base, float32),
        )  # fmt: skip
        for name in names:
            cell = _cell(pool, msgspec.structs.replace(common, strategy=name), reference, result.tolerance, observe)
            result.cells.append(cell)
            on_cell(cell)
    return result


def _cell(pool: Pool, spec: Spec, reference: Outcome, tolerance: float, observe: Observe) -> Cell:
    if strategies.entry(spec.strategy).axis is None:
        spec = msgspec.structs.replace(
            spec,
            workers=1,
            batch=reference.record.derived.batch,
            batch_per_worker=None,
            accumulate=reference.record.derived.accumulate,
            micro_batch=None,
        )
    blank = Cell(strategy=spec.strategy, engine=spec.engine, workers=spec.workers, status="not_applicable")
    try:
        outcome = _train(pool, spec, observe)
    except RunError as error:
        return msgspec.structs.replace(blank, status="failed", reason=str(error))
    except ScalelabError as error:
        return msgspec.structs.replace(blank, reason=str(error))
    cell = _compare(blank, reference, outcome, tolerance)
    if cell.status == "passed" or cell.max_parameter_difference is None or len(reference.record.losses) == 1:
        return cell
    return msgspec.structs.replace(cell, reason=_after_one_step(pool, reference.spec, spec, blank, tolerance) or cell.reason)


def _after_one_step(pool: Pool, alone: Spec, spec: Spec, blank: Cell, tolerance: float) -> str | None:
    """Why a strategy fails, read after its first step: later, one wrong parameter has spoilt all others through the loss."""
    try:
        reference, outcome = (_train(pool, msgspec.structs.replace(s, steps=1), unobserved) for s in (alone, spec))
    except ScalelabError:
        return None
    return _compare(blank, reference, outcome, tolerance).reason


def _train(pool: Pool, spec: Spec, observe: Observe) -> Outcome:
    record = local.train(pool, local.prepare(pool, spec), sys.argv, observe(spec.strategy))
    if record.status != "completed" or record.failure is not None:
        raise RunError(record.failure.error if record.failure else f"the training ended {record.status}")
    files = sorted(Path(spec.out, record.run, "checkpoints").glob("step-*.safetensors"))
    return Outcome(spec, record, {k: v for k, v in load_file(files[-1]).items() if k.startswith("model/")})


def _compare(blank: Cell, reference: Outcome, outcome: Outcome, tolerance: float) -> Cell:
    losses = [abs(a - b) / max(abs(b), 1e-300) for a, b in zip(outcome.record.losses, reference.record.losses, strict=True)]
    missing = sorted(set(reference.tensors) ^ set(outcome.tensors))
    if missing:
        return msgspec.structs.replace(blank, status="failed", reason=f"its state has other tensors: {', '.join(missing[:3])}")
    apart = differences(outcome.tensors, reference.tensors)
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


def _notes(base: Spec, float32: bool) -> list[str]:
    notes = ["dropout and stochastic depth are set to 0"]
    if base.batch_norm == "local":
        notes.append("batch norm local: the reference normalises each worker's slice of the batch by itself")
    if float32:
        notes.append(
            "float32: the differences hold rounding, amplified by ReLU's kink; float64, the default, tells bugs from rounding"
        )
    return notes
