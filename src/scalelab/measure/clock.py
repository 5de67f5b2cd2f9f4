"""Time: ``perf_counter_ns`` around whole steps, the device synchronised at both ends."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def clock(device: torch.device) -> Callable[[], int]:
    """A function that waits for the device's queued work and returns nanoseconds."""
    if device.type != "cuda":
        return time.perf_counter_ns

    def synchronised() -> int:
        torch.cuda.synchronize(device)
        return time.perf_counter_ns()

    return synchronised
