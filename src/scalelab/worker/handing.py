"""What the first rank alone can read, handed to all: no folder is shared by the hosts of a training."""

from __future__ import annotations

import torch
import torch.distributed as dist

from scalelab.comm.world import World

CHUNK = 64 << 20
"""bytes of one broadcast"""


def handed(body: bytes | None, world: World) -> bytes:
    """The first rank's ``body``, on all ranks, which give None. A collective; plain bytes, so nothing in them is run."""
    device = world.device if world.backend == "nccl" else torch.device("cpu")
    size = torch.tensor([len(body or b"")], dtype=torch.int64, device=device)
    dist.broadcast(size, 0)
    found = bytearray(body) if body is not None else bytearray(int(size))
    if not found:
        return b""
    flat = torch.frombuffer(found, dtype=torch.uint8)
    for part in flat.split(CHUNK):
        there = part.to(device)
        dist.broadcast(there, 0)
        if there is not part and not world.first:
            part.copy_(there)
    return bytes(found)
