"""What a data set is: images as uint8, channels last, in memory or decoded when they are asked for; labels; what normalises them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from scalelab.data.sources import Streamed
from scalelab.spec import Spec

Augment = Literal["none", "crop", "flip", "crop+flip"]
Progress = Callable[[str], None]
Loader = Callable[[Spec, Progress], "Dataset"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, on the 0..1 scale."""
Arrays = dict[str, np.ndarray]
"""``train_images`` and ``test_images`` uint8 [N, H, W, C]; ``train_labels`` and ``test_labels`` int64 [N]."""


def silent(message: str) -> None:
    """Progress that nobody reads."""


@dataclass(frozen=True)
class Split:
    """images: uint8 [N, H, W, C], clips [N, T, H, W, C] (channels last: a batch of it is channels_last for free); labels: int64 [N]."""

    images: Tensor | Streamed
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int | None) -> Split:
        """The first ``count`` samples, or all."""
        return self if count is None else Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class Dataset:
    """mean and std are per channel on the 0..1 scale; augment is what suits the data where the spec says auto.

    ``notes`` say what a reader of the record should know of how the files were read.
    """

    name: str
    train: Split
    test: Split
    num_classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    resize: int | None = None
    """height and width that batches are resized to; None: as they are"""
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample as the model sees it: (C, H, W) of an image, (T, C, H, W) of a clip."""
        *frames, height, width, channels = self.train.images.shape[1:]
        return (*frames, channels, self.resize or height, self.resize or width)

    @property
    def streamed(self) -> bool:
        """Whether images are decoded while the training runs."""
        return isinstance(self.train.images, Streamed)

    def limited(self, train: int | None, test: int | None) -> Dataset:
        """With the first ``train`` and ``test`` samples; a limit above the size keeps all."""
        return replace(self, train=self.train.first(train), test=self.test.first(test))


def from_arrays(
    name: str, arrays: Arrays, class_names: tuple[str, ...], augment: Augment, statistics: Statistics | None = None
) -> Dataset:
    """The data set of ``arrays``; ``statistics`` (mean, std) are those of the training images where not given."""
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    train, test = (Split(tensors[f"{part}_images"], tensors[f"{part}_labels"]) for part in ("train", "test"))
    mean, std = statistics or channel_statistics(tensors["train_images"])
    return Dataset(name, train, test, len(class_names), class_names, mean, std, augment)


def channel_statistics(images: Tensor) -> Statistics:
    """Mean and standard deviation of each channel of uint8 [N, ..., C], on the 0..1 scale, exact by histogram.

    A channel that never varies has standard deviation 1, so that normalising never divides by zero.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(-1):
        counts = torch.zeros(256, dtype=torch.int64)
        for start in range(0, len(channel), 4096):  # in parts: bincount works on int64 copies
            counts += torch.bincount(channel[start : start + 4096].reshape(-1), minlength=256)
        weights = counts.double() / channel.numel()
        mean = float((weights * values).sum())
        std = float((weights * (values - mean) ** 2).sum().sqrt())
        means.append(mean)
        stds.append(std if std > 1e-6 else 1.0)
    return tuple(means), tuple(stds)
