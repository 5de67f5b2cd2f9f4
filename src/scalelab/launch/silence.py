"""A training whose workers have all gone silent: none writes, none computes. The launcher would wait for it for ever."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from scalelab.launch.launcher import Process, Pulse

EVERY = 1.0
"""seconds between two looks"""
IDLE = 0.02
"""share of a core below which a worker does not compute; sampling its resources each second takes a tenth of that"""
STOPPED = 5.0
"""seconds between two looks after which it was this process that stood still: stopped, or its machine asleep"""
GRACE = 5.0
"""seconds more for several workers: the one that waits for a silent one knows better what it waits for, and says so first"""


class Silence:
    """Looks for signs of life of a run's processes: a file of its folder that grew, or processor time that one of them used.

    A worker that computes for an hour without a word is alive; one that was stopped, or waits for a lock, is not. Processes that a
    worker started count as its own.
    """

    def __init__(self, folder: Path, processes: list[Process], timeout: float, pulse: Pulse | None = None) -> None:
        """``timeout`` in seconds. ``pulse`` is of processes that are not all of this host."""
        self.folder, self.pulse = folder, pulse or Computing(processes).beat
        self.patience = timeout + (GRACE if len(processes) > 1 else 0.0)
        self.since = self.looked = time.monotonic()
        self.files: dict[Path, tuple[int, int]] = {}

    def fell(self) -> bool:
        """Whether there was no sign of life for as long as patience lasts. Cheap: it looks once a second."""
        now = time.monotonic()
        if now - self.looked < EVERY:
            return False
        if now - self.looked > STOPPED:
            self.since += now - self.looked
        self.looked = now
        files, beat = self._files(), self.pulse()
        if beat or files != self.files:
            self.since, self.files = now, files
        return now - self.since > self.patience

    def _files(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in (self.folder / "steps.jsonl", self.folder / "record.json", *(self.folder / "logs").glob("*")):
            with contextlib.suppress(OSError):
                status = path.stat()
                found[path] = (status.st_size, status.st_mtime_ns)
        return found


class Computing:
    """Whether processes of this host compute, or others that they started."""

    def __init__(self, processes: list[Process]) -> None:
        self.processes = processes
        self.since = time.monotonic()
        """of ``used``: when one of them was last seen to have computed"""
        self.used: dict[int, float] = {}
        self.children: tuple[float, dict[int, float]] | None = None

    def beat(self) -> bool:
        """Whether one has computed since the last beat."""
        now, used = time.monotonic(), self._used()
        unborn = any(process.pid is None for process in self.processes)  # the server still imports: it says when it can't go on
        if unborn or _grown(self.used, used) > IDLE * (now - self.since):
            self.since, self.used, self.children = now, used, None
            return True
        if self._children_compute(now):
            self.since = now
            return True
        return False

    def _children_compute(self, now: float) -> bool:
        """Whether processes that the workers started have computed since the last time.

        Asked only of workers that look silent themselves: to find children all processes of the host are read.
        """
        used = {pid: sum(map(_seconds, _children(pid))) for pid in self._living()}
        if self.children is not None:
            before, had = self.children
            if _grown(had, used) <= IDLE * (now - before):
                return False
        self.children = now, used  # the first time nothing can be said yet
        return True

    def _used(self) -> dict[int, float]:
        """Seconds of processor time of each worker, by its process id."""
        found = {}
        for pid in self._living():
            with contextlib.suppress(psutil.Error):
                found[pid] = _seconds(psutil.Process(pid))
        return found

    def _living(self) -> list[int]:
        return [process.pid for process in self.processes if process.pid is not None and process.status is None]


def _grown(before: dict[int, float], after: dict[int, float]) -> float:
    """The most seconds that any of them used more."""
    return max((seconds - before.get(pid, 0.0) for pid, seconds in after.items()), default=0.0)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
