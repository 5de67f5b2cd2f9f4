"""What each rank holds and sends under a strategy: the words of an explanation, and the formulas that strategies share.

A strategy's ``explain(facts)`` puts them together. Needs no torch: a command can show an explanation without it. Bytes held are
those of the rank that holds most, bytes sent the mean over ranks of one optimizer step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec

from scalelab.batch import Derived
from scalelab.record.schema import DataFacts, Figure, Memory, ModelFacts
from scalelab.spec import Spec

RING = "ring: Patarasuk & Yuan 2009; nccl-tests"
ZERO = "ZeRO: Rajbhandari et al. 2020"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the rank that holds most."""

    what: str
    bytes: int
    formula: str
    source: str = ""
    note: str = ""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a rank sends in one optimizer step, mean over the ranks."""

    what: str
    collective: str
    bytes: float
    formula: str
    when: str
    source: str = RING
    note: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A strategy for one model, batch and number of workers. ``symbols`` are the bytes and numbers that the formulas name."""

    held: list[Held]
    sent: list[Sent]
    symbols: dict[str, int]
    notes: list[str] = []
    config: dict[str, Any] | None = None
    """what is handed to the engine, where it reads a file of its own"""

    @property
    def sent_bytes(self) -> float:
        """Of one optimizer step, mean over the ranks."""
        return math.fsum(part.bytes for part in self.sent)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What a few real steps sent and held, beside the formulas: mean over the ranks, and the largest rank."""

    bytes_sent: Figure
    memory: Memory


class Explained(Explanation, frozen=True, kw_only=True):
    """What ``explain --json`` prints."""

    kind: Literal["explain"] = "explain"
    strategy: str
    engine: str
    workers: int
    backend: str
    derived: Derived
    model: ModelFacts
    data: DataFacts
    total_sent: float
    """bytes of one optimizer step, mean over the ranks"""
    counted: Counted | None = None


@dataclass(frozen=True)
class Parameter:
    """One parameter of the real model. ``slots`` are the (shape, bytes an element) of the optimizer's tensors for it.

    ``reached``: the backward pass gave it a gradient. ``block``: which of ``blocks(model)`` gathers it under FSDP; None: the root.
    """

    name: str
    shape: tuple[int, ...]
    itemsize: int
    trainable: bool
    reached: bool
    block: int | None
    slots: tuple[tuple[tuple[int, ...], int], ...]

    @property
    def numel(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of its values, unsharded."""
        return self.numel * self.itemsize

    @property
    def state(self) -> int:
        """Bytes of the optimizer's tensors for it, unsharded."""
        return sum(math.prod(shape) * itemsize for shape, itemsize in self.slots)


@dataclass(frozen=True)
class Norm:
    """One synchronised batch norm: how often a micro-batch's forward (and repeated forward) and backward pass reach it."""

    channels: int
    itemsize: int
    forwards: int
    backwards: int


@dataclass(frozen=True)
class Facts:
    """What formulas need to know, found out with the real model, optimizer and one micro-batch in a process without workers.

    ``activations``: bytes of the storages that one forward of a micro-batch saved for the backward pass; ``inputs``: of its images and
    labels. ``calls``: how often the forward pass enters each of ``blocks(model)``.
    ``unused``: some trainable parameter may get no gradient. ``model`` and ``images`` (one micro-batch) are torch's.
    """

    spec: Spec
    derived: Derived
    backend: str
    parameters: tuple[Parameter, ...]
    norms: tuple[Norm, ...]
    activations: int
    inputs: int
    calls: tuple[int, ...]
    unused: bool
    model: Any
    images: Any

    @property
    def workers(self) -> int:
        """n of the formulas."""
        return self.spec.workers

    @property
    def trained(self) -> tuple[Parameter, ...]:
        """The parameters that are not frozen."""
        return tuple(p for p in self.parameters if p.trainable)

    def symbols(self, **more: int) -> dict[str, int]:
        """n, m, P, G, S of this model, and ``more``."""
        own = {"n": self.workers, "m": self.derived.accumulate, "P": total(self.parameters), "G": total(self.trained)}
        return {**own, "S": sum(p.state for p in self.parameters), **more}


SYMBOLS = {
    "n": "workers",
    "m": "micro-batches a step",
    "P": "bytes of the parameters",
    "G": "bytes of the gradients of all that is trained",
    "S": "bytes of the optimizer's state",
    "s": "workers over which one copy is sharded",
    "r": "replicas: of the shards (HSDP), of a stage",
    "c": "channels of a batch norm",
    "p": "workers over which the layers of one replica are cut",
    "A": "bytes of a micro-batch's activations at all cuts",
    "H": "steps between two averagings",
    "g": "GPUs of the process",
}
"""what the letters of formulas stand for; strategies with letters of their own say so in a note"""


def total(parameters: Iterable[Parameter]) -> int:
    """Bytes of these parameters, unsharded."""
    return sum(p.bytes for p in parameters)


def whole(facts: Facts, gradients: int | None = None) -> list[Held]:
    """Parameters, gradients (all that is trained, where not given) and state, on every rank."""
    state = sum(p.state for p in facts.parameters)
    return [
        Held(what="parameters", bytes=total(facts.parameters), formula="P"),
        Held(what="gradients", bytes=total(facts.trained) if gradients is None else gradients, formula="G"),
        Held(what="optimizer state", bytes=state, formula="S", note=state_note(facts)),
    ]


def reached(facts: Facts) -> int:
    """Bytes of the gradients that the backward pass gives: none for a parameter that it does not reach."""
    return sum(p.bytes for p in facts.trained if p.reached)


