"""What autograd keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[list[int]]:
    """Autograd's saved tensors are watched inside; afterwards: bytes of their storages that hold no parameter or buffer of ``model``."""
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    held: dict[int, int] = {}
    result = [0]

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield result
    result[0] = sum(held.values())
