"""What a host can do at most: measured on it by as many processes as a training has there, all at once."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch.asking import wait
from scalelab.launch.failure import describe
from scalelab.record.schema import Ceiling

if TYPE_CHECKING:
    from scalelab.launch.pool import Pool

TARGET = "scalelab.worker.ceiling:rank"
DOING, PATIENCE = "measuring the machine's ceiling", 300.0
"""and the seconds after which silent workers are given up"""


@dataclass(frozen=True)
class Occupied:
    """How a training occupies a host: with so many of its workers, of so many threads each. ``device`` and ``precision`` as in the spec.

    ``host``: its name; None: this machine.
    """

    workers: int
    threads: int
    device: str
    precision: str
    host: str | None = None

    @property
    def key(self) -> str:
        """The name of this way of occupying a host, under which its ceiling is kept."""
        where = "" if self.host is None else f", {self.host}"
        return f"{self.workers} x {self.threads} on {self.device} in {self.precision}{where}"


def measured(pool: Pool, occupied: Occupied, inside: Path | None = None) -> Ceiling:
    """What one of the workers can do at most while all of them compute, measured by processes of ``pool``.

    About two seconds the first time; then from the user's cache, which holds one for each (host, processor, cores, device, threads,
    workers, precision, torch version). ``inside`` is a folder for what the processes write for each other. Raises ScalelabError where it
    can't be measured.

    All at once, because one worker's ceiling times their number would promise too much: cores share a memory bus, caches and, most of
    all, the power budget that decides their clock.
    """
    with tempfile.TemporaryDirectory(prefix="scalelab-ceiling-", dir=inside) as scratch:
        meeting, answer = Path(scratch, "meeting"), Path(scratch, "answer.json")
        workers, threads = str(occupied.workers), str(occupied.threads)
        shared = [workers, threads, occupied.device, occupied.precision, str(meeting), str(answer)]
        env = {"OMP_NUM_THREADS": threads}
        processes = [pool.start(TARGET, [str(rank), *shared], env) for rank in range(occupied.workers)]
        try:
            statuses = wait(pool, processes, Path(scratch), PATIENCE, DOING)
            if failed := [status for status in statuses if status]:
                raise ScalelabError(f"{DOING} ended with {describe(failed[0])}; its output is above")
        finally:
            pool.end(processes)
        found = json.loads(answer.read_text())
    return msgspec.convert(found, Ceiling)
