"""Seeded images of any size and class count that can be learnt: a smooth pattern for each class, plus noise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from scalelab.data.dataset import Dataset, Progress, Split, channel_statistics
from scalelab.spec import Spec

TRAIN, TEST, CHANNELS = 2048, 512, 3
NOISE = 48.0
"""Standard deviation of the noise in grey levels; the patterns' is about 40: hard enough that losses fall slowly."""


def load(spec: Spec, progress: Progress) -> Dataset:
    """``spec.image_size`` squared RGB images in ``spec.classes`` classes, made from ``spec.seed``.

    The first N samples are the same for every limit, so a limit shortens the set and changes nothing else.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    coarse = torch.randn(spec.classes, CHANNELS, 4, 4, generator=generator)
    size = (spec.image_size, spec.image_size)
    # In float64: in float32 the last bit, and with it now and then a pixel, depended on the number of threads.
    patterns = functional.interpolate(coarse.double(), size=size, mode="bilinear", align_corners=True).float()
    patterns = (127.5 + 60 * patterns).permute(0, 2, 3, 1).contiguous()
    train, labels = _draw(patterns, spec.train_limit or TRAIN, 2 * spec.seed + 1)
    test = Split(*_draw(patterns, spec.test_limit or TEST, 2 * spec.seed + 2))
    mean, std = channel_statistics(train)
    names = tuple(f"class {k}" for k in range(spec.classes))
    return Dataset("synthetic", Split(train, labels), test, spec.classes, names, mean, std, "none")


def _draw(patterns: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(images uint8 [count, H, W, 3], labels int64 [count]); classes take turns, so that the first N are balanced."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(patterns)
    images = torch.empty(count, *patterns.shape[1:], dtype=torch.uint8)
    for start in range(0, count, 256):  # in parts: a large set never exists as floats
        part = patterns[labels[start : start + 256]]
        whole = -(-len(part) // 16) * 16  # torch draws by 16 values, and what is over differently
        noise = torch.randn(whole, *part.shape[1:], generator=generator)[: len(part)]
        images[start : start + 256] = (part + NOISE * noise).clamp_(0, 255).to(torch.uint8)
    return images, labels
