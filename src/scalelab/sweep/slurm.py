"""A sweep as Slurm arrays: what is submitted, how it stands, how it ends. Its results are files; Slurm is asked what waits and runs."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm import jobs as slurm_jobs
from scalelab.launch.slurm.arrays import Sent, full, largest, send_all, spread
from scalelab.launch.slurm.hopeless import EVER, for_ever
from scalelab.launch.slurm.jobs import State
from scalelab.launch.slurm.programs import SlurmError, call
from scalelab.launch.slurm.request import Request
from scalelab.launch.slurm.script import Script
from scalelab.launch.slurm.submit import command, submit
from scalelab.record import document
from scalelab.record.atomic import write_atomic
from scalelab.record.folder import now
from scalelab.record.sweep import SweepRecord
from scalelab.sweep.job import HIDDEN

FOLDER, SUBMITTED = "slurm", "submitted.jsonl"
DOWN = re.compile(r"unable to contact|no answer|timed? ?out|connect|communication|socket|unreachable|try again", re.I)
"""its words, and ours, where its controller does not answer for a while"""


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """A line of submitted.jsonl: an array, and the file whose lines are the numbers of its tasks, by index."""

    job: str
    numbers: str
    tasks: int
    submitted: str


@dataclass(frozen=True)
class Queue:
    """The tasks that Slurm has: waiting ones, running ones, and the arrays that they are of; ``states``: of those that are over too."""

    waiting: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    arrays: set[str] = field(default_factory=set)
    states: dict[int, State] = field(default_factory=dict)


def name_of(folder: Path) -> str:
    """The name of a sweep's jobs."""
    return f"sweep-{re.sub(r'[^A-Za-z0-9._-]+', '-', folder.resolve().name)}"[:80]


def script(folder: Path, sweep: SweepRecord, numbers: Path) -> Script:
    """The batch script of an array. Raises ScalelabError for what no line of a script can hold."""
    told = sweep.placing
    request = Request(
        cpus_per_task=told.get("cpus_per_task") or 1, gpus_per_node=told.get("gpus_per_task") or 0, partition=told.get("partition"),
        time=told.get("time"), account=told.get("account"), args=tuple(told.get("slurm_arg") or ()), name=name_of(folder),
    )  # fmt: skip
    whole = folder.resolve()
    return Script(
        request=request,
        folder=Path(sweep.cwd),
        output=whole / FOLDER / f"{numbers.stem}.log",
        commands=[[sys.executable, "-P", "-m", "scalelab.sweep.task", str(whole), "--of", str(whole / FOLDER / numbers.name)]],
        about=(
            "A task of a sweep: its number is in the file that --of names, its command in tasks.jsonl, its result in tasks/.",
        ),
        more=("--open-mode=append",),
        environment={name: value for name, value in sweep.env.items() if value != HIDDEN},
    )


def send(folder: Path, sweep: SweepRecord, tasks: Sequence[int], after: Sequence[str] = ()) -> Sent[int, Array]:
    """Submit tasks as arrays, as many as the site takes; ``after``: arrays of this sweep that are not over.

    With ``--max-running`` one array waits for the other, so that the limit is the sweep's. Raises SlurmError where not one is taken:
    what was taken runs, whatever becomes of the rest.
    """
    before = list(after)

    def submit_some(some: Sequence[int]) -> Array:
        made = _send(folder, sweep, some, before if sweep.placing.get("max_running") else [])
        before[:] = [made.job]
        return made

    return send_all(tasks, largest(), submit_some, bool(after), lambda: places.cancelled(folder), no_room)


def no_room(words: str) -> bool:
    """Whether fewer tasks may fit. Of MaxJobCount sbatch says nothing for two minutes; what it may have taken meanwhile has no numbers."""
    return full(words) or "no answer" in words


def _send(folder: Path, sweep: SweepRecord, tasks: Sequence[int], after: Sequence[str]) -> Array:
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    numbers = place / f"array-{len(list(place.glob('array-*.sh'))) + 1}.tasks"
    path = numbers.with_suffix(".sh")
    try:
        write_atomic(numbers, "".join(f"{task}\n" for task in tasks))
        write_atomic(path, script(folder, sweep, numbers).text())
        job = submit(path, f"afterany:{':'.join(after)}" if after else None, spread(len(tasks), sweep.placing.get("max_running")))
    except ScalelabError as error:
        numbers.unlink(missing_ok=True)  # should Slurm have taken them nevertheless, they end at once
        if not DOWN.search(str(error)):  # else the script stays, and with it the name, which no other array may have then
            path.unlink(missing_ok=True)
        raise
    made = Array(job=job, numbers=numbers.name, tasks=len(tasks), submitted=now())
    with (place / SUBMITTED).open("ab") as kept:
        kept.write(msgspec.json.encode(made) + b"\n")
    return made


def shown(folder: Path, sweep: SweepRecord) -> str:
    """What ``--dry-run`` prints: the script, and how it would be submitted."""
    numbers = folder / FOLDER / "array-1.tasks"
    line = command(numbers.with_suffix(".sh").resolve(), None, spread(sweep.tasks, sweep.placing.get("max_running")))
    return f"{script(folder, sweep, numbers).text()}\n{shlex.join(line)}"


