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


class Zero1(DDP):
    """DDP with torch's ZeroRedundancyOptimizer: whole tensors are dealt out to ranks, so any optimizer works."""

    optimizer: ZeroRedundancyOptimizer

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
