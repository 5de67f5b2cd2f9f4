"""Local SGD: every rank trains by itself, and now and then all take the mean of their parameters; for slow networks.

moves: all parameters, or how far they came since the last time
when:  after every H-th step (--sync-every), and at the end of an epoch, where the optimizer's state is averaged too
bytes: one all-reduce of P in H steps: each of n ranks sends 2(n-1)/n · P/H a step on average

Local SGD: Stich 2019 (ICLR); weighted by shares: McMahan et al. 2017 (AISTATS). With --outer-lr or --outer-momentum an outer SGD with
Nesterov momentum makes the step from the last common parameters: DiLoCo, Douillard et al. 2023 (arXiv 2311.08105), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor, nn

from scalelab.comm.flat import Flat, all_reduce, by_type, unite_slots
from scalelab.comm.world import World
from scalelab.spec import Spec
from scalelab.strategies.base import Batch, Recipe, Strategy
from scalelab.strategies.formulas import explanation
from scalelab.strategies.formulas.explanation import (
    Explanation,
    Facts,
    Held,
    activations,
    reached,
    statistics,
    total,
    whole,
)

LOCAL, DILOCO = "Local SGD: Stich 2019", "DiLoCo: Douillard et al. 2023"


class Outer:
    """The optimizer between synchronisations, over parameters of one type as one vector.

    With plain averaging there is no ``anchor`` (the last common parameters), without momentum no ``momentum``.
    """

    def __init__(self, parameters: Flat, lr: float, momentum: float) -> None:
        self.parameters, self.lr, self.mu = parameters, lr, momentum
        self.anchor = None if (lr, momentum) == (1.0, 0.0) else parameters.read()
        self.momentum = None if self.anchor is None or not momentum else torch.zeros_like(self.anchor)

    def sent(self, share: float) -> Tensor:
        """This rank's part of the sum: ``share`` of its parameters, or of how far they came from the anchor (with the gradient's sign)."""
        own = self.parameters.read()
        return (own if self.anchor is None else torch.sub(self.anchor, own, out=own)).mul_(share)

    def take(self, mean: Tensor) -> None:
        """Go on from the mean over the ranks. Nesterov's step is torch's: v ← µv + d; w ← w - lr·(d + µv)."""
        if self.anchor is None:
            self.parameters.write(mean)
            return
        if self.momentum is not None:
            self.momentum.mul_(self.mu).add_(mean)
            mean.add_(self.momentum, alpha=self.mu)
        self.anchor.sub_(mean, alpha=self.lr)
        self.parameters.write(self.anchor)

    def held(self) -> list[Tensor]:
        """What is kept between synchronisations."""
        return [kept for kept in (self.anchor, self.momentum) if kept is not None]


class LocalSGD(Strategy):
    """H local steps, then the mean. Between two synchronisations the ranks' parameters differ by design."""

    options: ClassVar[frozenset[str]] = frozenset({"sync_every", "outer_lr", "outer_momentum"})

    def __init__(self, recipe: Recipe, world: World, spec: Spec) -> None:
        super().__init__(recipe, world, spec)
        self.names: dict[Tensor, str] = {
            parameter: name for name, parameter in self.named_parameters() if parameter.requires_grad
        }
        self.outers = [Outer(flat, spec.outer_lr, spec.outer_momentum) for flat in by_type(self.names)]
        self.since, self.probed = 0, False

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        every, size = facts.spec.sync_every, total(facts.trained)
        kept = int((facts.spec.outer_lr, facts.spec.outer_momentum) != (1.0, 0.0)) + int(facts.spec.outer_momentum > 0)
        outer = Held(
            what="outer optimizer", bytes=kept * size, formula=f"{kept} G", source=DILOCO, note="common parameters, momentum"
        )
        sent = explanation.all_reduce(
            "parameters", size / every, facts.workers, "G/H", f"after every H-th step, H = {every}; mean of H steps"
        )
        return Explanation(
            held=[*whole(facts, reached(facts)), *([outer] if kept else []), activations(facts)],
            sent=[msgspec.structs.replace(sent, source=DILOCO if kept else LOCAL), *statistics(facts)],
            symbols=facts.symbols(H=every),
            notes=["at the end of an epoch the optimizer's state is averaged too: 2 (n-1)/n · S once"],
        )

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    @property
    def period(self) -> int:
        return self.spec.sync_every

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Uneven shares weigh in the mean of the parameters, so the local gradient is that of the local mean loss again.

        Not earlier: synchronised batch norm adds up gradients of all ranks in the backward pass, where the shares must weigh.
        """
        yield
        if last and self.loss_scale != 1:
            for gradient in [parameter.grad for parameter in self.names if parameter.grad is not None]:
                gradient /= self.loss_scale

    def step(self, micro_batches: Sequence[Batch]) -> Tensor:
        loss = super().step(micro_batches)
        self.since += 1
        if self.probed or self.since >= self.spec.sync_every:
            self.synchronise()
        return loss

    def synchronise(self) -> None:
        """Make the ranks' parameters one. A collective."""
        vectors = [outer.sent(self.world.share) for outer in self.outers]
        all_reduce(vectors, self.world.across)
        for outer, mean in zip(self.outers, vectors, strict=True):
            # With communication off the "mean" is this rank's share alone: plain averaging would shrink the weights at each probe.
            outer.take(outer.parameters.read() if self.probed and outer.anchor is None else mean)
        self.since = 0

    @contextmanager
    def probing(self) -> Iterator[None]:
        self.probed = True
        try:
            yield
        finally:
            self.probed = False

    def unite(self) -> None:
        """Synchronise, and average the optimizer's state too: then all ranks hold what a checkpoint holds."""
        if self.since:
            self.synchronise()
        unite_slots(self.optimizer, list(self.names), self.world.share, self.world.across)

    def state(self) -> dict[str, Any]:
        """And ``outer`` {parameter's name: momentum of the outer optimizer}, where there is one."""
        outer = {
            self.names[parameter]: kept.clone()
            for one in self.outers
            if one.momentum is not None
            for parameter, kept in zip(one.parameters.tensors, one.parameters.split(one.momentum), strict=True)
        }
        return {**super().state(), "outer": outer}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        for one in self.outers:
            if one.anchor is not None:
                one.anchor.copy_(one.parameters.read())
            if one.momentum is not None:
                for parameter, kept in zip(one.parameters.tensors, one.parameters.split(one.momentum), strict=True):
                    name = self.names[parameter]
                    kept.copy_(state["outer"][name]) if name in state.get("outer", {}) else kept.zero_()
        self.since = 0

    def snapshot(self) -> Callable[[], None]:
        back, since = super().snapshot(), self.since
        held = [tensor for one in self.outers for tensor in one.held()]
        copies = [tensor.clone() for tensor in held]

        def restore() -> None:
            back()
            self.since = since
            for tensor, copy in zip(held, copies, strict=True):
                tensor.copy_(copy)

        return restore

    def replicated(self) -> list[Tensor]:
        """Nothing between two synchronisations."""
        return [] if self.since else super().replicated()

    def memory(self) -> dict[str, int]:
        held = super().memory()
        held["optimizer"] += sum(tensor.nbytes for one in self.outers for tensor in one.held())
        return held
