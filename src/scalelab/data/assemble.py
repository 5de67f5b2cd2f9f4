"""From encoded samples to a data set: sizes checked, in memory or streamed, with the statistics that normalise it.

Nothing here depends on which of the two it is: a training gives the same bits either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from scalelab.data import cache, room
from scalelab.data.dataset import Augment, Dataset, Progress, Split, channel_statistics
from scalelab.data.sources import Source, Streamed, sizes, unequal
from scalelab.errors import ScalelabError
from scalelab.record.text import size
from scalelab.spec import Spec

SAMPLED = 2048
"""training samples, evenly spaced, that mean and standard deviation are taken from; all where there are fewer"""
VERSION = "encoded-2"
"""changes when the same files decode to other pixels"""

Streams = Callable[[int], bool]
STREAM: dict[str, Streams] = {
    "auto": lambda size: size > room.SHARE * room.memory_bytes(),
    "always": lambda size: True,
    "never": lambda size: False,
}
"""whether images of so many bytes, decoded, are streamed"""


@dataclass(frozen=True)
class Labelled:
    """One split as it lies on the disk: encoded samples, and their labels, int64 [N]."""

    source: Source
    labels: np.ndarray

    def first(self, count: int | None) -> Labelled:
        return Labelled(self.source.first(count), self.labels[:count])


@dataclass(frozen=True)
class Found:
    """What a loader found before anything is decoded. ``key`` changes when the files do; ``frames``: of a clip, None for images."""

    name: str
    train: Labelled
    test: Labelled
    class_names: tuple[str, ...]
    key: str
    augment: Augment
    frames: int | None = None
    notes: tuple[str, ...] = ()


def assemble(found: Found, spec: Spec, progress: Progress) -> Dataset:
    """The data set of the first ``train_limit`` and ``test_limit`` samples of ``found``. Raises ScalelabError naming a bad image.

    Images of different sizes need ``spec.resize``, and are resized as they are decoded; so are images larger than that. Images of
    one size that are smaller stay so in memory, and each batch is resized.
    """
    train, test = found.train.first(spec.train_limit), found.test.first(spec.test_limit)
    key = f"{VERSION}-{found.key}-{len(train.labels)}-{len(test.labels)}"
    height, width, squash = _size(found, train.source, test.source, key, spec.resize, progress)
    frames = () if found.frames is None else (found.frames,)
    splits = [Streamed(part.source, (len(part.labels), *frames, height, width, 3), squash) for part in (train, test)]
    key += f"-{height}x{width}"
    mean, std = _statistics(found, splits[0], key, progress)
    total = sum(math.prod(split.shape) for split in splits)
    notes = found.notes
    if streamed := STREAM[spec.stream](total):
        notes += (_told(total, spec.stream),)
    images: list[Streamed | torch.Tensor] = [*splits] if streamed else _decoded(found, splits, key, progress)
    first, second = (Split(i, torch.from_numpy(part.labels)) for i, part in zip(images, (train, test), strict=True))
    count = len(found.class_names)
    return Dataset(found.name, first, second, count, found.class_names, mean, std, found.augment, notes=notes)


def _told(total: int, asked: str) -> str:
    why = f"decoded they take {size(total)}"
    if asked == "auto":
        why += f", more than half of this host's {size(room.memory_bytes())}"
    return f"images are decoded while the training runs: {why} (--stream {asked})"


def _size(found: Found, train: Source, test: Source, key: str, resize: int | None, progress: Progress) -> tuple[int, int, bool]:
    """(height, width) that images are decoded to, and whether some have to be resized for that. Raises ScalelabError."""

    def look() -> dict[str, np.ndarray]:
        progress(f"looking at the sizes of {len(train) + len(test)} images of {found.name}")
        return {"train": sizes(train), "test": sizes(test)}

    headers = cache.cached("sizes", key, (), look, progress)
    every = np.concatenate([headers["train"], headers["test"]])
    first = (int(every[0, 0]), int(every[0, 1]))
    other = np.flatnonzero((every != every[0]).any(1) | (every[:, 0] < 0))
    if not len(other):
        if resize is not None and first[0] * first[1] > resize * resize:
            return resize, resize, True
        return *first, False
    if resize is None:
        at = int(other[0])
        source, index = (train, at) if at < len(train) else (test, at - len(train))
        what = unequal(source.frames(index)[0][0], (int(every[at, 0]), int(every[at, 1])), first)
        raise ScalelabError(f"{what}, or give --resize N")
    return resize, resize, True


def _statistics(found: Found, images: Streamed, key: str, progress: Progress) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from at most SAMPLED training samples."""

    def measure() -> dict[str, np.ndarray]:
        n = images.shape[0]
        chosen = np.unique(np.linspace(0, n - 1, min(n, SAMPLED)).astype(np.int64))
        part = np.empty((len(chosen), *images.shape[1:]), dtype=np.uint8)
        for place, index in enumerate(chosen.tolist()):
            images.read(index, part[place])
        return {"statistics": np.array(channel_statistics(torch.from_numpy(part)), dtype=np.float64)}

    mean, std = cache.cached("statistics", key, (), measure, progress)["statistics"].tolist()
    return tuple(mean), tuple(std)


def _decoded(found: Found, splits: list[Streamed], key: str, progress: Progress) -> list[Streamed | torch.Tensor]:
    def build() -> dict[str, np.ndarray]:
        arrays = {}
        for part, split in zip(("train", "test"), splits, strict=True):
            progress(f"decoding the {len(split.source)} {part} images of {found.name}")
            arrays[part] = split.all()
        return arrays

    arrays = cache.cached("images", key, (), build, progress)
    return [torch.from_numpy(arrays["train"]), torch.from_numpy(arrays["test"])]


def refuse_one_class(name: str, classes: int) -> None:
    """Raises ScalelabError where there is nothing to tell apart."""
    if classes < 2:
        raise ScalelabError(f"data '{name}': has one class only; a classifier needs at least two")
