"""The data of those who use torchvision's transforms and a DataLoader: one image at a time."""

from __future__ import annotations

import numpy as np
import torch
from protocol import MEAN, PADDING, STD
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2


class Augmented(Dataset[tuple[Tensor, int]]):
    """CIFAR-10 in memory as uint8 tensors, each through torchvision's transforms when it is asked for.

    v2 on uint8 tensors, as torchvision advises: 1.19 × as fast here as the classic transforms on PIL images (67 µs an
    image), which are 1.41 × as fast as v2 on PIL images.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        self.labels = labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=PADDING),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]
