"""ZeRO stage 1: data parallelism with the optimizer's state sharded (Rajbhandari et al. 2020).

moves: all gradients, then the parameters that each rank updated
when:  gradients in buckets during the backward pass; parameters after the optimizer step, from the rank that owns each
bytes: all-reduce of P and broadcasts of P in all: each of n ranks sends 2(n-1)/n · P + (n-1)/n · P a step (mean over ranks)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from scalelab.strategies.ddp import DDP


class Zero1(DDP):
    """DDP with torch's ZeroRedundancyOptimizer: whole tensors are dealt out to ranks, so any optimizer works."""

    optimizer: ZeroRedundancyOptimizer

    def wrap_optimizer(self, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> Optimizer:
        return ZeroRedundancyOptimizer(self.module.parameters(), optimizer_class=lambda params, **_: make(params))  # type: ignore[arg-type]

    # torch's get_state_dict would run a step of this optimizer to fill a state that only its inner one has.

    def state(self) -> dict[str, Any]:
        self.optimizer.consolidate_state_dict(to=0)  # gathers every rank's slots on the first
        if not self.world.first:
            return {}
        held, names = self.optimizer.state_dict(), self._names()
        groups = [{**group, "params": [names[index] for index in group["params"]]} for group in held["param_groups"]]
        slots = {names[index]: slot for index, slot in held["state"].items()}
        return {"model": get_model_state_dict(self.module), "optimizer": {"state": slots, "param_groups": groups}}

    def load(self, state: dict[str, Any]) -> None:
        set_model_state_dict(self.module, state["model"])
        index = {name: position for position, name in enumerate(self._names())}
        held = state["optimizer"]
        groups = [{**group, "params": [index[name] for name in group["params"]]} for group in held["param_groups"]]
        self.optimizer.load_state_dict(
            {"state": {index[name]: slot for name, slot in held["state"].items()}, "param_groups": groups}
        )

    def _names(self) -> list[str]:
        return [name for name, _ in self.evaluated.named_parameters()]

    @property
    def local_optimizer(self) -> Optimizer:
        inner: Optimizer = self.optimizer.optim
        return inner
