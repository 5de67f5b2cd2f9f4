"""A model's smooth twin: for comparisons in float32, where a kink turns rounding into a difference as large as a bug's."""

from __future__ import annotations

from torch import nn

KINKED = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Softshrink,
    nn.Threshold,
)  # fmt: skip


def smooth(model: nn.Module) -> nn.Module:
    """Replace, in place, ReLU and its kin by SiLU, max-pooling by average pooling. Only modules: a forward's own ``F.relu`` stays."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, KINKED):
                setattr(parent, name, nn.SiLU())
            elif isinstance(child, nn.MaxPool2d):
                setattr(parent, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
    return model
