"""DeepSpeed's pipeline (PipelineModule): layers cut into stages as by the engine torch, micro-batches in the order 1F1B, and replicas.

moves: the activation at each cut, and the gradient with respect to it; with several replicas, all gradients; the loss to all stages
when:  activations and gradients between neighbours, one forward, one backward in turn; the replicas' gradients when all micro-batches
       are through
bytes: A, the activation of a micro-batch at the cut, forward and back: 2 A for each cut and micro-batch; over n replicas of a stage with
       P bytes of gradients, an all-reduce: 2(n-1)/n · P
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import msgspec
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scalelab.errors import NotApplicable
from scalelab.spec import Spec
from scalelab.strategies.base import Batch
from scalelab.strategies.deepspeed_engine import config, runtime, starting
from scalelab.strategies.formulas import staged
from scalelab.strategies.formulas.explanation import Explanation, Facts, all_reduce, broadcast
from scalelab.strategies.stages.staged import Staged


class Pipeline(Staged):
    """A stage on each rank, run by DeepSpeed; evaluation and state are those of all strategies that cut a model."""

    channels_last: ClassVar[bool] = False  # DeepSpeed sends contiguous activations
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    options: ClassVar[frozenset[str]] = frozenset({"split", "deepspeed_config"})
    batch_may_change: ClassVar[bool] = False  # its configuration holds the micro-batches of a step

    @classmethod
    def check(cls, spec: Spec) -> None:
        super().check(spec)
        starting.check(spec)
        if (clipping := starting.settings(spec)["gradient_clipping"]) and spec.workers > 1:
            raise NotApplicable(
                f"--deepspeed-config {spec.deepspeed_config}: 'gradient_clipping' is {clipping}, and DeepSpeed's pipeline takes "
                "the norm over its first stage only; leave it out, or use ddp or zero1"
            )

    @classmethod
    def check_model(cls, spec: Spec, model: nn.Module) -> None:
        super().check_model(spec, model)
        frozen = next((name for name, p in model.named_parameters() if not p.requires_grad), None)
        if frozen is not None:
            raise NotApplicable(
                f"parameter '{frozen}' is frozen, and DeepSpeed's pipeline needs a gradient through every stage; use --engine torch"
            )

    @classmethod
    def check_shape(cls, spec: Spec, model: nn.Module, shape: tuple[int, ...]) -> None:
        super().check_shape(spec, model, shape)
        starting.check_unused(spec, model, shape)

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        p, r, m = facts.derived.pipe, facts.derived.replicas, facts.derived.accumulate

        def in_flight(place: int) -> tuple[int, str]:
            most = min(m, p - place)
            return most, f"{most} micro-batches, of its layers"

        found = staged.explain(facts, 1, in_flight, always=False, counted=False)
        when = "at the end of a step"
        losses = [all_reduce("loss", 4 / p, r, "4 bytes/p", when, "r")] if r > 1 else []
        losses += [broadcast("losses", 8, p, "8 bytes", f"{when}, to all stages", "p")] if p > 1 else []
        settings = config.config(facts.spec, facts.derived)
        return msgspec.structs.replace(found, sent=[*found.sent, *losses], config=settings)

    def wrap_optimizer(self, make: Callable[[Iterable[nn.Parameter]], Optimizer]) -> Optimizer:
        optimizer = super().wrap_optimizer(make)
        stage = _Layer(self.stages[0] if self.stages else self.module)
        self.engine = starting.initialize(self._pipeline(stage), optimizer, self.spec, self.world.device)
        self.reached = starting.Reached(self.module)
        return optimizer

    def _pipeline(self, mine: nn.Module) -> Any:
        """DeepSpeed's module: one layer a stage, of which it keeps this rank's."""
        deepspeed = runtime.start(self.world.device)
        from deepspeed.runtime.pipe.topology import ProcessTopology

        layers: list[nn.Module] = [nn.Identity() for _ in range(self.world.stages)]
        layers[self.world.stage] = mine
        deepspeed.init_distributed(verbose=False)  # takes the process group that exists
        grid = ProcessTopology(axes=["data", "pipe"], dims=[self.world.replicas, self.world.stages])
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its seed and topology
            return deepspeed.PipelineModule(layers, topology=grid, loss_fn=self._scaled_loss, partition_method="uniform")

    def _scaled_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return self.loss(outputs, labels) * self.loss_scale

    def step(self, micro_batches: Sequence[Batch]) -> Tensor:
        self.draw_apart()
        self.engine.train_batch(iter(micro_batches))
        self.reached.all_or_raise()  # behind the update: but the run ends here, and nothing of it is kept
        if not self.world.last_stage:
            return torch.zeros((), device=self.world.device)
        mean: Tensor = self.engine.dp_group_loss / self.loss_scale  # of this replica; what train_batch returns is over all
        return mean


class _Layer(nn.Module):
    """A stage whose activation can be sent."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        """What the stage makes of x, contiguous."""
        out: Tensor = self.stage(x)
        return out.contiguous()
