"""Results of studies with figures that are made up, so that what they show is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from scalelab.batch import Derived
from scalelab.measure.statistics import absent, figure
from scalelab.record.schema import Ceiling, Communication, DataFacts, Failure, Figure, Host, Memory, Tensors, TrainRecord
from scalelab.spec import Spec
from scalelab.studies.study import Asked, Point, Result, Run, Study
from tests.report import samples

SAMPLES = 6400
"""images of an epoch"""


def asked(study: Study, cores: int = 8, **values: Any) -> Asked:
    """What a user would have asked, with the study's defaults."""
    varied = {name: values.pop(name, default) for name, default in study.varies.items()}
    return Asked(msgspec.convert({**study.base, **values}, Spec), varied, {}, False, cores)


def around(value: float, unit: str = "s", noise: float = 0.01, count: int = 9) -> Figure:
    """A figure with this median, and an interval of about ``noise`` each way."""
    return figure([value * (1 + noise * float(one)) for one in np.linspace(-2, 2, count)], unit)


def seconds(
    total: float, exposed: float, waited: float | None = None, bare: float | None = None, noise: float = 0.01
) -> Communication:
    """A step's communication."""
    return Communication(
        total=around(total, noise=noise), exposed=around(exposed, noise=noise), hidden=around(total - exposed, noise=noise),
        waited=around(exposed if waited is None else waited, noise=noise), bare=around(total if bare is None else bare, noise=noise),
    )  # fmt: skip


NONE = absent("s", "one worker: nothing is sent")
ALONE = Communication(total=NONE, exposed=NONE, hidden=NONE, waited=NONE, bare=NONE)


def record(
    point: Point,
    step: float,
    batch: int,
    communication: Communication = ALONE,
    sent: float | None = None,
    noise: float = 0.01,
    **more: Any,
) -> TrainRecord:
    """A completed training of ``point`` whose steps take ``step`` seconds."""
    made, _ = samples.record("single", epochs=1)
    spec, workers = point.spec, point.spec.workers
    threads = spec.threads_per_worker or 1
    derived = Derived(
        batch=batch, micro_batch=batch // workers, accumulate=1, data=workers, shard=1, pipe=1, threads=threads,
        oversubscribed=more.pop("oversubscribed", False),
    )  # fmt: skip
    waiting = more.pop("data_wait", step / 100)
    exposed = communication.exposed.median or 0.0
    values = {
        "strategy": spec.strategy, "workers": workers, "derived": derived, "spec": msgspec.to_builtins(spec),
        "data": DataFacts(name="made", train=SAMPLES, test=10, classes=["a", "b"], shape=[3, 8, 8]),
        "step_seconds": around(step, noise=noise), "images_per_second": around(batch / step, "images/s", noise),
        "compute_seconds": around(step - waiting - exposed, noise=noise), "data_wait_seconds": around(waiting, noise=noise),
        "communication_seconds": communication,
        "bytes_sent": Figure(unit="bytes", median=sent, n=1) if sent else absent("bytes", "one worker: nothing is sent"),
    }  # fmt: skip
    return msgspec.structs.replace(made, **{**values, **more})


def result(point: Point, *records: TrainRecord, refused: str | None = None, ceiling: Ceiling | None = None) -> Result:
    """A point with its repeats."""
    ceilings = () if ceiling is None else (ceiling,)
    runs = [Run(number, Path(f"run-{number}"), one, ceilings) for number, one in enumerate(records)]
    return Result(point, runs, refused)


def failed(point: Point, error: str, batch: int = 64) -> Result:
    """A point whose training failed."""
    return result(point, msgspec.structs.replace(record(point, 0.1, batch), status="failed", failure=Failure(error=error)))


def holding(activations: int, peak: int = 1 << 30) -> Memory:
    """Memory of a training whose activations take so much."""
    held = Tensors(
        parameters=1,
        gradients=1,
        optimizer=1,
        activations=activations,
        other=1,
        most_activations=activations,
        gradients_at_update=1,
    )
    return Memory(peak=figure([float(peak)], "bytes"), tensors=held)


def on(made: TrainRecord, *hosts: Host, device: str = "cpu") -> TrainRecord:
    """The same training on other hosts."""
    environment = msgspec.structs.replace(made.environment, hosts=list(hosts), device=device)
    return msgspec.structs.replace(made, environment=environment)


def copying(bytes_per_second: float, workers: int = 2) -> Ceiling:
    """A machine that copies so much (read + written) for each of its workers."""
    return Ceiling(
        flops_per_second=absent("FLOP/s", "not of interest"), copy_bytes_per_second=Figure(unit="bytes/s", median=bytes_per_second, n=3),
        product="none", host="lab", processor="made up", cores=2, device="cpu", threads=1, workers=workers, precision="fp32", torch="2",
    )  # fmt: skip
