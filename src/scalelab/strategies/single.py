"""One process: the reference of all others.

moves: nothing
"""

from __future__ import annotations

from torch import nn

from scalelab.strategies.base import Strategy
from scalelab.strategies.formulas.explanation import Explanation, Facts, activations, reached, whole


class Single(Strategy):
    """The whole model, the whole batch, one worker."""

    @classmethod
    def explain(cls, facts: Facts) -> Explanation:
        return Explanation(held=[*whole(facts, reached(facts)), activations(facts)], sent=[], symbols=facts.symbols())

    def wrap(self, model: nn.Module) -> nn.Module:
        return model
