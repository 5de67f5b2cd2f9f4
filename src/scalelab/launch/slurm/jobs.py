"""What Slurm knows of jobs, and ending them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from scalelab.launch.slurm.programs import PATIENCE, SlurmError, call

WAITING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED", "RESV_DEL_HOLD"})
RUNNING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"})
"""states in which a job will run, and in which its processes may live; in all others it is over: squeue(1), "JOB STATE CODES" """
QUEUE = "%i|%F|%K|%T|%r|%M|%L|%S|%N|%o"
"""squeue's format: job (array task: JOB_TASK), the array's job, the task, state, why it waits, used, left, start, nodes, script"""
ACCOUNT = "JobID,State,Reason,Elapsed,Start,End,NodeList,ExitCode"


@dataclass(frozen=True)
class State:
    """What Slurm says of a job, or of one task of an array (``job`` is then JOB_TASK). Texts are Slurm's own."""

    job: str
    state: str
    """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, NODE_FAIL, PREEMPTED, OUT_OF_MEMORY, …"""
    reason: str = ""
    """why a job waits, or ended"""
    elapsed: str = ""
    left: str = ""
    start: str = ""
    """when it began, or is expected to"""
    nodes: str = ""
    script: str = ""
    """the file that was submitted, where squeue told"""

    @property
    def waiting(self) -> bool:
        """Whether it is in the queue."""
        return self.state in WAITING

    @property
    def running(self) -> bool:
        """Whether its processes may live."""
        return self.state in RUNNING

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return not self.waiting and not self.running


@dataclass(frozen=True)
class Known:
    """The states of those jobs that Slurm still knows, and what could not be asked: why sacct was of no use."""

    states: dict[str, State]
    without: str | None = None

    def of(self, job: str) -> State | None:
        """A job, or a task of an array, which may still be a part of a range of pending ones; of a step (``JOB.STEP``) its job."""
        job = job.partition(".")[0]
        return self.states.get(job) or self.states.get(job.partition("_")[0])

    def all_of(self, jobs: Collection[str]) -> list[State]:
        """Of jobs, of the jobs of steps, and of all tasks of those that are arrays."""
        jobs = {job.partition(".")[0] for job in jobs}
        return [state for name, state in self.states.items() if name in jobs or name.partition("_")[0] in jobs]


def states(jobs: Iterable[str], seen: Mapping[str, State] | None = None) -> Known:
    """What Slurm knows of ``jobs`` (ids, JOB_TASK for a task of an array, JOB.STEP): one squeue, one sacct where that leaves some.

    ``seen``: what ``queue`` has told just now. A job that neither knows is not in the answer; of an array its tasks are. Raises SlurmError
    where squeue does not answer.
    """
    wanted = {job.partition(".")[0] for job in jobs}
    if not wanted:
        return Known({})
    arrays = {job.partition("_")[0] for job in wanted}
    found = {job: state for job, state in (queue() if seen is None else seen).items() if job.partition("_")[0] in arrays}
    listed = {job.partition("_")[0] for job in found}
    gone = {job for job in wanted if job not in listed and Known(found).of(job) is None}
    if not gone:
        return Known(found)
    try:
        return Known(_accounted(sorted({job.partition("_")[0] for job in gone})) | found)
    except SlurmError as error:
        return Known(found, str(error))


def queue(patience: float = PATIENCE) -> dict[str, State]:
    """This user's jobs that squeue lists, waited for so many seconds. Raises SlurmError."""
    line = ["squeue", "--me", "--array", "--states=all", "--noheader", f"--format={QUEUE}"]
    return {state.job: state for state in map(_queued, call(line, patience=patience).splitlines()) if state is not None}


def _queued(line: str) -> State | None:
    parts = line.split("|", 9)
    if len(parts) < 10:
        return None
    job, _, _, state, reason, elapsed, left, start, nodes, script = (_known(part) for part in parts)
    return State(job, state, reason, elapsed, left, start, nodes, script)


def _accounted(jobs: list[str]) -> dict[str, State]:
    """Of sacct, a job's last attempt."""
    line = ["sacct", "--parsable2", "--noheader", "--allocations", f"--jobs={','.join(jobs)}", f"--format={ACCOUNT}"]
    found = {}
    for row in call(line).splitlines():
        job, state, reason, elapsed, start, _, nodes, code = row.split("|")
        ended = state.split()[0] if state else ""  # "CANCELLED by 1000"
        why = _known(reason) or ("" if code in ("0:0", "") else f"exit status {code}")
        for one in members(job):
            found[one] = State(one, ended, why, short(elapsed), start=_known(start), nodes=_known(nodes))
    return found


def members(job: str) -> list[str]:
    """The tasks that sacct has in one row as long as none of them has begun: "12_[0-2,7%4]" is 12_0, 12_1, 12_2 and 12_7."""
    array, bracket, rest = job.partition("_[")
    if not bracket:
        return [job]
    spans = (span.partition("-") for span in rest.rstrip("]").partition("%")[0].split(","))
    return [f"{array}_{index}" for first, _, last in spans for index in range(int(first), int(last or first) + 1)]


def seconds(time: str) -> int | None:
    """Of a time as squeue and sacct write it, [days-][hours:]minutes:seconds; None for what is none."""
    days, _, rest = time.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in [*parts, days or "0"]):
        return None
    return int(days or 0) * 86400 + sum(int(part) * unit for part, unit in zip(reversed(parts), (1, 60, 3600), strict=False))


def short(time: str) -> str:
    """A time of sacct's (00:00:11) as squeue would write it (0:11)."""
    return re.sub(r"^(00:)?0?(?=\d)", "", time)


def last_states(job: str) -> list[str]:
    """The states in which the attempts of a job ended, by sacct, the first attempt's first; none where that does not work."""
    try:
        said = call(
            ["sacct", "--parsable2", "--noheader", "--allocations", "--duplicates", f"--jobs={job}", "--format=State"], False
        )
    except SlurmError:
        return []
    return [line.split()[0] for line in said.splitlines() if line.strip()]


def _known(text: str) -> str:
    return "" if text in ("None", "(null)", "N/A", "Unknown", "None assigned", "INVALID") else text


def cancel(jobs: Collection[str]) -> None:
    """End jobs, or take them out of the queue; steps (``JOB.STEP``) by SIGTERM, for else Slurm kills them at once.

    Raises SlurmError where one can't be ended, such as one that is over just now: all others are ended nevertheless.
    """
    steps, whole = [job for job in jobs if "." in job], [job for job in jobs if "." not in job]
    try:
        if steps:
            call(["scancel", "--signal=TERM", *steps])
    finally:
        if whole:
            call(["scancel", *whole])
