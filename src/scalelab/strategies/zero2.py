"""ZeRO stage 2: gradients and optimizer state sharded (Rajbhandari et al. 2020), by FSDP2 without resharding after the forward pass.

moves: parameters and gradients
when:  parameters are gathered before the forward pass and kept until the backward pass ends; gradients are
       reduce-scattered in the backward pass, at each micro-batch
bytes: all-gather and reduce-scatter of P: each of n ranks sends (n-1)/n · P + (n-1)/n · P a step (gloo's reduce-scatter is an
       all-reduce: one (n-1)/n · P more); with r replicas of the shards (HSDP) an all-reduce of the shard besides: 2(r-1)/r · P/n
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard

from scalelab import models
from scalelab.comm import batch_norm
from scalelab.errors import NotApplicable
from scalelab.spec import Spec
from scalelab.strategies.base import Strategy
from scalelab.strategies.blocks import blocks, reached_around
from scalelab.strategies.formulas.explanation import Explanation, Facts
from scalelab.strategies.formulas.sharded import explain


class Zero2(Strategy):
    """FSDP2 ``fully_shard`` over each block and the root."""

    shards_tensors: ClassVar[bool] = True
    channels_last: ClassVar[bool] = False  # FSDP2 refuses parameters that are not contiguous
    reshard_after_forward: ClassVar[bool] = False
    options: ClassVar[frozenset[str]] = frozenset({"offload", "param_dtype"})

    @classmethod
    def check(cls, spec: Spec) -> None:
        super().check(spec)
        if spec.offload == "optimizer":
            raise NotApplicable(
                f"--offload optimizer: --strategy {spec.strategy} keeps the optimizer's state where its parameters are; "
                "use --offload all, or --engine deepspeed"
            )
        if spec.param_dtype == "bf16" and spec.precision != "fp32":
            raise NotApplicable(f"--param-dtype bf16 is a precision of its own: leave out --precision {spec.precision}")

    @classmethod
    def check_model(cls, spec: Spec, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.dim() == 0:
                raise NotApplicable(
                    f"--strategy {spec.strategy} can't cut the scalar parameter '{name}': give it the shape [1], or use zero1"
                )

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        return explain(facts, cls.reshard_after_forward)

    @classmethod
    def check_shape(cls, spec: Spec, model: nn.Module, shape: tuple[int, ...]) -> None:
        super().check_shape(spec, model, shape)
        if spec.workers > 1 and (choosy := models.choosy_parameters(model, shape)):
            raise NotApplicable(
                f"--strategy {spec.strategy}: model '{spec.model}' uses parameter '{choosy[0]}' for some images only; where one worker "
                "has its gradient and another has not, FSDP's reduce-scatter fails: use ddp or zero1"
            )
        if around := reached_around(model, blocks(model), torch.zeros(2, *shape).to(next(model.parameters()))):
            raise NotApplicable(
                f"--strategy {spec.strategy}: the forward of model '{spec.model}' uses parameters of its module '{around}' without calling "
                "it, and FSDP gathers what is called: call it, or use ddp or zero1"
            )

    def wrap(self, model: nn.Module) -> nn.Module:
        kind, shards = self.world.device.type, self.world.shards  # the default is CUDA wherever there is a GPU
        copies = self.world.replicas // shards
        if copies > 1:
            mesh = init_device_mesh(kind, (copies, shards), mesh_dim_names=("data", "shard"))
        else:
            mesh = init_device_mesh(kind, (shards,))
        policies: dict[str, Any] = {}
        if self.spec.offload == "all":
            policies["offload_policy"] = CPUOffloadPolicy(pin_memory=kind == "cuda")
        if self.spec.param_dtype == "bf16":
            batch_norm.widen(model)
            policies["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for block in blocks(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=self.reshard_after_forward, **policies)  # in place
        if "mp_policy" in policies:  # the loss of bf16 outputs would be bf16 too: three digits
            policies["mp_policy"] = replace(policies["mp_policy"], output_dtype=torch.float32)
        fully_shard(model, mesh=mesh, reshard_after_forward=self.reshard_after_forward, **policies)
        return model

    def settle(self) -> None:
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
