"""Many tensors as few flat vectors, so that one all-reduce moves them all; and what several ranks hold made one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

CHUNK = 25 * 2**20
"""bytes of one all-reduce, as DDP's buckets: copying one overlaps with sending another, and latency does not count"""
COUNT = "step"
"""the slot in which torch's optimizers count, by their convention"""


class Flat:
    """Tensors of one type and device, read and written as one vector."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors

    def read(self) -> Tensor:
        """A copy, [elements]."""
        return torch.cat([tensor.detach().reshape(-1) for tensor in self.tensors])

    def split(self, flat: Tensor) -> list[Tensor]:
        """Views of ``flat`` in the tensors' shapes."""
        parts = flat.split([tensor.numel() for tensor in self.tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, self.tensors, strict=True)]

    def write(self, flat: Tensor) -> None:
        """Set the tensors to what ``read`` would give."""
        with torch.no_grad():
            for tensor, part in zip(self.tensors, self.split(flat), strict=True):
                tensor.copy_(part)


def by_type(tensors: Iterable[Tensor]) -> list[Flat]:
    """One ``Flat`` for each type of number, in the order of their first tensors."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault(tensor.dtype, []).append(tensor)
    return [Flat(kind) for kind in kinds.values()]


def all_reduce(vectors: Iterable[Tensor], group: dist.ProcessGroup | None) -> None:
    """Sum each vector over the ranks, in place."""
    chunks = [chunk for vector in vectors for chunk in vector.split(max(1, CHUNK // vector.element_size()))]
    for work in [dist.all_reduce(chunk, group=group, async_op=True) for chunk in chunks]:
        assert work is not None, "this rank is in the group"
        work.wait()


def unite_slots(optimizer: Optimizer, parameters: Sequence[Tensor], share: float, group: dist.ProcessGroup | None) -> None:
    """Replace an optimizer's floating slots by their mean over the ranks, weighted by ``share``, and its counts by the largest.

    A rank on which a parameter never had a gradient takes part with zeros. A collective.
    """
    _complete(optimizer, parameters, group)
    named = [(name, value) for p in parameters for name, value in optimizer.state.get(p, {}).items() if isinstance(value, Tensor)]
    flats = by_type(value for name, value in named if name != COUNT and value.is_floating_point())
    means = [flat.read().mul_(share) for flat in flats]
    all_reduce(means, group)
    for flat, mean in zip(flats, means, strict=True):
        flat.write(mean)
    for flat in by_type(value for name, value in named if name == COUNT):
        largest = flat.read().to(parameters[0].device)  # a count may lie on the host
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        flat.write(largest)


def _complete(optimizer: Optimizer, parameters: Sequence[Tensor], group: dist.ProcessGroup | None) -> None:
    """Give each parameter on every rank the slots that it has on any: zeros where there were none."""
    here = torch.tensor([float(p in optimizer.state) for p in parameters], device=parameters[0].device)
    dist.all_reduce(here, group=group)
    if not ((here > 0) & (here < dist.get_world_size(group))).any():
        return
    mine = {
        place: {name: _blank(value) for name, value in optimizer.state[p].items()}
        for place, p in enumerate(parameters)
        if p in optimizer.state
    }
    held: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(held, mine, group=group)
    for theirs in held:
        for place, slots in theirs.items():
            if (parameter := parameters[place]) not in optimizer.state:
                optimizer.state[parameter] = {
                    name: value.to(parameter.device) if isinstance(value, Tensor) and name != COUNT else value
                    for name, value in slots.items()
                }


def _blank(value: Any) -> Any:
    return torch.zeros_like(value, device="cpu") if isinstance(value, Tensor) else value
