"""How long each part of a model takes, on the machine where it will train: what an even cut follows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from scalelab.measure.clock import clock
from scalelab.strategies.stages import crossing
from scalelab.strategies.stages.cut import Cut
from scalelab.strategies.stages.tracing import Trace, run

BUDGET = 1.0
"""seconds after which no further repetition begins"""
REPEATS = 5


def segment_seconds(traced: Trace, cuts: Sequence[Cut], images: Tensor) -> list[float]:
    """Seconds of forward and backward of each segment between ``cuts``: the least of a few repetitions after a first one.

    In evaluation mode, so that no running statistic moves, no random number is drawn and no rank waits for another.
    """
    began = time.perf_counter()
    best = _once(traced, cuts, images)
    best = [float("inf")] * len(best) if time.perf_counter() - began < BUDGET else best
    for _ in range(REPEATS):
        if time.perf_counter() - began > BUDGET and best[0] < float("inf"):
            break
        best = [min(a, b) for a, b in zip(best, _once(traced, cuts, images), strict=True)]
    return best


def _once(traced: Trace, cuts: Sequence[Cut], images: Tensor) -> list[float]:
    """Each segment goes backward at once, with any gradient, and keeps nothing: a model that fits nowhere whole is measured too."""
    ends = {traced.computing[cut.before[False]]: cut.value[False] for cut in cuts}
    values: dict[fx.Node, Any] = {}
    now = clock(images.device)
    seconds: list[float] = []
    start = now()
    for node in traced.nodes:
        values[node] = run(node, traced, values, images)
        if node in ends or node.op == "output":
            passed = ends.get(node, node)
            end: Tensor = values[passed]
            if end.requires_grad:
                end.backward(torch.ones_like(end))
            seconds.append((now() - start) / 1e9)
            for done in values:
                for tensor in traced.tensors(done):
                    tensor.grad = None
            leaf = end.detach().requires_grad_(end.requires_grad)
            values = {n: v for n, v in values.items() if n.op == "get_attr"}
            values[passed] = crossing.entering(leaf, crossing.plain(end))
            start = now()
    return seconds
