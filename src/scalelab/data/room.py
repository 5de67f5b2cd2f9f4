"""How much of a host's memory decoded images may take: beyond it they are decoded while the training runs."""

from __future__ import annotations

from scalelab.limits import memory_bytes

__all__ = ["ON_DEVICE", "SHARE", "memory_bytes"]

SHARE = 0.5
"""of the memory that the host, or the container or job on it, has. Workers share the pages, so it counts once a host. Not of what
happens to be free: the same training would stream on one day and not on another."""
ON_DEVICE = 0.25
"""of a GPU's memory: beyond it images stay with the host, and each batch travels"""
