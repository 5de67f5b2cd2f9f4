"""What a worker may do for a while: nothing, or compute without a word."""

from __future__ import annotations

import time


def idle(seconds: str) -> int:
    """Sleep."""
    time.sleep(float(seconds))
    return 0


def compute(seconds: str) -> int:
    """Use a core, write nothing."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        sum(range(1000))
    return 0
