"""Models by name: the field's, ours, any of torchvision's or timm's, or the user's own function; what they begin with."""

from __future__ import annotations

from scalelab.models.freezing import freeze
from scalelab.models.registry import (
    MODELS,
    build,
    check_forward,
    choosy_parameters,
    evaluating,
    is_variant,
    told,
    unused_parameters,
)
from scalelab.models.smooth import smooth

__all__ = [
    "MODELS", "build", "check_forward", "choosy_parameters", "evaluating", "freeze", "is_variant", "smooth", "told", "unused_parameters",
]  # fmt: skip
