"""Formulas of FSDP2: what zero2 and zero3 hold and send (Rajbhandari et al. 2020; Zhao et al. 2023). Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from scalelab.strategies.formulas.explanation import (
    ZERO,
    Explanation,
    Facts,
    Held,
    Parameter,
    activations,
    all_gather,
    all_reduce,
    backend_notes,
    reduce_scatter,
    state_note,
    statistics,
    total,
)

BEFORE = {
    False: "before the forward pass; kept until the backward pass ends",
    True: "before each block's forward, and again before its backward; freed after each",
}
"""when parameters are gathered, by whether they are resharded after the forward pass"""


def shard(shape: Sequence[int], parts: int) -> int:
    """Elements of the largest part of a tensor that is cut along its first dimension into ``parts``, as FSDP2 and DTensor do.

    The first parts get ceil(rows / parts) each; the others are padded to that where they are gathered.
    """
    return -(-shape[0] // parts) * math.prod(shape[1:]) if shape else 1


def shards(parameters: Iterable[Parameter], parts: int, itemsize: int | None = None) -> int:
    """Bytes of the largest rank's part of these parameters, each cut by itself."""
    return sum(shard(p.shape, parts) * (itemsize or p.itemsize) for p in parameters)


def state_shards(facts: Facts, parts: int) -> int:
    """Bytes of the optimizer's state for the largest rank's part: slots of the parameter's shape are cut as it is, others are whole."""
    return sum(
        (shard(shape, parts) if shape == p.shape and shape else math.prod(shape)) * itemsize
        for p in facts.parameters
        for shape, itemsize in p.slots
    )


def dealt(parameters: Sequence[Parameter], parts: int) -> list[list[Parameter]]:
    """Whole parameters dealt out as ZeroRedundancyOptimizer does: the largest first, each to the rank with the fewest elements."""
    hands: list[list[Parameter]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for parameter in sorted(parameters, key=lambda p: -p.numel):
        rank = sizes.index(min(sizes))
        hands[rank].append(parameter)
        sizes[rank] += parameter.numel
    return hands


def units(facts: Facts) -> list[tuple[int, list[Parameter]]]:
    """What is gathered as one: (calls in a micro-batch's forward pass, parameters) of each block, and of the root.

    ``--recompute`` gathers nothing more: a block's parameters are there when its forward is repeated.
    """
    found = [(calls, [p for p in facts.parameters if p.block == place]) for place, calls in enumerate(facts.calls)]
    return [*found, (1, [p for p in facts.parameters if p.block is None])]


def explain(facts: Facts, reshard: bool) -> Explanation:
    """zero2 (``reshard`` False) and zero3 (True)."""
    s, copies = facts.derived.shard, facts.derived.data
    letter, m = "s" if copies > 1 else "n", facts.derived.accumulate
    narrow = 2 if facts.spec.param_dtype == "bf16" else None
    reached = [p for p in facts.trained if p.reached]
    times = [2 * calls if reshard else calls for calls, _ in units(facts)]  # two calls of a block: gathered for each backward
    gathers = sum(n * s * shards(parameters, s, narrow) for n, (_, parameters) in zip(times, units(facts), strict=True))
    repeat = "2 m" if reshard else "m"
    sent = [
        all_gather("parameters", gathers, s, _pad("P", narrow), BEFORE[reshard], letter, m, repeat),
        reduce_scatter(facts.backend)(
            "gradients", s * shards(reached, s), s, _pad("G"), "in each backward pass, after each block's", letter, m, "m"
        ),
    ]
    if copies > 1:
        when = "in each backward pass, over the copies of a shard"
        sent.append(all_reduce("gradients' shards", shards(reached, s), copies, f"G/{letter}", when, "r", m, "m", "HSDP"))
    return Explanation(
        held=_held(facts, s, reached, reshard, narrow),
        sent=[*sent, *statistics(facts)],
        symbols=facts.symbols(**({"s": s, "r": copies} if copies > 1 else {})),
        notes=[*backend_notes(facts), *_notes(facts, s)],
    )


def _held(facts: Facts, s: int, reached: Sequence[Parameter], reshard: bool, narrow: int | None) -> list[Held]:
    letter = "s" if facts.derived.data > 1 else "n"
    kept, where = shards(facts.parameters, s), "; in the host's memory" if facts.spec.offload == "all" else ""
    blocks = [s * shards(parameters, s, narrow) for _, parameters in units(facts)]
    largest = sum(blocks) if not reshard else blocks[-1] + max(blocks[:-1], default=0)
    when = "of the root and the largest block, while it computes" if reshard else "beside the shard, until the backward pass ends"
    return [
        Held(what="parameters", bytes=kept, formula=f"P/{letter}", source=ZERO, note=f"the shard, padded{where}"),
        Held(what="parameters, gathered", bytes=largest, formula="P" if not reshard else "largest block + root", note=when),
        Held(what="gradients", bytes=shards(reached, s), formula=f"G/{letter}", source=ZERO, note=f"the shard, padded{where}"),
        Held(
            what="optimizer state",
            bytes=state_shards(facts, s),
            formula=f"S/{letter}",
            source=ZERO,
            note=state_note(facts) + where,
        ),
        activations(facts),
    ]


def _pad(symbol: str, narrow: int | None = None) -> str:
    return f"{symbol}/2" if narrow else symbol


def _notes(facts: Facts, s: int) -> list[str]:
    padded = s * shards(facts.parameters, s) - total(facts.parameters)
    notes = (
        [f"each tensor is cut along its first dimension; what does not divide by {s} is padded: {padded:,} bytes"]
        if padded
        else []
    )
    if facts.spec.offload == "all":
        notes.append(
            "--offload: shards, gradients and state lie in the host's memory; P/n goes to the device and G/n back a micro-batch"
        )
    if facts.spec.param_dtype == "bf16":
        notes.append("--param-dtype bf16: parameters are gathered as bf16, gradients reduced as float32")
    return notes
