"""Data sets by name, by folder, or by the user's own function: in memory as uint8, or decoded while the training runs."""

from __future__ import annotations

from scalelab.data.augment import Batches, augmentation
from scalelab.data.dataset import Dataset, Progress, Split
from scalelab.data.order import epoch_order
from scalelab.data.registry import AT_PATH, DATA, load

__all__ = ["AT_PATH", "DATA", "Batches", "Dataset", "Progress", "Split", "augmentation", "epoch_order", "load"]
