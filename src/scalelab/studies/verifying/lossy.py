"""Options that change what is computed: by how much, and whether it is no more than they explain."""

from __future__ import annotations

import msgspec
import numpy as np

from scalelab.errors import RunError
from scalelab.launch import training
from scalelab.launch.launcher import Launcher
from scalelab.record.schema import Cell
from scalelab.spec import Spec
from scalelab.studies.verifying.equivalence import Outcome, drifted, is_buffer, loss_differences
from scalelab.studies.verifying.reference import train, unobserved

LOSSY = {"compress": "none", "param_dtype": "fp32"}
"""with the value that changes nothing"""
LOSS = {"fp16": 0.1, "bf16": 0.1, "powersgd": 1.0}
"""largest relative difference of a loss that an option explains: rounding; a gradient of which only a low rank is left"""
UPDATE = {("compress", "fp16"): 0.01, ("compress", "bf16"): 0.05, ("compress", "powersgd"): 1.0, ("param_dtype", "bf16"): 0.5}
"""the same of the first update under SGD, which is the gradient: what is sent keeps 11 or 8 bits; a projection is never longer than what
it projects; bf16 through all layers, forward and back"""
NO_STEP = 1e-30
"""a learning rate that leaves the weights where they were"""


def by_design(launcher: Launcher, cell: Cell, reference: Outcome, outcome: Outcome) -> Cell:
    """``cell`` of a lossy option: differs by design, with how much; or failed, where that is not what the option explains."""
    if cell.max_loss_difference is None or cell.max_parameter_difference is None:
        return cell
    spec = outcome.spec
    given = {name: getattr(spec, name) for name, plain in LOSSY.items() if getattr(spec, name) != plain}
    lossy = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
    first, drift = loss_differences(reference, outcome)[0], drifted(outcome)
    if drift:
        return _failed(cell, f"{drift[0]}, also with {lossy}")
    if set(given) == {"compress"} and not first <= cell.tolerance:  # no gradient was sent before it
        return _failed(cell, cell.reason)
    explained = max(LOSS[value] for value in given.values())
    if not cell.max_loss_difference <= explained:
        return _failed(cell, f"losses differ by {cell.max_loss_difference:.1e}: {lossy} explains {explained:g} at most")
    try:
        update = first_update(launcher, reference.spec, spec)
    except RunError as error:
        return _failed(cell, str(error))
    most = max(UPDATE[item] for item in given.items())
    if spec.optimizer == "sgd" and not update <= most:
        return _failed(cell, f"the first update differs by {update:.1e}: {lossy} explains {most:g} at most")
    steps = len(outcome.record.losses)
    return msgspec.structs.replace(
        cell, status="differs_by_design",
        reason=f"{lossy} changes what is computed: the first update by {update:.1e}; after {steps} steps losses by "
        f"{cell.max_loss_difference:.1e}, parameters by {cell.max_parameter_difference:.1e}",
    )  # fmt: skip


def first_update(launcher: Launcher, serial: Spec, spec: Spec) -> float:
    """|Δ - Δ'| / |Δ'|, Δ' the first step of ``serial`` and Δ that of ``spec``, over all trained tensors. Raises RunError."""
    still = msgspec.structs.replace(serial, lr=NO_STEP)
    before, right, found = (
        train(launcher, training.prepare(launcher, msgspec.structs.replace(s, steps=1)), unobserved).tensors
        for s in (still, serial, spec)
    )
    names = [name for name in before if not is_buffer(name)]
    apart = sum(_square(found[name] - right[name]) for name in names)
    moved = sum(_square(right[name] - before[name]) for name in names)
    return float(np.sqrt(apart / max(moved, 1e-300)))


def _square(value: np.ndarray) -> float:
    return float(np.square(value, dtype=np.float64).sum())


def _failed(cell: Cell, reason: str | None) -> Cell:
    return msgspec.structs.replace(cell, status="failed", reason=reason)
