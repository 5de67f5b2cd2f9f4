"""The processes of a world but the first: each runs one rank when the first one says so, and is silent but for failures."""

from __future__ import annotations

import os
import platform
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import FrameType

import msgspec

from scalelab.errors import RunError
from scalelab.launch.hosts.channel import Message
from scalelab.launch.hosts.mirror import Mirror, Part
from scalelab.launch.inside.meeting import meet
from scalelab.launch.inside.peer import Peer, reach
from scalelab.launch.inside.placing import links_of
from scalelab.launch.inside.world import World
from scalelab.launch.launcher import Process
from scalelab.launch.pool import Pool
from scalelab.launch.signals import ENDING
from scalelab.launch.silence import Computing
from scalelab.measure import environment

SAME = ("scalelab", "torch")
"""packages whose versions must be the same on all ranks"""
BEAT = 1.0
"""seconds between two words on whether the rank computes"""
LAST_WORD = 3.0
"""seconds for the first process to say how it ended, once this one was asked to end"""


def hello(world: World) -> Message:
    """Who this process is."""
    return {
        "do": "hello", "rank": world.rank, "host": socket.gethostname(), "local_rank": world.local_rank,
        "cores": sorted(os.sched_getaffinity(0)), "facts": msgspec.to_builtins(environment.host()), "code": environment.code(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in SAME}}, "clock": time.time(),
    }  # fmt: skip


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def follow(world: World, environ: Mapping[str, str], address: str | None) -> int:
    """Run this process's rank of whatever the first one starts; the exit status. Raises ScalelabError where it can't be found."""
    with Pool() as pool, tempfile.TemporaryDirectory(prefix="scalelab-") as scratch:
        pool.warm()
        spot, _ = meet(world, environ, address, pool)
        peer = reach(spot, world.token, lambda: None)
        follower = Follower(world, peer, pool, Path(scratch))
        peer.tell({**hello(world), "links": links_of(peer.own)})
        return follower.run()


class Follower:
    """One rank, started and ended as the first process says.

    From its making on a signal that asks this process to end is noted, and acted on between two messages: none of them is lost, or left
    half answered, whenever it comes.
    """

    def __init__(self, world: World, peer: Peer, pool: Pool, scratch: Path) -> None:
        self.world, self.peer, self.pool, self.scratch = world, peer, pool, scratch
        self.process: Process | None = None
        self.folder = scratch
        self.mirror: Mirror | None = None
        """of a folder that is not the run's own"""
        self.computing = Computing([])
        self.beaten = 0.0
        self.status: int | None = None
        """of this process, once the first one has said it"""
        self.asked = False
        """whether somebody has asked this process to end"""
        for number in ENDING:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def run(self) -> int:
        """Until the first process has gone; the exit status."""
        while not self.peer.done:
            if self.asked and self.status is None:
                return self._interrupted()
            self._turn()
        if self.status is None:
            self._end()
            raise RunError(f"rank {self.world.rank}: the first rank's process is gone ({self.peer.over}), so this rank was ended")
        return self.status

    def _turn(self) -> None:
        message = self.peer.hear(0.05)
        if message is not None:
            {"begin": self._begin, "end": self._end_rank, "stacks": self._stacks, "over": self._over}[message[0]["do"]](
                message[0]
            )
        process = self.process
        if process is None or process.status is not None:
            return
        self.pool.poll(0.05)
        if process.status is not None:
            self._tell_end(process)
        elif time.monotonic() - self.beaten > BEAT:
            self.beaten = time.monotonic()
            if self.computing.beat():
                self.peer.tell({"do": "beat"})
            if self.mirror is not None:
                self._send(self.mirror.grown())

    def _begin(self, message: Message) -> None:
        """Start the rank, in the run's own folder where this host sees it."""
        shared = Path(message["folder"])
        self.folder = shared if _same(shared, message["inode"], message["spec"]) else self.scratch
        if self.folder == self.scratch:
            for part in ("logs", "failures", "checkpoints"):
                (self.scratch / part).mkdir(exist_ok=True)
            (self.scratch / "spec.yaml").write_text(message["spec"])
        self.mirror = None if self.folder == shared else Mirror(self.scratch, frozenset([self.world.rank]))
        if self.mirror is not None:
            self.mirror.has("spec.yaml")
        self.peer.tell({"do": "begun", "shared": self.mirror is None})
        env = message["env"]
        log = self.folder / "logs" / f"rank-{self.world.rank}.txt"
        arguments = [str(self.folder / "spec.yaml")]
        self.process = self.pool.start("scalelab.worker.main:rank", arguments, env, log, preload=message["preload"])
        self.computing = Computing([self.process])

    def _end_rank(self, message: Message) -> None:
        self._end(message["grace"])
        self._tell_end(self.process)

    def _stacks(self, message: Message) -> None:
        if self.process is not None:
            self.pool.stacks([self.process])

    def _over(self, message: Message) -> None:
        """How all ended: this process stays until the first one has gone, lest its mpiexec ends that while it still tells."""
        self.status = message["status"]
        self._end()

    def _end(self, grace: float = 1.0) -> None:
        if self.process is not None:
            self.pool.end([self.process], grace)

    def _tell_end(self, process: Process | None) -> None:
        """How the rank ended; one that was never begun, or whose end is still to come, as if it had been asked to."""
        if self.mirror is not None:
            self._send(self.mirror.rest())
        status = None if process is None else process.status
        self.peer.tell({"do": "ended", "status": -signal.SIGTERM if status is None else status})

    def _send(self, parts: Iterator[Part]) -> None:
        for message, body in parts:
            self.peer.tell(message, body)

    def _interrupted(self) -> int:
        """Somebody ends this process: the first one hears of it, and says what became of the run."""
        self.peer.tell({"do": "interrupted"})
        self._end(0.2)
        deadline = time.monotonic() + LAST_WORD
        while not self.peer.done and self.status is None and time.monotonic() < deadline:
            message = self.peer.hear(0.05)
            if message is not None and message[0]["do"] == "over":
                self.status = message[0]["status"]
            elif message is not None and message[0]["do"] == "end":  # srun leaves the first process little time to wait for it
                self._end_rank(message[0])
        return self.status or 128 + signal.SIGINT


def _same(folder: Path, inode: int, spec: str) -> bool:
    """Whether ``folder`` is, here too, the one that the first process made."""
    try:
        return folder.stat().st_ino == inode and (folder / "spec.yaml").read_text() == spec
    except OSError:
        return False
