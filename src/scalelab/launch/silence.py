"""A training whose workers have all gone silent: none writes, none computes. The launcher would wait for it for ever."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from scalelab.launch.pool import Process

EVERY = 1.0
"""seconds between two looks"""
IDLE = 0.02
"""share of a core below which a worker does not compute; sampling its resources each second takes a tenth of that"""
GRACE = 5.0
"""seconds more for several workers: the one that waits for a silent one knows better what it waits for, and says so first"""


class Silence:
    """Looks for signs of life of a run's processes: a file of its folder that grew, or processor time that one of them used.

    A worker that computes for an hour without a word is alive; one that was stopped, or waits for a lock, is not. Processes that a
    worker started count as its own.
    """

    def __init__(self, folder: Path, processes: list[Process], timeout: float) -> None:
        """``timeout`` in seconds."""
        self.folder, self.processes = folder, processes
        self.patience = timeout + (GRACE if len(processes) > 1 else 0.0)
        self.since = self.looked = time.monotonic()
        self.files: dict[Path, tuple[int, int]] = {}
        self.used: dict[int, float] = {}

    def fell(self) -> bool:
        """Whether there was no sign of life for as long as patience lasts. Cheap: it looks once a second."""
        now = time.monotonic()
        if now - self.looked < EVERY:
            return False
        self.looked = now
        files, used = self._files(), self._used()
        busiest = max((seconds - self.used.get(pid, 0.0) for pid, seconds in used.items()), default=0.0)
        unborn = any(process.pid is None for process in self.processes)  # the server still imports: it says when it can't go on
        if unborn or files != self.files or busiest > IDLE * (now - self.since):
            self.since, self.files, self.used = now, files, used
        return now - self.since > self.patience

    def _files(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in (self.folder / "steps.jsonl", self.folder / "record.json", *(self.folder / "logs").glob("*")):
            with contextlib.suppress(OSError):
                status = path.stat()
                found[path] = (status.st_size, status.st_mtime_ns)
        return found

    def _used(self) -> dict[int, float]:
        """Seconds of processor time of each worker and of what it started, by its process id."""
        found = {}
        for process in self.processes:
            if process.pid is not None and process.status is None:
                with contextlib.suppress(psutil.Error):
                    one = psutil.Process(process.pid)
                    found[process.pid] = sum(_seconds(each) for each in (one, *one.children(recursive=True)))
        return found


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
