"""The launcher's end of the fork server: start processes in it, hear of their exits, end them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from scalelab.batch import Derived
from scalelab.errors import RunError, ScalelabError
from scalelab.launch import asking, local
from scalelab.launch.ceiling import Occupied, measured
from scalelab.launch.launcher import Command, Launcher, Meeting, Process, Pulse
from scalelab.launch.silence import Computing
from scalelab.measure import environment
from scalelab.measure.environment import usable_cores
from scalelab.record.schema import Ceiling, Host
from scalelab.spec import Spec

PRELOAD = ("scalelab.worker.preload",)
STACK = 0.3
"""seconds that a rank gets to write its stack"""
QUIET = {"KINETO_LOG_LEVEL": "5"}
"""torch.profiler reports on stderr that a machine without a GPU has none"""


class Pool(Launcher):
    """The local launcher: processes forked from one preloaded server, which starts with the first of them. Use as a context manager.

    Where the server dies, its forks die with it; the next process starts another one.
    """

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        """environment variables of every process that is started"""
        self._ids = itertools.count()
        self._processes: dict[int, Process] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._heard = False
        """whether this server ever said a word: one that did not died of what it imports"""

    @property
    def here(self) -> Pool:  # type: ignore[override]
        """Its own processes: all ranks run on this machine."""
        return self

    @property
    def cores(self) -> int:
        """Cores of this machine that this process may use."""
        return usable_cores()

    def workers_of(self, spec: Spec) -> list[int]:
        """All of them, on this machine."""
        return [spec.workers]

    def hosts(self, spec: Spec) -> list[Host]:
        """This machine."""
        return [msgspec.structs.replace(environment.host(), workers=spec.workers)]

    def ask(self, target: str, spec: Spec, doing: str = asking.DOING) -> Any:
        """What ``target`` answers, in a process of its own."""
        return asking.ask(self, target, spec, doing)

    def occupied(self, spec: Spec, derived: Derived) -> list[Occupied]:
        """This machine, with all of them."""
        return [Occupied(spec.workers, derived.threads, spec.device, spec.precision)]

    def ceilings(self, wanted: Sequence[Occupied]) -> Mapping[Occupied, Ceiling]:
        """One after the other: they would compete for the cores."""
        found = {}
        for one in wanted:
            with contextlib.suppress(ScalelabError):
                found[one] = measured(self, one)
        return found

    def reserve(self, spec: Spec) -> AbstractContextManager[Meeting]:
        """A port of the loopback interface."""
        return local.reserve(spec.master_port)

    def commands(self, spec: Spec, derived: Derived) -> list[Command]:
        """A worker a rank; in truth it is forked from a process that has imported torch already."""
        return local.commands(spec, derived)

    def start_ranks(self, folder: Path, spec: Spec, derived: Derived, meeting: Meeting, processes: list[Process]) -> None:
        """Fork them all."""
        local.start_ranks(self, folder, spec, derived, meeting, processes)

    def pulse(self, processes: list[Process]) -> Pulse:
        """Whether they use processor time, as the kernel counts it."""
        return Computing(processes).beat

    def warm(self) -> None:
        """Start the server now, so that it imports while something else is done."""
        if self._server is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "scalelab.launch.server", *PRELOAD],
            stdin=theirs.fileno(),
            start_new_session=True,
            env={**os.environ, **QUIET},
        )
        theirs.close()
        self._socket, self._heard = ours, False

    def start(
        self,
        target: str,
        args: list[str],
        env: dict[str, str] | None = None,
        log: Path | None = None,
        fd: tuple[str, int] | None = None,
        preload: Sequence[str] = (),
    ) -> Process:
        """Fork a process that calls ``target`` ("module:function"). ``fd`` (variable's name, descriptor) is handed over.

        ``preload`` names modules that the server imports before it forks, if it has not: they must compute nothing.
        """
        if self._server is not None and self._server.poll() is not None and self._heard:
            self._lose()  # between two trainings; what died at import would do so again
        self.warm()
        process = Process(next(self._ids))
        request: dict[str, Any] = {
            "id": process.id, "target": target, "args": args, "env": {**self.env, **(env or {})},
            "log": None if log is None else str(log), "fd_env": None if fd is None else fd[0],
            "preload": list(preload),
        }  # fmt: skip
        self._processes[process.id] = process
        self._tell(request, [] if fd is None else [fd[1]])
        return process

    def poll(self, timeout: float) -> None:
        """Take in what the server reports, for at most ``timeout`` seconds. Raises RunError when the server is gone."""
        assert self._socket is not None
        end = time.monotonic() + timeout
        while select.select([self._socket], [], [], max(0.0, end - time.monotonic()))[0]:
            try:
                message = self._socket.recv(1 << 16)
            except ConnectionResetError:
                message = b""
            if not message:
                raise self._lose()
            self._heard = True
            report = json.loads(message)
            process = self._processes[report["id"]]
            process.pid = report.get("pid", process.pid)
            if "status" in report:
                process.status, process.ended = report["status"], time.time()
                return

    def wait(self, process: Process) -> int:
        """Until the process ends; its status."""
        while process.status is None:
            self.poll(1.0)
        return process.status

    def end(self, processes: list[Process], grace: float = 1.0) -> None:
        """End these processes: SIGTERM, and SIGKILL after ``grace`` seconds. Only these, by their ids."""
        with contextlib.suppress(RunError):  # the server is gone, and all of them with it
            self._end(processes, grace)

    def stacks(self, processes: list[Process]) -> None:
        """Each rank's faulthandler writes its stack on SIGUSR2."""
        with contextlib.suppress(RunError):
            living = [process for process in processes if process.status is None]
            for process in living:
                self._tell({"id": process.id, "signal": signal.SIGUSR2})
            if living:
                self.poll(STACK)

    def _end(self, processes: list[Process], grace: float) -> None:
        if all(p.status is not None for p in processes):
            return
        if not self._heard and all(p in processes for p in self._processes.values() if p.status is None):
            self._lose()  # it still imports, has forked none of them, and is not waited for
            return
        for sign, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 3.0)):
            for process in processes:
                if process.status is None:
                    self._tell({"id": process.id, "signal": sign})
            deadline = time.monotonic() + seconds
            while any(p.status is None for p in processes) and time.monotonic() < deadline:
                self.poll(0.05)

    def _tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        assert self._socket is not None
        try:
            socket.send_fds(self._socket, [json.dumps(message).encode()], fds)
        except OSError:
            raise self._lose() from None

    def _lose(self) -> RunError:
        """Give up a server that ended: the kernel ended its forks with it, and the next start has a new one."""
        for process in self._processes.values():
            process.status = -signal.SIGKILL if process.status is None else process.status
        why = "" if self._heard else "; `python -c 'import scalelab.worker.preload'` may show why"
        self.close()
        return RunError(f"the worker server ended unexpectedly{why}")

    def close(self) -> None:
        """Close the socket: the server ends its forks and itself."""
        if self._server is None or self._socket is None:
            return
        self._socket.close()
        try:
            self._server.wait(2.0 if self._heard else 0.0)
        except subprocess.TimeoutExpired:  # still importing
            self._server.kill()
            self._server.wait()
        self._server = self._socket = None
