"""The cluster's network: a bridge, or two joined by a slower uplink, and a shaped cable to each host."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.namespaces import NSENTER, Space

NET4, NET6, NET_VPN = "10.77.0.", "fd77::", "10.78.0."
VPN = "vpn0"
"""a network over the network, by VXLAN: an interface that a job may be told to use"""
TABLE = "inet firewall"
UPLINK = "up0"
"""the first rack's end of the cable between the racks"""


def number(name: str) -> int:
    """The last part of a host's addresses."""
    return 10 + int(name.removeprefix("h"))


def address(name: str) -> str:
    """IPv4."""
    return f"{NET4}{number(name)}"


def address6(name: str) -> str:
    """IPv6."""
    return f"{NET6}{number(name)}"


def address_vpn(name: str) -> str:
    """IPv4 in the virtual network."""
    return f"{NET_VPN}{number(name)}"


def hosts_file(names: Sequence[str]) -> str:
    """/etc/hosts: each name has its IPv4 and its IPv6 address."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address(name)} {name}\n{address6(name)} {name}" for name in names]
    return "\n".join(lines) + "\n"


def build(outer: Space, racks: bool, uplink: str) -> None:
    """The bridges and what joins them."""
    lines = [*_bridge("br0")]
    if racks:
        lines += [*_bridge("br1"), f"link add {UPLINK} type veth peer name up1"]
        lines += [f"link set {UPLINK} master br0 up", "link set up1 master br1 up"]
    _ip(outer, lines)
    if racks:
        for end in (UPLINK, "up1"):
            _tc(outer, end, uplink)


def _bridge(name: str) -> list[str]:
    return [f"link add {name} type bridge", f"link set {name} up"]


def plug(outer: Space, host: Space, name: str, bridge: str, rate: str) -> None:
    """A cable from the bridge to the host's eth0, shaped at both ends; the host's addresses."""
    card = f"02:77:00:00:00:{number(name):02x}"  # the same after a boot: others remember it
    peer = f"peer name eth0 address {card} netns {host.pid}"
    _ip(outer, [f"link add {name} type veth {peer}", f"link set {name} master {bridge} up"])
    lines = ["link set lo up", f"address add {address(name)}/24 dev eth0", f"address add {address6(name)}/64 dev eth0 nodad"]
    _ip(host, [*lines, "link set eth0 up"])
    shape(outer, host, name, rate)


def join_vpn(host: Space, name: str) -> None:
    """A second interface, whose packets travel inside those of eth0: it carries no more than that, in frames of 1450 bytes."""
    tunnel = f"link add {VPN} type vxlan id 77 group 239.77.0.1 dev eth0 dstport 4789"
    _ip(host, [tunnel, f"address add {address_vpn(name)}/24 dev {VPN}", f"link set {VPN} up"])


def firewall(host: Space, ports: Sequence[int]) -> None:
    """Drop what comes in but connections to these TCP ports, those over loopback, and what answers."""
    open_firewall(host)
    rules = [
        "type filter hook input priority 0; policy drop;",
        "iif lo accept",
        "ct state established,related accept",
        "meta l4proto { icmp, ipv6-icmp } accept",
    ]
    rules += [f"tcp dport {port} accept" for port in ports]
    _run(host, ["nft", "-f", "-"], "\n".join([f"table {TABLE} {{ chain input {{", *rules, "}", "}", ""]))


def open_firewall(host: Space) -> None:
    """Let everything in."""
    _run(host, ["nft", "delete", "table", *TABLE.split()], check=False)


def unplug(outer: Space, name: str) -> None:
    """Take the cable away, where it is still there."""
    _run(outer, ["ip", "link", "delete", name], check=False)


def shape(outer: Space, host: Space, name: str, rate: str) -> None:
    """Both directions of a host's cable carry no more than ``rate``, as tc writes it: 1gbit, 250mbit."""
    _tc(outer, name, rate)
    _tc(host, "eth0", rate)


def switch(outer: Space, name: str, on: bool) -> None:
    """The bridge's end of a cable goes up or down: the host sees its carrier go."""
    _ip(outer, [f"link set {name} {'up' if on else 'down'}"])


def sent(space: Space, interface: str) -> int:
    """Bytes that an interface has sent since it exists; TCP's large packets count with one header, before the card would split them."""
    lines = Path(f"/proc/{space.pid}/net/dev").read_text().splitlines()
    line = next(line for line in lines if line.strip().startswith(f"{interface}:"))
    return int(line.split(":")[1].split()[8])


def _tc(space: Space, interface: str, rate: str) -> None:
    tbf = ["root", "tbf", "rate", rate, "burst", "128kb", "limit", "4mb"]
    _run(space, ["tc", "qdisc", "replace", "dev", interface, *tbf])


def _ip(space: Space, lines: Sequence[str]) -> None:
    _run(space, ["ip", "-batch", "-"], "\n".join(lines) + "\n")


def _run(space: Space, line: Sequence[str], text: str | None = None, check: bool = True) -> None:
    """A command in the network of ``space``, but among this process's process ids."""
    inside = [NSENTER, "--target", str(space.pid), "--net", "--", *line]
    done = subprocess.run(inside, input=text, capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(line)}: {done.stderr.strip()}")
