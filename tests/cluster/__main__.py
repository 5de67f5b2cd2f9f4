"""A test cluster to play in: `make cluster` gives a shell on its login machine, and when that ends all is gone.

python -m tests.cluster [--racks] [--rate 1gbit] [--uplink 250mbit] [COMMAND ARGUMENT…]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster import needs
from tests.cluster.cluster import Cluster
from tests.cluster.host import Host
from tests.cluster.places import HOME

TEXT = """\
This is h0, the login machine of a test cluster on this machine: hosts {hosts}, joined by {rate} cables{racks}.
  ssh h2 hostname                  every host is reached by its name; keys are checked
  srun -N4 hostname                Slurm: 4 nodes of 8 CPUs and 8 GPUs that do not compute; partitions main and urgent; sacct {sacct}
  scalelab train --hosts tests/cluster/hostfile …
The file system is this machine's, but /mnt, home, /run, /dev/shm and /var/log, which end with the cluster. `exit` ends it.
"""
PROFILE = "[ ! -e /etc/bash.bashrc ] || . /etc/bash.bashrc\nPS1='\\u@\\h:\\w\\$ '\n"


def main(words: list[str]) -> int:
    """The command; its exit status is that of the shell or of COMMAND, 2 when there can be no cluster here."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--racks", action="store_true", help="h1, h2 and h3, h4 on two bridges with a slower cable between them")
    parser.add_argument("--rate", default="1gbit", help="of each host's cable, as tc writes it (1gbit)")
    parser.add_argument("--uplink", default="250mbit", help="of the cable between the racks (250mbit)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run on h0 instead of a shell")
    given = parser.parse_args(words)
    lacking = needs.lacking(*needs.SLURM)
    if lacking:
        print(f"make cluster: {lacking}", file=sys.stderr)
        return 2
    accounting = needs.lacking(*needs.ACCOUNTING) is None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Cluster(True, accounting, given.racks, given.rate, given.uplink) as cluster:
        for host in (cluster.h0, *cluster.hosts.values()):
            host.path(f"{HOME}/.bashrc").write_text(PROFILE)
        if given.command:
            return _on(cluster.h0, given.command)
        racks = f", two racks, {given.uplink} between them" if given.racks else ""
        print(TEXT.format(hosts="h1…h4", rate=given.rate, racks=racks, sacct="works" if accounting else "does not"), flush=True)
        return _on(cluster.h0, ["bash"])


def _on(host: Host, line: list[str]) -> int:
    """Run a command on a host with this process's terminal; its exit status, 128 + N for signal N."""
    before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the command, which must not find it ignored
    try:
        child: subprocess.Popen[str] = host.start(line, cwd=Path.cwd(), start_new_session=False)
        status = child.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    if sys.stdin.isatty():  # a shell leaves the terminal to a process group that it could not name
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
