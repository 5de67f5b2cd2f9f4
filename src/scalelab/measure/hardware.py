"""What this host's hardware is said to be: its caches, its links. Linux tells both under /sys; elsewhere nothing is known."""

from __future__ import annotations

import re
from pathlib import Path

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def cache_bytes(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache that the first core sees; 0 where the system does not tell."""
    found = [_size(path) for path in root.glob("index*/size")]
    return max(found, default=0)


def _size(path: Path) -> int:
    try:
        number, unit = re.fullmatch(r"(\d+)([KMG]?)", path.read_text().strip()).groups()  # type: ignore[union-attr]
    except (OSError, AttributeError):
        return 0
    return int(number) * UNITS[unit]


def links(root: Path = Path("/sys/class/net")) -> dict[str, int]:
    """Bytes/s of each network interface that tells its speed (what ethtool shows); loopback and most virtual ones do not."""
    found = {}
    for path in sorted(root.glob("*/speed")):
        try:
            megabits = int(path.read_text())
        except (OSError, ValueError):
            continue
        if megabits > 0:  # -1: unknown
            found[path.parent.name] = megabits * 125_000
    return found
