"""The launcher of a world that somebody else has started: its first process runs the first rank, and tells the others what to run."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from scalelab.batch import Derived
from scalelab.errors import ScalelabError
from scalelab.launch import asking, preloading
from scalelab.launch.failure import by_themselves
from scalelab.launch.hosts.channel import Message
from scalelab.launch.hosts.copying import Copy
from scalelab.launch.inside.crew import Crew
from scalelab.launch.inside.guard import ASKED, Guard
from scalelab.launch.inside.meeting import LOOPBACK, Spot, meet
from scalelab.launch.inside.world import MPIS, World, step
from scalelab.launch.launcher import Command, Launcher, Meeting, Process, Pulse
from scalelab.launch.pool import Pool
from scalelab.launch.signals import ENDING
from scalelab.launch.silence import Computing
from scalelab.measure.environment import CORES, LISTEN_FD, STARTED
from scalelab.record.schema import Host
from scalelab.spec import Spec

ANSWER = 4.0
"""seconds more than asked for, for others to end their ranks"""
HURRY = 0.05
"""the same where mpiexec has asked this process to end: Open MPI kills it a quarter of a second later"""
AFTERMATH = 0.05
"""seconds in which a rank's end is heard of that made somebody end this process"""


class Inside(Launcher):
    """A world's processes, this one its first. Each of the others runs one rank."""

    def __init__(self, world: World, environ: Mapping[str, str], address: str | None = None) -> None:
        """Listens at once, so that whatever is wrong later the others hear of it. Raises ScalelabError."""
        self.world, self.slots = world, world.size
        self.job = step(environ) if world.cluster == "slurm" else None
        self._pool = Pool()
        self._copies: dict[int, Copy] = {}
        self._shares: dict[int, bool] = {}
        """whether a rank writes into the run's own folder"""
        self._processes: dict[int, Process] = {}
        self._beats: set[int] = set()
        self._left: set[int] = set()
        """ranks whose processes were asked to end"""
        self._failed = self._hurry = False
        self._guard: Guard | None = None
        self._ended = False
        try:
            self._spot: Spot
            self._spot, listener = meet(world, environ, address, self._pool)
        except BaseException:
            self._pool.close()
            raise
        assert listener is not None
        self._crew = Crew(world, listener)

    @property
    def cores(self) -> int:
        """That the ranks on this host may use together."""
        return self._crew.placed()[0].cores

    def workers_of(self, spec: Spec) -> list[int]:
        """As somebody else has placed them. Raises ScalelabError where the spec says another number."""
        if spec.workers != self.world.size:
            raise ScalelabError(
                f"--workers {spec.workers}: {self.world.cluster} has started {self.world.size} processes, and each runs one worker; "
                "leave it out"
            )
        return [len(place.ranks) for place in self._crew.placed()]

    def hosts(self, spec: Spec) -> list[Host]:
        """By what their processes said of themselves."""
        return [place.facts for place in self._crew.placed()]

    def warm(self) -> None:
        """The first rank's server; the others do so by themselves."""
        self._pool.warm()

    def ask(self, target: str, spec: Spec, doing: str = asking.DOING) -> Any:
        """On this host."""
        place = self._crew.placed()[0]
        self._pool.env = {"LOCAL_WORLD_SIZE": str(len(place.ranks)), CORES: str(place.cores)}
        return asking.ask(self._pool, target, spec, doing)

    @contextmanager
    def reserve(self, spec: Spec) -> Iterator[Meeting]:
        """A socket for torch's own store, beside the line by which the processes found each other."""
        both = socket.has_dualstack_ipv6() and not self._crew.alone
        try:
            listener = (
                socket.create_server(("", spec.master_port or 0), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
                if both
                else socket.create_server((LOOPBACK if self._crew.alone else "", spec.master_port or 0), backlog=1024)
            )
        except OSError as error:
            raise ScalelabError(f"--master-port {spec.master_port}: {error.strerror}; leave it out for a free one") from None
        with listener:
            yield Meeting(LOOPBACK, listener.getsockname()[1], listener.fileno())

    def commands(self, spec: Spec, derived: Derived) -> list[Command]:
        """Each process's rank, as whoever starts them by hand would."""
        argv = (sys.executable, "-m", "scalelab.worker", "RUN/spec.yaml")
        places = self._crew.placed()
        hosts = {rank: place.name for place in places for rank in place.ranks}
        return [Command(hosts[rank], argv, self._variables(spec, spec.master_port, rank)) for rank in range(spec.workers)]

    def start_ranks(self, folder: Path, spec: Spec, derived: Derived, meeting: Meeting, processes: list[Process]) -> None:
        """The first rank here; each other process is told to start its own."""
        self._folder, self._guard = folder, Guard(folder, os.getpid())
        text, inode, started = (folder / "spec.yaml").read_text(), folder.stat().st_ino, str(time.time())
        preload, path = preloading.of_ranks(spec), str(folder.resolve())
        for rank in range(spec.workers):
            env = {**self._variables(spec, meeting.port, rank), STARTED: started}
            if rank == 0:
                handed = None if meeting.listener is None else (LISTEN_FD, meeting.listener)
                log = folder / "logs" / "rank-0.txt"
                arguments = [str(folder / "spec.yaml")]
                process = self._pool.start("scalelab.worker.main:rank", arguments, env, log, handed, preload)
            else:
                self._copies[rank] = Copy(folder, self._crew.host(rank), self._crew.ahead[rank])
                process = Process(-rank, host=self._crew.host(rank))
                begin = {"do": "begin", "env": env, "spec": text, "folder": path, "inode": inode, "preload": preload}
                self._crew.peers[rank].tell(begin)
            self._processes[rank] = process
            processes.append(process)

    def poll(self, timeout: float) -> None:
        """The first rank's end, and what the others tell."""
        self._pool.poll(timeout)
        self._hear()
        if self._left:  # whoever ended another process of the world meant all of it
            for number in ENDING:  # this one's turn comes next, and must not break off the clearing up
                signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt

    def end(self, processes: list[Process], grace: float = 1.0) -> None:
        """All of them, the others by their processes."""
        grace, ending = (HURRY, HURRY) if self._hurry else (grace, ANSWER)
        others = [rank for rank, process in self._processes.items() if rank and process in processes and process.status is None]
        for rank in others:
            self._crew.peers[rank].tell({"do": "end", "grace": grace})
        self._pool.end([process for process in processes if process.id >= 0], grace)
        deadline = time.monotonic() + grace + ending
        while any(self._processes[rank].status is None for rank in others) and time.monotonic() < deadline:
            self._hear()
            time.sleep(0.02)

    def stacks(self, processes: list[Process]) -> None:
        """Each process asks its own rank."""
        for rank, process in self._processes.items():
            if rank and process.status is None:
                self._crew.peers[rank].tell({"do": "stacks"})
        self._pool.stacks([process for process in processes if process.id >= 0])

    def pulse(self, processes: list[Process]) -> Pulse:
        """The first rank's by the processor time that the kernel tells, the others' by what their processes say."""
        own = Computing([process for process in processes if process.id >= 0])

        def beat() -> bool:
            beats, self._beats = self._beats, set()
            return own.beat() or bool(beats)

        return beat

    def failed_first(self, processes: list[Process]) -> bool:
        """Whether a rank had failed, or its process was lost, before this one was told to end: mpiexec does so, and srun."""
        if self._guard is not None:
            self._guard.tell(ASKED)
        self._hurry = self.world.cluster in MPIS
        deadline = time.monotonic() + AFTERMATH
        while time.monotonic() < deadline:
            self._hear()
            if self._broken():
                return True
            time.sleep(0.02)
        return False

    def _broken(self) -> bool:
        return bool(self._processes) and by_themselves(self._folder, self._processes, self._left)

    def close(self) -> None:
        """The first rank's server ends; the others hear that all is over. They stay until this process has gone."""
        self._over(0 if self._processes and not any(process.status for process in self._processes.values()) else 1)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._over(getattr(error, "exit_status", 130 if isinstance(error, KeyboardInterrupt) else 1))
        elif not self._processes:  # nothing was to run
            self._over(0)
        self.close()

    def _over(self, status: int) -> None:
        if self._ended:
            return
        self._ended = True
        self._crew.over(status)
        self._pool.close()
        if self._guard is not None:
            self._guard.close()

    def _variables(self, spec: Spec, port: int | None, rank: int) -> dict[str, str]:
        """torchrun's variables of a rank, and the interface that it speaks over."""
        place = next(place for place in self._crew.placed() if rank in place.ranks)
        own = {
            "RANK": rank, "LOCAL_RANK": place.ranks.index(rank), "WORLD_SIZE": spec.workers, "LOCAL_WORLD_SIZE": len(place.ranks),
            "MASTER_ADDR": self._crew.master(rank), "MASTER_PORT": port or "FREE", CORES: place.cores,
            "OMP_NUM_THREADS": spec.threads_per_worker or max(1, place.cores // len(place.ranks)),
        }  # fmt: skip
        return {**{name: str(value) for name, value in own.items()}, **self._crew.links(rank)}

    def _hear(self) -> None:
        for rank, peer in self._crew.peers.items():
            while (message := peer.hear()) is not None:
                self._take(rank, *message)
            process = self._processes.get(rank)
            if peer.done and process is not None and process.status is None:
                process.status, process.ended = -9, peer.lost
                process.error = f"its process on {process.host} is gone: {peer.over}"
        if not self._failed and self._broken():
            self._failed = True
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # mpiexec's, because of that failure, which is still to be told

    def _take(self, rank: int, message: Message, body: bytes) -> None:
        if message["do"] == "beat":
            self._beats.add(rank)
        elif message["do"] == "interrupted":
            self._left.add(rank)
        elif message["do"] == "ended" and self._processes[rank].status is None:  # it may be said again to who asks for the end
            process = self._processes[rank]
            process.status, process.ended = message["status"], message["came"]
            if not self._crew.here(rank) and self._shares.get(rank):
                self._on_one_clock(rank)
        elif message["do"] == "begun":
            self._shares[rank] = message["shared"]
        elif "path" in message:
            self._copies[rank].take(message, body)

    def _on_one_clock(self, rank: int) -> None:
        """Move the time of a failure that a rank wrote on another host to this one's clock."""
        name = f"failures/rank-{rank}.json"
        if (self._folder / name).exists():
            body = (self._folder / name).read_bytes()
            self._copies[rank].take({"do": "whole", "path": name, "at": 0, "last": True}, body)
