"""Does a strategy compute the same thing as one process would, for this model and data?

The strategy and ``single`` train a few steps on the same global batches, by the path that every training takes: the
worker, its losses in steps.jsonl, its unsharded state in a checkpoint. The two are compared here, in float64, so that a bug (1e-2)
can't hide behind rounding (1e-15).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import MEASURED, derive
from scalelab.errors import NotApplicable, RunError, ScalelabError
from scalelab.launch import training
from scalelab.launch.launcher import Launcher, Prepared
from scalelab.measure.environment import usable_cores
from scalelab.record.naming import options, spread
from scalelab.record.schema import Cell, VerifyRecord
from scalelab.spec import Spec
from scalelab.strategies import ENGINES
from scalelab.studies.running.rows import on_one_device
from scalelab.studies.verifying.equivalence import compare
from scalelab.studies.verifying.lossy import LOSSY, by_design
from scalelab.studies.verifying.reference import Observe, Reference, alone, serial, train, unobserved
from scalelab.studies.verifying.variants import Variant

TOLERANCE = {"fp64": 1e-9, "fp32": 1e-2, "smooth": 1e-3}
"""largest relative difference that passes; a bug is about 1e-2. float32's is what rounding, amplified by ReLU's kink, was seen to add;
without kinks it is about 1e-4"""
DEFAULTS = {"steps": 4, "batch": 32}
RANDOM = "single itself does not repeat its first loss: the model or the data is random beyond --seed, so nothing can be compared"
UNSTABLE = (
    "single itself does not repeat when it sums in another order: {} of {} trained tensors change, too many to compare the rest alone; "
    "use --optimizer sgd or a lower --lr"
)


@dataclass(frozen=True)
class Comparison:
    """One cell to be filled: what to train and what to compare it with, or the reason why it can't be."""

    blank: Cell
    row: Prepared | None = None
    reference: Spec | None = None


def verify(
    launcher: Launcher, base: Spec, variants: Sequence[Variant], float32: bool, on_cell: Callable[[Cell], None],
    observe: Observe = unobserved,
) -> VerifyRecord:  # fmt: skip
    """Compare each variant of ``base`` with ``single``.

    Raises ScalelabError before anything is trained: ``single`` can't run, or a strategy can't be loaded; RunError when ``single`` fails.

    ``on_cell`` hears of each result; ``observe(label)`` gives the function that follows a training's folder.
    """
    for variant in variants:
        strategies.entry(variant.values["strategy"])  # an unknown name is told before anything starts
    kind = "fp32" if float32 else "fp64"
    with tempfile.TemporaryDirectory(prefix="scalelab-verify-") as scratch:
        common = msgspec.structs.replace(
            base, precision=kind, out=scratch, epochs=None, evaluate=False, probe_steps=0, warmup_steps=0, dropout=False,
            checkpoint=True, resume=None, early_stop=None, target_accuracy=None, stop_after_epoch=None,
        )  # fmt: skip
        _refuse_batch(common, variants)
        first = training.prepare(launcher, serial(common, _whole_batch(common)))
        comparisons = _ready(launcher, common, variants)
        result = VerifyRecord(
            model=base.model, data=base.data, precision=kind, tolerance=TOLERANCE[kind], steps=first.plan["total_steps"],
            batch=first.derived.batch,
        )  # fmt: skip
        references: dict[str, Reference] = {}
        for comparison in comparisons:
            cell = _cell(launcher, comparison, references, observe)
            result.cells.append(cell)
            on_cell(cell)
    result.notes = _notes(base, comparisons, float32)
    return result


def _ready(launcher: Launcher, common: Spec, variants: Sequence[Variant]) -> list[Comparison]:
    """A comparison for each variant, prepared, all on one device; with the reason where its strategy can't train."""
    found = [_comparison(launcher, common, variant) for variant in variants]
    rows = iter(on_one_device([c.row for c in found if c.row is not None]))
    placed = []
    for comparison in found:
        if comparison.row is not None and comparison.reference is not None:
            row = next(rows)
            reference = msgspec.structs.replace(comparison.reference, device=row.spec.device)
            comparison = replace(comparison, row=row, reference=reference)
        placed.append(comparison)
    return placed


def _comparison(launcher: Launcher, common: Spec, variant: Variant) -> Comparison:
    values = {**variant.common, **variant.values}
    row = strategies.entry(values["strategy"])
    spec = msgspec.structs.replace(common, **values)
    whole = _whole_batch(spec)
    spec = msgspec.structs.replace(spec, **row.exact_as, batch=whole, batch_per_worker=None)
    if row.axis is None:
        spec = msgspec.structs.replace(spec, workers=1, micro_batch=None)
    float64 = ENGINES[spec.engine].float64 and spec.param_dtype == LOSSY["param_dtype"]
    kind = spec.precision if float64 else "smooth"
    if not float64:
        spec = msgspec.structs.replace(spec, precision="fp32", smooth=True)
    blank = Cell(
        strategy=spec.strategy, engine=spec.engine, workers=spec.workers, status="not_applicable", precision=spec.precision,
        tolerance=TOLERANCE[kind], shape=variant.shape,
        options={**{name: values[name] for name in variant.shown}, **options(msgspec.to_builtins(spec))},
    )  # fmt: skip
    try:
        if row.exact_for and spec.optimizer not in row.exact_for:
            raise NotApplicable(
                f"--strategy {spec.strategy} computes what single does with --optimizer {' or '.join(row.exact_for)} only, "
                f"not with {spec.optimizer}"
            )
        if spec.shares == MEASURED and spec.batch_norm == "local":
            raise NotApplicable(
                "--shares measured with --batch-norm local: what single must normalise apart is known only while it runs; "
                "use --batch-norm sync, or say the shares, such as 3:1"
            )
        prepared = _prepare(launcher, spec)
        return Comparison(blank, prepared, alone(prepared.spec, prepared.derived))
    except NotApplicable as error:
        return Comparison(msgspec.structs.replace(blank, reason=str(error)))


