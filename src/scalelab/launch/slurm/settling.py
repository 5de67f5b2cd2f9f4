"""Records of runs whose job is over, while they say that it is queued or runs: it had no time for a last word."""

from __future__ import annotations

from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.launch.ending import close
from scalelab.launch.slurm.jobs import State
from scalelab.launch.slurm.requeue import say_why
from scalelab.record import folder as records
from scalelab.record.schema import Failure, Status, TrainRecord

OPEN = ("queued", "running")
"""what a record says of a run that goes on"""
INTERRUPTED = {"CANCELLED": "cancelled", "TIMEOUT": "time limit", "PREEMPTED": "preempted", "DEADLINE": "deadline"}
"""ends that say nothing against the training"""
FAILED = {"NODE_FAIL": "a node was lost", "OUT_OF_MEMORY": "out of memory on a node", "BOOT_FAIL": "a node did not boot"}


def settle(folder: Path, record: TrainRecord, job: str, state: State | None) -> TrainRecord:
    """The record, closed where Slurm says that its job is over. ``state`` None: Slurm does not know the job any more.

    A record that is being written, or that another process settles at this moment, stays as it is.
    """
    if record.status not in OPEN or (state is not None and not state.over):
        return record
    try:
        with records.held(folder, "training this run"):
            record = records.load(folder)
            return record if record.status not in OPEN else _settled(folder, job, state)
    except ScalelabError:
        return record


def _settled(folder: Path, job: str, state: State | None) -> TrainRecord:
    ended, why, failure = verdict(job, state)
    close(folder, ended, failure)
    say_why(folder, why, job)
    return records.load(folder)


def verdict(job: str, state: State | None) -> tuple[Status, str, Failure | None]:
    """(status, why, failure) of a run whose job is over, and that has not said so itself."""
    if state is None:
        return "lost", f"Slurm does not know job {job} any more", None
    if state.state in INTERRUPTED:
        return "interrupted", INTERRUPTED[state.state], None
    said = f" ({state.reason})" if state.reason else ""
    why = FAILED.get(state.state, f"the job ended as {state.state}{said}")
    return (
        "failed",
        why,
        Failure(error=f"job {job}: {why}; what it printed is in slurm/output.txt", host=state.nodes, expected=True),
    )
