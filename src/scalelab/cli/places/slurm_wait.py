"""Following a run whose processes are elsewhere: by its folder, and by what Slurm says of its job."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from scalelab.cli.places.slurm_kept import how_to_look
from scalelab.cli.terminal import Watcher
from scalelab.errors import RunError
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.hopeless import for_ever
from scalelab.launch.slurm.jobs import State, cancel, states
from scalelab.launch.slurm.programs import SlurmError
from scalelab.launch.slurm.requeue import say_why
from scalelab.launch.slurm.settling import OPEN, settle
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord

LOOK, ASK = 0.5, 5.0
"""seconds between two looks at the run's folder, and between two questions to Slurm"""
ENDED = 20.0
"""seconds in which Slurm takes a job out of its queue"""
LAST = "completed"
"""the word of a record after which no other comes: any other run may go into the queue again, a failed one where a node was lost"""


def follow(err: Console, folder: Path, job: str) -> TrainRecord:
    """Until the run has ended; its record. KeyboardInterrupt leaves the job running, and says so.

    Raises RunError where Slurm would hold the job for ever: then it is cancelled.
    """
    queue = Queue(err, job)
    record = records.load(folder)
    try:
        with Watcher(err, record.strategy, places.total_steps(folder) or 0) as watcher:
            while True:
                watcher.total = watcher.total or places.total_steps(folder) or 0
                watcher.watch(folder)
                record = records.load(folder)
                if record.status == LAST or (
                    queue.over() and (record := settle(folder, record, job, queue.state)).status != "queued"
                ):
                    return record
                if queue.state is not None and (why := for_ever([queue.state])) is not None:
                    give_up(folder, job, why)
                time.sleep(LOOK)
    except KeyboardInterrupt:
        err.print(f"job {job} goes on; {how_to_look('run', folder, job)}", markup=False, soft_wrap=True)
        raise


def give_up(folder: Path, job: str, why: str) -> None:
    """Take a job that would wait for ever out of the queue, and close its record. Raises RunError, which says so."""
    cancel([job])
    end = time.monotonic() + ENDED
    while settle(folder, records.load(folder), job, states([job]).of(job)).status in OPEN and time.monotonic() < end:
        time.sleep(LOOK)
    say_why(folder, why, job)
    raise RunError(f"job {job}: {why}; cancelled")


class Queue:
    """What Slurm says of a job, asked once in a while; each change is told once."""

    def __init__(self, err: Console, job: str) -> None:
        self.err, self.job = err, job
        self.state: State | None = None
        self.known = True
        self.told, self.asked = "", 0.0

    def over(self) -> bool:
        """Whether the job is over. Where Slurm does not answer, it is not known to be."""
        now = time.monotonic()
        if self.asked and now - self.asked < ASK:
            return False
        self.asked = now
        try:
            self.state = states([self.job]).of(self.job)
        except SlurmError as error:
            self._tell(f"{error}; the job may go on, so this waits on")
            return False
        self._tell(f"job {self.job} {said(self.state)}")
        return self.state is None or self.state.over

    def _tell(self, text: str) -> None:
        if text != self.told:
            self.told = text
            self.err.print(text, markup=False, soft_wrap=True)


def said(state: State | None) -> str:
    """A state in words: ``waits: Priority``, ``runs on h[1-2]``."""
    if state is None:
        return "is not known to Slurm any more"
    if state.waiting:
        return f"waits{f': {state.reason}' if state.reason else ''}"
    if state.running:
        return f"runs on {state.nodes}" if state.state == "RUNNING" else f"is {state.state.lower()}"
    return f"ended as {state.state}{f' ({state.reason})' if state.reason else ''}"
