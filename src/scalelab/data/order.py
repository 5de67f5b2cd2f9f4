"""The order in which an epoch sees the training samples."""

from __future__ import annotations

import torch
from torch import Tensor

from scalelab.data.mix import MASK, key, mix

SALT = 0x2545F4914F6CDD1D
"""so that the order is unrelated to the augmentation, which is a hash of the same numbers"""


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of 0..n-1, int64 [n], that depends on (seed, epoch) and nothing else."""
    generator = torch.Generator().manual_seed(mix((key(seed, epoch) + SALT) & MASK) >> 1)
    return torch.randperm(n, generator=generator)
