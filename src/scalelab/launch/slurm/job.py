"""The program of a job's script, ``python -m scalelab.launch.slurm.job RUN``: one attempt of a run, from its roll call to its record.

A run goes on where its last checkpoint is. At the time limit (SIGUSR1, by ``--signal`` of the script) it saves a checkpoint and requeues
itself; on SIGTERM (preempted, cancelled, requeued by hand) it saves one too, and Slurm decides what follows.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import msgspec

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import decoding, derive
from scalelab.errors import RunError, ScalelabError
from scalelab.launch import training
from scalelab.launch.ending import close
from scalelab.launch.failure import written
from scalelab.launch.launcher import Prepared
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm import srun
from scalelab.launch.slurm.allocation import Allocation
from scalelab.launch.slurm.jobs import last_states, states
from scalelab.launch.slurm.programs import SlurmError
from scalelab.launch.slurm.requeue import requeue, say_why, seconds, standing, wait_again
from scalelab.launch.slurm.settling import OPEN
from scalelab.record import folder as records
from scalelab.record.pointer import any_saved, newest_step
from scalelab.record.schema import Failure, TrainRecord

ATTEMPTS = 20
"""of a job that end at its time limit; after so many it does not requeue itself any more"""
MARGIN = 5.0
"""seconds before Slurm's SIGKILL in which the record is closed, on a machine that is busy with other jobs too"""
PINGS, ANSWER, LOOK = 3.0, 20.0, 0.5
"""times SlurmdTimeout, and seconds more, in which Slurm has noticed for sure; seconds between two looks"""
REQUEUED = "requeued by Slurm"
"""why an attempt ended where Slurm's own words for it did not come"""
LIMIT = "time limit (SIGUSR1)"
"""why an attempt ended that was asked to by the signal which Slurm sends before the limit, or someone in its place"""
ENDS = {"PREEMPTED": "preempted", "NODE_FAIL": "a node was lost", "TIMEOUT": "time limit", "REQUEUED": "requeued"}
"""what sacct calls the end of an earlier attempt"""


def main(words: Sequence[str]) -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m scalelab.launch.slurm.job", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help="that may end at the time limit before the job gives up")
    parsed = parser.parse_args(words)
    folder: Path = parsed.run
    try:
        with Allocation() as launcher:
            return Job(folder, launcher.on(folder), parsed.attempts).run()
    except ScalelabError as error:
        print(f"scalelab: {error}", file=sys.stderr)
        return error.exit_status


