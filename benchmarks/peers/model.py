"""basic_cnn, as a user would write it: 3 × (conv 3×3, batch norm, ReLU, max-pool 2), then a linear layer."""

from __future__ import annotations

import torch
from torch import nn


def basic_cnn(channels_last: bool = False) -> nn.Sequential:
    """Logits [B, 10] of images [B, 3, 32, 32], from 113,962 parameters; in torch's default layout unless told otherwise."""
    layers: list[nn.Module] = []
    channels = 3
    for out in (32, 64, 128):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
        layers += [
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        ]  # the same function as the other order, and faster: all contenders have it
        channels = out
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 10))
    return model.to(memory_format=torch.channels_last) if channels_last else model