def _refuse_batch(common: Spec, variants: Sequence[Variant]) -> None:
    """Raises ScalelabError where no variant can share the batch: then the command must be mended."""
    errors = []
    for variant in variants:
        spec = msgspec.structs.replace(common, **{**variant.common, **variant.values})
        if strategies.entry(spec.strategy).axis is None:
            continue
        try:
            derive(spec, strategies.degrees(spec), usable_cores())
        except ScalelabError as error:
            errors.append(error)
        else:
            return
    if errors:
        raise errors[0]


def _whole_batch(spec: Spec) -> int | None:
    """The global batch, also where the spec says it by worker: the same for all, whatever their degrees."""
    return spec.batch_per_worker * spec.workers if spec.batch_per_worker is not None else spec.batch


def _prepare(launcher: Launcher, spec: Spec) -> Prepared:
    """Raises NotApplicable also where this strategy's degrees can't share the batch."""
    try:
        derive(spec, strategies.degrees(spec), usable_cores())
    except ScalelabError as error:
        raise NotApplicable(str(error)) from None
    return training.prepare(launcher, spec)


def _cell(launcher: Launcher, comparison: Comparison, references: dict[str, Reference], observe: Observe) -> Cell:
    blank, row = comparison.blank, comparison.row
    if row is None or comparison.reference is None:
        return blank
    key = specs.dump(comparison.reference)
    if key not in references:
        references[key] = Reference(train(launcher, training.prepare(launcher, comparison.reference), observe))
    reference, tolerance = references[key], blank.tolerance
    try:
        outcome = train(launcher, row, observe, label(blank))
    except RunError as error:
        return msgspec.structs.replace(blank, status="failed", reason=str(error))
    cell = compare(blank, reference.outcome, outcome, tolerance)
    if any(getattr(row.spec, name) != plain for name, plain in LOSSY.items()):
        return by_design(launcher, cell, reference.outcome, outcome)
    if cell.status == "passed" or cell.max_parameter_difference is None:
        return cell
    rounding = reference.rounding_only(launcher, tolerance)
    if not reference.repeats:
        return msgspec.structs.replace(cell, reason=RANDOM)
    some, trained = reference.compared(rounding)
    if 2 * some < trained:
        return msgspec.structs.replace(cell, reason=UNSTABLE.format(trained - some, trained))
    again = compare(blank, reference.outcome, outcome, tolerance, left_out=rounding)
    if again.status == "passed":
        count = f"{len(rounding)} of {len(reference.outcome.tensors)} tensors"
        return msgspec.structs.replace(
            again, reason=f"{count} are left out: single itself changes them when it sums in another order"
        )
    why = _after_one_step(launcher, reference.outcome.spec, outcome.spec, blank, tolerance)
    return msgspec.structs.replace(cell, reason=why or cell.reason)


def _after_one_step(launcher: Launcher, serial: Spec, spec: Spec, blank: Cell, tolerance: float) -> str | None:
    """Why a strategy fails, read after its first step: later, one wrong parameter has spoilt all others through the loss."""
    try:
        reference, outcome = (
            train(launcher, training.prepare(launcher, msgspec.structs.replace(s, steps=1)), unobserved) for s in (serial, spec)
        )
    except ScalelabError:
        return None
    return compare(blank, reference, outcome, tolerance).reason


def label(cell: Cell) -> str:
    """A cell in words: ``pipeline gpipe stages 2``, ``zero3 on deepspeed, odd:tied``."""
    return spread(cell.strategy, cell.engine, cell.options) + (f", {cell.shape}" if cell.shape else "")


def _notes(base: Spec, comparisons: Sequence[Comparison], float32: bool) -> list[str]:
    rows = [c.row for c in comparisons if c.row is not None]
    notes = ["dropout and stochastic depth are set to 0"]
    if all(row.derived.accumulate == 1 for row in rows):
        notes.append("one micro-batch a step: --accumulate 2 tries gradient accumulation too")
    if any(not row.plan["whole_schedule"] for row in rows):
        notes.append(f"--batch-schedule {base.batch_schedule}: these steps do not come to all of its batches: give more --steps")
    if base.batch_norm == "local":
        notes.append("batch norm local: the reference normalises each worker's slice of the batch by itself")
    if any(row.spec.smooth for row in rows):
        notes.append(
            "what keeps float32 weights (deepspeed, --param-dtype bf16) is compared with single in float32, "
            f"at most {TOLERANCE['smooth']:g}, on the model with SiLU in place of ReLU: a kink makes rounding as large as a bug"
        )
    if float32:
        notes.append(
            "float32: the differences hold rounding, amplified by ReLU's kink; float64, the default, tells bugs from rounding"
        )
    return notes
