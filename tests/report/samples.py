"""Records as a real training leaves them, with realistic numbers, made through the real schema."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from scalelab.batch import Derived
from scalelab.measure.statistics import absent, blocks, figure
from scalelab.record.schema import (
    Attempt,
    Cell,
    Communication,
    DataFacts,
    Environment,
    Epoch,
    Failure,
    Figure,
    Host,
    Memory,
    ModelFacts,
    Step,
    TrainRecord,
    VerifyRecord,
)
from scalelab.spec import Spec

MIB = 1 << 20
HOSTS = [Host(name="lab", processor="AMD EPYC 9B14", cores=2, memory_bytes=16 << 30)]
# strategy, workers, threads, compute ms, exposed ms, peak MiB, name
SHAPES: dict[str, tuple[str, int, int, float, float, int, str | None]] = {
    "single": ("single", 1, 1, 14.6, 0.0, 412, None),
    "all": ("single", 1, 2, 8.9, 0.0, 421, "single (all cores)"),
    "ddp": ("ddp", 2, 1, 7.5, 1.5, 421, None),
    "zero1": ("zero1", 2, 1, 7.6, 2.0, 416, None),
    "zero2": ("zero2", 2, 1, 7.7, 3.4, 409, None),
    "zero3": ("zero3", 2, 1, 7.9, 5.2, 398, None),
}


def steps_of(compute: float, exposed: float, count: int = 110, batch: int = 64, per_epoch: int = 22, seed: int = 0) -> list[Step]:
    """``count`` steps of noisy times (ms) and a falling loss."""
    rng = np.random.default_rng(seed)
    out = []
    for index in range(count):
        total = (compute + exposed) * 1e-3 * float(rng.lognormal(0.0, 0.04))
        loss = 2.2 * math.exp(-index / 28) + 0.12 + float(rng.normal(0, 0.05)) * math.exp(-index / 60)
        out.append(
            Step(
                step=index + 1,
                epoch=index // per_epoch,
                batch=batch,
                learning_rate=0.05,
                loss=loss,
                seconds=total,
                data_seconds=2e-4,
                bytes_sent=380_000,
            )
        )
    return out


def record(key: str = "ddp", seed: int = 0, *, epochs: int = 5, **changes: Any) -> tuple[TrainRecord, list[Step]]:
    """A completed run of ``SHAPES[key]`` and its steps; ``spec`` in ``changes`` updates the spec, the rest the record."""
    strategy, workers, threads, compute, exposed, peak, name = SHAPES[key]
    steps = steps_of(compute, exposed, 22 * epochs, seed=seed + sum(map(ord, key)))
    spec_changes = changes.pop("spec", {})
    spec = msgspec.structs.replace(
        Spec(strategy=strategy, workers=workers, threads_per_worker=threads, batch=64, epochs=epochs, name=name), **spec_changes
    )
    rates = blocks([step.batch / step.seconds for step in steps[5:]])
    shown = spec.name or f"{spec.model}-{strategy}"
    made = TrainRecord(
        run=f"20260102T0304{10 + list(SHAPES).index(key)}Z-{key}-{key[:3]}{seed:03d}",
        name=shown,
        status="completed",
        strategy=strategy,
        engine="torch",
        workers=workers,
        derived=Derived(batch=64, micro_batch=64 // workers, accumulate=1, data=workers, shard=1, pipe=1, threads=threads),
        spec=msgspec.to_builtins(spec),
        model=ModelFacts(name="basic_cnn", parameters=94_666, bytes=94_666 * 4),
        data=DataFacts(name="digits", train=1437, test=360, classes=[str(n) for n in range(10)], shape=[1, 8, 8]),
        images_per_second=figure(rates, "images/s"),
        step_seconds=figure(blocks([step.seconds for step in steps[5:]]), "s"),
        compute_seconds=figure(blocks([compute * 1e-3 * (1 + 0.02 * math.sin(n)) for n in range(80)]), "s"),
        communication_seconds=_communication(workers, exposed),
        data_wait_seconds=figure(blocks([2e-4 + 1e-6 * (n % 7) for n in range(80)]), "s"),
        memory_bytes=_memory(peak, workers, strategy),
        bytes_sent=figure([380_000.0] * 10, "bytes") if workers > 1 else absent("bytes", "one worker sends nothing"),
        losses=[step.loss for step in steps],
        epochs=_epochs(epochs, steps, seed + list(SHAPES).index(key)),
        accuracy=0.0,
        steps=len(steps),
        seconds=sum(step.seconds for step in steps) + 0.2,
        attempts=[
            Attempt(started="2026-01-02T03:04:05.000Z", ended="2026-01-02T03:04:09.000Z", status="completed", start_seconds=0.8)
        ],
        environment=_environment(strategy, workers, threads),
        method={
            "images_per_second": "median over blocks of 10 steps of images / seconds, warm-up left out",
            "memory_bytes": "peak resident set of each worker",
        },
    )
    made.accuracy = made.epochs[-1].accuracy if made.epochs else None
    made.best_accuracy = made.accuracy
    return msgspec.structs.replace(made, **changes), steps


def demo() -> tuple[list[TrainRecord], dict[str, list[Step]]]:
    """The six runs of ``scalelab demo``."""
    made = [record(key) for key in SHAPES]
    return [one for one, _ in made], {one.run: steps for one, steps in made}


def failed() -> tuple[TrainRecord, list[Step]]:
    """A run whose second rank died after its first epoch."""
    shown, steps = record("zero2", seed=7, epochs=1)
    trace = 'Traceback (most recent call last):\n  File "train.py", line 3, in step\n    loss.backward()\n'
    trace += "RuntimeError: <script>alert(1)</script> & out of memory\n"
    never = absent("s", "the run ended before it was measured")
    shown = msgspec.structs.replace(
        shown,
        status="failed",
        failure=Failure(error="RuntimeError: <script>alert(1)</script> & out of memory", host="lab", rank=1, traceback=trace),
        communication_seconds=Communication(total=never, exposed=never, hidden=never),
        notes=["stopped at step 22 of 110"],
    )
    return shown, steps


def verify() -> VerifyRecord:
    """All strategies equal to ``single`` up to float64 rounding."""
    cells = [
        Cell(
            strategy=name,
            workers=2,
            status="passed",
            max_loss_difference=1e-15,
            max_parameter_difference=3.1e-15,
            max_buffer_difference=0.0,
        )
        for name in ("ddp", "zero1", "zero2", "zero3")
    ]
    return VerifyRecord(model="basic_cnn", data="digits", precision="fp64", tolerance=1e-9, steps=4, batch=32, cells=cells)


def _communication(workers: int, exposed: float) -> Communication:
    if workers == 1:
        none = absent("s", "one worker has nobody to talk to")
        return Communication(total=none, exposed=none, hidden=none)

    def around(ms: float) -> Figure:
        return figure([ms * 1e-3 * (1 + 0.06 * math.sin(n)) for n in range(8)], "s")

    return Communication(total=around(exposed + 1), exposed=around(exposed), hidden=around(1))


def _memory(peak: int, workers: int, strategy: str) -> Memory:
    weights = 94_666 * 4
    shards = {"zero1": (1, 1, 2), "zero2": (1, 2, 2), "zero3": (2, 2, 2)}.get(strategy, (1, 1, 1))
    parameters, gradients, optimizer = (weights // part for part in shards)
    per_worker = [peak * MIB - rank * 2 * MIB for rank in range(workers)]
    return Memory(
        peak=figure([float(one) for one in per_worker], "bytes"),
        baseline=340 * MIB,
        parameters=parameters,
        gradients=gradients,
        optimizer=optimizer,
        per_worker=per_worker,
    )


def _epochs(count: int, steps: list[Step], seed: int) -> list[Epoch]:
    rng = np.random.default_rng(seed)
    out = []
    for epoch in range(count):
        mine = [step for step in steps if step.epoch == epoch]
        matrix = np.diag(np.full(10, 36))
        for _ in range(max(2, 60 // (epoch + 1) ** 2 + int(rng.integers(0, 3)))):
            true, wrong = rng.integers(0, 10, 2)
            if matrix[true, true] > 0:
                matrix[true, true] -= 1
                matrix[true, wrong] += 1
        accuracy = float(np.trace(matrix) / 360)
        seconds = sum(step.seconds for step in mine)
        out.append(
            Epoch(
                epoch=epoch,
                steps=len(mine),
                train_loss=float(np.mean([step.loss for step in mine])),
                test_loss=float(np.mean([step.loss for step in mine])) * 0.95,
                accuracy=accuracy,
                precision=accuracy,
                recall=accuracy,
                learning_rate=0.05,
                seconds=seconds,
                images_per_second=64 * len(mine) / seconds,
                confusion=matrix.tolist() if epoch == count - 1 else [],
            )
        )
    return out


def _environment(strategy: str, workers: int, threads: int) -> Environment:
    return Environment(
        hosts=HOSTS,
        versions={"python": "3.11.9", "torch": "2.15.0", "scalelab": "0.1.0"},
        system="Linux 6.1",
        git_commit="9ff98cc",
        backend="gloo" if workers > 1 else "",
        device="cpu",
        threads=threads,
        command=["scalelab", "train", "--strategy", strategy, "--workers", str(workers)],
    )
