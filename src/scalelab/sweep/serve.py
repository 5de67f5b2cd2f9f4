"""The runner of tasks as a process of its own: it is told what to run on stdin, and tells what happened on stdout.

It ends its tasks when stdin closes, however that came about: the launching process may be killed, the connection may be cut.

Protocol: JSON lines in, messages as ``launch.hosts.channel`` frames them out.
    → {"folder": path or null, "jobs", "cpus_per_task", "gpus_per_task", "silence": seconds or null}   first
    → {"run": job} · {"end": why} · {"patience": seconds of silence from now on}, and signs of life
    ← {"host", "version", "jobs", "cpus", "gpus"}                                                     first
    ← {"record": …} when a task begins and when it has ended
    ← {"output": task} and bytes: where ``folder`` is null, which is on another host: its files are sent, not kept
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scalelab import __version__
from scalelab.launch.hosts.channel import encode, write_all
from scalelab.sweep import slots
from scalelab.sweep.guard import guard
from scalelab.sweep.job import from_wire
from scalelab.sweep.runner import TICK, Runner

PIECE = 1 << 20
MIRROR_EVERY = 1.0
"""seconds between two looks at what tasks on another host have written"""
GONE = "the launching process has ended"


class Server:
    """A runner that is told by its standard input, and tells by its standard output."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.mirrored = told["folder"] is None
        self.folder = Path(tempfile.mkdtemp(prefix="scalelab-sweep-")) if self.mirrored else Path(told["folder"])
        (self.folder / "tasks").mkdir(exist_ok=True)
        self.lock = alone(self.folder / "tasks")
        cores, gpus = slots.cores(), slots.gpus(os.environ)
        shared = slots.share(cores, gpus, told["jobs"], told["cpus_per_task"], told["gpus_per_task"])
        self.runner = Runner(self.folder, shared, self.tell, Path.home() if self.mirrored else None)
        self.runner.guard = guard()
        self.runner.selector.register(0, selectors.EVENT_READ, "told")
        self.silence: float | None = told["silence"]
        self.quiet = 0.0
        """seconds for which nothing came, though it was listened: none in which a slow line was written to, or this machine stood still"""
        self.looked = time.monotonic()
        self.sent: dict[int, int] = {}
        self.buffer = b""
        self.said_end = False
        say({"host": socket.gethostname(), "version": __version__, "jobs": len(shared), "cpus": len(cores), "gpus": len(gpus)})

    def serve(self) -> None:
        """Until told to end, or nobody is there any more; then until no task runs."""
        try:
            while not self.said_end or self.runner.running:
                began = time.monotonic()
                if self.runner.wait(TICK) and not self.said_end:
                    self.listen()
                else:
                    self.quiet += min(time.monotonic() - began, TICK)
                if self.silence is not None and self.quiet > self.silence:
                    self.end("the launching host was not heard any more")
                if self.mirrored and time.monotonic() - self.looked > MIRROR_EVERY:
                    self.looked = time.monotonic()
                    for task in self.runner.running:
                        self.mirror(task)
        finally:
            if self.mirrored:
                shutil.rmtree(self.folder, ignore_errors=True)

    def listen(self) -> None:
        """Take in what is on stdin."""
        piece = os.read(0, PIECE)
        self.quiet = 0.0
        if not piece:
            self.end(GONE)
            return
        *lines, self.buffer = (self.buffer + piece).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "run" in told and not self.said_end:
                self.runner.start(from_wire(told["run"]))
            elif "patience" in told and self.silence is not None:
                self.silence = told["patience"]
            elif "end" in told:
                self.end(told["end"])

    def end(self, why: str) -> None:
        """Begin to end all tasks."""
        if not self.said_end:
            self.said_end = True
            self.runner.selector.unregister(0)
            self.runner.end(why)

    def tell(self, record: dict[str, Any]) -> None:
        """A record; of a task that has ended after all its output."""
        if self.mirrored and record["status"] != "running":
            self.mirror(record["task"])
            self.sent.pop(record["task"], None)
            for ending in ("json", "out"):
                (self.folder / "tasks" / f"{record['task']}.{ending}").unlink(missing_ok=True)
        say({"record": record})

    def mirror(self, task: int) -> None:
        """Send what was written since the last look."""
        path = self.folder / "tasks" / f"{task}.out"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.sent.get(task, 0))
            while piece := file.read(PIECE):
                say({"output": task}, piece)
                self.sent[task] = file.tell()


def alone(tasks: Path) -> int | None:
    """Wait until no other runner writes into this folder. The lock is held as long as this process lives.

    A runner whose launching process was killed takes seconds to end its tasks, and its last record of one must not come after that task
    was begun again.
    """
    with contextlib.suppress(OSError):  # a full disk, or one without locks
        file = os.open(tasks / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in tasks.glob(".*.tmp"):  # half a record of a runner that was killed
            left.unlink()
        return file
    return None


def say(message: dict[str, Any], body: bytes = b"") -> None:
    """A message on stdout. Nobody hears it any more: what tasks leave in the folder tells."""
    try:
        write_all(1, encode(message, body))
    except OSError:
        return


def serve() -> int:
    """The program; its exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # the end of stdin is what ends it
    first = b""
    while not first.endswith(b"\n"):  # by the byte: what follows is the server's to read
        byte = os.read(0, 1)
        if not byte:
            return 0
        first += byte
    Server(json.loads(first)).serve()
    sys.stdout.flush()
    return 0
