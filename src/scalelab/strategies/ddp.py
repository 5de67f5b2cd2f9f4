"""Data parallelism: every rank holds the whole model and sees its share of each batch (Li et al. 2020, VLDB).

moves: all gradients
when:  in buckets during the backward pass, as soon as a bucket is complete, behind the rest of the backward
bytes: one all-reduce of P (the gradients' bytes): each of n ranks sends 2(n-1)/n · P a step; less with --compress (compress.py)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scalelab.errors import NotApplicable
from scalelab.spec import Spec
from scalelab.strategies.base import OPTIONS, Strategy
from scalelab.strategies.compress import COMPRESSORS, Compressor
from scalelab.strategies.formulas.explanation import (
    Explanation,
    Facts,
    activations,
    all_reduce,
    backend_notes,
    compressed,
    statistics,
    whole,
)


class DDP(Strategy):
    """torch's DistributedDataParallel. Buffers are not broadcast: they are averaged before evaluation and checkpoints."""

    module: DistributedDataParallel
    compressor: Compressor | None = None
    options: ClassVar[frozenset[str]] = frozenset({"compress", "powersgd_rank"})
    asks_unused: ClassVar[bool] = True

    @classmethod
    def check(cls, spec: Spec) -> None:
        super().check(spec)
        if spec.powersgd_rank != OPTIONS["powersgd_rank"] and spec.compress != "powersgd":
            raise NotApplicable(f"--powersgd-rank {spec.powersgd_rank}: is of --compress powersgd, which is not asked for")

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        n = facts.workers
        sent, kept, notes = compressed(facts, "in buckets during the last micro-batch's backward pass")
        if facts.unused:
            bitmap = 4 * len(facts.trained)
            when = "after the last micro-batch's backward pass"
            sent.append(all_reduce("which parameters had gradients", bitmap, n, "4 · parameters", when, note="int32 for each"))
        return Explanation(
            held=[*whole(facts), *kept, activations(facts)],
            sent=[*sent, *statistics(facts)],
            symbols=facts.symbols(),
            notes=[*notes, *backend_notes(facts)],
        )

    def wrap(self, model: nn.Module) -> DistributedDataParallel:
        cuda = self.world.device.type == "cuda"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the name that replaces broadcast_buffers is not in torch 2.11
            wrapped = DistributedDataParallel(
                model,
                device_ids=[self.world.local_rank] if cuda else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=self.recipe.unused(),
            )
        if self.spec.compress != "none":
            self.compressor = compressor = COMPRESSORS[self.spec.compress](self.spec, model)
            wrapped.register_comm_hook(None, lambda _, bucket: compressor.reduce(bucket))
        return wrapped

    @property
    def evaluated(self) -> nn.Module:
        inner: nn.Module = self.module.module
        return inner

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext() if last else self.module.no_sync()

    def snapshot(self) -> Callable[[], None]:
        restorers = [super().snapshot(), *([self.compressor.snapshot()] if self.compressor else [])]

        def restore() -> None:
            for one in restorers:
                one()

        return restore

    def memory(self) -> dict[str, int]:
        held = super().memory()
        if self.compressor is not None:
            held["gradients"] += sum(tensor.nbytes for tensor in self.compressor.held())
        return held
