"""A published table, done again: what its times and its model say about its bandwidths, cell by cell.

Bytes: a ring all-reduce of B bytes sends 2 (n-1)/n B from each of n GPUs (Patarasuk & Yuan 2009). Bandwidths as nccl-tests defines them:
algorithm bandwidth = B / time, bus bandwidth = algorithm bandwidth x 2 (n-1)/n. GB = 1e9 bytes.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from scalelab.record import text
from scalelab.record.schema import ModelFacts

Level = Literal["impossible", "doubtful"]
WIDTHS = {"fp32": 4, "fp16": 2, "bf16": 2, "fp64": 8}
"""bytes of a gradient"""
FASTEST_LINK = 1800.0
FASTEST_LINK_NAME = "NVLink 6, 3.6 TB/s in both directions together"
"""GB/s that leave one GPU at most. NVLink 5 (Blackwell) 900, NVLink 4 (Hopper) 450, NVLink 3 (Ampere) 300, PCIe 5 x16 64"""
PEAKS = {"fp32": 2000.0, "fp16": 4000.0, "bf16": 4000.0, "fp64": 163.4}
PEAKS_NAME = "dense matrix cores of a Rubin GPU (fp64: of an MI300X); fp32 counts TF32"
"""TFLOP/s of one GPU at most: of the same generation as the fastest link. A GB200's GPU has 1250, 2500, 2500 and 40"""
SLACK = 1.1
"""between readings of the same thing: GB or GiB (7 %), rounded cells"""
TIMES = (1e-12, 1e12)
"""seconds of a step that something could take; what is outside would come to infinite bandwidths"""


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """One row as it is printed. Seconds are of an epoch, or of a step where the reader says so."""

    line: int
    gpus: int
    batch_per_gpu: int
    compute_s: float | None
    comm_s: float | None
    bandwidth_gbs: float | None = None


class Assumed(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader says about a table, because it does not."""

    samples: int
    dtype: str = "fp32"
    per: Literal["epoch", "step"] = "epoch"
    drop_last: bool = False
    link_gbs: float | None = None
    peak_tflops: float | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a cell, and what that judgement rests on."""

    cell: str
    level: Level
    text: str
    assumes: str


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One row, recomputed. None: it can't be (one GPU, a time that is no time)."""

    printed: Printed
    steps: int
    """of an epoch"""
    partial: int
    """samples of the last batch that is not full: trained on, unless the last batch is dropped"""
    gradient_bytes: int
    sent_bytes: float
    """by each GPU in a step"""
    algorithm_gbs: float | None
    bus_gbs: float | None
    ratio: float | None
    """printed bandwidth / bus bandwidth"""
    tflops: float | None
    """that each GPU would have done while it computed"""
    verdicts: list[Verdict] = []


class TableCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What ``check-table --json`` prints."""

    kind: Literal["table-check"] = "table-check"
    file: str
    model: ModelFacts
    assumed: Assumed
    assumptions: list[str]
    rows: list[Checked]
    impossible: int
    doubtful: int
    answer: str


def recompute(row: Printed, model: ModelFacts, assumed: Assumed) -> Checked:
    """What a row's numbers come to."""
    steps, partial = steps_of(row, assumed)
    size = gradient_bytes(model, assumed.dtype)
    ring = 2 * (row.gpus - 1) / row.gpus
    seconds = per_step(row.comm_s, steps, assumed)
    algorithm = size / seconds / 1e9 if seconds and row.gpus > 1 else None
    bus = None if algorithm is None else algorithm * ring
    computing = per_step(row.compute_s, steps, assumed)
    flops = model.flops_per_image.median
    return Checked(
        printed=row, steps=steps, partial=partial, gradient_bytes=size, sent_bytes=size * ring, algorithm_gbs=algorithm, bus_gbs=bus,
        ratio=_ratio(row.bandwidth_gbs, bus),
        tflops=flops * row.batch_per_gpu / computing / 1e12 if flops and computing else None,
    )  # fmt: skip


def _ratio(printed: float | None, bus: float | None) -> float | None:
    ratio = printed / bus if printed is not None and bus else math.nan
    return ratio if math.isfinite(ratio) else None


def steps_of(row: Printed, assumed: Assumed) -> tuple[int, int]:
    """(steps of an epoch, samples in its last, partial batch)."""
    whole, partial = divmod(assumed.samples, row.gpus * row.batch_per_gpu)
    return whole + (partial > 0 and not assumed.drop_last), partial


def per_step(seconds: float | None, steps: int, assumed: Assumed) -> float | None:
    """Seconds of a step; None for what is no time (not in TIMES), or an epoch of no steps."""
    if seconds is None or not steps:
        return None
    step = seconds if assumed.per == "step" else seconds / steps
    return step if TIMES[0] <= step <= TIMES[1] else None


def gradient_bytes(model: ModelFacts, dtype: str) -> int:
    """Bytes of the gradients of all parameters that are trained."""
    return _trained(model) * WIDTHS[dtype]


def _trained(model: ModelFacts) -> int:
    return model.parameters if model.trained is None else model.trained


def assumptions(model: ModelFacts, assumed: Assumed, bandwidths: bool) -> list[str]:
    """What every recomputed number rests on, said once. ``bandwidths``: whether the table prints any."""
    size = gradient_bytes(model, assumed.dtype)
    sent = f"{size / 1e6:.1f} MB of {assumed.dtype} gradients, all-reduced once a step"
    last = "is dropped" if assumed.drop_last else "is trained on"
    epoch = f"an epoch is {assumed.samples:,} samples; its last, partial batch {last}"
    mean = "bandwidth_gbs is a mean over comm_s, waiting included; " if bandwidths else ""
    return [
        f"{model.name} has {_trained(model):,} trained parameters: {sent}",
        f"compute_s and comm_s are seconds of one {assumed.per}",
        *([epoch] if assumed.per == "epoch" else []),
        "the all-reduce is a ring's, or one that sends as much: 2 (n-1)/n of the gradients leave each GPU",
        f"{mean}comm_s is all the time in which gradients travelled: where it is only what was not hidden, the true bandwidth is lower "
        "still",
        "GB is 1e9 bytes",
    ]


def formula(row: Checked, assumed: Assumed) -> str:
    """``49 steps x 44.7 MB x 2(n-1)/n / 1.59 s = 1.38 GB/s``."""
    steps = f"{text.counted(row.steps, 'step')} x " if assumed.per == "epoch" else ""
    size, seconds = f"{row.gradient_bytes / 1e6:.1f} MB", as_printed(row.printed.comm_s or 0.0)
    return f"{steps}{size} x 2(n-1)/n / {seconds} s = {text.number(row.bus_gbs or 0.0)} GB/s"


def as_printed(value: float) -> str:
    """All digits that were printed: ``140.3``."""
    return repr(value).removesuffix(".0")
