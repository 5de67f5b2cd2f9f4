"""What can be wrong with a cell of a published table: one function each, in ``CHECKS``.

*impossible*: no reading of the table that its assumptions leave open makes it true.
*doubtful*: it needs an explanation that is not printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scalelab.record import text
from scalelab.studies.published.published import (
    FASTEST_LINK,
    FASTEST_LINK_NAME,
    PEAKS,
    PEAKS_NAME,
    SLACK,
    Assumed,
    Checked,
    Level,
    Verdict,
    as_printed,
    formula,
    per_step,
)

UNEQUAL = 1.5
"""times that the same batch on one GPU may take longer on more GPUs, before it is doubtful that it is the same"""
SECONDS = {False: ("compute_s", "comm_s"), True: ("compute_s",)}
"""cells that are times, by whether the row is of one GPU, which exchanges nothing"""
RING = "a ring's bytes, {dtype} gradients, comm_s of one {per}, a mean over all of it"


Step = tuple[float, int, int, int]
"""(seconds of computing, line, GPUs, steps of an epoch)"""


@dataclass(frozen=True)
class Others:
    """What the checks of a row have to know of the other rows, found once for all."""

    alone: dict[int, Checked]
    """by batch per GPU: the first row of one GPU"""
    fewer: dict[tuple[int, int], tuple[Step, Step]]
    """by batch per GPU and GPUs: the shortest and the longest step of rows of the same batch and fewer GPUs, where there are some"""


def others_of(rows: Sequence[Checked], assumed: Assumed) -> Others:
    """In n log n: a table may have thousands of rows."""
    alone: dict[int, Checked] = {}
    steps: dict[int, dict[int, list[Step]]] = {}
    for row in rows:
        printed = row.printed
        if printed.gpus == 1:
            alone.setdefault(printed.batch_per_gpu, row)
        mine = steps.setdefault(printed.batch_per_gpu, {}).setdefault(printed.gpus, [])
        if seconds := per_step(printed.compute_s, row.steps, assumed):
            mine.append((seconds, printed.line, printed.gpus, row.steps))
    fewer = {}
    for batch, by_gpus in steps.items():
        extremes: list[Step] = []
        for gpus in sorted(by_gpus):
            if extremes:
                fewer[batch, gpus] = (extremes[0], extremes[-1])
            if every := [*extremes, *by_gpus[gpus]]:
                extremes = [min(every), max(every, key=lambda step: (step[0], -step[1]))]
    return Others(alone, fewer)


def judge(row: Checked, others: Others, assumed: Assumed) -> list[Verdict]:
    """All that is wrong with a row, by the checks' order. ``others``: of the whole table."""
    return [verdict for check in CHECKS for verdict in check(row, others, assumed)]


