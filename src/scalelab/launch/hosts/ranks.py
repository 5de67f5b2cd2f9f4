"""The ranks of one training on one host, as its agent starts and follows them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scalelab.errors import RunError
from scalelab.launch import failure
from scalelab.launch.hosts.channel import Writer
from scalelab.launch.hosts.mirror import Mirror, Part
from scalelab.launch.launcher import Process
from scalelab.launch.pool import Pool
from scalelab.launch.silence import Computing
from scalelab.measure.environment import LISTEN_FD
from scalelab.record.folder import now

LOOK, BEAT = 0.2, 1.0
"""seconds between two looks at the files, and at whether the ranks compute"""
ROOM = 1 << 22
"""bytes that may wait to be sent before no more are read"""


class Ranks:
    """Processes by rank, and the mirror of their folder. ``tick`` does what is due, and tells when nothing is left to do."""

    def __init__(self, pool: Pool, writer: Writer, training: int, folder: Path, mirror: Mirror) -> None:
        self.pool, self.writer, self.training, self.folder, self.mirror = pool, writer, training, folder, mirror
        self.processes: dict[int, Process] = {}
        self._told: set[int] = set()
        self._computing: Computing | None = None
        self._looked = self._beat = 0.0
        self._rest: Iterator[Part] | None = None

    def start(self, envs: dict[int, dict[str, str]], preload: list[str], listener: int | None) -> None:
        """Fork one process a rank, each with its variables. Raises RunError."""
        for rank, env in envs.items():
            log = self.folder / "logs" / f"rank-{rank}.txt"
            handed = (LISTEN_FD, listener) if rank == 0 and listener is not None else None
            args = [str(self.folder / "spec.yaml")]
            self.processes[rank] = self.pool.start("scalelab.worker.main:rank", args, env, log, handed, preload)
        self._computing = Computing(list(self.processes.values()))

    def tick(self) -> bool:
        """Take in what became of the ranks and send what they wrote; whether there is more to come."""
        if self._rest is None:
            self._poll()
            self._send()
        if self._rest is not None:
            return self._drain()
        return True

    def _poll(self) -> None:
        if any(process.status is None for process in self.processes.values()):
            try:
                self.pool.poll(0.0)
            except RunError as error:  # the server is gone, and with it all that it forked
                self._tell({"do": "fault", "error": str(error)})
        for rank, process in self.processes.items():
            if process.status and rank not in self._told:
                self._told.add(rank)
                self._end(rank, process)
        if all(process.status is not None for process in self.processes.values()):
            self._rest = self.mirror.rest()

    def _end(self, rank: int, process: Process) -> None:
        """What a rank left is sent before its end is told."""
        parts = [*self.mirror.grown(), *self.mirror.failures()]
        for part in parts:
            self._tell(*part)
        if process.status and f"failures/rank-{rank}.json" not in self.mirror.sent:
            self._tell(*self._silent(rank, process))
        self._tell({"do": "ended", "rank": rank, "status": process.status, "ended": process.ended or time.time()})

    def _silent(self, rank: int, process: Process) -> Part:
        """The failure of a rank that could not write one, as the rank would have written it."""
        found = msgspec.to_builtins(failure.unsaid(self.folder, rank, process))
        body = {"time": now(), **found}
        return {"do": "whole", "path": f"failures/rank-{rank}.json", "at": 0, "last": True}, json.dumps(body).encode()

    def _send(self) -> None:
        moment = time.monotonic()
        if moment - self._looked >= LOOK and self._rest is None:
            self._looked = moment
            if self.writer.waiting < 8 * ROOM:
                for part in self.mirror.grown():
                    self._tell(*part)
            for part in self.mirror.whole(ROOM - self.writer.waiting):
                self._tell(*part)
        if moment - self._beat >= BEAT and self._computing is not None:
            self._beat = moment
            if self._computing.beat():
                self._tell({"do": "beat"})

    def _drain(self) -> bool:
        """Send what is left, as fast as it goes; whether there is more."""
        assert self._rest is not None
        while self.writer.waiting < ROOM:
            part = next(self._rest, None)
            if part is None:
                self._done()
                return False
            self._tell(*part)
        if time.monotonic() - self._beat >= BEAT:  # it works, though no rank computes
            self._beat = time.monotonic()
            self._tell({"do": "beat"})
        return True

    def _done(self) -> None:
        """All is sent: the ends of the ranks that went well are told only now, so that who hears of them finds all that they wrote."""
        for rank, process in self.processes.items():
            if rank not in self._told:
                self._tell({"do": "ended", "rank": rank, "status": process.status, "ended": process.ended or time.time()})
        self._tell({"do": "drained"})

    def _tell(self, message: dict[str, Any], body: bytes = b"") -> None:
        self.writer.send({**message, "training": self.training}, body)
