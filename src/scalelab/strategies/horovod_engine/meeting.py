"""Bringing Horovod up in ranks that something else started: what ``horovodrun`` would have put into their environment.

Its controller over gloo wants each rank's place in variables, and a key-value server at which the ranks leave their addresses. The first
rank serves it in a thread while they meet, and the process group that is there already carries its port. Ranks that an MPI
started use that MPI, where Horovod was built with one.
"""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import horovod.torch as hvd
import torch
import torch.distributed as dist
from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

from scalelab.comm.world import World
from scalelab.errors import RunError

BY_MPI = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"))
"""(rank, size) in the environment of a rank that an MPI started: Open MPI's, and MPICH's and Slurm's"""
CYCLE_TIME = "0.1"
"""milliseconds between two looks at what is to be reduced; Horovod's own 1 costs each small tensor that much"""


class _Server(RendezvousHTTPServer):  # type: ignore[misc]  # Horovod has no types
    """Horovod's key-value server, which does not ask the name service what this host is called: that can take seconds."""

    daemon_threads = True

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


def meet(world: World, timeout: float, traced: bool) -> None:
    """``hvd.init()`` on every rank; ``timeout`` in seconds for each of its collectives. A collective. Raises RunError.

    ``traced``: its timeline can be switched on and off.
    """
    if traced:
        os.environ["HOROVOD_TIMELINE"] = "DYNAMIC"
    os.environ.setdefault("HOROVOD_CYCLE_TIME", CYCLE_TIME)
    os.environ["HOROVOD_GLOO_TIMEOUT_SECONDS"] = str(max(1, round(timeout)))
    if hvd.mpi_built() and by_mpi(world, os.environ):
        os.environ["HOROVOD_CONTROLLER"] = os.environ["HOROVOD_CPU_OPERATIONS"] = "mpi"
        _init(world)
        return
    os.environ.update(place(world))
    with served(world) as (address, port):
        os.environ.update(HOROVOD_GLOO_RENDEZVOUS_ADDR=address, HOROVOD_GLOO_RENDEZVOUS_PORT=str(port))
        _init(world)


def part() -> None:
    """Stop Horovod's thread on every rank at the same time: one that ended by itself would look like a failure to the others."""
    hvd.shutdown()


def by_mpi(world: World, environment: Mapping[str, str]) -> bool:
    """Whether an MPI started these ranks. A launcher that is itself a task of one leaves its variables to them: those don't agree."""
    return (str(world.rank), str(world.size)) in [(environment.get(rank), environment.get(size)) for rank, size in BY_MPI]


def place(world: World) -> dict[str, str]:
    """This rank's place among all, among those of its host, and among those with its number on other hosts. A collective."""
    locals_ = torch.empty(world.size, dtype=torch.int64, device=world.device)
    dist.all_gather_into_tensor(locals_, torch.tensor([world.local_rank], device=world.device))
    peers = [rank for rank, local in enumerate(locals_.tolist()) if local == world.local_rank]
    numbers = {
        "RANK": world.rank, "SIZE": world.size,
        "LOCAL_RANK": world.local_rank, "LOCAL_SIZE": local_size(world),
        "CROSS_RANK": peers.index(world.rank), "CROSS_SIZE": len(peers),
    }  # fmt: skip
    words = {"HOSTNAME": world.host, "CONTROLLER": "gloo", "CPU_OPERATIONS": "gloo"}
    if "GLOO_SOCKET_IFNAME" in os.environ:
        words["GLOO_IFACE"] = os.environ["GLOO_SOCKET_IFNAME"]
    return {f"HOROVOD_{name}": str(value) for name, value in {**numbers, **words}.items()}


def local_size(world: World) -> int:
    """Ranks on this host, as torchrun says it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world.size))


@contextmanager
def served(world: World) -> Iterator[tuple[str, int]]:
    """(address, port) of the key-value server, which the first rank runs until all are through. A collective.

    Where all ranks are on one host, it listens there alone.
    """
    inside = local_size(world) == world.size
    address = "127.0.0.1" if inside else _ipv4(os.environ["MASTER_ADDR"])
    port, server = torch.zeros(1, dtype=torch.int64, device=world.device), None
    if world.first:
        server = _Server((address, 0), RendezvousHandler, False)
        server.init([])
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        port += server.server_port
    dist.broadcast(port, 0)
    yield address, int(port)
    dist.barrier()
    if server is not None:
        server.shutdown()
        server.server_close()


def _ipv4(host: str) -> str:
    """The address of a host; Horovod's client knows no other kind. Raises RunError."""
    try:
        return socket.gethostbyname(host)
    except OSError:
        raise RunError(
            f"--engine horovod: {host} has no IPv4 address, and Horovod meets over no other; choose one with --interface"
        ) from None


def _init(world: World) -> None:
    try:
        hvd.init()
    except ValueError as error:  # its own words are on stderr
        raise RunError(f"Horovod could not start: {error} (rank {world.rank}'s log has its words)") from None
    if hvd.size() != world.size:
        raise RunError(
            f"Horovod sees {hvd.size()} of {world.size} ranks: it was built with another MPI than the one that started them"
        )
