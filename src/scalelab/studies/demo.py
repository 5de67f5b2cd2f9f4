"""How do five ways of spreading a training compare on this machine? On real images that need no download, in under two minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scalelab.launch import training
from scalelab.launch.launcher import Launcher
from scalelab.record.schema import Cell, TrainRecord, VerifyRecord
from scalelab.spec import Spec
from scalelab.studies.running.rows import on_one_device
from scalelab.studies.verifying.reference import Observe
from scalelab.studies.verifying.variants import named
from scalelab.studies.verifying.verify import DEFAULTS, verify

QUESTION = "Five ways of spreading a training over two workers: how fast is each, and does it learn the same?"
SPREAD = ("ddp", "zero1", "zero2", "zero3")
WORKERS = 2


@dataclass(frozen=True)
class Answer:
    """The recorded trainings in the order they ran, and the proof that they compute the same."""

    folders: list[Path]
    records: list[TrainRecord]
    verified: VerifyRecord


def specs(out: str, cores: int, steps: int) -> list[Spec]:
    """The trainings. Threads per worker are fixed for all rows, the serial base too; the extra row takes all cores."""
    threads = max(1, cores // WORKERS)

    def spec(strategy: str, workers: int, threads: int, name: str) -> Spec:
        return Spec(
            strategy=strategy, workers=workers, threads_per_worker=threads, name=name, out=out, data="digits", model="basic_cnn", batch=512,
            steps=steps, epochs=None, lr=0.2, schedule="one-cycle", augment="crop", checkpoint=False,
        )  # fmt: skip

    rows = [spec("single", 1, threads, "single")]
    if cores > threads:
        rows.append(spec("single", 1, cores, f"single, all {cores} cores"))
    return rows + [spec(name, WORKERS, threads, f"{name} × {WORKERS}") for name in SPREAD]


def run(launcher: Launcher, out: str, cores: int, steps: int, observe: Observe, on_cell: Callable[[Cell], None]) -> Answer:
    """Train every row, then verify. A training that fails is recorded and shown; the rest goes on."""
    folders, records = [], []
    for row in on_one_device([training.prepare(launcher, spec) for spec in specs(out, cores, steps)]):
        record = training.train(launcher, row, sys.argv, observe(row.spec.name or row.spec.strategy))
        folders.append(Path(out) / record.run)
        records.append(record)
    base = Spec(
        workers=WORKERS, batch_norm="sync", threads_per_worker=max(1, cores // WORKERS), augment="crop",
        batch=DEFAULTS["batch"], steps=DEFAULTS["steps"],
    )  # fmt: skip
    return Answer(folders, records, verify(launcher, base, named(SPREAD, base.engine), False, on_cell))
