"""Data sets by name, whole in memory as uint8, or the user's own function."""

from __future__ import annotations

from scalelab.data.augment import Batches, augmentation
from scalelab.data.dataset import Dataset, Progress, Split
from scalelab.data.order import epoch_order
from scalelab.data.registry import DATA, load

__all__ = ["DATA", "Batches", "Dataset", "Progress", "Split", "augmentation", "epoch_order", "load"]
