"""``python -m scalelab.launch.slurm.rank RUN/spec.yaml``: one rank, as srun starts it: placed by Slurm's variables.

It becomes what every rank is, ``python -m scalelab.worker``, after torchrun's variables were made from Slurm's.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
from collections.abc import Mapping

import psutil

from scalelab.launch import environments

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""variables that say over which network interface the ranks meet"""
SECOND = "SCALELAB_SECOND_HOST"
"""variable: the job's second host, by name; empty where it has one"""


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables of this process, and the interface that leads to the first rank's host where nobody said another.

    From that host itself it is the one that leads to the second: many name themselves 127.0.1.1 in their /etc/hosts.
    """
    found = environments.translated("slurm", environ)
    first = environ.get("SLURM_NODEID") == "0"
    interface = route((environ.get(SECOND) if first else None) or environ.get("MASTER_ADDR", ""))
    return found | ({name: interface for name in INTERFACES if name not in environ} if interface else {})


def route(address: str) -> str | None:
    """The network interface of this host from which ``address`` is reached; None where there is no route, or no such name."""
    try:
        family, _, _, _, place = socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)  # sends nothing: it only asks for a route
            own = probe.getsockname()[0]
    except OSError:
        return None
    addresses = psutil.net_if_addrs().items()
    return next((name for name, has in addresses if any(one.address.partition("%")[0] == own for one in has)), None)


def main(spec_file: str) -> int:
    """The rank; its exit status."""
    os.environ.update(variables(os.environ))
    worker = importlib.import_module("scalelab.worker.main")  # by name: no launcher imports torch
    return int(worker.rank(spec_file))


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a failed rank must not wait for its peers in the interpreter's exit
