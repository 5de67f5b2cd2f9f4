"""Clips: each frame through a small CNN, then an LSTM over the frames (Donahue et al. 2015, LRCN)."""

from __future__ import annotations

from torch import Tensor, nn

from scalelab.errors import ScalelabError
from scalelab.models import basic_cnn
from scalelab.models.shapes import Shape


class CnnLstm(nn.Module):
    """``frames``: basic_cnn's convolutions, averaged over the pixels; ``lstm``: one layer; ``head``: linear, of its last state."""

    def __init__(self, num_classes: int, shape: Shape, width: int, hidden: int) -> None:
        super().__init__()
        self.length, channels = shape[:2]
        features = basic_cnn.layers("cnn_lstm", channels, width)
        self.frames = nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.lstm = nn.LSTM(4 * width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """[B, T, C, H, W] → [B, classes]."""
        features = self.frames(clips.flatten(0, 1)).unflatten(0, (-1, self.length))
        states, _ = self.lstm(features)
        scores: Tensor = self.head(states[:, -1])
        return scores


def build(num_classes: int, shape: Shape, width: int = 32, hidden: int = 128) -> nn.Module:
    """For clips of ``shape`` (T, C, H, W): frames with width, 2·width, 4·width channels, an LSTM of ``hidden`` units.

    Raises ScalelabError for a width or a number of units below 1.
    """
    if not isinstance(hidden, int) or hidden < 1:
        raise ScalelabError(f"cnn_lstm: hidden={hidden!r} should be a whole number of at least 1: the units of the LSTM")
    return CnnLstm(num_classes, shape, width, hidden)
