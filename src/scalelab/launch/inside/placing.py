"""How a world's processes lie on hosts, and what that means for each one's rank."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from scalelab.launch.hosts.interfaces import listing
from scalelab.measure.interfaces import INTERFACES
from scalelab.record.schema import Host


@dataclass(frozen=True)
class Placed:
    """One host of a world, and its ranks in the order of their places on it."""

    name: str
    ranks: tuple[int, ...]
    cores: int
    """that its ranks may use together, each bound to its own or not"""
    facts: Host


def placed(hellos: Sequence[dict[str, Any]]) -> list[Placed]:
    """The hosts, by what their processes said of themselves; the first rank's is the first."""
    by_host: dict[str, list[dict[str, Any]]] = {}
    for hello in sorted(hellos, key=lambda hello: hello["rank"]):
        by_host.setdefault(hello["host"], []).append(hello)
    found = []
    for name, those in by_host.items():
        ordered = sorted(
            those, key=lambda hello: (hello["rank"] if hello["local_rank"] is None else hello["local_rank"], hello["rank"])
        )
        cores = len(set().union(*(hello["cores"] for hello in those)))
        facts = msgspec.structs.replace(msgspec.convert(those[0]["facts"], Host), cores=cores, workers=len(those))
        found.append(Placed(name, tuple(hello["rank"] for hello in ordered), cores, facts))
    return found


def links_of(address: str) -> dict[str, str]:
    """Variables that name the interface of this host that has ``address``. What the user has set stays."""
    wanted = ipaddress.ip_address(address)
    name = next((name for name, addresses in listing().items() if wanted in addresses), None)
    return {variable: name for variable in INTERFACES if name is not None and variable not in os.environ}
