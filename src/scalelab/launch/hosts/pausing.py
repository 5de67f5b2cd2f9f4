"""Ctrl-Z: it stops this process alone, as it does that of a training on this machine. The hosts' ranks go on, and wait for it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Protocol

from scalelab.launch.hosts.channel import SILENT

PAUSE = 3600.0
"""seconds that hosts wait for a launcher that was stopped. Where it dies meanwhile its connections close, which they hear at once"""
SENT = 1.0
"""seconds that it takes at most to tell them"""


class Patient(Protocol):
    """What another host holds for us: an agent, or a crew of a sweep."""

    @property
    def lost(self) -> str | None:
        """Why its connection ended; None while it lasts."""

    @property
    def waiting(self) -> int:
        """Bytes that were handed in and are not sent yet."""

    def be_patient(self, seconds: float) -> None:
        """Have it wait ``seconds`` for a sign of life from here before it ends what it runs."""


class Pausing:
    """From now on until ``close`` the terminal's Ctrl-Z is told to ``agents()`` before it stops this process."""

    def __init__(self, agents: Callable[[], Iterable[Patient]]) -> None:
        self.agents = agents
        """not a list: they come and go"""
        self.on = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
        if self.on:
            signal.signal(signal.SIGTSTP, self.stop)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler; it returns when this process goes on."""
        self._tell(PAUSE)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.stop)
        self._tell(SILENT)

    def close(self) -> None:
        """Ctrl-Z does again what it does to any process."""
        if self.on:
            with contextlib.suppress(ValueError):  # not by the main thread any more
                signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _tell(self, seconds: float) -> None:
        agents = [agent for agent in self.agents() if agent.lost is None]
        for agent in agents:
            agent.be_patient(seconds)
        deadline = time.monotonic() + SENT
        while any(agent.waiting for agent in agents) and time.monotonic() < deadline:
            time.sleep(0.01)
