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

from scalelab import strategies
from scalelab.batch import derive
from scalelab.errors import NotApplicable, RunError, ScalelabError
from scalelab.launch import local
from scalelab.launch.local import Prepared
from scalelab.launch.pool import Pool
from scalelab.measure.environment import usable_cores
from scalelab.record.schema import Cell, VerifyRecord
from scalelab.spec import Spec
from scalelab.studies.equivalence import Outcome, compare, differences, is_buffer
from scalelab.studies.rows import on_one_device

TOLERANCE = {"fp64": 1e-9, "fp32": 1e-2}
"""largest relative difference that passes; float32's is what rounding, amplified by ReLU's kink, was seen to add"""
DEFAULTS = {"steps": 4, "batch": 32}

RANDOM = "single itself does not repeat its first loss: the model or the data is random beyond --seed, so nothing can be compared"
UNSTABLE = (
    "single itself does not repeat when it sums in another order: {} of {} trained tensors change, too many to compare the rest alone; "
    "use --optimizer sgd or a lower --lr"
)

Observe = Callable[[str], Callable[[Path], None]]


def unobserved(strategy: str) -> Callable[[Path], None]:
    """Nobody watches."""
    return lambda folder: None


@dataclass
class Reference:
    """What ``single`` computed; and, once it is asked for, which tensors hold nothing but rounding."""

    outcome: Outcome
    rounding: frozenset[str] | None = None
    repeats: bool = True
    """whether a second run of ``single`` began with the same loss; known after ``rounding_only``"""

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
            try:
                found = _train(pool, local.prepare(pool, other), unobserved)
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


def verify(
    pool: Pool, base: Spec, names: Sequence[str], float32: bool, on_cell: Callable[[Cell], None], observe: Observe = unobserved
) -> VerifyRecord:
    """Compare each strategy of ``names`` on ``base.workers`` workers with ``single``.

    Raises ScalelabError before anything is trained: ``single`` can't run, or a strategy can't be loaded; RunError when ``single`` fails.

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
        derived = derive(common, (base.workers, 1, 1), 1)
        alone = msgspec.structs.replace(
            common, strategy="single", workers=1, batch=derived.batch, batch_per_worker=None, micro_batch=None,
            accumulate=derived.accumulate, norm_slices=slices,
        )  # fmt: skip
        blanks, rows = _prepare(pool, [msgspec.structs.replace(common, strategy=name) for name in names], alone)
        reference = Reference(_train(pool, rows[0], observe))
        seen = reference.outcome.record
        result = VerifyRecord(
            model=base.model, data=base.data, precision=precision, tolerance=TOLERANCE[precision], steps=len(seen.losses),
            batch=seen.derived.batch, notes=_notes(base, seen.derived.accumulate, float32),
        )  # fmt: skip
        remaining = iter(rows[1:])
        for blank in blanks:
            cell = blank if blank.reason else _cell(pool, blank, next(remaining), reference, result.tolerance, observe)
            result.cells.append(cell)
            on_cell(cell)
    return result


def _prepare(pool: Pool, asked: Sequence[Spec], alone: Spec) -> tuple[list[Cell], list[Prepared]]:
    """A cell for each spec, with the reason where its strategy can't train; then ``alone`` and the others, ready, on one device."""
    cells, rows = [], [local.prepare(pool, alone)]
    for spec in asked:
        if strategies.entry(spec.strategy).axis is None:
            spec = msgspec.structs.replace(
                spec, workers=1, batch=alone.batch, batch_per_worker=None, accumulate=alone.accumulate, micro_batch=None
            )
        cell = Cell(strategy=spec.strategy, engine=spec.engine, workers=spec.workers, status="not_applicable")
        try:
            _divides(spec)
            rows.append(local.prepare(pool, spec))
        except NotApplicable as error:
            cell = msgspec.structs.replace(cell, reason=str(error))
        cells.append(cell)
    return cells, on_one_device(rows)


def _divides(spec: Spec) -> None:
    """Raises NotApplicable where this strategy's degrees can't share the batch."""
    try:
        derive(spec, strategies.degrees(spec), usable_cores())
    except ScalelabError as error:
        raise NotApplicable(str(error)) from None


def _cell(pool: Pool, blank: Cell, row: Prepared, reference: Reference, tolerance: float, observe: Observe) -> Cell:
    alone = reference.outcome
    try:
        outcome = _train(pool, row, observe)
    except RunError as error:
        return msgspec.structs.replace(blank, status="failed", reason=str(error))
    cell = compare(blank, alone, outcome, tolerance)
    if cell.status == "passed" or cell.max_parameter_difference is None:
        return cell
    rounding = reference.rounding_only(pool, tolerance)
    if not reference.repeats:
        return msgspec.structs.replace(cell, reason=RANDOM)
    some, trained = reference.compared(rounding)
    if 2 * some < trained:
        return msgspec.structs.replace(cell, reason=UNSTABLE.format(trained - some, trained))
    again = compare(blank, alone, outcome, tolerance, left_out=rounding)
    if again.status == "passed":
        count = f"{len(rounding)} of {len(alone.tensors)} tensors"
        return msgspec.structs.replace(
            again, reason=f"{count} are left out: single itself changes them when it sums in another order"
        )
    return msgspec.structs.replace(cell, reason=_after_one_step(pool, alone.spec, outcome.spec, blank, tolerance) or cell.reason)


def _after_one_step(pool: Pool, alone: Spec, spec: Spec, blank: Cell, tolerance: float) -> str | None:
    """Why a strategy fails, read after its first step: later, one wrong parameter has spoilt all others through the loss."""
    try:
        reference, outcome = (
            _train(pool, local.prepare(pool, msgspec.structs.replace(s, steps=1)), unobserved) for s in (alone, spec)
        )
    except ScalelabError:
        return None
    return compare(blank, reference, outcome, tolerance).reason


def _train(pool: Pool, row: Prepared, observe: Observe) -> Outcome:
    spec, record = row.spec, local.train(pool, row, sys.argv, observe(row.spec.strategy))
    if record.status != "completed" or record.failure is not None:
        raise RunError(record.failure.error if record.failure else f"the training ended {record.status}")
    files = sorted(Path(spec.out, record.run, "checkpoints").glob("step-*.safetensors"))
    return Outcome(spec, record, {k: v for k, v in load_file(files[-1]).items() if k.startswith("model/")})


def _notes(base: Spec, accumulate: int, float32: bool) -> list[str]:
    notes = ["dropout and stochastic depth are set to 0"]
    if accumulate == 1:
        notes.append("one micro-batch a step: --accumulate 2 tries gradient accumulation too")
    if base.batch_norm == "local":
        notes.append("batch norm local: the reference normalises each worker's slice of the batch by itself")
    if float32:
        notes.append(
            "float32: the differences hold rounding, amplified by ReLU's kink; float64, the default, tells bugs from rounding"
        )
    return notes