class Job:
    """One attempt of the run in ``folder``."""

    def __init__(self, folder: Path, launcher: Allocation, attempts: int) -> None:
        self.folder, self.launcher, self.attempts = folder, launcher, attempts
        self.got: list[int] = []
        """the signals that came"""
        self.grace, self.missed = seconds("KillWait", "SlurmdTimeout")
        self.printed = Path(os.readlink("/proc/self/fd/1"))
        """where this job's output goes: Slurm's last word to the job comes there too"""
        self.before = self.printed.stat().st_size if self.printed.is_file() else 0

    def run(self) -> int:
        """From the signals' handlers to the record's end; the job's exit status. Raises ScalelabError where nothing was begun."""
        record = records.load(self.folder)
        if record.status == "completed":
            raise ScalelabError(f"{self.folder}: is completed; `scalelab train --resume` goes on with more --epochs")
        self.refuse_twice(record)
        for number in (signal.SIGUSR1, signal.SIGTERM):
            signal.signal(number, self.hear)
        if record.attempts[-1].status == "running":
            close_lost(self.folder, record)
        try:
            prepared = self.prepared(record)
            ended = training.train(self.launcher, prepared, record.environment.command, lambda folder: None, self.folder)
        except KeyboardInterrupt:  # before the ranks were there, or they took longer than Slurm gives
            ended = records.load(self.folder)
            if ended.status in OPEN:
                ended = close(self.folder, "interrupted", None)
        except RunError:
            raise
        except ScalelabError as error:
            with suppress(ScalelabError), records.held(self.folder):
                close(self.folder, "failed", Failure(error=str(error), host=os.uname().nodename, expected=True))
                if self.requeued():  # which is why the roll call failed
                    wait_again(self.folder, srun.reason(self.heard()) or REQUEUED, self.launcher.job or "")
                    return 0
            raise
        return self.conclude(ended)

    def refuse_twice(self, record: TrainRecord) -> None:
        """Raises ScalelabError where another job is training this run: by the run's lock, and by Slurm where a file system has none."""
        with records.held(self.folder):
            other = record.attempts[-1].job
        if record.attempts[-1].status == "running" and other not in (None, self.launcher.job):
            with suppress(SlurmError):
                state = states([str(other)]).of(str(other))
                if state is not None and not state.over:
                    raise ScalelabError(
                        f"{self.folder}: job {other} is training this run; wait for it, or `scalelab cancel {other}`"
                    )

    def hear(self, number: int, frame: FrameType | None) -> None:
        """A signal: all ranks are to save a checkpoint and end, after SIGTERM before Slurm kills them."""
        self.got.append(number)
        if not self.launcher.started:
            raise KeyboardInterrupt
        self.launcher.stop()
        if number == signal.SIGTERM and self.launcher.deadline is None:
            self.launcher.deadline = time.monotonic() + max(1.0, self.grace - MARGIN)

    def prepared(self, record: TrainRecord) -> Prepared:
        """The spec, checked: by who submitted it, or here. It goes on where a checkpoint is."""
        launcher = self.launcher
        spec = msgspec.structs.replace(specs.load(self.folder / "spec.yaml"), resume=None)
        known = spec == msgspec.structs.replace(specs.from_mapping(record.spec), resume=None)
        if any_saved(self.folder):
            spec = msgspec.structs.replace(spec, resume=str(self.folder))
        if not known or record.model is None or record.data is None:
            found = training.prepare(launcher, spec)
            places.note_plan(self.folder, found.plan)
            return found
        local = launcher.workers_of(spec)[0]
        derived = derive(spec, strategies.degrees(spec), launcher.cores, local)
        derived = decoding(spec, derived, launcher.cores, record.data.streamed, local)
        return Prepared(spec, derived, record.model, record.data, {}, 0, launcher.cores, local)

    def conclude(self, record: TrainRecord) -> int:
        """Into the queue again, or the end; the job's exit status."""
        print(f"scalelab: attempt {len(record.attempts)}: {record.status} after step {record.steps}", flush=True)
        if record.status == "completed":
            return 0
        if record.failure is not None:
            print(f"scalelab: {record.failure.error}", file=sys.stderr)
        lost = record.failure is not None and self.host_lost()
        requeued = self.requeued()
        if record.failure is not None and not (lost or requeued):
            return 1
        job = self.launcher.job or ""
        told = srun.lost(self.launcher.unheard()) if lost else srun.reason([*self.launcher.said, *self.heard()])
        if requeued:
            wait_again(self.folder, told or REQUEUED, job)
        elif signal.SIGUSR1 in self.got:
            return self.again(record, job)
        else:
            say_why(self.folder, told or "cancelled", job)
        return 0

    def requeued(self) -> bool:
        """Whether Slurm has put the job into its queue again, which its ranks, or the srun that starts them, may see before it is told."""
        now = standing(self.launcher.job or "")
        return now is not None and now.restarts > self.launcher.restarts

    def host_lost(self) -> bool:
        """Whether ranks failed because a host went away: they saw their connections break, and from others nothing was heard.

        Slurm notices some time later, and requeues the job itself; that is waited for.
        """
        hosts, said = self.launcher.unheard(), written(self.folder).values()
        if not hosts or not said or not all(end.echo for end in said):
            return False
        patience = self.missed * PINGS + ANSWER
        names = ", ".join(hosts)
        print(
            f"scalelab: nothing heard from {names}; waiting at most {patience:g} s for Slurm to notice",
            file=sys.stderr,
            flush=True,
        )
        end = time.monotonic() + patience
        while signal.SIGTERM not in self.got and time.monotonic() < end:
            time.sleep(LOOK)
        return signal.SIGTERM in self.got

    def heard(self) -> list[str]:
        """What was printed since this attempt began."""
        if not self.printed.is_file():
            return []
        with self.printed.open("rb") as file:
            file.seek(self.before)
            return file.read().decode(errors="replace").splitlines()

    def again(self, record: TrainRecord, job: str) -> int:
        """The time is nearly over: requeue the job, unless that would lead to nothing."""
        why_not = futile(record, newest_step(self.folder), job, self.attempts)
        if why_not is None:
            try:
                requeue(self.folder, LIMIT, job, self.launcher.restarts)
                return 0
            except SlurmError as error:
                why_not = str(error)
        say_why(self.folder, f"{LIMIT}; not requeued: {why_not}", job)
        return 1


def close_lost(folder: Path, record: TrainRecord) -> None:
    """The attempt before had no time for a last word: its host is gone, or its program was killed."""
    job = record.attempts[-1].job
    states = last_states(job) if job else []
    close(folder, "lost", None)
    say_why(folder, next((ENDS[state] for state in reversed(states) if state in ENDS), "ended by Slurm, unheard"), job)


def futile(record: TrainRecord, saved: int | None, job: str, attempts: int) -> str | None:
    """Why another attempt of a run whose time is over would lead to nothing; None where it would go on.

    ``saved``: the step of its newest checkpoint. ``attempts`` of ``job`` may end at the time limit.
    """
    if saved is None:
        return "there is no checkpoint to go on from; ask for a longer --time, or keep checkpoints"
    last = record.attempts[-1]
    if last.start_seconds is None or saved <= last.first_step:
        return "this attempt saved no further step; ask for a longer --time"
    ended = 1 + sum(one.job == job and (one.why or "").startswith(LIMIT) for one in record.attempts[:-1])
    return f"{ended} attempts have ended so, which is all of --attempts" if ended >= attempts else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
