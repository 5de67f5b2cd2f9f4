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
from safetensors.numpy import load_file

from scalelab import spec as specs
from scalelab import strategies
from scalelab.errors import RunError, ScalelabError
from scalelab.launch import local
from scalelab.launch.pool import Pool
from scalelab.record.schema import Cell, VerifyRecord
from scalelab.spec import Spec
from scalelab.studies.equivalence import Outcome, compare, differences

TOLERANCE = {"fp64": 1e-9, "fp32": 1e-2}
"""largest relative difference that passes; float32's is what rounding, amplified by ReLU's kink, was seen to add"""
DEFAULTS = {"steps": 4, "batch": 32}

Observe = Callable[[str], Callable[[Path], None]]


def unobserved(strategy: str) -> Callable[[Path], None]:
    """Nobody watches."""
    return lambda folder: None


@dataclass
class Reference:
    """What ``single`` computed; and, once it is asked for, which tensors hold nothing but rounding."""

    outcome: Outcome
    rounding: frozenset[str] | None = None

    def rounding_only(self, pool: Pool, tolerance: float) -> frozenset[str]:
        """Tensors that differ between two runs of ``single`` that only sum in another order (other memory layout and threads).

        Their gradients are zero in exact arithmetic, and an optimizer that divides by a gradient's size (Adam) makes steps of the
        rounding that is left: a bias before a batch norm, say. No strategy can agree on them.
        """
        if self.rounding is None:
            spec = self.outcome.spec
            other = msgspec.structs.replace(
                spec, channels_last="on" if spec.channels_last == "off" else "off", threads_per_worker=1
            )
            apart = differences(_train(pool, other, unobserved).tensors, self.outcome.tensors)
            self.rounding = frozenset(name for name, value in apart.items() if value > tolerance / 10)
        return self.rounding


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
        reference = Reference(_train(pool, alone, observe))
        seen = reference.outcome.record
        result = VerifyRecord(
            model=base.model, data=base.data, precision=precision, tolerance=TOLERANCE[precision], steps=len(seen.losses),
            batch=seen.derived.batch, notes=_notes(base, float32),
        )  # fmt: skip
        for name in names:
            cell = _cell(pool, msgspec.structs.replace(common, strategy=name), reference, result.tolerance, observe)
            result.cells.append(cell)
            on_cell(cell)
    return result


def _cell(pool: Pool, spec: Spec, reference: Reference, tolerance: float, observe: Observe) -> Cell:
    alone = reference.outcome
    if strategies.entry(spec.strategy).axis is None:
        derived = alone.record.derived
        spec = msgspec.structs.replace(
            spec, workers=1, batch=derived.batch, batch_per_worker=None, accumulate=derived.accumulate, micro_batch=None
        )
    blank = Cell(strategy=spec.strategy, engine=spec.engine, workers=spec.workers, status="not_applicable")
    try:
        outcome = _train(pool, spec, observe)
    except RunError as error:
        return msgspec.structs.replace(blank, status="failed", reason=str(error))
    except ScalelabError as error:
        return msgspec.structs.replace(blank, reason=str(error))
    cell = compare(blank, alone, outcome, tolerance)
    if cell.status == "passed" or cell.max_parameter_difference is None:
        return cell
    rounding = reference.rounding_only(pool, tolerance)
    again = compare(blank, alone, outcome, tolerance, left_out=rounding)
    if again.status == "passed":
        count = f"{len(rounding)} of {len(alone.tensors)} tensors"
        return msgspec.structs.replace(
            again, reason=f"{count} are left out: single itself changes them when it sums in another order"
        )
    return msgspec.structs.replace(cell, reason=_after_one_step(pool, alone.spec, spec, blank, tolerance) or cell.reason)


def _after_one_step(pool: Pool, alone: Spec, spec: Spec, blank: Cell, tolerance: float) -> str | None:
    """Why a strategy fails, read after its first step: later, one wrong parameter has spoilt all others through the loss."""
    try:
        reference, outcome = (_train(pool, msgspec.structs.replace(s, steps=1), unobserved) for s in (alone, spec))
    except ScalelabError:
        return None
    return compare(blank, reference, outcome, tolerance).reason


def _train(pool: Pool, spec: Spec, observe: Observe) -> Outcome:
    record = local.train(pool, local.prepare(pool, spec), sys.argv, observe(spec.strategy))
    if record.status != "completed" or record.failure is not None:
        raise RunError(record.failure.error if record.failure else f"the training ended {record.status}")
    files = sorted(Path(spec.out, record.run, "checkpoints").glob("step-*.safetensors"))
    return Outcome(spec, record, {k: v for k, v in load_file(files[-1]).items() if k.startswith("model/")})


def _notes(base: Spec, float32: bool) -> list[str]:
    notes = ["dropout and stochastic depth are set to 0"]
    if base.batch_norm == "local":
        notes.append("batch norm local: the reference normalises each worker's slice of the batch by itself")
    if float32:
        notes.append(
            "float32: the differences hold rounding, amplified by ReLU's kink; float64, the default, tells bugs from rounding"
        )
    return notes
