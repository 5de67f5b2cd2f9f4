"""Where the first process of a world can be reached by the others, before any of them has said a word to another one.

Either all can know it: Slurm names the first node, a user gives MASTER_ADDR, there is one host. Or the first process says it over what
the cluster has for that: torchrun's store, the PMI of MPICH, a broadcast of Open MPI.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scalelab.errors import ScalelabError
from scalelab.launch.environments import told
from scalelab.launch.hosts.interfaces import listing, reachable_as
from scalelab.launch.inside import broadcast, pmi, store
from scalelab.launch.inside.world import World
from scalelab.launch.pool import Pool

LOOPBACK = "127.0.0.1"
FIRST_PORT, PORTS, TRIES = 15000, 15000, 8
"""ports that no system gives out by itself; how many of them are tried for one world"""


@dataclass(frozen=True)
class Spot:
    """Names and addresses of one host, the likeliest first, and ports, one of which the first process holds."""

    hosts: tuple[str, ...]
    ports: tuple[int, ...]

    def __str__(self) -> str:
        return f"{','.join(map(str, self.ports))}@{','.join(self.hosts)}"

    @classmethod
    def parse(cls, text: str) -> Spot:
        """The spot that ``str`` wrote as ``text``."""
        ports, _, hosts = text.partition("@")
        return cls(tuple(hosts.split(",")), tuple(map(int, ports.split(","))))


def meet(world: World, environ: Mapping[str, str], address: str | None, pool: Pool) -> tuple[Spot, socket.socket | None]:
    """Where this world meets, and on its first process the socket that listens there.

    ``address``: of the first process, as the user gave it. Raises ScalelabError where nothing tells the ranks where the first one is.
    """
    spot = known(world, environ, address)
    if spot is not None:
        return spot, listen(world, spot.ports) if world.first else None
    if not world.first:
        return Spot.parse(EXCHANGES[world.cluster](world, environ, None, pool)), None
    listener = listen(world, (0,))
    addresses = [LOOPBACK] if world.one_host else [socket.gethostname(), *reachable_as(listing())]
    spot = Spot(tuple(addresses), (listener.getsockname()[1],))
    EXCHANGES[world.cluster](world, environ, str(spot), pool)
    return spot, listener


EXCHANGES: dict[str, Callable[[World, Mapping[str, str], str | None, Pool], str]] = {
    "torchrun": store.exchange, "mpich": pmi.exchange, "openmpi": broadcast.exchange,
}  # fmt: skip
"""how the first process tells the others a text, by cluster; those give None for it, and get it"""


def known(world: World, environ: Mapping[str, str], address: str | None) -> Spot | None:
    """The place that every process can tell by itself; None where it must be told."""
    said = told(world.cluster, environ)
    port = (int(environ["MASTER_PORT"]),) if environ.get("MASTER_PORT", "").isdigit() else ports(world)
    if world.cluster == "torchrun":
        if environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":  # its agent listens there already
            return None
        return Spot((said["address"],), port)
    address = address or environ.get("MASTER_ADDR")
    if address:
        return Spot((address,), port)
    if world.cluster == "slurm":
        return Spot((first_node(said["hosts"]),), port)
    if world.one_host and world.job:
        return Spot((LOOPBACK,), port)
    return None


def ports(world: World) -> tuple[int, ...]:
    """Some that are likely free, the same on all ranks of a start, others for another start."""
    numbers = (int(hashlib.sha256(f"{world.token} {place}".encode()).hexdigest()[:8], 16) for place in range(TRIES))
    return tuple(FIRST_PORT + number % PORTS for number in numbers)


def first_node(nodes: str) -> str:
    """``h1`` of Slurm's ``h[1-3,7],x``; leading zeros stay, as in ``n001`` of ``n[001-010]``."""
    name, bracket, rest = re.split(r"(\[|,|$)", nodes, maxsplit=1)[:3]
    if bracket != "[":
        return name
    inside, _, after = rest.partition("]")
    return name + re.split(r"[-,]", inside)[0] + re.split(r"[\[,]", after)[0]


def listen(world: World, candidates: tuple[int, ...]) -> socket.socket:
    """A socket on the first of the ports that is free, for this host alone where the world is on it. Raises ScalelabError."""
    errors = []
    for port in candidates:
        try:
            if world.one_host:
                return socket.create_server((LOOPBACK, port), backlog=1024)
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            return socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=both)
        except OSError as error:
            errors.append(f"{port}: {error.strerror}")
    raise ScalelabError(f"no port for the ranks to meet at ({'; '.join(errors)}); give a free one in MASTER_PORT")
