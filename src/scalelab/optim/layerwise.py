"""LARS (You, Gitman & Ginsburg 2017) and LAMB (You et al. 2020) from timm: steps scaled by each tensor's own norms.

Two of timm's defaults are not taken. It adapts only where there is weight decay: with none its LARS is plain SGD, so here it always adapts,
biases and batch norm too. Its LAMB clips by the norm of all gradients, which a rank that holds some of the tensors does not know.
A tensor whose norm is zero gets the plain step, as timm has it. LARS multiplies the learning rate by 0.001 |w| / (|g| + decay |w|).
"""

from __future__ import annotations

from typing import Any

from timm.optim.lamb import Lamb as TimmLamb
from timm.optim.lars import Lars

__all__ = ["Lamb", "Lars"]


class Lamb(TimmLamb):
    """timm's LAMB with its count of steps in the parameters' state, where a checkpoint finds it; timm has it in the group only."""

    def step(self, closure: Any = None) -> Any:
        """One step; the count goes on from what the state holds."""
        for group in self.param_groups:
            counts = [self.state[p]["step"] for p in group["params"] if "step" in self.state.get(p, {})]
            if counts:
                group["step"] = counts[0]
        loss = super().step(closure)  # type: ignore[no-untyped-call]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in self.state:
                    self.state[parameter]["step"] = group["step"]
        return loss
