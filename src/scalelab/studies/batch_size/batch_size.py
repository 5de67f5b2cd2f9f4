"""One worker, and larger and larger batches: how fast is an epoch, where does a larger batch stop helping, and why there?

The bend is the smallest batch whose throughput is within 5 % of the best. What it is made of: a step takes a + b x batch seconds, a the
cost of a step and b of an image, and a / b is Hockney's half-performance length (measure/line.py): below it, half of a step is overhead.
Where the line does not fit, the machine is not the same for all batches: activations that leave the caches.

Memory ends the doubling: what a batch would need is predicted from two small steps before anything starts (worker/footprint.py), and a
training that dies of memory anyway ends it too.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch.asking import Silent
from scalelab.launch.launcher import Launcher, Prepared
from scalelab.record import text
from scalelab.studies.batch_size.batch_findings import findings
from scalelab.studies.points import serial
from scalelab.studies.study import Asked, Point, Result, Study

TARGET = "scalelab.worker.footprint:footprint"
MARGIN, ONCE = 1.2, 256 << 20
"""for what no tensor shows: of the tensors' bytes, kernels' workspaces and what the allocator keeps; and once, bytes that libraries take
when they first compute. basic_cnn on a CPU grew by 1.17 x its tensors from batch 512 to 1024, and by about 170 MiB once."""
OUT_OF_MEMORY = {
    "out of memory": "ran out of memory",
    "SIGKILL": "was killed, as the system does with what takes too much memory",
}
"""what is in the failures of trainings that died of memory, and how that is said"""


class Footprint(msgspec.Struct, frozen=True):
    """What ``worker/footprint.py`` answers, in bytes."""

    fixed: float
    each: float
    image: float
    process: float
    available: float

    def needed(self, batch: int, micro_batch: int) -> float:
        """Bytes of a training with this batch, ``micro_batch`` images in a forward pass."""
        held = self.fixed + self.each * micro_batch + self.image * max(0, batch - micro_batch)
        return self.process + ONCE + MARGIN * held


def points(asked: Asked) -> list[Point]:
    """One process for each batch. Raises ScalelabError for what has more than one worker."""
    if asked.base.strategy != "single" or asked.base.workers != 1:
        flag = f"--workers {asked.base.workers}" if asked.base.workers != 1 else f"--strategy {asked.base.strategy}"
        raise ScalelabError(f"{flag}: batch-size is about one worker; weak-scaling varies batches and workers")
    threads = asked.base.threads_per_worker or asked.cores
    return [
        Point(f"batch {batch}", {"batch": batch}, serial(asked.base, batch=batch, threads_per_worker=threads))
        for batch in sorted(set(asked.varied["batch"]))
    ]


def foresee(launcher: Launcher, rows: Sequence[Prepared]) -> list[str | None]:
    """Why a training must not be started: what it would need is more than there is; None where it fits."""
    smallest = min(rows, key=lambda row: row.derived.batch)
    try:
        found = msgspec.convert(launcher.ask(TARGET, smallest.spec, f"weighing a step of {smallest.spec.model}"), Footprint)
    except Silent:
        raise
    except ScalelabError:  # it can't be predicted for this model: who dies of memory ends the doubling
        return [None] * len(rows)
    return [too_large(found, row.derived.batch, row.derived.micro_batch) for row in rows]


def too_large(found: Footprint, batch: int, micro_batch: int) -> str | None:
    """The sentence of a batch that does not fit."""
    needed = found.needed(batch, micro_batch)
    if needed <= found.available:
        return None
    return (
        f"memory: would need about {text.size(needed)} ({text.size(found.each)} of tensors an image), and {text.size(found.available)} are "
        "free; --accumulate 2 halves what an image takes"
    )


def give_up(point: Point, results: Sequence[Result]) -> str | None:
    """Why a batch is not tried any more: a smaller one died of memory."""
    for result in results:
        if int(result.point.factors["batch"]) < int(point.factors["batch"]):
            failures = [run.record.failure.error for run in result.runs if run.record.failure is not None]
            died = [how for sign, how in OUT_OF_MEMORY.items() if any(sign in error for error in failures)]
            if died:
                return f"not tried: {result.point.label} {died[0]}"
    return None


STUDY = Study(
    name="batch-size",
    question="One worker, larger and larger batches: how fast is an epoch, and where does a larger batch stop helping?",
    points=points,
    analyse=findings,
    foresee=foresee,
    give_up=give_up,
    example="  scalelab study batch-size --model resnet18 --data cifar10 --batch 32 64 128 256 512",
    base={"epochs": 2, "evaluate": False, "checkpoint": False},
    varies={"batch": [32, 64, 128, 256, 512, 1024, 2048, 4096]},
    quick={"epochs": 4, "train_limit": 4096},
)
