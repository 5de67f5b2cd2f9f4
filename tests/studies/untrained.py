"""Trainings that were never made, for the analyses of studies: a point's record with the figures that a test is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scalelab import strategies
from scalelab.batch import derive
from scalelab.measure.statistics import absent, figure
from scalelab.record.schema import Bubble, Communication, Figure, Memory, Resources, Tensors, TrainRecord
from scalelab.studies.study import Point, Result, Run
from tests.report import samples

NOISE = (0.97, 0.985, 0.995, 1.0, 1.005, 1.015, 1.03)
"""what the values around a figure's median are multiplied with: an interval of about ± 2 %"""


def around(value: float, unit: str, noise: Sequence[float] = NOISE) -> Figure:
    """A figure with an interval."""
    return figure([value * one for one in noise], unit)


def record(point: Point, rate: float, noise: Sequence[float] = NOISE, cores: int = 2, **changes: Any) -> TrainRecord:
    """What the training of ``point`` at ``rate`` images/s leaves behind."""
    spec = point.spec
    derived = derive(spec, strategies.degrees(spec), cores)
    base, _ = samples.record("single", epochs=1)
    none = absent("s", "not probed")
    seconds = [derived.batch / (rate * one) for one in noise]
    found = msgspec.structs.replace(
        base, spec=msgspec.to_builtins(spec), strategy=spec.strategy, engine=spec.engine, workers=spec.workers, derived=derived,
        images_per_second=around(rate, "images/s", noise), step_seconds=figure(seconds, "s"),
        communication_seconds=Communication(total=none, exposed=none, hidden=none),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def result(point: Point, rate: float, folder: Path = Path("nowhere"), **changes: Any) -> Result:
    """A point that was trained once."""
    return Result(point, [Run(0, folder, record(point, rate, **changes))])


def bubble(point: Point, measured: float, theory: float, compute: float = 1.0, **parts: float) -> Bubble:
    """A pipeline's bubble; what is not given of its parts is none. ``compute``: seconds of a step, all workers."""
    spec = point.spec
    derived = derive(spec, strategies.degrees(spec), 2)
    zero = {"unequal": 0.0, "jitter": 0.0, "rest": measured - theory, **parts}
    return Bubble(
        measured=figure([measured + 0.004 * n for n in (-1, 0, 0, 0, 1)], "ratio"), order=figure([theory] * 3, "ratio"), theory=theory,
        **{name: figure([value] * 3, "ratio") for name, value in zero.items()}, span_seconds=figure([1.0] * 3, "s"),
        compute_seconds=around(compute, "s"), schedule=spec.pipeline_schedule, workers=spec.stages, micro_batches=derived.accumulate,
        micro_batch=derived.micro_batch, clock_error=0.0,
    )  # fmt: skip


def memory(mib: float, per_worker: int = 2, activations: float = 0.5) -> Memory:
    """A step's tensors of ``mib`` MiB, of which activations are a part, in processes of 500 MiB."""
    total = round(mib * 2**20)
    held = round(total * activations)
    third = (total - held) // 3
    parts = Tensors(
        parameters=third, gradients=third, optimizer=third, activations=total - 3 * third, other=0, most_activations=held,
        gradients_at_update=third, per_worker=[total] * per_worker,
    )  # fmt: skip
    return Memory(
        peak=figure([500.0 * 2**20] * per_worker, "bytes"), baseline=400 * 2**20, per_worker=[500 * 2**20], tensors=parts
    )


def exposed(seconds: float, noise: Sequence[float] = NOISE) -> Communication:
    """Communication that adds ``seconds`` to a step."""
    return Communication(total=around(2 * seconds, "s"), exposed=around(seconds, "s", noise), hidden=around(seconds, "s"))


def resources(cpu: float) -> Resources:
    """Workers that got ``cpu`` per cent of one core."""
    none = absent("bytes", "not sampled")
    return Resources(
        sample_seconds=1.0, cpu_percent=around(cpu, "%"), resident_bytes=none, sent_bytes_per_second=none,
        received_bytes_per_second=none, gpu_percent=none, gpu_memory_bytes=none, power_watts=none,
    )  # fmt: skip
