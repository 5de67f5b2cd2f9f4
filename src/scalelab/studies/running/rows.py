"""The trainings that a study compares: prepared together, all on one kind of device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from scalelab import strategies
from scalelab.batch import decoding, derive
from scalelab.launch.launcher import Prepared
from scalelab.measure.environment import usable_cores


def on_one_device(rows: Sequence[Prepared], several: bool = False) -> list[Prepared]:
    """``--device auto`` decided once for all: cuda where the row with the most workers has a GPU for each, else cpu.

    Decided row by row, a machine with one GPU would compare one process on it with two on the CPU. ``several`` hosts: where the first
    has a GPU for each of its workers, each other host decides for itself.
    """
    first = max((row.hosts for row in rows), key=len, default=())[:1]
    mine = [row for row in rows if row.hosts[:1] in ((), first)]
    workers = max((row.local or row.spec.workers for row in mine), default=1)
    device = "cpu" if any(row.devices < workers for row in mine) else "auto" if several else "cuda"
    return [_on(row, device) if row.spec.device == "auto" else row for row in rows]


def _on(row: Prepared, device: str) -> Prepared:
    spec = msgspec.structs.replace(row.spec, device=device)
    cores, local = row.cores or usable_cores(), row.local or None
    derived = decoding(spec, derive(spec, strategies.degrees(spec), cores, local), cores, row.data.streamed, local)
    crowded = derived.oversubscribed or (device != "cuda" and row.derived.oversubscribed)  # another host may have fewer cores
    return replace(row, spec=spec, derived=msgspec.structs.replace(derived, oversubscribed=crowded))
