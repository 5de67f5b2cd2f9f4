"""Data parallelism by Horovod: as ``ddp``, with its own all-reduce (Sergeev & Del Balso 2018, arXiv:1802.05799).

moves: all gradients, and for each parameter whether it had one
when:  each gradient is handed over as soon as it is complete, behind the rest of the backward; a thread on each rank agrees with the
       others on what is ready everywhere, and reduces as much as fits its buffer (128 MB) in one piece
bytes: all-reduces of P in all (P/2 with --compress fp16): each of n ranks sends 2(n-1)/n · P a step
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from scalelab.comm.profiled import Timed
from scalelab.comm.world import on_cuda
from scalelab.errors import NotApplicable
from scalelab.spec import Spec
from scalelab.strategies.base import Strategy
from scalelab.strategies.formulas.explanation import (
    Explanation,
    Facts,
    Held,
    activations,
    all_reduce,
    compressed,
    statistics,
    whole,
)
from scalelab.strategies.horovod_engine import allreduce, meeting, timeline

FUSION = 128 << 20
"""bytes of Horovod's fusion buffer: what is ready at the same time is copied there and reduced in one piece"""


class DDP(Strategy):
    """Every rank holds the model; hooks on its parameters hand the gradients to Horovod."""

    options: ClassVar[frozenset[str]] = frozenset({"compress"})
    method: ClassVar[Mapping[str, str]] = timeline.METHOD

    @classmethod
    def check(cls, spec: Spec) -> None:
        super().check(spec)
        if spec.compress not in ("none", "fp16"):
            raise NotApplicable(f"--compress {spec.compress}: Horovod's all-reduce has fp16; the others are with --engine torch")
        if on_cuda(spec, spec.workers) and not hvd.cuda_built():
            raise NotApplicable(
                "--engine horovod: it was built for CPUs; use --device cpu, or build it with `HOROVOD_GPU_OPERATIONS=NCCL make engines`"
            )

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        when = "each as soon as it is ready everywhere, during the last micro-batch's backward pass"
        sent, _, notes = compressed(facts, when)
        width, half = max((p.itemsize for p in facts.trained), default=4), facts.spec.compress == "fp16"
        wire = sum((2 if half else p.itemsize) * p.numel for p in facts.trained)
        had = all_reduce(
            "which parameters had gradients", (2 if half else width) * len(facts.trained), facts.workers,
            f"{2 if half else width} · parameters", "after the last micro-batch's backward pass",
        )  # fmt: skip
        buffer = Held(
            what="fusion buffer", bytes=min(wire, FUSION), formula="min(bytes on the wire, 128 MiB)",
            source="Sergeev & Del Balso 2018", note="HOROVOD_FUSION_THRESHOLD",
        )  # fmt: skip
        copies = [Held(what="fp16 copies of gradients", bytes=wire, formula="2 bytes · gradients")] if half else []
        return Explanation(
            held=[*whole(facts), *copies, buffer, activations(facts)],
            sent=[*sent, had, *statistics(facts)],
            symbols=facts.symbols(),
            notes=notes,
        )

    def wrap(self, model: nn.Module) -> nn.Module:
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.handed: dict[str, tuple[int, Tensor, Tensor]] = {}
        self.complete = True
        meeting.meet(self.world, self.spec.timeout, traced=self.spec.probe_steps > 0)
        for name, parameter in self.trained.items():
            parameter.register_post_accumulate_grad_hook(partial(self._ready, name))
        return model

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        self.complete = last
        yield
        if last and self.trained:
            self._finish()

    def _ready(self, name: str, parameter: Tensor) -> None:
        """Called by the backward pass when it has added to a parameter's gradient."""
        if self.complete and parameter.grad is not None:
            self._hand_over(name, parameter.grad)

    def _hand_over(self, name: str, value: Tensor) -> None:
        """Begin to average a tensor over the ranks, in place."""
        dense = value.permute(sorted(range(value.dim()), key=value.stride, reverse=True))  # as it lies in memory
        wire = (dense.half() if self.spec.compress == "fp16" else dense).contiguous()
        self.handed[name] = (allreduce.begin(wire, name), dense, wire)

    def _finish(self) -> None:
        """Wait for the averages. A parameter that had a gradient on no rank keeps none, as in one process."""
        first = next(iter(self.trained.values()))  # the same kind of number, so that it fits into the same piece
        had = torch.tensor([float(p.grad is not None) for p in self.trained.values()], dtype=first.dtype, device=first.device)
        for name, parameter in self.trained.items():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if name not in self.handed:  # another rank may have one, and all must hand it over
                self._hand_over(name, parameter.grad)
        self._hand_over("had a gradient", had)
        for handle, value, wire in self.handed.values():
            allreduce.wait(handle, self.spec.timeout)
            if wire.data_ptr() != value.data_ptr():
                value.copy_(wire)
        self.handed.clear()
        for parameter, somewhere in zip(self.trained.values(), had.tolist(), strict=True):
            if not somewhere:
                parameter.grad = None

    def collective_seconds(self, step: Callable[[], None], count: int) -> list[Timed]:
        return timeline.seconds(step, count)

    def close(self) -> None:
        meeting.part()
