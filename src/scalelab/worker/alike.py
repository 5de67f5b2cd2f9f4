"""Whether the hosts of a training have the same data. Each reads its own copy; what differs would train another thing, without a word."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from scalelab.comm.world import World
from scalelab.data import Dataset
from scalelab.errors import RunError
from scalelab.limits import local_workers
from scalelab.worker.meter import gather


def check(dataset: Dataset, world: World) -> None:
    """Raises RunError where a rank of another host has other samples than rank 0, by their number and labels. A collective."""
    if local_workers(world.size) == world.size:
        return
    error = differing(gather(torch.tensor(told(dataset), device=world.device), world))
    if error is not None:
        raise RunError(error)


def told(dataset: Dataset) -> list[int]:
    """Training and test samples, then a checksum of the labels of either."""
    splits = (dataset.train, dataset.test)
    return [*map(len, splits), *(zlib.crc32(split.labels.numpy().tobytes()) for split in splits)]


def differing(table: Tensor) -> str | None:
    """What is wrong, by the rows that all ranks ``told``; None where they are alike."""
    for rank, row in enumerate(table.tolist()):
        if row != table[0].tolist():
            (train, test, *_), (first_train, first_test, *_) = row, table[0].tolist()
            said = f"{train} training and {test} test samples, against {first_train} and {first_test}"
            how = said if (train, test) != (first_train, first_test) else "other labels, or another order of them"
            return f"rank {rank} has other data than rank 0: {how}; copy the same data to all hosts"
    return None
