"""The network interface of this host by which ranks speak to each other. Needs no torch."""

from __future__ import annotations

import socket

import psutil

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""environment variables that name it, each to a library; Horovod is told what the first says"""


def leading_to(address: str) -> str | None:
    """The interface by which ``address`` is reached, a name or an address; None where there is no route, or no such name."""
    try:
        family, _, _, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # sends nothing: it only asks for a route
            own = probe.getsockname()[0]
    except OSError:
        return None
    addresses = psutil.net_if_addrs().items()
    return next((name for name, has in addresses if any(one.address.partition("%")[0] == own for one in has)), None)