def submitted(folder: Path) -> list[Array]:
    """The sweep's arrays, the oldest first. Raises ScalelabError where what is kept of them is damaged."""
    try:
        return list(document.lines(folder / FOLDER / SUBMITTED, Array, "an array of Slurm"))
    except FileNotFoundError:
        return []


def queue(folder: Path) -> Queue:
    """What Slurm has of the sweep, by one call of squeue, however many tasks there are. Raises SlurmError."""
    arrays = submitted(folder)
    if not arrays:
        return Queue()
    known = slurm_jobs.queue()
    states = _by_task(folder, arrays, known)
    mine, living = {one.job for one in arrays}, {name.partition("_") for name, state in known.items() if not state.over}
    return Queue(
        waiting={task for task, state in states.items() if state.waiting},
        running={task for task, state in states.items() if state.running},
        arrays={job for job, _, index in living if job in mine and index.isdecimal()},
        states=states,
    )


def _by_task(folder: Path, arrays: Sequence[Array], known: Mapping[str, State]) -> dict[int, State]:
    """Slurm's states of tasks; where several arrays had one, of the latest."""
    indices: dict[str, dict[int, State]] = {}
    for name, state in known.items():
        job, _, index = name.partition("_")
        if index.isdecimal():
            indices.setdefault(job, {})[int(index)] = state
    found: dict[int, State] = {}
    for one in arrays:
        if one.job in indices:
            numbers = _numbers(folder, one)  # an index that it has not: another's job, where Slurm has begun to count anew
            found |= {numbers[index]: state for index, state in indices[one.job].items() if index < len(numbers)}
    return found


def _numbers(folder: Path, array: Array) -> list[int]:
    return [int(line) for line in (folder / FOLDER / array.numbers).read_text().split()]


def ended(folder: Path, queue: Queue, tasks: Sequence[int]) -> dict[int, State]:
    """How Slurm ended the jobs of tasks of which nothing is here, as far as it knows; of what squeue has forgotten sacct is asked."""
    found = {task: queue.states[task] for task in tasks if task in queue.states}
    if lacking := set(tasks) - set(found):
        arrays = [one for one in submitted(folder) if lacking & set(_numbers(folder, one))]
        told = _by_task(folder, arrays, slurm_jobs.states([one.job for one in arrays], {}).states)
        found |= {task: state for task, state in told.items() if task in lacking}
    return {task: state for task, state in found.items() if state.over}


def why_silent(folder: Path, ended: Mapping[int, State]) -> list[str]:
    """A line for each way in which Slurm ended jobs that have left no record; none for those that were cancelled.

    ``COMPLETED`` is none either: a record that a network disk shows late.
    """
    ways: dict[tuple[str, str], list[int]] = {}
    for task, state in sorted(ended.items()):
        if state.state not in ("COMPLETED", "CANCELLED"):
            ways.setdefault((state.state, state.reason), []).append(task)
    unseen = f"; the nodes probably don't see {folder.resolve()}: begin anew with an --out on a disk that all hosts share"
    more = "" if log_line(folder) else unseen
    return [
        f"Slurm ended the job{'s' * (len(tasks) > 1)} of task{'s' * (len(tasks) > 1)} {_some(tasks)} as {state}"
        f"{f' ({reason})' if reason and reason != state else ''}, without a record{more if state == 'FAILED' else ''}"
        for (state, reason), tasks in ways.items()
    ]


def _some(tasks: Sequence[int], most: int = 5) -> str:
    return ", ".join(map(str, tasks[:most])) + (f", … ({len(tasks)})" if len(tasks) > most else "")


def why_waiting(queue: Queue) -> list[str]:
    """Slurm's reasons for which tasks wait, in a line; none where it gives none."""
    reasons = sorted({queue.states[task].reason for task in queue.waiting} - {""})
    count = len(queue.waiting)
    held = without_hope(queue)
    return (
        [f"{count} task{'s' * (count != 1)} wait{'s' * (count == 1)} in Slurm's queue: {held or ', '.join(reasons)}"]
        if reasons
        else []
    )


def without_hope(queue: Queue) -> str | None:
    """Why tasks would wait for ever, and what to do; None where they would not."""
    held = for_ever(queue.states.values())
    if held is None:
        return None
    flags = "--cpus-per-task, --gpus-per-task, --time, --partition or --account"
    return f"this sweep would wait for ever: {held.removeprefix(EVER).partition(';')[0]}; begin a new one with other {flags}"


def down(error: SlurmError) -> bool:
    """Whether Slurm did not answer, which may be over soon."""
    return DOWN.search(str(error)) is not None


def cancel(folder: Path, arrays: Sequence[str]) -> None:
    """End what runs of these arrays, and take out what waits; by number and name, for Slurm may begin to count anew. Raises SlurmError."""
    if arrays:
        call(["scancel", f"--jobname={name_of(folder)}", *arrays])


def log_line(folder: Path) -> str | None:
    """The last line of what the arrays' jobs themselves have said, where they said something."""
    for log in sorted((folder / FOLDER).glob("array-*.log"), key=lambda path: path.stat().st_mtime, reverse=True):
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return f"{log}: {lines[-1]}"
    return None
