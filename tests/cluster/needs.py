"""What the cluster needs from the machine: root, and programs that tools/install-system-packages brings on Debian."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

from tests.cluster.namespaces import FRESH, UNSHARE
from tests.cluster.places import PATH

HOSTS = ("unshare", "nsenter", "setpriv", "ip", "tc", "nft", "ssh", "ssh-keygen", "sshd")
SLURM = ("slurmctld", "slurmd", "munged", "sinfo")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db")


@functools.cache
def lacking(*programs: str) -> str | None:
    """What is missing for a cluster that also needs these programs, such as ``needs root``; None when it can be made."""
    for program in (*programs, *HOSTS):
        if shutil.which(program, path=PATH) is None:
            return f"needs {program}; tools/install-system-packages brings it"
    if os.geteuid() or subprocess.run([UNSHARE, *FRESH, "mount", "-t", "tmpfs", "none", "/run"], capture_output=True).returncode:
        return "needs root, with the right to make namespaces and to mount in them"
    return None
