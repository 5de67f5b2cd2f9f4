"""Where things are on the hosts of the test cluster."""

from __future__ import annotations

DISK = "/mnt"
"""where a host's own disk is mounted"""
HOME = f"{DISK}/home"
TMP = f"{DISK}/tmp"  # noqa: S108 (on the host's own disk)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHARED = "/run/cluster"
"""of the outer namespaces: the hosts' disks and the files that are the same on all of them"""
OWN = (DISK, "/run", "/dev/shm", "/var/log")  # noqa: S108
"""what the machine has there is out of sight on the hosts"""
