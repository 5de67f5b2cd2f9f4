"""What every strategy of this engine shares: what is refused before the start, DeepSpeed's engine, and gradients that are missing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from scalelab import models
from scalelab.batch import derive
from scalelab.comm.world import on_cuda
from scalelab.errors import NotApplicable, RunError
from scalelab.spec import Spec
from scalelab.strategies import degrees
from scalelab.strategies.deepspeed_engine import config, runtime

ZERO = "which DeepSpeed takes for zero: it would decay and move the parameter all the same; use --engine torch"


def check(spec: Spec) -> None:
    """Refuse what the engine can't do. Raises NotApplicable, and ScalelabError for a contradiction in ``--deepspeed-config``."""
    if spec.shard not in (None, spec.workers):
        raise NotApplicable(
            f"--shard {spec.shard}: --engine deepspeed shards over all workers; leave it out, or use --engine torch"
        )
    if spec.compile:
        raise NotApplicable("--compile: --engine deepspeed is not verified with it; leave it out, or use --engine torch")
    cuda = on_cuda(spec, spec.workers)
    if spec.precision == "fp16" and not runtime.computes_half("cuda" if cuda else "cpu"):
        raise NotApplicable("--precision fp16: this CPU does not compute in float16; use fp32, or a GPU")
    settings(spec)


def check_unused(spec: Spec, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a model in which a parameter has no gradient in some steps. Raises NotApplicable."""
    if unused := models.unused_parameters(model, shape):
        raise NotApplicable(f"parameter '{unused[0]}' of model '{spec.model}' has no gradient in some steps, {ZERO}")


def settings(spec: Spec) -> dict[str, Any]:
    """DeepSpeed's configuration of a training. Raises ScalelabError."""
    return config.config(spec, derive(spec, degrees(spec), 1))


def initialize(model: nn.Module, optimizer: Optimizer, spec: Spec, device: torch.device) -> Any:
    """DeepSpeed's engine around ``model``, in the process group that exists. The optimizer is ours: DeepSpeed calls it the client's."""
    engine, *_ = runtime.start(device).initialize(
        model=model, optimizer=optimizer, config=settings(spec), dist_init_required=False
    )
    return engine


class Reached:
    """Which parameters had a gradient in this step: DeepSpeed takes a missing one for zero."""

    def __init__(self, module: nn.Module) -> None:
        self.names = {name for name, p in module.named_parameters() if p.requires_grad}
        self.seen: set[str] = set()
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda _, name=name: self.seen.add(name))

    def all_or_raise(self) -> None:
        """Raises RunError for a parameter without a gradient since the last call."""
        missing, self.seen = self.names - self.seen, set()
        if missing:
            raise RunError(f"parameter '{min(missing)}' had no gradient in this step, {ZERO}")
