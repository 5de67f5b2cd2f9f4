"""A study's scripts, in its folder, and their submission."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from scalelab.errors import RunError, ScalelabError
from scalelab.launch.signals import uninterrupted
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm import jobs as slurm
from scalelab.launch.slurm.arrays import full, likely_largest, send_all, spread
from scalelab.launch.slurm.hopeless import EVER, HOPELESS
from scalelab.launch.slurm.programs import SlurmError
from scalelab.launch.slurm.request import Request
from scalelab.launch.slurm.script import Script
from scalelab.launch.slurm.submit import submit
from scalelab.studies.running.planning import Planned
from scalelab.studies.slurm import kept
from scalelab.studies.slurm.arrays import Array, arrays
from scalelab.studies.slurm.kept import FOLDER, Job, Jobs

REPORT = "report"
TASK = "scalelab.studies.slurm.task"
LOOK, SETTLED = 0.5, 6.0
"""seconds between two looks at the queue, and until the scheduler has looked at new jobs"""


@dataclass(frozen=True)
class Wishes:
    """How a study's jobs are to be: what each asks for beside its size, how many workers a node takes, and whether they may overlap."""

    request: Request
    per_node: int
    one_by_one: bool = False
    copies: tuple[str, ...] = ()
    """flags of the report's job: ``--csv FILE``"""


@dataclass(frozen=True)
class Written:
    """An array and its script; ``array`` None: the report's."""

    array: Array | None
    script: Path


def write(planned: Planned, wishes: Wishes, here: Path) -> list[Written]:
    """Write a script for each array that is missing, and the report's, into the study's folder. Raises ScalelabError.

    ``here``: the folder that the trainings run in, as this command does.
    """
    (planned.folder / FOLDER).mkdir(exist_ok=True)
    jobs, found = kept.read(planned.folder), []
    jobs.jobs = [job for job in jobs.jobs if job.id is not None]
    for array in arrays(planned, wishes.per_node, likely_largest()):
        found.append(Written(array, _write(planned, array.name, _script(planned, wishes, array, here))))
        shape = array.shape
        jobs.jobs.append(Job(name=array.name, workers=shape.workers, nodes=shape.nodes, trainings=list(array.trainings)))
    kept.save(planned.folder, jobs)  # a task finds its training there, whoever submits its script
    return [*found, Written(None, _write(planned, REPORT, _report(planned, wishes, here)))]


def _write(planned: Planned, name: str, script: Script) -> Path:
    path = _path(planned.folder, name)
    text = script.text()
    try:
        path.write_text(text)
    except OSError as error:
        raise ScalelabError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _path(folder: Path, name: str) -> Path:
    return folder / FOLDER / f"{name}.sh"


def _script(planned: Planned, wishes: Wishes, array: Array, here: Path) -> Script:
    """The script of an array, each task of which is one training."""
    shape = array.shape
    request = replace(
        wishes.request, nodes=shape.nodes, workers_per_node=shape.per_node, name=f"{planned.study.name}-{array.name}", stop_seconds=0,
    )  # fmt: skip
    count = len(array.trainings)
    about = [
        f"scalelab study {planned.study.name}: {count} training{'s' * (count > 1)} on {shape.workers} worker{'s' * (shape.workers > 1)}, "
        "a task each.",
        "Can be changed, and submitted by hand with sbatch; report.sh, after it, makes the report.",
    ]
    line = [sys.executable, "-m", TASK, str(planned.folder), array.name]
    more = [f"--array={array.indices}{'%1' * wishes.one_by_one}"]
    output = planned.folder / FOLDER / array.name
    return Script(request, here, output, [line], about, "-%A_%a.txt", more)


def _report(planned: Planned, wishes: Wishes, here: Path) -> Script:
    """The script of the job that makes the report from the records."""
    request = replace(
        wishes.request,
        nodes=1,
        workers_per_node=1,
        cpus_per_task=1,
        gpus_per_node=0,
        name=f"{planned.study.name}-{REPORT}",
        stop_seconds=0,
    )
    line = [sys.executable, "-m", "scalelab", "study", "--conclude", str(planned.folder), *wishes.copies]
    return Script(
        request, here, planned.folder / FOLDER / REPORT, [line], ["The report of the study, from what was trained."], "-%j.txt"
    )


@dataclass(frozen=True)
class Submitted:
    """What became of what was to be submitted. ``mine``: its arrays, or parts of them, in their order, those that were not taken too.

    ``lacking``: why there is no job for the report, where Slurm refuses that alone.
    """

    jobs: Jobs
    mine: list[Job]
    lacking: str | None = None

    @property
    def taken(self) -> int:
        """Trainings that Slurm has taken."""
        return sum(len(job.trainings) for job in self.mine if job.id is not None)

    def of(self, name: str) -> int:
        """Parts in which the array of that name was submitted, or is still to be."""
        return sum(job.name == name for job in self.mine)


