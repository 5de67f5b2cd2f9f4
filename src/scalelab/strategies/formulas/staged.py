"""Formulas of the strategies that cut a model into stages: what each rank holds, and what passes between them.

The cut is made on the real model, as a training would make it, and each stage's activations are measured by its own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from scalelab.measure.saved import saved_bytes
from scalelab.strategies.formulas.explanation import (
    Explanation,
    Facts,
    Held,
    Parameter,
    Sent,
    activations,
    all_reduce,
    reached,
    state_note,
    statistics,
    total,
    whole,
)
from scalelab.strategies.stages import crossing, cut, tracing
from scalelab.strategies.stages.crossing import Crossing
from scalelab.strategies.stages.timing import segment_seconds

POINT = "Huang et al. 2019; Narayanan et al. 2021"
InFlight = Callable[[int], tuple[int, str]]
"""rank within a replica → (activations of one stage and micro-batch that it holds at once; what that is)"""


@dataclass(frozen=True)
class Piece:
    """One stage: its parameters, the bytes that its forward pass of a micro-batch saves, and what it passes on (the last: nothing)."""

    name: str
    parameters: tuple[Parameter, ...]
    saved: int
    outgoing: Crossing | None


def explain(facts: Facts, chunks: int, in_flight: InFlight, always: bool, counted: bool = True) -> Explanation:
    """``chunks`` stages on each rank. ``always``: a gradient comes back even where nothing before is trained.

    ``counted``: with the gradients goes a number for each parameter, on how many replicas there was one.
    """
    p, r, m = facts.derived.pipe, facts.derived.replicas, facts.derived.accumulate
    if p == 1:
        averaged = _averaged(facts, 1, counted)
        return Explanation(
            held=[*whole(facts, reached(facts)), activations(facts)],
            sent=[*averaged, *statistics(facts)],
            symbols=facts.symbols(),
        )
    pieces = _pieces(facts, p * chunks)
    ranks = [pieces[place::p] for place in range(p)]
    crossings = [piece.outgoing for piece in pieces if piece.outgoing is not None]
    there = sum(one.bytes for one in crossings)
    back = sum(one.bytes for one in crossings if one.requires_grad or always)
    between, letters = "point to point", {"p": p, "A": there, "r": r}
    sent = [
        Sent(
            what=what, collective=between, bytes=m * size / p, formula="m · A/p", when=when, source=POINT,
        )
        for what, size, when in (
            ("activations", there, "after a stage's forward, to the next"),
            ("gradients of activations", back, "after a stage's backward, to the one before"),
        )
    ]  # fmt: skip
    begins = ", ".join(piece.name for piece in pieces[1:])
    measured = "" if facts.spec.split else "; equal times measured here, a training measures again"
    return Explanation(
        held=_held(facts, ranks, in_flight),
        sent=[*sent, *_averaged(facts, p, counted), *statistics(facts, p)],
        symbols=facts.symbols(**letters),
        notes=[f"{len(pieces)} stages; a new one begins at {begins}{measured}"],
    )


def _averaged(facts: Facts, stages: int, counted: bool) -> list[Sent]:
    """Gradients over the replicas."""
    r, trained = facts.derived.replicas, facts.trained
    if r == 1:
        return []
    size = (total(trained) + (sum(p.itemsize for p in trained) if counted else 0)) / stages
    note = "and a number for each parameter: on how many replicas it had a gradient" if counted else ""
    symbol = "G" if stages == 1 else "G/p"
    return [all_reduce("gradients", size, r, symbol, "when all micro-batches are through, over the replicas", "r", note=note)]


def _held(facts: Facts, ranks: Sequence[Sequence[Piece]], in_flight: InFlight) -> list[Held]:
    def most(size: Callable[[Parameter], int]) -> int:
        return max(sum(size(p) for piece in pieces for p in piece.parameters) for pieces in ranks)

    def saved(place: int) -> tuple[int, str]:
        count, why = in_flight(place)
        waiting = max(0, facts.derived.accumulate - count) if place == 0 else 0  # all images of a step are there from its start
        return count * max(piece.saved for piece in ranks[place]) + waiting * int(facts.images.nbytes), why

    kept, why = max(saved(place) for place in range(len(ranks)))
    row, note = activations(facts), "of its stages, on the worker that has most"
    return [
        Held(what="parameters", bytes=most(lambda p: p.bytes), formula="P/p", note=note),
        Held(what="gradients", bytes=most(lambda p: p.bytes if p.trainable and p.reached else 0), formula="G/p", note=note),
        Held(what="optimizer state", bytes=most(lambda p: p.state), formula="S/p", note=state_note(facts)),
        Held(what="activations", bytes=kept, formula=why, source=row.source, note=row.note),
    ]


def _pieces(facts: Facts, count: int) -> list[Piece]:
    """The stages, each run once on a micro-batch."""

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16) if facts.spec.precision == "bf16" else nullcontext()

    model, images = facts.model, facts.images
    traces = tracing.trace(model)
    cuts, _ = cut.passing(model, traces, images)
    model.eval()
    if facts.spec.split is not None:
        chosen = cut.at(facts.spec.split, cuts, count, model)
    else:
        with autocast():
            chosen = cut.balanced(segment_seconds(traces[False], cuts, images), count)
    model.train()
    found, x = [], images
    by_name = {p.name: p for p in facts.parameters}
    for number, stage in enumerate(cut.build(model, traces, [cuts[index] for index in chosen])):
        with autocast(), saved_bytes(model) as saved:
            y = stage(x)
        last = number == len(chosen)
        outgoing = None if last else crossing.of(y)
        own = tuple(by_name[name] for name, _ in stage.named_parameters() if name in by_name)
        found.append(Piece("" if number == 0 else cuts[chosen[number - 1]].name, own, saved[0], outgoing))
        x = y.detach().requires_grad_(y.requires_grad)
    return found
