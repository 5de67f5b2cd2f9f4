"""Whole batches, on the device: gather, crop, flip, resize, normalise. The hot path of every step.

A sample's crop and flip are a hash of (seed, epoch, the sample's index) and nothing else: whoever asks for it, in
whatever batch, on however many workers, gets the same image bit for bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from itertools import chain, islice

import torch
from torch import Tensor
from torch.nn import functional

from scalelab.data import room
from scalelab.data.dataset import Dataset, Split
from scalelab.data.mix import GOLDEN, key, mix, mix_each, signed, upper63
from scalelab.data.sources import Streamed
from scalelab.data.stream import Reader
from scalelab.spec import Spec


def augmentation(spec: Spec, dataset: Dataset) -> str:
    """``spec.augment`` with ``auto`` resolved: none, crop, flip or crop+flip."""
    return dataset.augment if spec.augment == "auto" else spec.augment


def padding(size: int) -> int:
    """Pixels of zero padding before the random crop: 4, the field's habit for CIFAR, less for images below 32."""
    return max(1, min(4, size // 8))


class Batches:
    """Batches of one split, ready for the model.

    A split in memory is moved to ``device`` once; one too large for a GPU stays with the host, and a streamed one is decoded ahead by
    ``threads`` threads. ``augment`` is none, crop, flip or crop+flip (``augmentation`` resolves auto); ``mean`` and ``std`` are the data
    set's, per channel on the 0..1 scale; ``resize`` is the height and width that the model gets, None: as the images are.
    """

    def __init__(
        self,
        split: Split,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augment: str,
        seed: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        resize: int | None = None,
        threads: int = 1,
    ) -> None:
        self.labels = split.labels.to(device)
        self.reader = Reader(split.images, threads, device.type == "cuda") if isinstance(split.images, Streamed) else None
        self.images = None if isinstance(split.images, Streamed) else _placed(split.images, device)
        self.crop, self.flip = "crop" in augment, "flip" in augment
        self.seed, self.device, self.dtype, self.resize = seed, device, dtype, resize
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        *self.frames, height, width, _ = split.images.shape[1:]
        """[T] of clips, [] of images"""
        # (x / 255 - mean) / std as x * scale + bias.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        bias = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale, self.bias = (self._per_pixel(values, resize or height, resize or width) for values in (scale, bias))

    def __len__(self) -> int:
        return len(self.labels)

    def _per_pixel(self, values: Tensor, height: int, width: int) -> Tensor:
        """float64 [C] as [1, C, H, W] in a batch's type and layout: broadcasting over a short last axis is slow."""
        whole = values.to(self.device, self.dtype)[None, :, None, None].expand(1, -1, height, width)
        return whole.contiguous(memory_format=self.layout)

    def fetch(self, indices: Tensor, epoch: int, train: bool) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] (clips [B, T, C, H, W]) of ``dtype``, normalised, and labels int64 [B], of the samples ``indices`` int64 [B].

        With ``train`` they are augmented, differently in each ``epoch``.
        """
        if self.images is None:
            assert self.reader is not None
            return self._ready(self.reader.read(indices), indices, epoch, train)
        return self._ready(self.images.index_select(0, indices.to(self.images.device)), indices, epoch, train)

    def each(self, requests: Iterable[Tensor], epoch: int, train: bool) -> Generator[tuple[Tensor, Tensor], None, None]:
        """``fetch`` of each of ``requests`` in turn; streamed images are decoded ahead."""
        if self.reader is None:
            for indices in requests:
                yield self.fetch(indices, epoch, train)
        else:
            with contextlib.closing(self.reader.ahead(requests)) as decoded:
                for indices, images in decoded:
                    yield self._ready(images, indices, epoch, train)

    def steps(self, shares: Iterable[Tensor], epoch: int) -> Generator[list[tuple[Tensor, Tensor]], None, None]:
        """Training's micro-batches of each step; ``shares`` are their samples, int64 [micro-batches, samples] a step."""
        if self.reader is None:
            for share in shares:
                yield [self.fetch(indices, epoch, train=True) for indices in share]
            return
        shares = list(shares)  # views of one order: decoding ahead crosses the steps
        with contextlib.closing(self.each(chain.from_iterable(shares), epoch, train=True)) as batches:
            for share in shares:
                yield list(islice(batches, len(share)))

    def fetch_labels(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same without pixels: images [B, 0]."""
        indices = indices.to(self.device)
        return torch.empty(len(indices), 0, dtype=self.dtype, device=self.device), self.labels.index_select(0, indices)

    def _ready(self, images: Tensor, indices: Tensor, epoch: int, train: bool) -> tuple[Tensor, Tensor]:
        """uint8 [B, H, W, C] or [B, T, H, W, C] augmented, resized, normalised on the device; the frames of a clip alike."""
        indices, images = indices.to(self.device), images.to(self.device, non_blocking=True)
        if self.frames:
            images = images.flatten(0, 1)
        if train and (self.crop or self.flip):
            bits = sample_hash(self.seed, epoch, indices)
            images = self._augment(images, bits.repeat_interleave(self.frames[0]) if self.frames else bits)
        planes = images.permute(0, 3, 1, 2)
        if self.resize is not None:
            planes = resized(planes, self.resize)
        # Two roundings, never a fused one: a value must not depend on where the kernel's vectors begin and end.
        result = planes.to(self.dtype, memory_format=self.layout).mul_(self.scale).add_(self.bias)
        return result.unflatten(0, (-1, *self.frames)) if self.frames else result, self.labels.index_select(0, indices)

    def _augment(self, images: Tensor, bits: Tensor) -> Tensor:
        """uint8 [B, H, W, C] flipped and cropped as the random ``bits`` int64 [B] of each sample say."""
        batch, height, width, channels = images.shape
        chosen = torch.arange(batch, device=images.device)
        if self.flip:
            # Both sides of every image, and a choice of rows: faster than torch.where over bytes.
            images = torch.cat((images, images.flip(2)))
            chosen = chosen.add_((bits & 1).mul_(batch))
        if not self.crop:
            return images.index_select(0, chosen)
        pad_y, pad_x = padding(height), padding(width)
        down = (bits >> 1 & _24).remainder_(2 * pad_y + 1)
        right = (bits >> 25 & _24).remainder_(2 * pad_x + 1)
        padded = functional.pad(images, (0, 0, pad_x, pad_x, pad_y, pad_y)).contiguous()
        # A cropped row is width * channels neighbouring bytes: copy whole rows out of all the windows of that length.
        windows = padded.view(-1).unfold(0, width * channels, 1)
        row = padded.shape[2] * channels
        sample = padded.shape[1] * row
        first = chosen.mul_(sample).add_(down.mul_(row)).add_(right.mul_(channels))
        starts = first[:, None] + torch.arange(0, height * row, row, device=images.device)
        return windows.index_select(0, starts.view(-1)).view(batch, height, width, channels)


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 [B, C, H, W] as [B, C, size, size]: bilinear, antialiased where it shrinks, rounded to whole levels.

    On the CPU torch computes this in whole numbers (the way of Pillow): the same bits in any batch, a tenth of the time of floats.
    """
    if images.device.type == "cpu":
        return functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    floats = functional.interpolate(images.float(), size=(size, size), mode="bilinear", antialias=True)
    return floats.round_().clamp_(0, 255).to(torch.uint8)


def _placed(images: Tensor, device: torch.device) -> Tensor:
    """On the device, or, where that would take too much of its memory, with the host."""
    if device.type == "cuda" and images.nbytes > room.ON_DEVICE * torch.cuda.get_device_properties(device).total_memory:
        return images
    return images.to(device)


def sample_hash(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """63 random bits for each sample, int64 [B], from (seed, epoch, index)."""
    return upper63(mix_each(indices * signed(GOLDEN) + signed(mix(key(seed, epoch)))))


_24 = (1 << 24) - 1
