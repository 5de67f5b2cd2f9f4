"""Data parallelism: every rank holds the whole model and sees its share of each batch (Li et al. 2020, VLDB).

moves: all gradients
when:  in buckets during the backward pass, as soon as a bucket is complete, behind the rest of the backward
bytes: one all-reduce of P (the gradients' bytes): each of n ranks sends 2(n-1)/n · P a step
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scalelab.strategies.base import Strategy


class DDP(Strategy):
    """torch's DistributedDataParallel. Buffers are not broadcast: they are averaged before evaluation and checkpoints."""

    module: DistributedDataParallel

    def wrap(self, model: nn.Module) -> DistributedDataParallel:
        cuda = self.world.device.type == "cuda"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the name that replaces broadcast_buffers is not in torch 2.11
            return DistributedDataParallel(
                model,
                device_ids=[self.world.local_rank] if cuda else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=self.recipe.unused(model),
            )

    @property
    def evaluated(self) -> nn.Module:
        inner: nn.Module = self.module.module
        return inner

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.module.no_sync()
