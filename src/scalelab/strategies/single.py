"""One process: the reference of all others.

moves: nothing
"""

from __future__ import annotations

from torch import nn

from scalelab.strategies.base import Strategy


class Single(Strategy):
    """The whole model, the whole batch, one worker."""

    def wrap(self, model: nn.Module) -> nn.Module:
        return model
