"""Files between ranks whose hosts share no folder: what the first rank alone can read goes to all, what each one wrote to the first."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist

from scalelab.comm.world import World
from scalelab.limits import local_workers
from scalelab.record.folder import write_atomic

CHUNK = 64 << 20
"""bytes of one message"""


def handed(body: bytes | None, world: World) -> bytes:
    """The first rank's ``body``, on all ranks, which give None. A collective; plain bytes, so nothing in them is run."""
    size = torch.tensor([len(body or b"")], dtype=torch.int64, device=_device(world))
    dist.broadcast(size, 0)
    found = bytearray(body) if body is not None else bytearray(int(size))
    if not found:
        return b""
    for part in torch.frombuffer(found, dtype=torch.uint8).split(CHUNK):
        there = part.to(_device(world))
        dist.broadcast(there, 0)
        if there is not part and not world.first:
            part.copy_(there)
    return bytes(found)


def brought(folder: Path, inside: str, world: World) -> None:
    """The files ``folder/inside/rank-N…`` of all ranks come to be in the first rank's folder too, where it has not. A collective."""
    if local_workers(world.size) == world.size:  # on one host there is one folder
        return
    place = folder / inside
    there = {path.name: path.stat().st_size for path in place.glob("rank-*")}
    had = json.loads(handed(json.dumps(there).encode() if world.first else None, world))
    mine = [path for path in sorted(place.glob("rank-*")) if _rank(path) == world.rank and had.get(path.name) != there[path.name]]
    bodies = [path.read_bytes() for path in mine]
    listed = json.dumps([[path.name, len(body)] for path, body in zip(mine, bodies, strict=True)]).encode() + b"\n"
    blob = b"".join([listed, *bodies]) if mine and not world.first else b""
    sizes = torch.zeros(world.size, dtype=torch.int64, device=_device(world))
    sizes[world.rank] = len(blob)
    dist.all_reduce(sizes)
    if blob:
        for part in torch.frombuffer(bytearray(blob), dtype=torch.uint8).split(CHUNK):
            dist.send(part.to(_device(world)), 0)
    elif world.first:
        for rank, size in enumerate(sizes.tolist()):
            if size:
                place.mkdir(exist_ok=True)
                _unpack(place, _received(rank, size, world))


def _received(rank: int, size: int, world: World) -> bytes:
    parts = []
    for start in range(0, size, CHUNK):
        part = torch.empty(min(CHUNK, size - start), dtype=torch.uint8, device=_device(world))
        dist.recv(part, rank)
        parts.append(part.cpu().numpy().tobytes())
    return b"".join(parts)


def _unpack(place: Path, blob: bytes) -> None:
    listed, _, rest = blob.partition(b"\n")
    for name, size in json.loads(listed):
        write_atomic(place / Path(name).name, rest[:size])
        rest = rest[size:]


def _rank(path: Path) -> int:
    return int(path.name.split("-")[1].split(".")[0])


def _device(world: World) -> torch.device:
    return world.device if world.backend == "nccl" else torch.device("cpu")
