"""How much of what the machine can do a training gets out of it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch.asking import wait
from scalelab.launch.failure import describe
from scalelab.launch.pool import Pool
from scalelab.record.schema import Ceiling, Figure, TrainRecord

TARGET = "scalelab.worker.ceiling:rank"
DOING, PATIENCE = "measuring the machine's ceiling", 300.0
"""and the seconds after which silent workers are given up"""
METHOD = (
    "the most that the workers did together in a tenth of a second, all of them computing at once with the threads of a training, over "
    "their number. flops_per_second: the fastest of a few matrix products, as torch.mm and as a 3x3 convolution (the library behind "
    "convolutions can be faster than the one behind torch.mm), 2 operations for each multiplication that the definition has. "
    "copy_bytes_per_second: a copy between two buffers larger than the caches, bytes read + bytes written"
)
SHARE = "images/s x FLOPs per image / (workers x the ceiling of one of so many workers that compute at once)"


def ceiling(pool: Pool, threads: int, device: str, precision: str, workers: int = 1) -> Ceiling:
    """What one of ``workers`` workers can do at most while all of them compute, each with ``threads`` threads.

    ``device`` and ``precision`` as in the spec. About two seconds the first time; then from the user's cache, which holds one for each
    (host, processor, cores, device, threads, workers, precision, torch version). Raises ScalelabError where it can't be measured.

    All at once, because one worker's ceiling times their number would promise too much: cores share a memory bus, caches and, most of
    all, the power budget that decides their clock.
    """
    with tempfile.TemporaryDirectory(prefix="scalelab-ceiling-") as scratch:
        meeting, answer = Path(scratch, "meeting"), Path(scratch, "answer.json")
        shared = [str(workers), str(threads), device, precision, str(meeting), str(answer)]
        env = {"OMP_NUM_THREADS": str(threads)}
        processes = [pool.start(TARGET, [str(rank), *shared], env) for rank in range(workers)]
        try:
            statuses = wait(pool, processes, Path(scratch), PATIENCE, DOING)
            if failed := [status for status in statuses if status]:
                raise ScalelabError(f"{DOING} ended with {describe(failed[0])}; its output is above")
        finally:
            pool.end(processes)
        found = json.loads(answer.read_text())
    return msgspec.convert(found, Ceiling)


def achieved(record: TrainRecord, ceiling: Ceiling | None) -> Figure:
    """Share of the ceiling: images/s x FLOPs per image / (workers x the ceiling of one of so many workers).

    The model's FLOPs are counted, not what was done: recomputed activations are none of them (the "model FLOPs utilization" of
    Chowdhery et al. 2022, PaLM, with a measured ceiling in place of a data sheet's peak). The interval is the throughput's. Absent where
    the ceiling was measured on a busy machine: it is too low then, by a factor that differs from ceiling to ceiling.
    """

    def absent(reason: str) -> Figure:
        return Figure(unit="ratio", reason=reason)

    rate = record.images_per_second
    if rate.median is None:
        return absent(rate.reason or "no throughput was measured")
    flops = record.model.flops_per_image if record.model is not None else None
    if flops is None or flops.median is None:
        return absent((flops and flops.reason) or "the model's FLOPs were not counted")
    if ceiling is None or ceiling.flops_per_second.median is None:
        return absent((ceiling and ceiling.flops_per_second.reason) or "the machine's ceiling was not measured")
    if (ceiling.workers, ceiling.threads) != (record.workers, record.derived.threads):
        had = f"{ceiling.workers} workers x {ceiling.threads} threads"
        return absent(f"the ceiling is that of {had}, this run had {record.workers} x {record.derived.threads}")
    if ceiling.flops_per_second.reason is not None:
        return absent(f"the ceiling was {ceiling.flops_per_second.reason}")
    unit = flops.median / (ceiling.workers * ceiling.flops_per_second.median)
    share = rate.median * unit
    return Figure(
        unit="ratio", median=share, n=rate.n, mad=None if rate.mad is None else rate.mad * unit,
        ci95=None if rate.ci95 is None else (rate.ci95[0] * unit, rate.ci95[1] * unit),
        reason="above the ceiling, which cannot be: it was measured while the machine was busy" if share > 1 else None,
    )  # fmt: skip


def doubtful(ceiling: Ceiling) -> bool:
    """Whether a part of it was measured on a busy machine, or not at all: worth another try."""
    return ceiling.flops_per_second.reason is not None or ceiling.copy_bytes_per_second.reason is not None


def better(a: Ceiling, b: Ceiling) -> Ceiling:
    """Of two measurements of one ceiling, for each figure the one on a quiet machine, else the higher."""

    def rank(figure: Figure) -> tuple[bool, float]:
        return figure.reason is None, figure.median or 0.0

    flops = max(a, b, key=lambda one: rank(one.flops_per_second))
    copies = max(a, b, key=lambda one: rank(one.copy_bytes_per_second))
    return msgspec.structs.replace(flops, copy_bytes_per_second=copies.copy_bytes_per_second)
