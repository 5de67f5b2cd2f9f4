"""ZeRO stage 2: gradients and optimizer state sharded (Rajbhandari et al. 2020), by FSDP2 without resharding after the forward pass.

moves: parameters and gradients
when:  parameters are gathered before the forward pass and kept until the backward pass ends; gradients are
       reduce-scattered in the backward pass, at each micro-batch
bytes: all-gather and reduce-scatter of P: each of n ranks sends (n-1)/n · P + (n-1)/n · P a step (gloo's reduce-scatter is an
       all-reduce: one (n-1)/n · P more)
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from scalelab.errors import NotApplicable
from scalelab.spec import Spec
from scalelab.strategies.base import Strategy


class Zero2(Strategy):
    """FSDP2 ``fully_shard`` over each block and the root."""

    shards_tensors: ClassVar[bool] = True
    channels_last: ClassVar[bool] = False  # FSDP2 refuses parameters that are not contiguous
    reshard_after_forward: ClassVar[bool] = False

    @classmethod
    def check_model(cls, spec: Spec, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.dim() == 0:
                raise NotApplicable(
                    f"--strategy {spec.strategy} can't cut the scalar parameter '{name}': give it the shape [1], or use zero1"
                )

    def wrap(self, model: nn.Module) -> nn.Module:
        mesh = init_device_mesh(self.world.device.type, (self.world.size,))  # the default is CUDA wherever there is a GPU
        for block in [*blocks(model), model]:
            fully_shard(block, mesh=mesh, reshard_after_forward=self.reshard_after_forward)  # in place
        return model

    def settle(self) -> None:
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def blocks(model: nn.Module, share: float = 0.05) -> list[nn.Module]:
    """The modules gathered as one: the outermost that hold at most a quarter of the parameters and at least ``share``.

    Smaller ones stay with their parent: each gather costs a latency. A module that is too large is opened; leaves are never. One that
    shares a parameter with a module outside (tied weights) stays with the root, which holds them all.
    """
    total = sum(p.numel() for p in model.parameters()) or 1
    owners = Counter(p for module in model.modules() for p in module.parameters(recurse=False))
    chosen: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        for child in module.children():
            part = sum(p.numel() for p in child.parameters()) / total
            if part < share:
                continue
            if part > 0.25 and any(True for _ in child.children()):
                visit(child)
                continue
            inside = Counter(p for inner in child.modules() for p in inner.parameters(recurse=False))
            tied = any(owners[p] > count for p, count in inside.items())
            if not tied and not isinstance(child, nn.ModuleList | nn.ModuleDict):  # those have no forward to hook
                chosen.append(child)

    visit(model)
    return chosen
