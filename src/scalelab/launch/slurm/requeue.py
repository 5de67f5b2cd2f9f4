"""Into the queue again: by Slurm itself (preemption, a lost node), or by the job at its time limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from scalelab.launch.slurm.programs import SlurmError, call
from scalelab.record import folder as records
from scalelab.record.schema import Attempt

DEFAULTS = {"KillWait": 30.0, "SlurmdTimeout": 300.0}
"""seconds, slurm.conf(5): from SIGTERM to SIGKILL, and until a host that does not answer counts as down"""


@dataclass(frozen=True)
class Standing:
    """How Slurm sees a job that is being asked about from inside."""

    state: str
    restarts: int


def standing(job: str) -> Standing | None:
    """What Slurm says of the job now; None where it does not answer."""
    try:
        said = call(["squeue", f"--jobs={job}", "--noheader", "--Format=State:30,RestartCnt:20"], outside=False).split()
        return Standing(said[0], int(said[1]))
    except (SlurmError, IndexError, ValueError):
        return None


def seconds(*names: str) -> list[float]:
    """Times of Slurm's own settings, such as KillWait; its defaults where it does not tell."""
    try:
        lines = call(["scontrol", "show", "config"], outside=False).splitlines()
    except SlurmError:
        lines = []
    told = {parts[0].strip(): parts[1].split() for line in lines if len(parts := line.split("=", 1)) == 2}
    return [float(told[name][0]) if told.get(name, [""])[0].isdecimal() else DEFAULTS[name] for name in names]


def say_why(folder: Path, why: str, job: str | None) -> None:
    """Note in the record why the last attempt, which was in ``job``, ended."""
    record = records.load(folder)
    record.attempts[-1] = _ended(record.attempts[-1], why, job)
    records.save(folder, record)


def _ended(attempt: Attempt, why: str, job: str | None) -> Attempt:
    return msgspec.structs.replace(attempt, why=why, job=attempt.job or job)


def wait_again(folder: Path, why: str, job: str) -> None:
    """The last attempt ended for ``why``, and the run waits in the queue for the next one: it failed no more than it was interrupted."""
    record, now = records.load(folder), records.now()
    record.attempts[-1] = msgspec.structs.replace(_ended(record.attempts[-1], why, job), status="interrupted")
    record.attempts.append(Attempt(started=now, queued=now, status="queued", job=job))
    record.status, record.failure = "queued", None
    records.save(folder, record)


def requeue(folder: Path, why: str, job: str, restarts: int) -> None:
    """Put this job, which was started anew so often, into the queue again. Raises SlurmError where Slurm refuses: the record is as it was.

    Slurm ends the job for that with all its processes, and scontrol may be among them before it has said that all is well.
    """
    before = (folder / "record.json").read_bytes()
    wait_again(folder, why, job)
    try:
        call(["scontrol", "requeue", job], outside=False)
    except SlurmError:
        now = standing(job)
        if now is not None and now.restarts > restarts:
            return
        records.write_atomic(folder / "record.json", before)
        raise
