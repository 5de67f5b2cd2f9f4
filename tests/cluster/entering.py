"""ssh from the test's own process, as if it ran on h0: a launcher in the test then reaches the hosts, and stays warm."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.namespaces import NSENTER
from tests.cluster.places import HOME, PATH


def ssh_of(cluster: Cluster, folder: Path) -> Path:
    """A folder for PATH, with an ``ssh`` that h0's is."""
    space = cluster.h0.space
    line = [
        NSENTER,
        "--target",
        str(space.pid),
        "--mount",
        "--net",
        "--uts",
        "--ipc",
        "--",
        "env",
        f"HOME={HOME}",
        f"PATH={PATH}",
        "ssh",
    ]
    folder.mkdir(exist_ok=True)
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {shlex.join(line)} "$@"\n')
    (folder / "ssh").chmod(0o755)
    return folder
