"""A polite stop: on a signal all ranks agree at the end of a step, save a checkpoint, and end. Whoever goes on loses nothing."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from types import FrameType

ON = "SCALELAB_STOP_ON"
"""environment variable: the signals that ask for it, such as SIGUSR1,SIGTERM; without it they do what they do to any process"""


@dataclass
class Stop:
    """Whether this rank was asked to stop."""

    asked: bool = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        self.asked = True


def listen() -> Stop:
    """From now on the signals that the launcher named ask this rank to stop."""
    stop = Stop()
    for name in filter(None, os.environ.get(ON, "").split(",")):
        signal.signal(signal.Signals[name], stop.ask)
    return stop
