"""Ranks that hand files to each other, each in a folder of its own, as on hosts that share none."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from scalelab.comm.world import World
from scalelab.worker import handing
from tests.joined import joined

SIZES = (0, 1, 5_000, 100_003)


@joined
def bodies(rank: int, size: int) -> None:
    """Of all sizes, in messages of 1 kB, the last of which is not full."""
    handing.CHUNK = 1024
    for length in SIZES:
        body = bytes(index % 251 for index in range(length))
        assert handing.handed(body if rank == 0 else None, world(rank, size)) == body


@joined
def files(rank: int, size: int) -> None:
    """Each rank has written two; the first one has an older copy of one of the second's."""
    handing.CHUNK = 1024
    os.environ["LOCAL_WORLD_SIZE"] = "1"
    run = Path(os.environ["RUNS"], str(rank))
    (run / "parts").mkdir(parents=True)
    for name, length in ((f"rank-{rank}-0.json", 3000 * rank), (f"rank-{rank}-1.json", 10)):
        (run / "parts" / name).write_bytes(bytes([rank]) * length)
    if rank == 0:
        (run / "parts" / "rank-1-1.json").write_bytes(b"old")
    handing.brought(run, "parts", world(rank, size))
    if rank == 0:
        found = {path.name: path.read_bytes() for path in (run / "parts").iterdir()}
        assert found == {
            f"rank-{other}-{part}.json": bytes([other]) * length
            for other in range(size)
            for part, length in enumerate((3000 * other, 10))
        }


def world(rank: int, size: int) -> World:
    return World(rank, size, 0, torch.device("cpu"), "gloo", rank, size, f"host-{rank}", share=1 / size)
