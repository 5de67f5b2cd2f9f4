"""How much of a host's memory decoded images may take: beyond it they are decoded while the training runs."""

from __future__ import annotations

from pathlib import Path

import psutil

SHARE = 0.5
"""of the memory that the host, or the container or job on it, has. Workers share the pages, so it counts once a host. Not of what
happens to be free: the same training would stream on one day and not on another."""
ON_DEVICE = 0.25
"""of a GPU's memory: beyond it images stay with the host, and each batch travels"""


def memory_bytes() -> int:
    """Memory that this process may use: the host's, or less where a control group (container, Slurm job) limits it."""
    return min([psutil.virtual_memory().total, *_group_limits()])


def _group_limits() -> list[int]:
    """memory.max of this process's control group and those above it (cgroups(7), version 2), or version 1's limit."""
    root, found = Path("/sys/fs/cgroup"), []
    try:
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    for number, controllers, path in own:
        if number == "0":
            folder = root / path.lstrip("/")
            files = [level / "memory.max" for level in (folder, *folder.parents) if level.is_relative_to(root)]
        elif "memory" in controllers.split(","):
            files = [root / "memory" / path.lstrip("/") / "memory.limit_in_bytes", root / "memory" / "memory.limit_in_bytes"]
        else:
            continue
        found += [limit for file in files if (limit := _number(file)) is not None]
    return found


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
