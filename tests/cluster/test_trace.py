"""Nothing of a cluster is left on the machine, however it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests import support
from tests.cluster import needs
from tests.cluster.cluster import Cluster
from tests.cluster.holding import KINDS, PLACES, namespaces
from tests.waiting import PATIENCE, ended, until

WATCHED = ("/run", "/etc/ssh", "/etc/slurm", "/etc/munge", "/etc/hosts", "/etc/passwd", "/mnt")


def holders(names: list[str]) -> list[int]:
    """What keeps any of these namespaces: processes that are in it, or whose open files or mounts name it."""
    wanted = set(names)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            links = [os.readlink(entry / "ns" / kind) for kind in KINDS]
            links += [os.readlink(descriptor) for descriptor in (entry / "fd").iterdir()]
            if wanted & set(links) or any(name in (entry / "mountinfo").read_text() for name in wanted):
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


def machine() -> dict[str, object]:
    """What a cluster might change outside: mounts, interfaces, files."""
    files = [path for place in WATCHED for path in (Path(place), *Path(place).rglob("*"))]
    interfaces = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "interfaces": interfaces,
        "named namespaces": os.listdir("/run/netns") if os.path.isdir("/run/netns") else None,
        "files": {str(path): (status.st_mtime_ns, status.st_size) for path in files if (status := path.lstat())},
    }


def test_a_killed_test_leaves_no_process_namespace_mount_or_file(tmp_path: Path) -> None:
    lacking = needs.lacking(*needs.SLURM)
    if lacking:
        support.missing(lacking)
    before, mark = machine(), f"mark-{uuid.uuid4().hex}"
    line = [sys.executable, "-m", "tests.cluster.holding", str(tmp_path), mark]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as holding:
        assert holding.stdout is not None
        names = json.loads(holding.stdout.readline())
        assert len(set(names)) == len(names) == 6 * len(KINDS)
        members = holders(names)
        assert len(members) > 30
        holding.kill()
        holding.wait(PATIENCE)
        begin = time.monotonic()
        until(lambda: all(map(ended, members)) and not holders(names), "the end of all its processes")
        print(f"gone after {time.monotonic() - begin:.1f} s")
    assert machine() == before
    assert not [place for place in PLACES if (Path(place) / mark).exists()]


def test_a_cluster_that_ends_has_ended(slurm: Cluster, tmp_path: Path) -> None:
    before = machine()
    with Cluster(slurm=True, racks=True, folder=tmp_path) as cluster:
        names = [name for space in (cluster.outer, cluster.h0.space) for name in namespaces(space)]
        forgotten = cluster.h0.start(["sleep", "85"])
    assert holders(names) == []
    assert forgotten.returncode == -signal.SIGKILL
    assert machine() == before
