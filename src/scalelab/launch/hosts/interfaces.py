"""Which network interface of a host its ranks talk over. Asked on that host itself, which alone knows its interfaces and routes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from scalelab.errors import ScalelabError, nearest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Listing = Mapping[str, Sequence[Address]]
"""a host's interfaces that are up, with their addresses"""


@dataclass(frozen=True)
class Interface:
    """An interface of a host, and the address of it that its ranks use."""

    name: str
    address: str

    @property
    def loopback(self) -> bool:
        """Whether no other host can reach it."""
        return ipaddress.ip_address(self.address).is_loopback


def listing() -> dict[str, tuple[Address, ...]]:
    """The interfaces of this host that are up. Link-local addresses are left out: they mean nothing without their interface."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = {}
    for name, rows in psutil.net_if_addrs().items():
        internet = [row.address for row in rows if row.family in (socket.AF_INET, socket.AF_INET6) and "%" not in row.address]
        addresses = [address for address in map(ipaddress.ip_address, internet) if not address.is_link_local]
        if name in up and addresses:
            found[name] = tuple(addresses)
    return found


def chosen(wanted: str, there: Listing, version: int | None = None) -> Interface:
    """The interface that is called ``wanted``, or that has an address in it where it is a subnet such as 10.0.0.0/24.

    ``version`` 4 or 6 prefers addresses of that kind. Raises ScalelabError that says which interfaces there are.
    """
    subnet = subnet_of(wanted)
    if subnet is not None:
        for name, addresses in there.items():
            inside = [address for address in addresses if address in subnet]
            if inside:
                return Interface(name, str(inside[0]))
        raise ScalelabError(f"no interface has an address in {wanted}; it has {described(there)}")
    if wanted not in there:
        raise ScalelabError(f"no interface {wanted} is up{nearest(wanted, there)}; it has {described(there)}")
    return Interface(wanted, str(min(there[wanted], key=lambda address: address.version != version)))


def leading_out(found: Interface) -> Interface:
    """``found`` itself. Raises ScalelabError where it leads to no other host."""
    if found.loopback:
        raise ScalelabError(f"{found.name} ({found.address}) is the loopback, by which no other host is reached")
    return found


def routed(target: str, there: Listing) -> Interface:
    """The interface that routes to ``target``, an address. Nothing is sent. Raises ScalelabError where none does."""
    family = socket.AF_INET6 if ipaddress.ip_address(target).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            source = ipaddress.ip_address(probe.getsockname()[0])
    except OSError as error:
        raise ScalelabError(f"no route to {target}: {error.strerror}; it has {described(there)}") from None
    name = next((name for name, addresses in there.items() if source in addresses), None)
    if name is None:
        raise ScalelabError(f"the route to {target} is by {source}, which is no interface's address; say which with interface=")
    return Interface(name, str(source))


def subnet_of(text: str) -> Network | None:
    """``10.0.0.0/24`` or ``fd00::/64`` as a network; None where it is a name. Raises ScalelabError for what was meant as a subnet."""
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ScalelabError(
            f"interface {text}: is no subnet; expected as 10.0.0.0/24 or fd00::/64, or an interface's name"
        ) from None


def beside(address: str, there: Listing, version: int) -> str:
    """The first address of this ``version`` on the interface that has ``address``; that itself where there is none."""
    own = next((addresses for addresses in there.values() if ipaddress.ip_address(address) in addresses), ())
    return next((str(other) for other in own if other.version == version), address)


def version_of(address: str) -> int:
    """The version of the Internet protocol, 4 or 6, that an address is of."""
    return ipaddress.ip_address(address).version


def reachable_as(there: Listing) -> list[str]:
    """The addresses by which other hosts may reach this one."""
    return [str(address) for addresses in there.values() for address in addresses if not address.is_loopback]


def described(there: Listing) -> str:
    """The interfaces in words: ``eth0 (10.0.0.1), wg0 (10.9.0.1)``."""
    return ", ".join(f"{name} ({', '.join(map(str, addresses))})" for name, addresses in there.items()) or "none that is up"


def plain(there: Listing) -> dict[str, Any]:
    """The listing as JSON."""
    return {name: [str(address) for address in addresses] for name, addresses in there.items()}
