"""A training over hosts while it runs, on the launching host: what agents tell of it becomes files, statuses, lines on the screen."""

from __future__ import annotations

import queue
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalelab.errors import RunError, ScalelabError
from scalelab.launch.failure import is_noise
from scalelab.launch.hosts.channel import Message
from scalelab.launch.hosts.connection import Agent
from scalelab.launch.hosts.copying import Copy
from scalelab.launch.hosts.pushing import until
from scalelab.launch.launcher import Process

LOG = re.compile(r"^logs/rank-(\d+)\.txt$")
STACK = re.compile(r"^Traceback \(most recent call last\)|\(most recent call first\):$")
"""how a traceback, or what faulthandler writes of a thread, begins"""
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

    def refused(self, started: Future[dict[str, Any]]) -> str | None:
        """Wait until its ranks have started; why they could not."""
        try:
            until(self.agent, started)
        except ScalelabError as error:
            self.drained = True
            return f"{self.agent.place.host}: {error}"
        return None


class Running:
    """One training. ``heard`` is called by the threads that read, all else by the main one."""

    def __init__(self, number: int, folder: Path, parts: list[Part], say: Callable[[str], None]) -> None:
        self.number, self.folder, self.parts, self.say = number, folder, parts, say
        self.beats = 0
        """how often an agent has told that its ranks compute"""
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lines: dict[str, Lines] = {}

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
        for line in self._lines.setdefault(log[1], Lines()).shown(body):
            self.say(f"{part.agent.place.host}/{log[1]} | {line}")


class Lines:
    """A rank's log as it comes, cut into the lines that are shown: noise is not, nor is a traceback but for its last line.

    The traceback of the rank that failed first is told at the end; those of the others are in their logs.
    """

    def __init__(self) -> None:
        self._rest, self._traceback = b"", False

    def shown(self, body: bytes) -> list[str]:
        """The lines that are whole now."""
        *whole, self._rest = (self._rest + body).split(b"\n")
        texts = (line.decode(errors="replace").rstrip("\r") for line in whole)
        return [text for text in texts if text.strip() and not is_noise(text) and not self._inside(text)]

    def _inside(self, text: str) -> bool:
        if STACK.search(text):
            self._traceback = True
            return True
        self._traceback = self._traceback and text.startswith(" ")
        return self._traceback


def _raise(error: RunError) -> None:
    raise error
