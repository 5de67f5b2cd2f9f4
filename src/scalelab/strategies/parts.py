"""What a rank holds of a tensor and of an optimizer's slots: shards or all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def keep_slots(optimizer: Optimizer) -> Callable[[], None]:
    """Copy what an optimizer holds on this rank; the returned function restores it, in the same tensors."""
    slots = optimizer.state
    kept = {p: {k: local_part(v).clone() if isinstance(v, Tensor) else v for k, v in slot.items()} for p, slot in slots.items()}

    @torch.no_grad()
    def restore() -> None:
        for parameter in [p for p in slots if p not in kept]:
            del slots[parameter]
        for parameter, slot in kept.items():
            for key, copy in slot.items():
                if isinstance(copy, Tensor):
                    local_part(slots[parameter][key]).copy_(copy)
                else:
                    slots[parameter][key] = copy

    return restore


def whole(value: Any) -> Any:
    """A sharded tensor gathered; anything else as it is. A collective."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def part(value: Any, parameter: Tensor) -> Any:
    """This rank's part of a whole slot: cut and laid out in memory as the parameter is, where it has the parameter's shape.

    An optimizer may sum over a slot (LAMB's norms), and a sum's bits depend on the layout.
    """
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.dim() else value


def local_part(value: Tensor) -> Tensor:
    """What this rank holds of a tensor: its shard, or all of it."""
    return value.to_local() if isinstance(value, DTensor) else value


def held_bytes(value: Tensor) -> int:
    """Bytes that this rank holds of a tensor."""
    return local_part(value).nbytes
