"""A second process beside the runner of tasks: when that is killed without a word, it ends what the tasks have started.

The kernel kills the programs themselves (``PR_SET_PDEATHSIG``), not what they have started. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable

ENTRY = struct.Struct("i")


def guard() -> Callable[[int], None]:
    """Fork it. What is returned is told of each session that has begun, and with a minus that has ended.

    To be called before there are threads or other descriptors than the standard ones.
    """
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            os.close(write)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):  # whose other ends wait for the runner's end
                os.dup2(null, descriptor)
            _watch(read)
        finally:
            os._exit(0)
    os.close(read)

    def told(session: int) -> None:
        with contextlib.suppress(OSError):  # it was killed itself
            os.write(write, ENTRY.pack(session))

    return told


def _watch(descriptor: int) -> None:
    running: set[int] = set()
    while len(entry := os.read(descriptor, ENTRY.size)) == ENTRY.size:
        (session,) = ENTRY.unpack(entry)
        (running.add if session > 0 else running.discard)(abs(session))
    for session in running:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
