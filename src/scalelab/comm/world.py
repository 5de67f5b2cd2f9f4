"""Who this rank is: a value that is passed in, never a global."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from scalelab.batch import Derived
from scalelab.errors import RunError
from scalelab.limits import local_workers
from scalelab.spec import Spec

LISTEN_FD = "SCALELAB_LISTEN_FD"
"""environment variable of rank 0: a socket that the launcher bound, so that no port can be lost in between"""

DEVICE = "scalelab/device"
"""in the store: what a rank computes on"""
MIXED = ("ddp", "local-sgd")
"""strategies that need no more than all-reduce and broadcast"""


@dataclass(frozen=True)
class World:
    """One rank's place in the grid ``arange(world).view(data, shard, pipe)``.

    ``replica`` of ``replicas``: which share of each global batch it sees; ``stage`` of ``stages``: which layers it holds.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    backend: str
    replica: int
    replicas: int
    host: str
    share: float
    """of each global batch that this replica sees: 1 / replicas unless ``--shares`` says otherwise"""
    shards: int = 1
    """workers over which one copy of the state is cut; ``replicas / shards`` copies"""
    stage: int = 0
    stages: int = 1
    across: dist.ProcessGroup | None = None
    """the ranks that hold the same stage, over which gradients and statistics are averaged; None: all ranks"""
    along: dist.ProcessGroup | None = None
    """the stages of this rank's replica, in order; None: there is one"""
    mixed: bool = False
    """some ranks compute on a GPU, others on the CPU: all talk through gloo, and no memory layout may follow from the device"""
    devices: tuple[str, ...] = ()
    """what each rank computes on, by rank, "cpu" or a GPU's name; known to the first rank alone"""

    @property
    def first(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    @property
    def across_ranks(self) -> list[int]:
        """The ranks that hold the same stage as this one."""
        return list(range(self.stage, self.size, self.stages))

    @property
    def last_stage(self) -> bool:
        """Whether this rank has the model's outputs, and the loss."""
        return self.stage == self.stages - 1


def seed(device: torch.device, value: int) -> None:
    """Random numbers of this rank, on the host and on its device, follow from ``value`` in [0, 2^63)."""
    torch.default_generator.manual_seed(value)  # torch.manual_seed asks every kind of device: 70 µs against 1
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(value)


def join(spec: Spec, derived: Derived) -> World:
    """Meet the other ranks, by torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).

    Raises RunError when the variables contradict the spec.
    """
    rank, size, local = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    if size != spec.workers:
        raise RunError(f"WORLD_SIZE is {size} but the spec says workers {spec.workers}: start exactly {spec.workers} ranks")
    device = _device(spec, local)
    timeout = timedelta(seconds=spec.timeout)
    store = _store(rank, size, timeout)
    kinds, devices = agree(store, rank, size, device.type, torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu")
    if len(kinds) > 1:
        _check_mixed(spec)
    backend = "nccl" if kinds == {"cuda"} else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    grid = torch.arange(size).view(derived.data, derived.shard, derived.pipe)
    data, shard, stage = (int(axis) for axis in (grid == rank).nonzero()[0])
    replica, cut = data * derived.shard + shard, derived.pipe > 1
    return World(
        rank, size, local, device, backend, replica, derived.replicas, socket.gethostname(),
        share=derived.samples[replica] / sum(derived.samples), shards=derived.shard, stage=stage, stages=derived.pipe,
        across=subgroup(grid[:, :, stage].flatten().tolist()) if cut else None,
        along=subgroup(grid[data, shard].tolist()) if cut else None,
        mixed=len(kinds) > 1, devices=devices,
    )  # fmt: skip


def agree(store: dist.Store, rank: int, size: int, kind: str, name: str) -> tuple[set[str], tuple[str, ...]]:
    """The kinds of devices that the ranks compute on; and, to the first rank, each one's ``name``.

    Each rank decides by the GPUs of its own host, so a backend that suits all must be agreed on before there is a process group.
    """
    if size == 1:
        return {kind}, (name,)
    store.set(f"{DEVICE}/{rank}", f"{kind} {name}")
    if rank:
        return set(store.get(f"{DEVICE}/all").decode().split()), ()
    told = [store.get(f"{DEVICE}/{other}").decode().split(" ", 1) for other in range(size)]
    kinds = {kind for kind, _ in told}
    store.set(f"{DEVICE}/all", " ".join(sorted(kinds)))
    return kinds, tuple(name for _, name in told)


def _check_mixed(spec: Spec) -> None:
    """Raises RunError for what needs more of gloo than it does for a GPU's tensors: all-reduce and broadcast."""
    if spec.strategy not in MIXED or spec.engine != "torch" or spec.batch_norm == "sync":
        can = " and ".join(MIXED)
        raise RunError(
            f"some workers have a GPU and others none: of the strategies only {can} (engine torch, --batch-norm local) train so; "
            "use one of them, or --device cpu"
        )


def subgroup(ranks: list[int]) -> dist.ProcessGroup:
    """The process group of these ranks, in which this rank is. A collective of all ranks; each names the group it is in."""
    group = dist.new_group(ranks, use_local_synchronization=True)
    assert isinstance(group, dist.ProcessGroup), "a rank that is not in the group"
    return group


def merge_stages(mine: dict[str, Any], world: World) -> dict[str, Any]:
    """What all stages of a replica hold together, on its first rank; the other ranks get nothing. A collective of the replica."""
    if world.along is None:
        return mine
    parts: list[Any] | None = [None] * world.stages if world.stage == 0 else None
    dist.gather_object(mine, parts, group=world.along, group_dst=0)
    return {name: value for part in parts or [] for name, value in part.items()}


def leave() -> None:
    """Part from the other ranks at the end of a run that went well."""
    dist.barrier()
    dist.destroy_process_group()


def on_cuda(spec: Spec, workers: int) -> bool:
    """Whether the ``workers`` of this host compute on CUDA: where the spec says so, or leaves it open and each can have a GPU."""
    return spec.device == "cuda" or (spec.device == "auto" and torch.cuda.device_count() >= workers)


def _device(spec: Spec, local_rank: int) -> torch.device:
    if not on_cuda(spec, local_workers(spec.workers)):
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise RunError(
            f"--device cuda: worker {local_rank} has no GPU, this host has {torch.cuda.device_count()}; use fewer --workers or --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _store(rank: int, size: int, timeout: timedelta) -> dist.TCPStore:
    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), int(os.environ.get("MASTER_PORT", 0))
    listening = os.environ.pop(LISTEN_FD, None)
    if rank == 0 and listening is not None:
        return dist.TCPStore(address, port, size, is_master=True, timeout=timeout, master_listen_fd=int(listening))
    return dist.TCPStore(address, port, size, is_master=rank == 0, timeout=timeout)
