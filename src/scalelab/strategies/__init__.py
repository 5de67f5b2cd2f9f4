"""The strategies: what is spread over the workers. One file each; a new one is a file and a line in ``STRATEGIES``.

This table needs no torch: a launcher can read degrees without it. The classes are imported by ``load``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from scalelab.errors import NotApplicable, ScalelabError, unknown
from scalelab.spec import Spec
from scalelab.userfile import is_reference, load_symbol

if TYPE_CHECKING:
    from scalelab.strategies.base import Strategy

Axis = Literal["data", "shard", "pipe"]


@dataclass(frozen=True)
class Entry:
    """A strategy's row in the table: the axis that its workers lie on, and for each engine that has it where its class is."""

    axis: Axis | None
    says: str
    where: Mapping[str, str]
    exact_as: Mapping[str, Any] = field(default_factory=dict)
    """the spec's fields under which it computes what ``single`` does, where it does so only then"""
    exact_for: tuple[str, ...] = ()
    """the optimizers with which it does; empty: all that it takes"""


@dataclass(frozen=True)
class Engine:
    """A column: the package to look for, how to get it, and whether it computes in float64."""

    package: str
    install: str
    float64: bool = True
    preload: tuple[str, ...] = ()
    """modules that a fork server imports once, before it forks the first worker of this engine"""


ENGINES: dict[str, Engine] = {
    "torch": Engine("torch", "make setup"),
    "deepspeed": Engine(
        "deepspeed",
        "make engines",
        float64=False,  # its optimizer keeps float32 masters
        preload=("scalelab.strategies.deepspeed_engine.preload",),
    ),
    "horovod": Engine("horovod", "make engines"),
}

STRATEGIES: dict[str, Entry] = {
    "single": Entry(None, "one process: the reference of all others", {"torch": "single:Single"}),
    "dp": Entry(None, "one process, several GPUs: each batch is scattered over them", {"torch": "dp:DP"}),
    "ddp": Entry(
        "data",
        "every worker holds the model; gradients are averaged",
        {"torch": "ddp:DDP", "deepspeed": "deepspeed_engine.zero:DDP", "horovod": "horovod_engine.ddp:DDP"},
    ),
    "zero1": Entry(
        "shard",
        "ddp with the optimizer's state sharded",
        {"torch": "zero1:Zero1", "deepspeed": "deepspeed_engine.zero:Zero1"},
    ),
    "zero2": Entry("shard", "and the gradients", {"torch": "zero2:Zero2", "deepspeed": "deepspeed_engine.zero:Zero2"}),
    "zero3": Entry("shard", "and the parameters (FSDP)", {"torch": "zero3:Zero3", "deepspeed": "deepspeed_engine.zero:Zero3"}),
    "model": Entry("pipe", "layers split over workers, one of which computes at a time", {"torch": "model:Model"}),
    "pipeline": Entry(
        "pipe",
        "layers split over workers that compute different micro-batches",
        {"torch": "pipeline:Pipeline", "deepspeed": "deepspeed_engine.pipeline:Pipeline"},
    ),
    "local-sgd": Entry(
        "data",
        "local steps, averaged now and then: for slow networks",
        {"torch": "local_sgd:LocalSGD"},
        exact_as={"sync_every": 1, "outer_lr": 1.0, "outer_momentum": 0.0},
        exact_for=("sgd",),  # its step is linear in the gradient: a mean of steps is the step of the mean
    ),
}
"""places are within ``scalelab.strategies``"""

