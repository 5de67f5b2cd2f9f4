"""ZeRO stage 3, or FSDP: parameters, gradients and optimizer state sharded (Rajbhandari et al. 2020; Zhao et al. 2023).

moves: parameters twice, and gradients
when:  a block's parameters are gathered just before its forward and again before its backward, and freed after each;
       its gradients are reduce-scattered right after its backward
bytes: two all-gathers and a reduce-scatter of P: each of n ranks sends 3(n-1)/n · P a step (gloo's reduce-scatter is an
       all-reduce: one (n-1)/n · P more)
"""

from __future__ import annotations

from typing import ClassVar

from scalelab.strategies.zero2 import Zero2


class Zero3(Zero2):
    """FSDP2 with resharding after the forward pass."""

    reshard_after_forward: ClassVar[bool] = True
