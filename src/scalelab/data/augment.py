"""Whole batches, on the device: gather, crop, flip, normalise. The hot path of every step.

A sample's crop and flip are a hash of (seed, epoch, the sample's index) and nothing else: whoever asks for it, in
whatever batch, on however many workers, gets the same image bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from scalelab.data.dataset import Dataset, Split
from scalelab.data.mix import GOLDEN, key, mix, mix_each, signed, upper63
from scalelab.spec import Spec


def augmentation(spec: Spec, dataset: Dataset) -> str:
    """``spec.augment`` with ``auto`` resolved: none, crop, flip or crop+flip."""
    return dataset.augment if spec.augment == "auto" else spec.augment


def padding(size: int) -> int:
    """Pixels of zero padding before the random crop: 4, the field's habit for CIFAR, less for images below 32."""
    return max(1, min(4, size // 8))


class Batches:
    """Batches of one split, ready for the model.

    The split is moved to ``device`` once. ``augment`` is none, crop, flip or crop+flip (``augmentation`` resolves
    auto); ``mean`` and ``std`` are the data set's, per channel on the 0..1 scale.
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
    ) -> None:
        self.images = split.images.to(device)
        self.labels = split.labels.to(device)
        self.crop, self.flip = "crop" in augment, "flip" in augment
        self.seed, self.device, self.dtype, self.channels_last = seed, device, dtype, channels_last
        # (x / 255 - mean) / std as x * scale + bias.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        bias = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = self._per_pixel(scale)
        self.bias = self._per_pixel(bias)

    def __len__(self) -> int:
        return len(self.labels)

    def _per_pixel(self, values: Tensor) -> Tensor:
        """float64 [C] as [1, C, H, W] in a batch's type and layout: broadcasting over a short last axis is slow."""
        height, width = self.images.shape[1:3]
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        whole = values.to(self.device, self.dtype)[None, :, None, None].expand(1, -1, height, width)
        return whole.contiguous(memory_format=layout)

    def fetch(self, indices: Tensor, epoch: int, train: bool) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] of ``dtype``, normalised, and labels int64 [B], of the samples ``indices`` int64 [B].

        With ``train`` they are augmented, differently in each ``epoch``.
        """
        indices = indices.to(self.device)
        images = self.images.index_select(0, indices)
        if train and (self.crop or self.flip):
            images = self._augment(images, sample_hash(self.seed, epoch, indices))
        # Two roundings, never a fused one: a value must not depend on where the kernel's vectors begin and end.
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        result = images.permute(0, 3, 1, 2).to(self.dtype, memory_format=layout).mul_(self.scale).add_(self.bias)
        return result, self.labels.index_select(0, indices)

    def fetch_labels(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The same without pixels: images [B, 0]."""
        indices = indices.to(self.device)
        return torch.empty(len(indices), 0, dtype=self.dtype, device=self.device), self.labels.index_select(0, indices)

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


def sample_hash(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """63 random bits for each sample, int64 [B], from (seed, epoch, index)."""
    return upper63(mix_each(indices * signed(GOLDEN) + signed(mix(key(seed, epoch)))))


_24 = (1 << 24) - 1
