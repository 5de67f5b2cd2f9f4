"""The trainings that a study compares: prepared together, all on one kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from scalelab import strategies
from scalelab.batch import derive
from scalelab.launch.launcher import Prepared
from scalelab.measure.environment import usable_cores


def on_one_device(rows: Sequence[Prepared]) -> list[Prepared]:
    """``--device auto`` decided once for all: cuda where the row with the most workers has a GPU for each, else cpu.

    Decided row by row, a machine with one GPU would compare one process on it with two on the CPU.
    """
    workers = max((row.spec.workers for row in rows), default=1)
    device = "cuda" if all(row.devices >= workers for row in rows) else "cpu"
    return [_on(row, device) if row.spec.device == "auto" else row for row in rows]


def _on(row: Prepared, device: str) -> Prepared:
    spec = msgspec.structs.replace(row.spec, device=device)
    return replace(row, spec=spec, derived=derive(spec, strategies.degrees(spec), usable_cores()))
