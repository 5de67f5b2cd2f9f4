"""The strategies: what is spread over the workers. One file each; a new one is a file and a line in ``STRATEGIES``.

This table needs no torch: a launcher can read degrees without it. The classes are imported by ``load``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from scalelab.errors import ScalelabError, unknown
from scalelab.spec import Spec
from scalelab.userfile import is_reference, load_symbol

if TYPE_CHECKING:
    from scalelab.strategies.base import Strategy

Axis = Literal["data", "shard", "pipe"]


@dataclass(frozen=True)
class Entry:
    """A strategy's place in the table: where its class is, and the axis that its workers lie on."""

    where: str
    axis: Axis | None
    says: str


STRATEGIES: dict[str, Entry] = {
    "single": Entry("scalelab.strategies.single:Single", None, "one process: the reference of all others"),
    "ddp": Entry("scalelab.strategies.ddp:DDP", "data", "every worker holds the model; gradients are averaged"),
    "zero1": Entry("scalelab.strategies.zero1:Zero1", "shard", "ddp with the optimizer's state sharded"),
    "zero2": Entry("scalelab.strategies.zero2:Zero2", "shard", "and the gradients"),
    "zero3": Entry("scalelab.strategies.zero3:Zero3", "shard", "and the parameters (FSDP)"),
}

ELSEWHERE = {
    "fsdp": "zero3", "fsdp2": "zero3", "fsdp_stage3": "zero3", "full_shard": "zero3", "fsdp_stage2": "zero2", "shard_grad_op": "zero2",
    "zero": "zero1", "zero0": "ddp", "deepspeed": "zero3", "distributed_data_parallel": "ddp", "data_parallel": "ddp", "serial": "single",
}  # fmt: skip
"""names that people bring from other tools, and what they are called here"""


def entry(name: str) -> Entry:
    """The table's entry; a user's own ``path/to/file.py:Class`` spreads the data. Raises ScalelabError for an unknown name."""
    if name in STRATEGIES:
        return STRATEGIES[name]
    if is_reference(name):
        return Entry(name, "data", "a strategy of the user's own")
    if name.lower() in ELSEWHERE:
        raise ScalelabError(f"--strategy {name}: is called {ELSEWHERE[name.lower()]} here")
    raise unknown("strategy", name, STRATEGIES, " or path/to/file.py:Class")


def degrees(spec: Spec) -> tuple[int, int, int]:
    """(data, shard, pipe) of a spec; they multiply to its workers. Raises ScalelabError where they can't."""
    axis = entry(spec.strategy).axis
    if axis is None:
        if spec.workers != 1:
            raise ScalelabError(
                f"--strategy {spec.strategy} is one process: use --workers 1, or spread it with ddp, zero1, zero2 or zero3"
            )
        return 1, 1, 1
    return tuple(spec.workers if axis == name else 1 for name in ("data", "shard", "pipe"))  # type: ignore[return-value]


def load(name: str) -> type[Strategy]:
    """The class of a strategy (imports torch). Raises ScalelabError for an unknown name or a file that does not give one."""
    where = entry(name).where
    if not is_reference(where):
        module, _, symbol = where.partition(":")
        return getattr(importlib.import_module(module), symbol)  # type: ignore[no-any-return]
    from scalelab.strategies.base import Strategy

    found: Any = load_symbol(where, "strategy")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ScalelabError(f"--strategy {name}: is not a subclass of scalelab.strategies.base.Strategy")
    return found