ELSEWHERE = {
    "fsdp": "zero3", "fsdp2": "zero3", "fsdp_stage3": "zero3", "full_shard": "zero3", "fsdp_stage2": "zero2", "shard_grad_op": "zero2",
    "zero": "zero1", "zero0": "ddp", "deepspeed": "zero3 --engine deepspeed", "horovod": "ddp --engine horovod",
    "hsdp": "zero3 --shard N",
    "distributed_data_parallel": "ddp", "data_parallel": "dp", "dataparallel": "dp", "serial": "single", "pp": "pipeline",
    "gpipe": "pipeline --pipeline-schedule gpipe", "1f1b": "pipeline --pipeline-schedule 1f1b",
    "model_parallel": "model", "diloco": "local-sgd", "local_sgd": "local-sgd", "localsgd": "local-sgd",
}  # fmt: skip
"""names that people bring from other tools, and what they are called here"""


def entry(name: str) -> Entry:
    """The table's entry; a user's own ``path/to/file.py:Class`` spreads the data. Raises ScalelabError for an unknown name."""
    if name in STRATEGIES:
        return STRATEGIES[name]
    if is_reference(name):
        return Entry("data", "a strategy of the user's own", {"torch": name})
    if name.lower() in ELSEWHERE:
        raise ScalelabError(f"--strategy {name}: is called {ELSEWHERE[name.lower()]} here")
    raise unknown("strategy", name, STRATEGIES, " or path/to/file.py:Class")


def degrees(spec: Spec) -> tuple[int, int, int]:
    """(data, shard, pipe) of a spec; they multiply to its workers. Raises ScalelabError where they can't."""
    axis, workers = entry(spec.strategy).axis, spec.workers
    if axis is None and workers != 1:
        raise ScalelabError(
            f"--strategy {spec.strategy} is one process, not {workers}: use --workers 1 (with --slurm --nodes 1, with --hosts one slot), "
            f"or spread it with {', '.join(_spread())}"
        )
    for flag, asked, wanted in (("stages", spec.stages, "pipe"), ("shard", spec.shard, "shard")):
        if asked is None:
            continue
        if axis != wanted:
            having = [name for name, row in STRATEGIES.items() if row.axis == wanted]
            raise ScalelabError(f"--{flag} {asked}: --strategy {spec.strategy} has no such degree; {', '.join(having)} have")
        if workers % asked:
            fitting = ", ".join(str(n) for n in range(1, workers + 1) if workers % n == 0)
            raise ScalelabError(f"--{flag} {asked}: does not divide --workers {workers}; these do: {fitting}")
    shard = (spec.shard or workers) if axis == "shard" else 1
    pipe = (spec.stages or workers) if axis == "pipe" else 1
    return workers // (shard * pipe), shard, pipe


def place(name: str, engine: str) -> str:
    """``module:Class`` of a cell of the table, or a user's file. Raises ScalelabError where there is no such cell."""
    row = entry(name)
    if engine not in row.where:
        cells = [other for other, found in STRATEGIES.items() if engine in found.where]
        raise NotApplicable(
            f"--engine {engine} has no --strategy {name}: it has {', '.join(cells)}; {name} is there with {', '.join(row.where)}"
        )
    return row.where[engine]


def installed(engine: str) -> bool:
    """Whether an engine's package can be imported (it is not)."""
    return importlib.util.find_spec(ENGINES[engine].package) is not None


def load(name: str, engine: str) -> type[Strategy]:
    """The class of a cell (imports torch, and the engine).

    Raises ScalelabError for an unknown name or a file that does not give one, NotApplicable for an empty cell or an engine that is missing.
    """
    where = place(name, engine)
    if not installed(engine):
        raise NotApplicable(f"--engine {engine} is not installed: `{ENGINES[engine].install}` installs it")
    if not is_reference(where):
        module, _, symbol = where.partition(":")
        return getattr(importlib.import_module(f"{__name__}.{module}"), symbol)  # type: ignore[no-any-return]
    from scalelab.strategies.base import Strategy

    found: Any = load_symbol(where, "strategy")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ScalelabError(f"--strategy {name}: is not a subclass of scalelab.strategies.base.Strategy")
    return found


def _spread() -> list[str]:
    return [name for name, row in STRATEGIES.items() if row.axis is not None]
