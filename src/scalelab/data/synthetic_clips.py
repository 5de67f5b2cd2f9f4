"""Seeded clips that can be learnt by their motion alone: a grating that turns; the class is how fast, and which way.

Where the grating starts is random, so one frame says nothing of the class.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scalelab.data.dataset import Dataset, Progress, Split, channel_statistics
from scalelab.data.synthetic import CHANNELS
from scalelab.spec import Spec

TRAIN, TEST = 1024, 256
NOISE, CONTRAST = 24.0, 70.0
"""grey levels: standard deviation of the noise, amplitude of the grating"""
CHUNK = 32
"""clips made at a time"""
FASTEST = math.pi / 4
"""radians a frame: twice that would be a grating that jumps to its mirror image, where left and right are one"""


def load(spec: Spec, progress: Progress) -> Dataset:
    """Clips of ``spec.frames`` RGB frames, ``spec.image_size`` squared, in ``spec.classes`` classes, made from ``spec.seed``."""
    train, labels = _draw(spec, spec.train_limit or TRAIN, 2 * spec.seed + 1)
    test = Split(*_draw(spec, spec.test_limit or TEST, 2 * spec.seed + 2))
    mean, std = channel_statistics(train)
    speeds = velocities(spec.classes)
    names = tuple(f"{math.degrees(speed):+.0f} degrees a frame" for speed in speeds.tolist())
    return Dataset("synthetic-clips", Split(train, labels), test, spec.classes, names, mean, std, "none")


def velocities(classes: int) -> Tensor:
    """Radians a frame of each class, evenly spaced, from one way round to the other, float32 [classes]."""
    return torch.linspace(-FASTEST, FASTEST, classes)


def _draw(spec: Spec, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(clips uint8 [count, T, H, W, 3], labels int64 [count]); classes take turns. The first N are the same for every count."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % spec.classes
    size, frames = spec.image_size, spec.frames
    clips = torch.empty(count, frames, size, size, CHANNELS, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(size) - (size - 1) / 2, torch.arange(size) - (size - 1) / 2, indexing="ij")
    wave = 2 * math.pi / max(4.0, size / 4)
    time = torch.arange(frames)
    for first in range(0, count, CHUNK):  # whole chunks are drawn, and the last is cut
        own = labels[first : first + CHUNK]
        start, phase, *tint = torch.rand(2 + CHANNELS, CHUNK, generator=generator)[:, : len(own)]
        noise = NOISE * torch.randn(CHUNK, frames, size, size, CHANNELS, generator=generator)[: len(own)]
        angle = (math.pi * start[:, None] + velocities(spec.classes)[own][:, None] * time)[..., None, None]
        grating = torch.cos(wave * (x * torch.cos(angle) + y * torch.sin(angle)) + 2 * math.pi * phase.view(-1, 1, 1, 1))
        colour = CONTRAST * (0.5 + torch.stack(tint, -1).view(-1, 1, 1, 1, CHANNELS))
        pixels = (grating.unsqueeze(-1) * colour).add_(127.5).add_(noise).clamp_(0, 255)  # in place: a quarter of the time
        clips[first : first + CHUNK] = pixels.to(torch.uint8)
    return clips, labels
