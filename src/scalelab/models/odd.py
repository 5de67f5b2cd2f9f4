"""Small models, each with something that a parallel strategy may stumble over. ``verify --grid`` tries them: ``--model odd:tied``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scalelab.models.shapes import Shape


def frozen(num_classes: int, shape: Shape) -> nn.Module:
    """Its first layer is not trained."""
    model = nn.Sequential(*_stem(shape), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), *_head(8, num_classes))
    model[0].requires_grad_(False)
    return model


def bare(num_classes: int, shape: Shape) -> nn.Module:
    """What comes last, ``tail``, has no parameters."""
    model = nn.Sequential(*_stem(shape), *_head(8, num_classes))
    model.add_module("tail", nn.Hardtanh(-50.0, 50.0))
    return model


class Tied(nn.Module):
    """Two layers are one: they share their weight."""

    def __init__(self, num_classes: int, shape: Shape) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Sequential(*_stem(shape)), nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.pool, self.act, self.last = nn.AdaptiveAvgPool2d(1), nn.SiLU(), nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, classes]."""
        x = self.pool(self.stem(x)).flatten(1)
        out: Tensor = self.last(self.act(self.second(self.act(self.first(x)))))
        return out


class Sometimes(nn.Module):
    """A layer is used in every other forward of a training only: in some steps it has no gradient."""

    def __init__(self, num_classes: int, shape: Shape) -> None:
        super().__init__()
        self.stem, self.pool = nn.Sequential(*_stem(shape)), nn.AdaptiveAvgPool2d(1)
        self.more, self.last, self.calls = nn.Linear(8, 8), nn.Linear(8, num_classes), 0

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, classes]."""
        x = self.pool(self.stem(x)).flatten(1)
        self.calls += self.training
        if self.training and self.calls % 2:
            x = x + self.more(x)
        out: Tensor = self.last(x)
        return out


class Choosy(nn.Module):
    """A layer is used for dark images only: on a rank that has none it has no gradient, on another, in the same step, it has."""

    def __init__(self, num_classes: int, shape: Shape) -> None:
        super().__init__()
        self.stem, self.pool = nn.Sequential(*_stem(shape)), nn.AdaptiveAvgPool2d(1)
        self.more, self.last = nn.Linear(8, 8), nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, classes]."""
        dark = (x.flatten(1).mean(1) < 0).unsqueeze(1)
        x = self.pool(self.stem(x)).flatten(1)
        if dark.any():
            x = torch.where(dark, x + self.more(x), x)
        out: Tensor = self.last(x)
        return out


def _stem(shape: Shape) -> list[nn.Module]:
    return [nn.Conv2d(shape[0], 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]


def _head(channels: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]


ODD: dict[str, Callable[[int, Shape], nn.Module]] = {
    "frozen": frozen,
    "tied": Tied,
    "sometimes": Sometimes,
    "choosy": Choosy,
    "bare": bare,
}
