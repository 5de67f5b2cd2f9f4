"""Waiting for what other processes do: for the event, as long as it may take, and never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 120.0
"""seconds after which a machine, however slow, would have come to it"""
SOON = 15.0
"""seconds for what happens at once: a signal's effect, the end of a process"""


def until(happened: Callable[[], object], what: str = "it", seconds: float = PATIENCE) -> None:
    """Until ``happened()`` is true. Where it does not come to it within so many seconds the test fails, and names ``what``."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    """Whether a process is no more: gone, or a zombie that nobody has buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
