"""How much memory processes here may take: the host's, or less where a control group (a container, a Slurm job) limits it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
UNIFIED = ("memory.max", "memory.current", "inactive_file")
FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""a group's limit, what of it is used, and the line of memory.stat with the file pages in that which can be dropped: cgroups(7), version
2 and 1"""


def memory_bytes(root: Path = ROOT, own: Path = OWN) -> int:
    """Memory that this process may use, taken or free."""
    limits = (_number(folder / limit) for folder, (limit, _, _) in _groups(root, own))
    return min([psutil.virtual_memory().total, *(limit for limit in limits if limit is not None)])


def available_bytes(root: Path = ROOT, own: Path = OWN) -> int:
    """Memory that a further process could take now; file pages that can be dropped count as free."""
    left = [psutil.virtual_memory().available]
    for folder, (limit, used, dropped) in _groups(root, own):
        most, taken = _number(folder / limit), _number(folder / used)
        if most is not None and taken is not None:
            left.append(most - taken + _told(folder / "memory.stat", dropped))
    return max(0, min(left))


def _groups(root: Path, own: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """This process's group and those above it, which limit it too, with the names of their files."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for number, controllers, path in lines:
        if number == "0":
            folder, names = root / path.lstrip("/"), UNIFIED
        elif "memory" in controllers.split(","):
            folder, names = root / "memory" / path.lstrip("/"), FIRST
        else:
            continue
        yield from ((level, names) for level in (folder, *folder.parents) if level.is_relative_to(root))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None


def _told(stat: Path, name: str) -> int:
    """A line's number; 0 where there is none."""
    try:
        return int(dict(line.split() for line in stat.read_text().splitlines()).get(name, 0))
    except (OSError, ValueError):
        return 0


def local_workers(workers: int) -> int:
    """How many of a training's ``workers`` run on this host, by torchrun's LOCAL_WORLD_SIZE: all, where nobody says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", workers))
