"""The processes of a world, as its first one knows them: who came, from which host, and whether they are alike."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.launch.inside.meeting import LOOPBACK
from scalelab.launch.inside.other import hello
from scalelab.launch.inside.peer import PATIENCE, Peer, greet
from scalelab.launch.inside.placing import Placed, links_of, placed
from scalelab.launch.inside.world import World

LATE = 10.0
"""seconds for processes to come that only hear that all is over"""


class Crew:
    """All processes but this one, by rank."""

    def __init__(self, world: World, listener: socket.socket) -> None:
        self.world, self.peers, self._listener = world, dict[int, Peer](), listener
        self.hellos: dict[int, dict[str, Any]] = {0: hello(world)}
        self.ahead: dict[int, float] = {0: 0.0}
        """seconds by which each one's clock is ahead of this one's, but for the way of one message"""

    def placed(self) -> list[Placed]:
        """The hosts, once all have come. Raises ScalelabError."""
        self.gather()
        return placed(list(self.hellos.values()))

    @property
    def alone(self) -> bool:
        """Whether all are on this host."""
        return len({told["host"] for told in self.hellos.values()}) == 1

    def host(self, rank: int) -> str:
        """The name of the host that a rank runs on."""
        return str(self.hellos[rank]["host"])

    def here(self, rank: int) -> bool:
        """Whether a rank is on this host."""
        return self.host(rank) == self.host(0)

    def address(self) -> str:
        """By which processes on other hosts reach this one."""
        return next((peer.own for rank, peer in self.peers.items() if not self.here(rank)), LOOPBACK)

    def master(self, rank: int) -> str:
        """By which address a rank reaches the first one; those on its host as the others do."""
        return self.address() if self.here(rank) else self.peers[rank].own

    def links(self, rank: int) -> dict[str, str]:
        """The variables that name the interface of a rank's host that leads to the other hosts."""
        if self.alone:
            return {"GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
        found: dict[str, str] = links_of(self.address()) if self.here(rank) else self.hellos[rank]["links"]
        return found

    def gather(self, patience: float = PATIENCE) -> None:
        """Wait for all processes of the world. Raises ScalelabError that names who did not come, or runs another program."""
        deadline, strangers = time.monotonic() + patience, list[Peer]()
        while len(self.hellos) < self.world.size:
            if select.select([self._listener], [], [], 0.02)[0]:
                strangers.append(greet(self._listener, self.world.token))
            for peer in strangers:
                message = peer.hear()
                if message is not None:
                    self._take(message[0], peer)
            strangers = [peer for peer in strangers if peer not in self.peers.values() and peer.over is None]
            if time.monotonic() > deadline:
                missing = [str(rank) for rank in range(self.world.size) if rank not in self.hellos]
                raise ScalelabError(f"rank {', '.join(missing)} did not come to rank 0 within {patience:g} seconds")
        self._compare()

    def _take(self, told: dict[str, Any], peer: Peer) -> None:
        rank = told.get("rank", -1)
        if told.get("do") != "hello" or rank not in range(self.world.size) or rank in self.hellos:
            peer.close()  # of another start, whose first process is not there yet: it tries elsewhere, or gives up
            return
        self.hellos[rank], self.peers[rank], self.ahead[rank] = told, peer, told["clock"] - told["came"]

    def _compare(self) -> None:
        first = self.hellos[0]
        for told in self.hellos.values():
            ours, theirs = ({**one["versions"], "scalelab's code": one["code"]} for one in (first, told))
            for name, version in ours.items():
                if theirs[name] != version:
                    raise ScalelabError(
                        f"{name} is {theirs[name]} on {told['host']} (rank {told['rank']}) and {version} on {first['host']}: "
                        "the same is needed on all hosts"
                    )

    def over(self, status: int) -> None:
        """Tell all how it ended; they stay until this process has gone."""
        with contextlib.suppress(ScalelabError):
            self.gather(LATE)  # who is late hears of it too
        for peer in self.peers.values():
            peer.tell({"do": "over", "status": status})
        for peer in self.peers.values():
            peer.flush()
        self._listener.close()
