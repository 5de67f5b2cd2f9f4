"""One process, several GPUs: each batch is scattered over them, the model copied to each at every step (torch.nn.DataParallel).

moves: the batch, all parameters, the outputs, all gradients
when:  parameters and inputs before the forward pass, outputs after it, gradients in the backward pass, to the first GPU
bytes: over the GPUs' links, not the network: (n-1) · P of parameters out and (n-1) · P of gradients back a step
"""

from __future__ import annotations

import torch
from torch import nn

from scalelab.errors import NotApplicable
from scalelab.spec import Spec
from scalelab.strategies.base import Strategy
from scalelab.strategies.formulas.explanation import Explanation, Facts, Sent, activations, reached, total, whole


class DP(Strategy):
    """torch.nn.DataParallel over all visible GPUs. torch itself recommends ddp; this is here to be compared with."""

    module: nn.DataParallel  # type: ignore[type-arg]

    @classmethod
    def check(cls, spec: Spec) -> None:
        super().check(spec)
        if spec.device == "cpu" or torch.cuda.device_count() < 2:
            raise NotApplicable(
                "--strategy dp scatters each batch over the GPUs of one process, and needs two or more: "
                f"{'--device cpu has none' if spec.device == 'cpu' else f'here are {torch.cuda.device_count()}'}; "
                "use --strategy ddp --workers N, which is faster on GPUs too"
            )
        if spec.batch_norm == "sync":
            raise NotApplicable("--strategy dp: batch norm sees each GPU's part by itself; use --batch-norm local, or ddp")

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        copies, m = torch.cuda.device_count() - 1, facts.derived.accumulate
        source, note = "torch.nn.DataParallel", "between the GPUs of one process, not over a network"
        sent = [
            Sent(
                what=what, collective=name, bytes=m * copies * size, formula=f"m · (g-1) · {symbol}, g GPUs", when=when, source=source,
                note=note,
            )
            for what, name, size, symbol, when in (
                ("parameters", "broadcast", total(facts.parameters), "P", "before each forward pass, from the first GPU"),
                ("gradients", "reduce", total(facts.trained), "G", "in each backward pass, to the first GPU"),
            )
        ]  # fmt: skip
        held = [*whole(facts, reached(facts)), activations(facts, why="one micro-batch, over all GPUs")]
        return Explanation(
            held=held, sent=sent, symbols=facts.symbols(g=copies + 1), notes=["the first GPU holds all; copies last a step"]
        )

    def wrap(self, model: nn.Module) -> nn.Module:
        return nn.DataParallel(model)

    @property
    def evaluated(self) -> nn.Module:
        inner: nn.Module = self.module.module
        return inner