def state_note(facts: Facts) -> str:
    """What the optimizer keeps, as multiples of the gradients' bytes."""
    kept, trained = sum(p.state for p in facts.parameters), total(facts.trained)
    return f"{facts.spec.optimizer} keeps {kept / trained:.3g} G" if trained else ""


def activations(facts: Facts, why: str = "one micro-batch") -> Held:
    """What the forward pass of a micro-batch keeps for its backward pass, measured. All images of a step are fetched before it."""
    how = "measured: storages saved for the backward pass that are not parameters"
    again = "--recompute: of layers only their inputs" if facts.spec.recompute else ""
    others = facts.derived.accumulate - 1
    formula = f"{why} + the others' images" if others else why
    return Held(what="activations", bytes=facts.activations + others * facts.inputs, formula=formula, source=how, note=again)


def _ring(
    collective: str, factor: int, what: str, size: float, n: int, symbol: str, when: str,
    letter: str = "n", times: int = 1, repeat: str = "", note: str = "",
) -> Sent:  # fmt: skip
    """``factor`` (n-1)/n of ``size`` bytes over ``n`` ranks, ``times`` a step.

    In the formula ``symbol`` stands for the size, ``letter`` for n, ``repeat`` for times.
    """
    parts = [*([repeat] if repeat else []), f"{factor} ({letter}-1)/{letter}" if factor > 1 else f"({letter}-1)/{letter}", symbol]
    sent = times * factor * (n - 1) / n * size
    return Sent(what=what, collective=collective, bytes=sent, formula=" · ".join(parts), when=when, note=note)


all_reduce = partial(_ring, "all-reduce", 2)
all_gather = partial(_ring, "all-gather", 1)
broadcast = partial(_ring, "broadcast", 1)


def reduce_scatter(backend: str) -> Callable[..., Sent]:
    """The reduce-scatter of a backend. Gloo's is an all-reduce behind the name: seen in its trace, and on the wire."""
    if backend != "gloo":
        return partial(_ring, "reduce-scatter", 1)
    return partial(
        _ring, "reduce-scatter", 2, note="gloo has none of its own and runs an all-reduce behind the name; with nccl half of it"
    )


def compressed(facts: Facts, when: str) -> tuple[list[Sent], list[Held], list[str]]:
    """(sent, held, notes) of the all-reduce of gradients under ``--compress``.

    powersgd (Vogels et al. 2019) sends a matrix [a, b] as rank r (a+b) numbers where that is at most half, all else whole.
    """
    n, kind, trained = facts.workers, facts.spec.compress, facts.trained
    if kind == "none":
        return [all_reduce("gradients", total(trained), n, "G", when)], [], []
    note = f"--compress {kind}: changes the result a little"
    if kind != "powersgd":
        return [all_reduce("gradients", sum(2 * p.numel for p in trained), n, "2 bytes · gradients", when, note=note)], [], []
    rank, numbers, kept = facts.spec.powersgd_rank, 0, 0
    for p in trained:
        rows, columns = p.shape[0] if p.shape else 1, math.prod(p.shape[1:])
        thin = min(rank, rows, columns) * (rows + columns)
        packed = len(p.shape) > 1 and 2 * thin < p.numel
        numbers += (thin if packed else p.numel) * p.itemsize
        kept += (p.numel + min(rank, rows, columns) * columns) * p.itemsize if packed else 0
    sent = all_reduce("gradients", numbers, n, "Σ r (rows + columns)", when, note=f"{note}; vectors go whole")
    source = "PowerSGD: Vogels et al. 2019"
    held = Held(what="compression", bytes=kept, formula="errors and bases", source=source, note="kept between steps")
    return [msgspec.structs.replace(sent, source=source)], [held], []


def statistics(facts: Facts, stages: int = 1) -> list[Sent]:
    """What ``--batch-norm sync`` moves over the replicas: [count, means, variances] forward, [Σg, Σg·x̂] backward, for each norm.

    With layers in ``stages``, each norm is on one of them: the mean over all ranks is that share.
    """
    n, m = facts.derived.replicas, facts.derived.accumulate
    if facts.spec.batch_norm != "sync" or n == 1 or not facts.norms:
        return []
    gathered = sum(norm.forwards * n * (1 + 2 * norm.channels) * norm.itemsize for norm in facts.norms) / stages
    reduced = sum(norm.backwards * 2 * norm.channels * norm.itemsize for norm in facts.norms) / stages
    kind, letter = "batch norm", "n" if stages == 1 else "replicas"
    width = facts.norms[0].itemsize
    again = "--recompute repeats it in the backward pass" if facts.spec.recompute else ""
    gather = all_gather(
        f"{kind}: statistics", gathered, n, f"Σ {letter} (1+2c) · {width}", "in the forward pass, at each batch norm", letter,
        m, "m", again,
    )  # fmt: skip
    return [
        gather,
        all_reduce(
            f"{kind}: gradients", reduced, n, f"Σ 2c · {width}", "in the backward pass, at each batch norm", letter, m, "m"
        ),
    ]


def backend_notes(facts: Facts) -> list[str]:
    """What the backend does behind all names."""
    return list(BACKENDS.get(facts.backend, ()))


BACKENDS: dict[str, tuple[str, ...]] = {
    "nccl": ("nccl may take a tree instead of a ring, for small messages: as many bytes in all, shared out otherwise",),
}
"""by backend; what it does behind the name of one collective stands with that"""
