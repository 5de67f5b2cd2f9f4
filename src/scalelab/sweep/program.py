"""One attempt at a task: a program that is started, watched and ended with all that it started. Standard library only: it starts fast."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

PR_SET_PDEATHSIG = 1  # prctl(2)
GRACE = 3.0
"""seconds from SIGTERM to SIGKILL: less than Slurm's own KillWait, which is 30 s by default and 5 s on some sites"""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: ``status`` is the exit status, or minus the signal."""

    status: int
    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int


class Program:
    """A program that runs. It leads a session of its own; when it ends, what it has left running is ended with it.

    The kernel kills it when the thread that started it dies. Raises OSError where it can't be started.
    """

    def __init__(
        self, argv: Sequence[str], cwd: str, env: Mapping[str, str], output: IO[bytes], cpus: Sequence[int] | None
    ) -> None:
        parent = os.getpid()

        def prepare() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before the call
                os._exit(1)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            if cpus is not None:
                os.sched_setaffinity(0, cpus)

        self.began = time.perf_counter_ns()
        self.process = subprocess.Popen(
            argv, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip
        self.pidfd = os.pidfd_open(self.process.pid)
        self.kill_at: float | None = None
        self.ending: str | None = None
        """why it is being ended, where that was decided here"""

    def end(self, why: str) -> None:
        """Ask it to end; ``pulse`` makes it, when it does not."""
        if self.ending is None:
            self.ending, self.kill_at = why, time.monotonic() + GRACE
            self._signal(signal.SIGTERM)

    def pulse(self) -> None:
        """Go on with ending the program where that was begun: SIGKILL after the time of grace. To be called now and then."""
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self._signal(signal.SIGKILL)

    def reap(self) -> Outcome:
        """How it ended; its ``pidfd`` was readable."""
        seconds = (time.perf_counter_ns() - self.began) / 1e9
        self._signal(signal.SIGKILL)  # what it started and left running; until it is waited for, its id is its own
        os.close(self.pidfd)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Outcome(self.process.returncode, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
