"""Models by name: ours, any of torchvision's or timm's, or the user's own function."""

from __future__ import annotations

from scalelab.models.registry import MODELS, build, check_forward, choosy_parameters, evaluating, unused_parameters
from scalelab.models.smooth import smooth

__all__ = ["MODELS", "build", "check_forward", "choosy_parameters", "evaluating", "smooth", "unused_parameters"]
