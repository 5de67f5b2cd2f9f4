"""What ``verify`` compares: cells of the table of strategies and engines, with their options, and the odd shapes of ``--grid``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scalelab.spec import Spec
from scalelab.strategies import STRATEGIES

ODD = ("frozen", "tied", "sometimes", "choosy", "bare")
"""the models of ``--model odd:NAME``"""
SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble")
COMPRESSIONS = ("fp16", "bf16", "powersgd")
Values = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """The spec's fields that one comparison sets; those in ``shown`` are what it is called by, besides strategy and engine."""

    values: Values
    shown: tuple[str, ...] = ()
    shape: str | None = None
    """what is odd about the training; its fields change the reference too"""
    common: Mapping[str, Any] = field(default_factory=dict)
    """the fields of the shape"""


def named(names: Iterable[str], engine: str) -> list[Variant]:
    """The strategies as they are."""
    return [Variant({"strategy": name, "engine": engine}) for name in names]


def everything(base: Spec) -> list[Variant]:
    """The whole table for ``base.workers``: every strategy on every engine, every schedule, hybrid and option."""
    found = []
    for name, row in STRATEGIES.items():
        if name == "single":
            continue
        for engine in row.where:
            for options in ({}, *_options(name, engine, base)):
                values = {"strategy": name, "engine": engine, **options}
                found.append(Variant({**values, **_micro_batches(values, base)}, tuple(options)))
    return found


def grid(base: Spec) -> list[Variant]:
    """Every strategy, engine and schedule in each odd shape."""
    found = []
    for shape, common in _shapes(base.workers).items():
        for name, row in STRATEGIES.items():
            for engine in row.where if row.axis is not None else ():
                schedules: Sequence[Values] = (
                    [{"pipeline_schedule": s} for s in SCHEDULES] if (name, engine) == PIPELINE else [{}]
                )
                for options in schedules:
                    stages = _bare_stage(options) if shape == BARE and row.axis == "pipe" and engine == "torch" else {}
                    found.append(
                        Variant({"strategy": name, "engine": engine, **options, **stages}, tuple(options), shape, common)
                    )
    return found


def _bare_stage(options: Values) -> Values:
    """Two workers, the second of which ends with a stage that has no parameters (and begins with one, where each has two stages)."""
    return {"stages": 2, "split": "2,5,tail" if options.get("pipeline_schedule") in TWO_EACH else "tail"}


BARE = "odd:bare"
TWO_EACH = ("interleaved", "zero-bubble")
"""schedules that give each worker two stages"""
PIPELINE = ("pipeline", "torch")


def _shapes(workers: int) -> dict[str, Values]:
    """What is odd, and the spec's fields that make it so."""
    small: Values = {"micro_batch": None, "batch_per_worker": None}
    return {
        "3 workers, 11 samples each": {"workers": 3, "batch": 33, "accumulate": 1, **small},
        "accumulate 2, 5 samples each": {"batch": 2 * 5 * workers, "accumulate": 2, **small},
        "accumulate 3, 3 samples each": {"batch": 3 * 3 * workers, "accumulate": 3, **small},
        **{f"odd:{name}": {"model": f"odd:{name}", "model_args": {}} for name in ODD},
        "odd:choosy": {"model": "odd:choosy", "model_args": {}, "batch": workers, "accumulate": 1, **small},
    }


def _options(name: str, engine: str, base: Spec) -> list[Values]:
    """What a cell is tried with besides, where ``base.workers`` allow it."""
    workers, halves = base.workers, base.workers >= 4 and base.workers % 2 == 0
    shares = {"shares": ":".join(["3", *["1"] * (workers - 1)])}
    two_stages: list[Values] = [{"stages": 2}] if halves else []
    table: dict[tuple[str, str], list[Values]] = {
        ("ddp", "torch"): [{"recompute": True}, shares, *({"compress": kind} for kind in COMPRESSIONS)],
        ("ddp", "horovod"): [{"compress": "fp16"}],
        ("zero1", "torch"): [shares],
        ("zero1", "deepspeed"): [{"offload": "optimizer"}],
        ("zero2", "deepspeed"): [{"offload": "optimizer"}],
        ("zero3", "deepspeed"): [{"offload": "optimizer"}, {"offload": "all"}],
        ("pipeline", "deepspeed"): two_stages,
        ("model", "torch"): two_stages,
        PIPELINE: [
            {"pipeline_schedule": schedule, **stages}
            for stages in ({}, *two_stages) for schedule in SCHEDULES if stages or schedule != "1f1b"
        ],
    }  # fmt: skip
    for sharded in ("zero2", "zero3"):
        table[sharded, "torch"] = [
            {"recompute": True}, {"offload": "all"}, {"param_dtype": "bf16"}, shares, *([{"shard": 2}] if halves else []),
        ]  # fmt: skip
    return table.get((name, engine), [])


def _micro_batches(values: Values, base: Spec) -> Values:
    """As many micro-batches as stages, unless the user says how many: a pipeline with one is no pipeline."""
    if STRATEGIES[values["strategy"]].axis != "pipe" or base.accumulate or base.micro_batch or base.batch is None:
        return {}
    stages = values.get("stages", base.workers)
    replicas = base.workers // stages
    return {"accumulate": stages} if base.batch % (stages * replicas) == 0 else {}
