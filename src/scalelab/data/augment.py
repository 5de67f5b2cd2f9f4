"""Whole batches, on the device: gather, crop, flip, normalise. The hot path of every step.

A sample's crop and flip are a hash of (seed, epoch, the sample's index) and nothing else: whoever asks for it, in
whatever batch, on however many workers, gets the same image bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scalelab.data.dataset import Dataset, Split
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
        _, height, width, channels = self.images.shape
        # (x / 255 - mean) / std as x * scale + bias, both as wide as an image: no broadcast over a short axis.
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
        bias = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.scale = scale.to(device, dtype).repeat(height * width).view(height, width, channels)
        self.bias = bias.to(device, dtype).repeat(height * width).view(height, width, channels)

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, indices: Tensor, epoch: int, train: bool) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] of ``dtype``, normalised, and labels int64 [B], of the samples ``indices`` int64 [B].

        With ``train`` they are augmented, differently in each ``epoch``.
        """
        indices = indices.to(self.device)
        images = self.images.index_select(0, indices)
        if train and (self.crop or self.flip):
            images = self._augment(images, sample_hash(self.seed, epoch, indices))
        result = torch.addcmul(self.bias, images.to(self.dtype), self.scale).permute(0, 3, 1, 2)
        return (result if self.channels_last else result.contiguous()), self.labels.index_select(0, indices)

    def _augment(self, images: Tensor, bits: Tensor) -> Tensor:
        """uint8 [B, H, W, C] cropped and flipped as the 62 random ``bits`` of each sample say."""
        batch, height, width, channels = images.shape
        rows, columns = torch.arange(height, device=self.device), torch.arange(width, device=self.device)
        rows, columns = rows.expand(batch, height), columns.expand(batch, width)
        if self.flip:
            columns = torch.where((bits & 1).bool()[:, None], width - 1 - columns, columns)
        pad_y, pad_x = (padding(height), padding(width)) if self.crop else (0, 0)
        if self.crop:
            images = torch.nn.functional.pad(images, (0, 0, pad_x, pad_x, pad_y, pad_y))
            rows = rows + ((bits >> 1) & 0xFFFFFF).remainder(2 * pad_y + 1)[:, None]
            columns = columns + ((bits >> 25) & 0xFFFFFF).remainder(2 * pad_x + 1)[:, None]
        batch_index = torch.arange(batch, device=self.device)[:, None, None]
        return images[batch_index, rows[:, :, None], columns[:, None, :]]


def sample_hash(seed: int, epoch: int, indices: Tensor) -> Tensor:
    """63 random bits for each sample, int64 [B], from (seed, epoch, index): splitmix64 (Steele et al. 2014)."""
    key = (seed * 0x9E3779B97F4A7C15 + epoch * 0xD1B54A32D192ED03) & _MASK
    state = indices * _signed(0x9E3779B97F4A7C15) + _signed(_mix(key))
    state = (state ^ _shift(state, 30)) * _signed(0xBF58476D1CE4E5B9)
    state = (state ^ _shift(state, 27)) * _signed(0x94D049BB133111EB)
    return _shift(state ^ _shift(state, 31), 1)


_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _signed(value: int) -> int:
    """The same 64 bits as torch's int64 reads them; its products wrap, as the hash wants."""
    return value - (1 << 64) if value >> 63 else value


def _shift(values: Tensor, count: int) -> Tensor:
    """Logical shift to the right: torch's own repeats the sign."""
    return (values >> count) & ((1 << (64 - count)) - 1)