def _times(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    for cell in ("compute_s", "comm_s", "bandwidth_gbs"):
        value = getattr(row.printed, cell)
        if value is not None and not math.isfinite(value):
            yield _verdict(cell, "impossible", f"{value} is no number", "")
        elif value is not None and value < 0:
            yield _verdict(cell, "impossible", f"{as_printed(value)} is less than nothing", "")
        elif value and cell in SECONDS[row.printed.gpus == 1] and row.steps and per_step(value, row.steps, assumed) is None:
            yield _verdict(cell, "impossible", f"{value:g} s is no time that steps take", f"seconds of one {assumed.per}")
    if row.printed.compute_s == 0:
        yield _verdict("compute_s", "impossible", "computing takes time", "")
    if row.printed.comm_s == 0 and row.printed.gpus > 1:
        yield _verdict("comm_s", "doubtful", "an exchange takes time", "0 may stand for what was hidden behind computing")


def _alone(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    if row.printed.gpus == 1:
        for cell in ("comm_s", "bandwidth_gbs"):
            if (getattr(row.printed, cell) or 0) > 0:
                yield _verdict(cell, "impossible", "one GPU has nobody to exchange gradients with", "data parallelism only")


def _samples(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    if row.steps == 0:
        yield _verdict(
            "batch_per_gpu",
            "impossible",
            f"an epoch of {assumed.samples:,} samples has no whole batch",
            "the last one is dropped",
        )


def _bandwidth(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    """Printed against what bytes and time give: more is impossible, less needs a longer time than the one printed."""
    printed = row.printed.bandwidth_gbs
    if printed is None or row.bus_gbs is None or row.algorithm_gbs is None or row.ratio is None or printed <= 0:
        return
    low, high = sorted((row.algorithm_gbs, row.bus_gbs))
    assumes = RING.format(dtype=assumed.dtype, per=assumed.per)
    if printed > high * SLACK:
        times = text.number(row.ratio)
        yield _verdict(
            "bandwidth_gbs",
            "impossible",
            f"{formula(row, assumed)}; {as_printed(printed)} is {times} times that{_fits(row, assumed)}",
            assumes,
        )
    elif printed < low / SLACK:
        yield _verdict("bandwidth_gbs", "doubtful", f"{formula(row, assumed)}; {as_printed(printed)} is less{_fits(row, assumed)}",
                       f"{assumes}; it can be true where comm_s leaves out what was hidden behind computing")  # fmt: skip


def _fits(row: Checked, assumed: Assumed) -> str:
    """``: it would fit …``, the mistake that gives the printed number, if a common one does."""
    printed, bus = row.printed.bandwidth_gbs or 0.0, row.bus_gbs or 0.0
    mistakes = {
        "bits instead of bytes": 8.0,
        "the bytes of all GPUs together": float(row.printed.gpus),
        "an epoch's bytes over the time of a step" if assumed.per == "step" else "one step's bytes over the time of an epoch": (
            float(row.steps) if assumed.per == "step" else 1 / row.steps
        ),
        "megabytes taken for gigabytes": 1000.0,
        "fp16 gradients": 0.5,
    }
    found = [name for name, factor in mistakes.items() if 1 / SLACK < printed / (bus * factor) < SLACK]
    return f": it would fit {' or '.join(found)}" if found else ""


def _link(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    limit = assumed.link_gbs or FASTEST_LINK
    name = "the link" if assumed.link_gbs else f"any link today ({FASTEST_LINK_NAME})"
    assumes = "GB/s that leave one GPU, in one direction"
    if limit * SLACK < (row.printed.bandwidth_gbs or 0) < math.inf:
        yield _verdict(
            "bandwidth_gbs",
            "impossible",
            f"{as_printed(row.printed.bandwidth_gbs or 0.0)} GB/s is more than {name} carries: {limit:g}",
            assumes,
        )
    if row.bus_gbs is not None and row.bus_gbs > limit * SLACK:
        assumes = f"{assumes}; it can be true where comm_s leaves out what was hidden behind computing"
        yield _verdict("comm_s", "doubtful", f"{formula(row, assumed)}, more than {name} carries: {limit:g}", assumes)


def _arithmetic(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    limit = assumed.peak_tflops or PEAKS[assumed.dtype]
    if row.tflops is not None and row.tflops > limit:
        whose = "the GPU's peak" if assumed.peak_tflops else PEAKS_NAME
        said = f"each GPU would do {text.number(row.tflops)} TFLOP/s, more than {limit:g}: {whose}"
        yield _verdict(
            "compute_s",
            "impossible",
            said,
            f"each GPU computes {row.printed.batch_per_gpu} images a step, compute_s of one {assumed.per}",
        )


def _same_batch(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    """A GPU computes its batch for as long among two as among four: nothing else of the step has become more."""
    own = per_step(row.printed.compute_s, row.steps, assumed)
    for theirs, line, gpus, steps in others.fewer.get((row.printed.batch_per_gpu, row.printed.gpus), ()):
        if own and not 1 / UNEQUAL < own / theirs < UNEQUAL:
            batch, before = row.printed.batch_per_gpu, f"line {line} has {text.seconds(theirs)}"
            said = f"{text.seconds(own)} a step for {batch} images on each GPU, where {before} for as many"
            epochs = f"an epoch on {row.printed.gpus} GPUs has {text.counted(row.steps, 'step')}, on {gpus} {steps}"
            yield _verdict("compute_s", "doubtful", said, epochs if assumed.per == "epoch" else "compute_s of one step")
            return


def _speedup(row: Checked, others: Others, assumed: Assumed) -> Iterator[Verdict]:
    base = others.alone.get(row.printed.batch_per_gpu)
    if base is None or row.printed.gpus == 1:
        return
    alone, together = (
        per_step((one.printed.compute_s or 0) + (one.printed.comm_s or 0), one.steps, assumed) for one in (base, row)
    )
    if alone and together and (speedup := row.printed.gpus * alone / together) > row.printed.gpus * SLACK:
        said = f"{text.times(speedup)} on {row.printed.gpus} GPUs, against line {base.printed.line}: more than {row.printed.gpus}"
        yield _verdict(
            "compute_s",
            "doubtful",
            said,
            "the same work on each GPU; caches that now suffice, or another program for one GPU, can do it",
        )


def _verdict(cell: str, level: Level, said: str, assumes: str) -> Verdict:
    return Verdict(cell=cell, level=level, text=said, assumes=assumes)


Check = Callable[[Checked, Others, Assumed], Iterator[Verdict]]
CHECKS: tuple[Check, ...] = (_times, _alone, _samples, _bandwidth, _link, _arithmetic, _same_batch, _speedup)
