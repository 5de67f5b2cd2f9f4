"""Whether the hosts of a training have the same data. Each reads its own copy; what differs would train another thing, without a word."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from scalelab.comm.world import World
from scalelab.data import Dataset, Split
from scalelab.data.sources import Streamed
from scalelab.data.stream import Reader
from scalelab.errors import RunError
from scalelab.limits import local_workers
from scalelab.worker.meter import gather

WHOLE = 1 << 30
"""bytes of a data set's images that are all looked at; of more, or where a host streams them, ``SAMPLE`` of each split"""
SAMPLE = 64
"""evenly spaced images: decoding 128 JPEGs to 224 x 224 takes a core a quarter of a second"""
APART, ALL_APART = 8.0, 2.0
"""grey levels, root mean square, by which an image differs that is another one; and those of a set that was made in another way. Two
decoders of one file are 1 apart, two images of CIFAR-10 about 90."""
SIGNS = 2
"""projections of an image: of two that differ by 90 levels one in 200 pairs looks alike by both"""
SKIPPED, FEW = -1, -2
"""in place of a checksum"""
FLOATS = 1 << 25
"""bytes of images that are floats at one time"""


@dataclass(frozen=True)
class Other:
    """What the first ``rank`` that differs has another one of than rank 0, and how."""

    rank: int
    what: str
    how: str


def check(dataset: Dataset, world: World, threads: int) -> None:
    """Raises RunError where another host has other samples than rank 0's: by number, size and labels, then by the images. A collective.

    ``threads`` decode images that are streamed.
    """
    if local_workers(world.size) == world.size:
        return
    table = gather(torch.tensor([*told(dataset), _whole(dataset, world)], device=world.device), world)
    other = differing(table[:, :-1])
    whole = set(table[:, -1].tolist()) - {SKIPPED}
    if other is None and (len(whole) > 1 or FEW in whole):
        other = unlike(gather(_compared(dataset, world, FEW in whole, threads), world))
    if other is not None:
        hosts: list[str] = [""] * world.size
        dist.all_gather_object(hosts, world.host)
        raise RunError(
            f"rank {other.rank} on {hosts[other.rank]} has other {other.what} than rank 0 on {hosts[0]}: {other.how}; "
            "copy the same data to all hosts"
        )


def told(dataset: Dataset) -> list[int]:
    """Training and test samples, height, width, then a checksum of the labels of either."""
    splits = (dataset.train, dataset.test)
    sums = (zlib.crc32(split.labels.numpy().tobytes()) for split in splits)
    return [*map(len, splits), *dataset.train.images.shape[-3:-1], *sums]


def _whole(dataset: Dataset, world: World) -> int:
    """A checksum of all images, by the first rank of each host; FEW where they are streamed, or too many."""
    if world.local_rank:
        return SKIPPED
    images = [split.images for split in (dataset.train, dataset.test)]
    if sum(math.prod(one.shape) for one in images) > WHOLE:
        return FEW
    found = 0
    for one in images:
        if isinstance(one, Streamed):
            return FEW
        found = zlib.crc32(one.contiguous().numpy().data, found)
    return found


def differing(table: Tensor) -> Other | None:
    """Who ``told`` something else than rank 0; None where all are alike."""
    first = table[0].tolist()
    for rank, row in enumerate(table.tolist()):
        if row[:2] != first[:2]:
            return Other(rank, "data", f"{row[0]} training and {row[1]} test samples, against {first[0]} and {first[1]}")
        if row[2:4] != first[2:4]:
            return Other(rank, "images", f"of {row[3]} x {row[2]} pixels, against {first[3]} x {first[2]}")
        if row != first:
            return Other(rank, "labels", "as many, but not the same, or in another order")
    return None


def looked_at(count: int, few: bool) -> Tensor:
    """The numbers of the images of a split that are compared. In whole numbers: floats may be rounded otherwise on another host."""
    return torch.arange(count) if not few or count <= SAMPLE else torch.arange(SAMPLE) * (count - 1) // (SAMPLE - 1)


def projections(split: Split, which: Tensor, threads: int) -> Tensor:
    """Random projections of the images ``which``, float32 [N, SIGNS].

    With signs drawn at random, the difference of two images' projections, over the square root of their pixels, has the images'
    root-mean-square difference as its standard deviation (Achlioptas 2003, Database-friendly random projections). So images that another
    decoder made are alike, as they are not by a checksum of their bytes.
    """
    size = math.prod(split.images.shape[1:])
    signs = torch.randint(0, 2, (size, SIGNS), generator=torch.Generator().manual_seed(0)).float().mul_(2).sub_(1)
    images, found = split.images, []
    read = images.__getitem__ if isinstance(images, Tensor) else Reader(images, threads, pinned=False).read
    for numbers in which.split(max(1, FLOATS // (4 * size))):
        part = read(numbers)
        found.append(part.flatten(1).float() @ signs / size**0.5)
    return torch.cat(found)


def _compared(dataset: Dataset, world: World, few: bool, threads: int) -> Tensor:
    """For each split the images that are not rank 0's: how many, and the first one's number; of the first rank of each host."""
    found = []
    for split in (dataset.train, dataset.test):
        which, mine = looked_at(len(split), few), None
        if world.local_rank == 0:
            mine = projections(split, which, threads)
        theirs = torch.empty(len(which), SIGNS) if mine is None else mine.clone()
        theirs = theirs if world.backend == "gloo" else theirs.to(world.device)
        dist.broadcast(theirs, 0)
        apart = torch.zeros(len(which), dtype=torch.bool) if mine is None else others(mine, theirs.cpu())
        found += [int(apart.sum()), int(which[apart][0]) if apart.any() else 0]
    return torch.tensor(found, device=world.device)


def others(mine: Tensor, theirs: Tensor) -> Tensor:
    """Which images are not the same, by their ``projections``: bool [N]."""
    apart = (mine - theirs).abs()
    return (apart > (ALL_APART if apart.square().mean().sqrt() > ALL_APART else APART)).any(1)


def unlike(table: Tensor) -> Other | None:
    """Who has other images than rank 0, by (how many, the first one's number) of either split; None where all are alike."""
    for rank, (train, first, test, other) in enumerate(table.tolist()):
        if train or test:
            where = f"training image {first}" if train else f"test image {other}"
            return Other(rank, "images", f"{train} training and {test} test images of those that were compared, first {where}")
    return None
