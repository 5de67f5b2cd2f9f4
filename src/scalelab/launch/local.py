"""The ranks of a training on this machine: where they meet, and how they start."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scalelab.batch import Derived
from scalelab.errors import ScalelabError
from scalelab.launch import preloading
from scalelab.launch.launcher import Command, Meeting, Process
from scalelab.measure.environment import LISTEN_FD, STARTED
from scalelab.spec import Spec

if TYPE_CHECKING:
    from scalelab.launch.pool import Pool


@contextmanager
def reserve(port: int | None) -> Iterator[Meeting]:
    """Where the ranks meet: ``listen``'s socket, held until the block is left. Raises ScalelabError as it does."""
    with listen(port) as listener:
        address, bound = listener.getsockname()
        yield Meeting(address, bound, listener.fileno())


def listen(port: int | None) -> socket.socket:
    """A socket on ``port`` of the loopback, or on a free one, for rank 0 to listen at: from here on nobody else can take that port.

    Raises ScalelabError where ``port`` is in use.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port or 0))
    except OSError as error:
        listener.close()
        raise ScalelabError(f"--master-port {port}: {error.strerror}; leave it out for a free one") from None
    listener.listen(1024)
    return listener


def commands(spec: Spec, derived: Derived) -> list[Command]:
    """A command for each rank, as whoever starts them by hand would."""
    meeting = Meeting("127.0.0.1", spec.master_port or 0)
    argv = (sys.executable, "-m", "scalelab.worker", "RUN/spec.yaml")
    return [Command(socket.gethostname(), argv, variables(spec, derived, meeting, rank)) for rank in range(spec.workers)]


def variables(spec: Spec, derived: Derived, meeting: Meeting, rank: int) -> dict[str, str]:
    """torchrun's variables of a rank, where all are on this machine."""
    own = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": spec.workers, "LOCAL_WORLD_SIZE": spec.workers,
        "MASTER_ADDR": meeting.address, "MASTER_PORT": meeting.port or "FREE", "OMP_NUM_THREADS": derived.threads,
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }  # fmt: skip
    return {name: str(value) for name, value in own.items()}


def start_ranks(pool: Pool, folder: Path, spec: Spec, derived: Derived, meeting: Meeting, processes: list[Process]) -> None:
    """Fork one process a rank, with torchrun's variables."""
    started = str(time.time())
    for rank in range(spec.workers):
        env = {**variables(spec, derived, meeting, rank), STARTED: started}
        handed = (LISTEN_FD, meeting.listener) if rank == 0 and meeting.listener is not None else None
        log = folder / "logs" / f"rank-{rank}.txt"
        arguments, preload = [str(folder / "spec.yaml")], preloading.of_ranks(spec)
        processes.append(pool.start("scalelab.worker.main:rank", arguments, env, log, handed, preload))
