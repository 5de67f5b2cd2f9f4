"""ZeRO stage 1: data parallelism with the optimizer's state sharded (Rajbhandari et al. 2020).

moves: all gradients, then the parameters that each rank updated
when:  gradients in buckets during the backward pass; parameters after the optimizer step, from the rank that owns each
bytes: all-reduce of P and broadcasts of P in all: each of n ranks sends 2(n-1)/n · P + (n-1)/n · P a step (mean over ranks)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from scalelab.strategies.ddp import DDP
from scalelab.strategies.formulas.explanation import ZERO, Explanation, Facts, Held, broadcast, state_note, total
from scalelab.strategies.formulas.sharded import dealt


class Zero1(DDP):
    """DDP with torch's ZeroRedundancyOptimizer: whole tensors are dealt out to ranks, so any optimizer works."""

    optimizer: ZeroRedundancyOptimizer

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        plain, n = super().explain(facts), facts.workers
        most = max(sum(p.state for p in hand) for hand in dealt(facts.parameters, n))
        state = Held(
            what="optimizer state",
            bytes=most,
            formula="S/n",
            source=ZERO,
            note=f"whole tensors are dealt out; {state_note(facts)}",
        )
        held = [state if part.what == state.what else part for part in plain.held]
        updated = broadcast(
            "parameters", total(facts.parameters), n, "P", "after the optimizer step, from the worker that owns each",
            note="ZeroRedundancyOptimizer broadcasts each tensor",
        )  # fmt: skip
        return Explanation(held=held, sent=[*plain.sent, updated], symbols=plain.symbols, notes=plain.notes)

    def wrap_optimizer(self, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> Optimizer:
        return ZeroRedundancyOptimizer(self.module.parameters(), optimizer_class=lambda params, **_: make(params))  # type: ignore[arg-type]

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        self.optimizer.consolidate_state_dict(to=0)  # gathers every rank's slots on the first
        if not self.world.first:
            return {}
        names = [name for name, _ in self.named_parameters()]
        return {names[place]: slots for place, slots in self.optimizer.state_dict()["state"].items()}

    @property
    def local_optimizer(self) -> Optimizer:
        inner: Optimizer = self.optimizer.optim
        return inner
