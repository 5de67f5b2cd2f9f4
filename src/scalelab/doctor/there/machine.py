"""A host's own facts, as the kernel tells them."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from scalelab.launch.hosts import interfaces
from scalelab.limits import available_bytes, memory_bytes
from scalelab.measure import environment, hardware

RANKS = ("NCCL_", "GLOO_", "OMP_", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR")
"""variables, or their beginnings, that ranks heed: no others are asked of anybody"""
CPU_MAX, QUOTA, PERIOD = "cpu.max", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"
"""a control group's share of cores: cgroups(7), version 2 and 1"""


def tell(question: dict[str, Any]) -> dict[str, Any]:
    """{"out": the folder for runs, or None} → what this host has. Bytes and seconds."""
    scratch, scratch_free = _scratch()
    return {
        "host": socket.gethostname(), "python": platform.python_version(), "executable": sys.executable,
        "packages": packages(), "code": environment.code(), "cores": os.cpu_count() or 1, "usable": environment.usable_cores(),
        "quota": quota(), "memory": memory_bytes(), "free": available_bytes(), "scratch": scratch,
        "scratch_free": scratch_free, "out_free": _room(question.get("out")),
        "interfaces": interfaces.plain(interfaces.listing()), "speeds": hardware.links(), "all": _all_interfaces(),
        "ports": _port_range(), "environment": relevant(os.environ),
    }  # fmt: skip


def relevant(environment: Mapping[str, str]) -> dict[str, str]:
    """What the checks look at."""
    return {name: value for name, value in environment.items() if name.startswith(RANKS)}


def packages() -> dict[str, str]:
    """Versions of what trainings are made with, of what is installed."""
    found = {}
    for name in (*environment.PACKAGES, "mpi4py", "nvidia-ml-py"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that this process's control group may use at once; None where nothing limits it."""
    try:
        own = next(
            (line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0:")), "/"
        )
    except OSError:
        own = "/"
    folder = root / own.lstrip("/")
    shares = [share for level in (folder, *folder.parents) if level.is_relative_to(root) and (share := _share(level)) is not None]
    return min(shares, default=None)


def _share(folder: Path) -> float | None:
    try:
        if (folder / CPU_MAX).exists():
            most, period = (folder / CPU_MAX).read_text().split()
        else:
            most, period = (folder / QUOTA).read_text().strip(), (folder / PERIOD).read_text().strip()
        return None if most in ("max", "-1") else int(most) / int(period)
    except (OSError, ValueError):
        return None


def _scratch() -> tuple[str, int | None]:
    """Where ranks write what nobody keeps, and bytes free there; None where TMPDIR, or whatever stands in for it, can't be used."""
    place = os.environ.get("TMPDIR") or tempfile.gettempdir()
    try:
        return place, shutil.disk_usage(place).free if os.access(place, os.W_OK | os.X_OK) and os.path.isdir(place) else None
    except OSError:
        return place, None


def _room(out: str | None) -> int | None:
    """Bytes free where a folder is, or would be made; None where nothing is asked, or it can't be looked at."""
    if out is None:
        return None
    folder = Path(out).resolve()
    try:
        return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    except OSError:
        return None


def _all_interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _port_range() -> list[int]:
    """First and last port that the kernel gives to who asks for any: gloo and NCCL listen there."""
    try:
        return [int(word) for word in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()]
    except (OSError, ValueError):
        return [32768, 60999]
