"""A training over hosts while it runs, on the launching host: what agents tell of it becomes files, statuses, lines on the screen."""

from __future__ import annotations

import queue
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scalelab.errors import RunError
from scalelab.launch.failure import is_noise
from scalelab.launch.hosts.channel import Message
from scalelab.launch.hosts.connection import Agent
from scalelab.launch.hosts.copying import Copy
from scalelab.launch.launcher import Process

LOG = re.compile(r"^logs/rank-(\d+)\.txt$")
FILES = ("grown", "whole", "forget", "gone")


@dataclass
class Part:
    """What runs of a training on one host."""

    agent: Agent
    ranks: range
    copy: Copy
    processes: dict[int, Process] = field(default_factory=dict)
    drained: bool = True
    """whether nothing more will come; until ranks were started there is nothing"""
    heard: float = field(default_factory=time.monotonic)

    @property
    def living(self) -> bool:
        """Whether a rank of it has not ended."""
        return any(process.status is None for process in self.processes.values())


class Running:
    """One training. ``heard`` is called by the threads that read, all else by the main one."""

    def __init__(self, number: int, folder: Path, parts: list[Part], say: Callable[[str], None]) -> None:
        self.number, self.folder, self.parts, self.say = number, folder, parts, say
        self.beats = 0
        """how often an agent has told that its ranks compute"""
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lines: dict[str, bytes] = {}

    def heard(self, agent: Agent, message: Message, body: bytes) -> None:
        """Take in what an agent tells. Files are written at once, so that they are there when a rank's end is known."""
        part = next(part for part in self.parts if part.agent is agent)
        part.heard = time.monotonic()
        try:
            if message["do"] in FILES:
                part.copy.take(message, body)
                self._show(part, message, body)
            else:
                self._events.put(lambda: self._happened(part, message))
        except RunError as error:
            self._events.put(lambda error=error: _raise(error))  # type: ignore[misc]

    def poll(self, timeout: float) -> None:
        """Act upon what was told, for at most ``timeout`` seconds, or until something was. Raises RunError."""
        for part in self.parts:
            part.agent.check()
            if part.agent.lost is not None:
                self._lose(part, part.agent.lost)
        try:
            self._events.get(timeout=timeout)()
            while True:
                self._events.get_nowait()()
        except queue.Empty:
            return

    def over(self) -> bool:
        """Whether all that was started has ended, and all that it wrote is here."""
        return all(part.drained or part.agent.lost is not None for part in self.parts)

    def _happened(self, part: Part, message: Message) -> None:
        if message["do"] == "ended":
            process = part.processes[message["rank"]]
            process.ended = message["ended"] - part.copy.ahead
            process.status = message["status"]
        elif message["do"] == "drained":
            part.drained = True
        elif message["do"] == "beat":
            self.beats += 1
        elif message["do"] == "fault":
            raise RunError(f"{part.agent.place.host}: {message['error']}")

    def _lose(self, part: Part, why: str) -> None:
        for process in part.processes.values():
            if process.status is None:
                process.status, process.ended = -signal.SIGKILL, time.time() - part.agent.silent
                process.error = f"its host was lost: {why}"

    def _show(self, part: Part, message: Message, body: bytes) -> None:
        """Lines of ranks' logs go to the screen, as they come, with host and rank in front."""
        log = LOG.match(message["path"])
        if log is None or message["do"] != "grown":
            return
        *whole, rest = (self._lines.get(log[1], b"") + body).split(b"\n")
        self._lines[log[1]] = rest
        for line in whole:
            text = line.decode(errors="replace").rstrip("\r")
            if text.strip() and not is_noise(text):
                self.say(f"{part.agent.place.host}/{log[1]} | {text}")


def _raise(error: RunError) -> None:
    raise error
