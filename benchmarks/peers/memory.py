"""Keeping glibc from handing memory back to the kernel after every tensor."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_memory() -> bool:
    """Freed memory stays with the process, so that activations are not faulted in anew each step.

    Whether it could be set: only glibc has ``mallopt``. Worth calling before the first tensor is made.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, 1 << 30)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
