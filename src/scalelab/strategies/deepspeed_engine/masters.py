"""Where DeepSpeed keeps what its optimizer updates: float32 masters and slots, flat, cut between ranks; and how they become whole again.

The layouts are those of DeepSpeed 0.19. A rank's optimizer holds flat tensors; a parameter lies in one of them, whole or in part:

    ZeRO 0   float32: the parameter itself; bf16 and fp16: a master of its shape on every rank
    ZeRO 1/2 all parameters one after the other in one tensor, of which each rank has an equal range: parameters are cut anywhere
    ZeRO 3   each parameter is cut into as many equal ranges as there are ranks, padded; a rank's ranges lie in one tensor
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from scalelab.errors import RunError


@dataclass(frozen=True)
class Part:
    """What this rank's optimizer holds of one parameter: elements [start, start + count) of ``flat`` are its [offset, offset + count)."""

    name: str
    shape: torch.Size
    flat: Tensor
    """a tensor that the optimizer updates, the key of its slots"""
    start: int
    offset: int
    count: int
    group: dist.ProcessGroup | None
    """the ranks that hold the other parts; None: this one is the whole"""

    def whole(self, values: Tensor) -> Tensor:
        """The parameter's full tensor from ``values``, which lie as ``flat`` does: each rank adds its part. A collective of the group."""
        if self.group is None:
            return values.detach().clone().view(self.shape)
        full = torch.zeros(self.shape.numel(), dtype=values.dtype, device=values.device)
        full[self.offset : self.offset + self.count] = self.within(values)
        dist.all_reduce(full, group=self.group)
        return full.view(self.shape)

    def fill(self, values: Tensor, full: Tensor) -> None:
        """Set this rank's part in ``values``, which lie as ``flat`` does, to that of the full tensor."""
        self.within(values).copy_(full.reshape(-1)[self.offset : self.offset + self.count])

    def within(self, values: Tensor) -> Tensor:
        """This parameter's elements of ``values``, which lie as ``flat`` does."""
        return values.detach().view(-1)[self.start : self.start + self.count]


def parts(module: nn.Module, optimizer: Any, stage: int) -> list[Part]:
    """A part for each trainable parameter of ``module``, in the module's order. ``optimizer`` is DeepSpeed's (or torch's own)."""
    names = {parameter: name for name, parameter in module.named_parameters() if parameter.requires_grad}
    find = {0: _replicated, 1: _ranges, 2: _ranges, 3: _shards}[stage]
    found = {part.name: part for part in find(names, optimizer)}
    return [found[name] for name in names.values()]


def _replicated(names: dict[nn.Parameter, str], optimizer: Any) -> Iterator[Part]:
    masters = {p: p for p in names}
    if hasattr(optimizer, "fp32_groups"):
        working = (p for group in optimizer.fp16_groups for p in group)
        masters = dict(zip(working, (p for group in optimizer.fp32_groups for p in group), strict=True))
    for parameter, name in names.items():
        yield Part(name, parameter.shape, masters[parameter], 0, 0, parameter.numel(), None)


def _ranges(names: dict[nn.Parameter, str], optimizer: Any) -> Iterator[Part]:
    for place, group in enumerate(optimizer.bit16_groups):
        flat, ranks = optimizer.single_partition_of_fp32_groups[place], optimizer.real_dp_process_group[place]
        for parameter in group:
            start = offset = count = 0
            if (link := parameter._hp_mapping) is not None:  # otherwise all of it lies on other ranks
                start, offset = link.hp_fragment_address.start, link.lp_fragment_address.start
                count = link.hp_fragment_address.numel
            yield Part(names[parameter], parameter.shape, flat, start, offset, count, ranks)


def _shards(names: dict[nn.Parameter, str], optimizer: Any) -> Iterator[Part]:
    parameter: Any  # DeepSpeed adds attributes to it
    for parameter, name in names.items():
        place, start, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        offset = size * dist.get_rank(parameter.ds_process_group)
        count = max(0, min(size, parameter.ds_numel - offset))  # the last ones are padding
        flat = optimizer.fp32_partitioned_groups_flat[place]
        yield Part(name, parameter.ds_shape, flat, start, min(offset, parameter.ds_numel), count, parameter.ds_process_group)


def slots(held: list[Part], optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """The optimizer's slots by the parameters' names, unsharded. A collective; empty before the first step."""
    return {
        part.name: {slot: part.whole(value) if _is_flat(value, part.flat) else value for slot, value in found.items()}
        for part in held
        if (found := optimizer.state.get(part.flat))
    }


def load_slots(held: list[Part], optimizer: Optimizer, saved: dict[str, dict[str, Any]]) -> None:
    """Take up slots by the parameters' names. Raises RunError where parameters have taken different numbers of steps.

    A flat tensor has one step count for all that lies in it. Slots that a parameter has none of are zero, as before its first gradient.
    """
    optimizer.state.clear()
    for part in held:
        for slot, value in saved.get(part.name, {}).items():
            state = optimizer.state[part.flat]
            if isinstance(value, Tensor) and value.shape == part.shape and value.dim():
                part.fill(state.setdefault(slot, torch.zeros_like(part.flat, requires_grad=False)), value.to(part.flat.device))
                continue
            if slot in state and float(state[slot]) != float(value):
                raise RunError(
                    f"the checkpoint's '{part.name}' has {slot} {float(value):g}, a parameter before it {float(state[slot]):g}: "
                    "DeepSpeed counts one for all; resume with --engine torch"
                )
            state[slot] = value.clone() if isinstance(value, Tensor) else value


def _is_flat(value: Any, flat: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == flat.shape and value.dim() > 0
