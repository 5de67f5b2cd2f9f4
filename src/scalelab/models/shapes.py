"""What a model is asked to take: images (C, H, W) or clips (T, C, H, W), in words too."""

from __future__ import annotations

Shape = tuple[int, ...]
"""of one sample: (C, H, W) of an image, (T, C, H, W) of a clip"""
IMAGE, CLIP = 3, 4
"""how long the shape of an image and of a clip is"""
KINDS = {IMAGE: ("images", "channels x height x width"), CLIP: ("clips", "frames x channels x height x width")}


def kind(shape: Shape) -> str:
    """``images`` or ``clips``."""
    return KINDS[len(shape)][0]


def told(shape: Shape) -> str:
    """``images of 3x32x32 (channels x height x width)``."""
    name, axes = KINDS[len(shape)]
    return f"{name} of {'x'.join(map(str, shape))} ({axes})"
