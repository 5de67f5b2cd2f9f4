"""Records of runs whose job is over, while they say that it is queued or runs: it had no time for a last word."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.launch.ending import close
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.jobs import State, queue, states
from scalelab.launch.slurm.programs import PATIENCE, SlurmError, call
from scalelab.launch.slurm.requeue import say_why
from scalelab.launch.unclosed import SOON, of_this_cluster
from scalelab.record import folder as records
from scalelab.record.schema import Failure, Status, TrainRecord

OPEN = ("queued", "running")
"""what a record says of a run that goes on"""
INTERRUPTED = {"CANCELLED": "cancelled", "TIMEOUT": "time limit", "PREEMPTED": "preempted", "DEADLINE": "deadline"}
"""ends that say nothing against the training"""
UNOPENED = re.compile(r"\b(0|RaisedSignal):53\b|JobLaunchFailure")
"""Slurm's status where it could not open the file for what a job prints: sacct's words, and squeue's"""
FAILED = {"NODE_FAIL": "a node was lost", "OUT_OF_MEMORY": "out of memory on a node", "BOOT_FAIL": "a node did not boot"}


def current(folder: Path) -> TrainRecord:
    """A run's record, settled where its job is over, or where there never was one: who submitted it was killed. Raises ScalelabError."""
    record = records.load(folder)
    if record.status not in OPEN:
        return record
    job = places.job_of(folder, record)
    if job is None:
        began = datetime.fromisoformat(record.attempts[-1].queued or records.now())
        if record.status == "queued" and datetime.now(UTC) - began > 2 * timedelta(seconds=PATIENCE):
            return _closed(folder, "lost", "was never submitted", None, None)
        return record
    try:
        return settle(folder, record, job, states([job]).of(job))
    except SlurmError:  # it does not answer, or is not here
        return record


def closed_where_over(found: Mapping[Path, TrainRecord]) -> dict[Path, TrainRecord]:
    """These records by folder; those that say that they run, in a job or a step of this cluster's Slurm that is over, closed.

    Slurm is asked only where there are such: by one squeue, then about their hosts, by one sacct at most and one more squeue for steps.
    Where it can't say, they stay as they are: a controller that does not answer is waited for once, however many hosts there are.
    """
    jobs = {folder: job for folder, record in found.items() if record.status == "running" and (job := record.attempts[-1].job)}
    closed = dict(found)
    with suppress(SlurmError):
        listed = queue(SOON) if jobs else {}
        ours = {host for host in {found[folder].attempts[-1].host for folder in jobs} if of_this_cluster(host)}
        jobs = {folder: job for folder, job in jobs.items() if found[folder].attempts[-1].host in ours}
        known, going = states(jobs.values(), listed), steps(jobs.values())
        for folder, job in jobs.items():
            closed[folder] = settle(folder, found[folder], job, known.of(job), going)
    return closed


def steps(jobs: Iterable[str]) -> frozenset[str] | None:
    """The steps that Slurm has under way; None where none of ``jobs`` is one. Raises SlurmError."""
    if not any("." in job for job in jobs):
        return None
    return frozenset(call(["squeue", "--steps", "--noheader", "--format=%i"]).split())


def settle(folder: Path, record: TrainRecord, job: str, state: State | None, going: Collection[str] | None = None) -> TrainRecord:
    """The record, closed where Slurm says that its job is over.

    ``state``: the job's; None where Slurm does not know it any more. ``going``: the steps that are under way, where they are known: the
    step of a job that goes on (JOB.STEP) may be over too.

    A record that is being written, or that another process settles at this moment, stays as it is; so does another user's run whose
    job is not known, since squeue is asked for this user's jobs.
    """
    gone = going is not None and "." in job and job not in going
    if record.status not in OPEN or (state is not None and not state.over and not gone):
        return record
    if state is None and folder.stat().st_uid != os.geteuid():
        return record
    try:
        with records.held(folder, "training this run"):
            record = records.load(folder)
            return record if record.status not in OPEN else _settled(folder, job, state)
    except ScalelabError:
        return record


def _settled(folder: Path, job: str, state: State | None) -> TrainRecord:
    ended, why, failure = verdict(job, state, places.output(folder))
    return _closed(folder, ended, why, failure, job)


def _closed(folder: Path, status: Status, why: str, failure: Failure | None, job: str | None) -> TrainRecord:
    close(folder, status, failure)
    say_why(folder, why, job)
    return records.load(folder)


def verdict(job: str, state: State | None, printed: Path) -> tuple[Status, str, Failure | None]:
    """(status, why, failure) of a run whose job is over, and that has not said so itself. ``printed``: what the job printed."""
    if state is None:
        return "lost", f"Slurm does not know job {job} any more", None
    if state.state in INTERRUPTED:
        return "interrupted", INTERRUPTED[state.state], None
    if "." in job:  # how its job ended, or that it goes on, says nothing of the step
        return "lost", f"Slurm's step {job} is over, and left no last word", None
    said = f" ({state.reason})" if state.reason else ""
    why = FAILED.get(state.state, f"the job ended as {state.state}{said}")
    return (
        "failed",
        why,
        Failure(error=f"job {job}: {why}; {where(state, printed)}", host=state.nodes, expected=True),
    )


def where(state: State, printed: Path) -> str:
    """Where to look for what a job printed; where it printed nothing, not even Slurm's last word, what the likely cause is."""
    if not unopened(state) and printed.exists() and printed.stat().st_size:
        return "what it printed is in slurm/output.txt"
    if state.state == "FAILED":
        return (
            f"it printed nothing: the nodes probably don't see {printed.parents[1]}; --out must be on a disk that all hosts share"
        )
    return "it printed nothing"


def unopened(state: State) -> bool:
    """Whether a job failed because Slurm could not open the file for what it prints."""
    return state.state == "FAILED" and UNOPENED.search(state.reason) is not None