def submit_all(folder: Path, one_by_one: bool) -> Submitted:
    """Submit the arrays that were written, then the report after all of them; what Slurm refuses is kept with its words.

    Where the site takes no more jobs now, the rest is ``later``. Raises RunError where Slurm takes none of them.
    """
    places.mark_cancelled(folder, False)
    jobs = kept.read(folder)
    jobs.report = None
    done = _submit(folder, jobs, [], one_by_one)
    if not done.taken:
        raise RunError(f"no job could be submitted: {done.mine[0].refused or done.mine[0].later}")
    return done


def submit_more(folder: Path, alive: Sequence[str], one_by_one: bool) -> Submitted:
    """Submit what the site had no room for, as far as it has now, and the report after all anew. ``alive``: jobs that are not over.

    Nothing of a study that was cancelled. Raises SlurmError where the report's job, which would now come too early, can't be cancelled.
    """
    jobs = kept.read(folder)
    if places.cancelled(folder) or not jobs.left:
        return Submitted(jobs, [])
    report = jobs.report if jobs.report in alive else None
    done = _submit(folder, jobs, [job for job in alive if job != report], one_by_one)
    if report is not None and done.jobs.report != report:
        slurm.cancel([report])
    return done


def _submit(folder: Path, jobs: Jobs, alive: Sequence[str], one_by_one: bool) -> Submitted:
    """``alive``: arrays that the new ones and the report are to follow."""
    mine, after, room = list[Job](), list(alive), True
    for job in [one for one in jobs.jobs if one.id is None and one.refused is None]:
        if room:
            parts = _array(folder, jobs, job, after, one_by_one)
            room = parts[-1].later is None
        else:
            job.later, parts = mine[-1].later, [job]
        mine += parts
        after += [one.id for one in parts if one.id is not None]
    kept.save(folder, jobs)
    if not any(one.id is not None for one in mine):
        return Submitted(jobs, mine)
    try:
        with uninterrupted():
            jobs.report = submit(_path(folder, REPORT), f"afterany:{':'.join(after)}")
            kept.save(folder, jobs)
    except SlurmError as error:
        return Submitted(jobs, mine, str(error))
    return Submitted(jobs, mine)


def _array(folder: Path, jobs: Jobs, rest: Job, after: Sequence[str], one_by_one: bool) -> list[Job]:
    """Submit an array, whole or as much of it as there is room for; its parts, which take its place in ``jobs``.

    Where some of it was not taken, the last part is ``rest``.
    """
    parts: list[Job] = []

    def some(trainings: Sequence[tuple[int, int]]) -> None:
        count = len(trainings)
        whole = rest.first == 0 and count == len(rest.trainings)
        indices = None if whole else spread(count, 1 if one_by_one else None, rest.first)  # None: those that the script has
        before = [*after, *(str(one.id) for one in parts)] if one_by_one else []
        with uninterrupted():  # a job that nobody remembers would be found by nobody
            job = submit(_path(folder, rest.name), f"afterany:{before[-1]}" if before else None, indices)
            parts.append(msgspec.structs.replace(rest, id=job, trainings=list(trainings), later=None))
            jobs.jobs.insert(jobs.jobs.index(rest), parts[-1])
            rest.trainings, rest.first = rest.trainings[count:], rest.first + count
            if not rest.trainings:
                jobs.jobs.remove(rest)
            kept.save(folder, jobs)

    try:
        why = send_all(rest.trainings, len(rest.trainings), some, True, lambda: places.cancelled(folder)).why
    except SlurmError as error:
        why = str(error)
    if rest.trainings:
        rest.refused, rest.later = (None, why) if full(why) else (why or None, None)
        parts.append(rest)
    return parts


def without_hope(folder: Path, jobs: Jobs, say: Callable[[str], None]) -> None:
    """Cancel the arrays that Slurm would hold for ever, as soon as it has said so: the report waits for them.

    Looks for a few seconds at most, until the scheduler has seen all; where Slurm does not answer, nothing is cancelled.
    """
    end = time.monotonic() + SETTLED
    mine = {job.id: job for job in jobs.jobs if job.id is not None and job.refused is None}
    with suppress(SlurmError):
        while mine and time.monotonic() < end:
            states = [one for one in slurm.states(mine).states.values() if one.job.partition("_")[0] in mine]
            for one in states:
                held = mine[one.job.partition("_")[0]]
                if one.waiting and one.reason in HOPELESS and held.refused is None:
                    held.refused = f"{EVER}{one.reason}"
                    say(f"{held.name}: {held.refused}; cancelled")
                    slurm.cancel([str(held.id)])
                    kept.save(folder, jobs)
            if all(one.reason or not one.waiting for one in states):
                return
            time.sleep(LOOK)
