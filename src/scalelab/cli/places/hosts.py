"""``--hosts`` and the flags that go with it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.launch.hosts import interfaces
from scalelab.launch.hosts.forwarding import forwarded
from scalelab.launch.hosts.hostfile import hosts_of
from scalelab.launch.hosts.remote import Remote

MEANT = {
    "hosts": ("hosts",), "interface": ("hosts",), "env": ("hosts",), "ssh_arg": ("hosts",), "master_addr": ("hosts", "inside"),
}  # fmt: skip
"""with which ``--on`` a flag means something"""


def add_flags(group: argparse._ArgumentGroup) -> None:
    """The flags of trainings over hosts."""
    group.add_argument(
        "--hosts",
        type=filled("--hosts"),
        metavar="FILE|H1:4,H2:4",
        help="over ssh: a hostfile, or hosts with their slots (docs/hosts.md)",
    )
    group.add_argument(
        "--interface",
        type=interface,
        metavar="NAME|SUBNET",
        help="over which hosts' ranks speak; a subnet picks each host's own in it",
    )
    address = filled("--master-addr")
    group.add_argument(
        "--master-addr", type=address, metavar="ADDRESS", help="of the first host, where all ranks meet (default: found out)"
    )
    group.add_argument(
        "--env", metavar="KEY[=VALUE]", action="append", default=[], help="a variable for the ranks on all hosts (repeatable)"
    )
    group.add_argument(
        "--ssh-arg", metavar="ARG", action="append", default=[], help="for ssh, as --ssh-arg=-F --ssh-arg=FILE (repeatable)"
    )


def filled(flag: str) -> Callable[[str], str]:
    """A flag's value that is not empty, as that of a variable that is not set is; it raises ScalelabError."""

    def value(text: str) -> str:
        if not text.strip():
            raise ScalelabError(f"{flag} '': is empty; is a variable not set? say what is meant, or leave the flag out")
        return text

    return value


def interface(text: str) -> str:
    """The value of --interface. Raises ScalelabError where it is empty, or meant as a subnet and none."""
    interfaces.subnet_of(filled("--interface")(text))
    return text


def refuse_elsewhere(parsed: argparse.Namespace, on: str) -> None:
    """Raises ScalelabError for a flag that has no meaning with ``--on``."""
    for name, places in MEANT.items():
        if getattr(parsed, name, None) and on not in places:
            flag, where = f"--{name.replace('_', '-')}", " or ".join(places)
            raise ScalelabError(
                f"{flag}: goes with --on {where}, not with --on {on}; name the hosts with --hosts, or leave it out"
            )


def over_hosts(parsed: argparse.Namespace) -> Remote:
    """The launcher for the hosts that the flags name. Raises ScalelabError."""
    if not parsed.hosts:
        raise ScalelabError("--on hosts: on which? name them as --hosts h1:4,h2:4, or in a hostfile, --hosts FILE")
    environment = forwarded(parsed.env, os.environ, (Path.home(), Path()))
    places = [replace(place, env=environment) for place in hosts_of(parsed.hosts)]
    return Remote(places, parsed.ssh_arg, parsed.master_addr, parsed.interface)
