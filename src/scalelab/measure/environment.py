"""Where and with what a run is made. Needs no torch; keeps no environment variables (they may be secrets)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import socket
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path

from scalelab.limits import memory_bytes
from scalelab.measure import hardware
from scalelab.record.schema import Environment, Host
from scalelab.spec import Spec
from scalelab.userfile import is_reference

PACKAGES = ("scalelab", "torch", "torchvision", "timm", "numpy", "deepspeed", "horovod")
CORES = "SCALELAB_CORES"
"""environment variable of a rank: the cores that all ranks of its host may use together, where mpiexec or srun bound each to its own"""
STARTED = "SCALELAB_STARTED"
"""environment variable of a rank: seconds since the epoch at which the launcher began this attempt, by the clock of the rank's host"""
LISTEN_FD = "SCALELAB_LISTEN_FD"
"""environment variable of rank 0: a socket that the launcher bound, so that no port can be lost in between"""


def usable_cores() -> int:
    """Cores that this process may run on (its affinity), not all that the host has; those of all ranks here, where each has its own."""
    if os.environ.get(CORES, "").isdigit():
        return int(os.environ[CORES])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host() -> Host:
    """This host's name, processor, usable cores and memory."""
    return Host(
        name=socket.gethostname(),
        processor=_processor(),
        cores=usable_cores(),
        memory_bytes=memory_bytes(),
        cache_bytes=hardware.cache_bytes(),
        links=hardware.links(),
    )


def environment(command: list[str], threads: int, spec: Spec | None = None, hosts: list[Host] | None = None) -> Environment:
    """The environment of a run of ``spec`` that starts now, on ``hosts``: on this one, where none are given."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return Environment(
        hosts=hosts or [host()], versions=versions, system=platform.platform(), git_commit=_git_commit(), code=code(), threads=threads,
        command=command, files=files(spec) if spec is not None else {},
    )  # fmt: skip


@cache
def code() -> str:
    """Twelve digits that change with scalelab's own source: two runs with the same ones were made by the same program."""
    root, found = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def files(spec: Spec) -> dict[str, str]:
    """Twelve digits for each of the user's own files that ``spec`` names, which change with what it holds; not for what it imports."""
    named = [reference.rpartition(":")[0] for reference in (spec.model, spec.data, spec.strategy) if is_reference(reference)]
    return digests([*named, *([spec.deepspeed_config] if spec.deepspeed_config else [])])


def digests(names: Iterable[str]) -> dict[str, str]:
    """Twelve digits for each of the files, by its name; nothing for one that can't be read."""
    found = {}
    for name in names:
        with contextlib.suppress(OSError):
            found[name] = hashlib.sha256(Path(name).expanduser().read_bytes()).hexdigest()[:12]
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
