"""Where the ranks of a training over hosts meet, and which interface each host's ranks speak over."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from scalelab.errors import ScalelabError
from scalelab.launch.hosts import pushing
from scalelab.launch.hosts.connection import Agent
from scalelab.launch.hosts.interfaces import Interface

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Wanted:
    """Where the ranks are to meet, as far as the user has said so."""

    address: str | None = None
    """--master-addr: a name or an address of the first host"""
    interface: str | None = None
    """--interface: a name, or a subnet; of hosts that have none of their own in the hostfile"""

    def of(self, agent: Agent) -> str | None:
        """The interface that a host is to use; None: whichever leads to the first one. gloo's own variable says it, too."""
        named = agent.place.env.get("GLOO_SOCKET_IFNAME", "")
        return agent.place.interface or self.interface or (named if named and "," not in named else None)


def address(wanted: Wanted, agents: Sequence[Agent]) -> str:
    """Where rank 0 listens: an address of the first host, by which the others reach it. Raises ScalelabError.

    As it was said; else that of the interface that was said; else the one by which the launching host reached the first host; else,
    where that is the loopback, the one from which it reaches the second. IPv4 where the interface has both: so does gloo choose.
    """
    first = agents[0]
    if wanted.address is not None:
        return str(_answer(first, {"do": "own", "name": wanted.address})["address"])
    interface = wanted.of(first)
    if interface is not None:
        return str(_answer(first, {"do": "route", "interface": interface, "towards": None})["address"])
    if len(agents) == 1:
        return LOOPBACK
    reached = reached_by(first)
    if reached is not None and not ipaddress.ip_address(reached).is_loopback:
        return str(_answer(first, {"do": "own", "name": reached, "prefer": 4})["address"])
    other = next(
        (found for agent in agents[1:] if (found := reached_by(agent)) and not ipaddress.ip_address(found).is_loopback), None
    )
    if other is None:
        raise ScalelabError(f"{first.place.host}: it is not known by which address others reach it; say so with --master-addr")
    return str(_answer(first, {"do": "route", "interface": None, "towards": other})["address"])


def link(wanted: Wanted, agent: Agent, towards: str | None) -> Interface:
    """The interface over which a host's ranks speak to the address ``towards``; None: where it is said. Raises ScalelabError."""
    found = _answer(agent, {"do": "route", "interface": wanted.of(agent), "towards": towards})
    return Interface(found["name"], found["address"])


def reached_by(agent: Agent) -> str | None:
    """The address of a host that ssh reached it by, as its sshd tells it (SSH_CONNECTION, sshd(8)); None where it does not."""
    words = str(agent.hello["ssh"]).split()
    return words[2].partition("%")[0] if len(words) == 4 else None


def _answer(agent: Agent, question: dict[str, object]) -> dict[str, str]:
    found: dict[str, str] = pushing.answer(agent, question)["answer"]
    if "error" in found:
        raise ScalelabError(found["error"])
    return found
