"""Holds a cluster with much going on in it until it is killed: a program for test_trace.py.

    python -m tests.cluster.holding FOLDER MARK

Prints a JSON list of its namespaces once all is up. Files named MARK are then in every place that the hosts have for themselves.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from tests.cluster import jobs
from tests.cluster.cluster import Cluster
from tests.cluster.namespaces import Space

KINDS = ("pid", "net", "mnt", "uts", "ipc")
PLACES = ("/run", "/dev/shm", "/mnt", "/mnt/home", "/mnt/tmp", "/etc/ssh", "/etc/slurm", "/etc/munge", "/var/log")  # noqa: S108


def namespaces(space: Space) -> list[str]:
    """Their names, as links in /proc show them."""
    return [os.readlink(f"/proc/{space.pid}/ns/{kind}") for kind in KINDS]


def main(folder: Path, mark: str) -> None:
    """Daemons, a job, a process that nobody waits for, ssh sessions; then nothing until the end."""
    with Cluster(slurm=True, racks=True, folder=folder) as cluster:
        job = jobs.submit(cluster.h0, "echo ready; srun sleep 81", "-N4", "--output=out", cwd=folder)
        jobs.text(folder / "out")
        for host in (cluster.h0, *cluster.hosts.values()):
            host.run(["touch", *(f"{place}/{mark}" for place in PLACES)], check=True)
            host.start(["sh", "-c", "setsid sleep 82 & exec sleep 83"])
            cluster.h0.start(["ssh", host.name, "sleep", "84"])
        assert jobs.states(cluster.h0, job) == ["RUNNING"]
        spaces = [cluster.outer, cluster.h0.space, *(host.space for host in cluster.hosts.values())]
        print(json.dumps([name for space in spaces for name in namespaces(space)]), flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
