"""How long a training may take, before it starts: the measured pace of its model on one process, times what there is to do.

An estimate, for an idle machine: communication is not in it, nor is another program. ``docs/study.md`` says how far off it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from scalelab import spec as specs
from scalelab.errors import ScalelabError
from scalelab.launch.asking import Silent
from scalelab.launch.launcher import Launcher, Prepared
from scalelab.measure.environment import usable_cores
from scalelab.record import text

TARGET = "scalelab.worker.pace:pace"
PACED = (
    "model", "model_args", "data", "data_dir", "image_size", "classes", "frames", "resize", "train_limit", "test_limit",
    "precision", "device", "channels_last", "freeze",
)  # fmt: skip
"""fields of the spec that one process's pace depends on, beside its threads; limits, because they say which data is loaded"""
LARGEST = 256
"""images of a step at most that the pace is measured with"""
START, START_WORKER = 0.2, 0.3
"""seconds from a launch to the first step and from the last one to the end; and of each worker more, where there are several"""
ENGINE = {"torch": 0.0, "deepspeed": 6.0, "horovod": 1.0}
"""seconds more that an engine takes to start"""
PROBES = 14
"""steps' time that probes take beside their pairs: bytes, memory and profile, each of which slows its steps"""
SAID = (
    "the pace of a few steps of each model on one process, the fastest of them, times images, evaluation, probes and start-up; "
    "communication is not in it"
)


class Pace(msgspec.Struct, frozen=True):
    """A forward, backward and update of one process take ``fixed + each * images`` seconds.

    ``fails``: why a step of as many images as were asked for can't be taken, though a smaller one can.
    """

    fixed: float
    each: float
    fails: str | None = None


@dataclass(frozen=True)
class Estimate:
    """The paces that were measured, and how; none where nothing had to be estimated."""

    paces: Mapping[bytes, Pace] = field(default_factory=dict)
    said: str = ""
    fails: Mapping[tuple[bytes, int], str] = field(default_factory=dict)
    """why one process can't take steps of a model with so many images in a forward pass"""

    def refused(self, row: Prepared) -> str | None:
        """Why a training must fail: one process alone takes just the steps that were tried. Others may have less to hold."""
        alone = row.spec.strategy == "single" and not row.spec.recompute
        return self.fails.get((mark(row), row.derived.micro_batch)) if alone else None

    def seconds(self, row: Prepared) -> float | None:
        """From the start of the training to its end; None where its pace is not known."""
        pace = self.paces.get(mark(row))
        return None if pace is None else duration(row, pace, row.cores or usable_cores())


def estimate(launcher: Launcher, rows: Sequence[Prepared | None], say: Callable[[str], None] = lambda line: None) -> Estimate:
    """Measure the pace of each distinct model among ``rows``: about a second each, told to ``say``. What can't be is not estimated.

    Raises Silent for a model that hangs.
    """
    paces: dict[bytes, Pace] = {}
    failures: list[str] = []
    fails: dict[tuple[bytes, int], str] = {}
    distinct: dict[bytes, list[Prepared]] = {}
    for row in rows:
        if row is not None:
            distinct.setdefault(mark(row), []).append(row)
    for one, same in distinct.items():
        where = "".join(f" on {host}" for host in same[0].hosts[:1])
        doing = f"measuring the pace of {same[0].spec.model} with {text.counted(same[0].derived.threads, 'thread')}{where}"
        say(doing)
        try:
            for size, row in sorted({row.derived.micro_batch: row for row in same}.items(), reverse=True):
                paces[one] = msgspec.convert(launcher.part(row.hosts[:1]).ask(TARGET, alone(row), doing), Pace)
                if (why := paces[one].fails) is None:
                    break
                if size <= LARGEST:  # else another size was tried
                    fails[one, size] = why
        except Silent:
            raise
        except ScalelabError as error:
            failures.append(str(error))
    return Estimate(at_least_as_fast(paces), f"no estimate: {failures[0]}" if failures else SAID if paces else "", fails)


def at_least_as_fast(paces: Mapping[bytes, Pace]) -> dict[bytes, Pace]:
    """The paces, none slower than that of the same model with fewer threads: where more are slower, another program was in their way."""
    read = {one: msgspec.json.decode(one) for one in paces}
    found = {}
    for one, (threads, values) in read.items():
        same = [paces[other] for other, (fewer, its) in read.items() if its == values and fewer <= threads]
        found[one] = min(same, key=lambda pace: pace.fixed + pace.each * LARGEST)
    return found


def mark(row: Prepared) -> bytes:
    """What has the same pace."""
    values = msgspec.to_builtins(row.spec)
    paced = {name: values.get(name) for name in PACED}
    return msgspec.json.encode([row.derived.threads, {**paced, "host": row.hosts[:1]}], order="sorted")


def alone(row: Prepared) -> specs.Spec:
    """One process that takes steps of this training's micro-batch."""
    values = msgspec.to_builtins(row.spec)
    return specs.from_mapping({
        **{name: values[name] for name in PACED if name in values}, "optimizer": row.spec.optimizer,
        "timeout": row.spec.timeout,
        "batch": min(LARGEST, row.derived.micro_batch), "threads_per_worker": row.derived.threads,
    })  # fmt: skip


def duration(row: Prepared, pace: Pace, cores: int) -> float:
    """Seconds of a whole training at ``pace``, on ``cores`` cores a host: its start, its steps, its evaluations, its probes."""
    spec, derived = row.spec, row.derived
    crowded = max(1.0, (row.local or spec.workers) * derived.threads / cores) if spec.device == "cpu" else 1.0
    step = derived.accumulate * (pace.fixed + pace.each * derived.micro_batch) * crowded * staged(row)
    steps, epochs = length(row)
    probes = 0 if spec.probe_steps == 0 else 3 if spec.workers == 1 else 2 * (spec.probe_steps + 1) + PROBES
    judged = math.ceil(epochs) * row.data.test * pace.each / 3 * crowded / derived.replicas if spec.evaluate else 0.0
    together = START_WORKER * spec.workers * crowded if spec.workers > 1 else 0.0
    start = START + together + ENGINE.get(spec.engine, 0.0)
    return start + (steps + probes) * step + judged


def length(row: Prepared) -> tuple[float, float]:
    """(steps of the first batch size that the training is worth, epochs)."""
    plan = row.plan
    if row.derived.segments and row.spec.epochs:  # the batch changes: the images stay as many
        return row.spec.epochs * plan["samples"] / row.derived.batch, float(row.spec.epochs)
    return float(plan["total_steps"]), plan["total_steps"] / max(1, plan.get("steps_per_epoch", 1))


def staged(row: Prepared) -> float:
    """The share of a whole model's time that a step of its stages takes: all of it one after the other, or a pipeline with its bubble.

    (m + p - 1) / (m p) of p stages and m micro-batches: Huang et al. 2019 (GPipe).
    """
    stages, micro_batches = row.derived.pipe, row.derived.accumulate
    if stages == 1 or row.spec.strategy != "pipeline":
        return 1.0
    return (micro_batches + stages - 1) / (micro_batches * stages)
