"""A study's scripts, in its folder, and their submission."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from scalelab.errors import RunError, ScalelabError
from scalelab.launch.signals import uninterrupted
from scalelab.launch.slurm import jobs as slurm
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
    for array in arrays(planned, wishes.per_node):
        found.append(Written(array, _write(planned, array.name, _script(planned, wishes, array, here))))
        shape = array.shape
        jobs.jobs.append(Job(name=array.name, workers=shape.workers, nodes=shape.nodes, trainings=list(array.trainings)))
    kept.save(planned.folder, jobs)  # a task finds its training there, whoever submits its script
    return [*found, Written(None, _write(planned, REPORT, _report(planned, wishes, here)))]


def _write(planned: Planned, name: str, script: Script) -> Path:
    path = planned.folder / FOLDER / f"{name}.sh"
    text = script.text()
    try:
        path.write_text(text)
    except OSError as error:
        raise ScalelabError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def _script(planned: Planned, wishes: Wishes, array: Array, here: Path) -> Script:
    """One training for each task."""
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
    """What is made of the records."""
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


def submit_all(folder: Path, written: Sequence[Written], one_by_one: bool) -> tuple[Jobs, str | None]:
    """Submit the arrays, then the report after all of them; what Slurm refuses is kept with its words. Raises where it refuses all.

    The second: why there is no job for the report, where Slurm refuses that alone.
    """
    jobs = kept.read(folder)
    jobs.report = None
    kept.mark_cancelled(folder, False)
    arrays = [one for one in written if one.array is not None]
    mine, before = jobs.jobs[-len(arrays) :], None
    for job, one in zip(mine, arrays, strict=True):
        with uninterrupted():  # a job that nobody remembers would be found by nobody
            try:
                job.id = before = submit(one.script, f"afterany:{before}" if one_by_one and before else None)
            except SlurmError as error:
                job.refused = str(error)
            kept.save(folder, jobs)
    ids = [job.id for job in mine if job.id is not None]
    if not ids:
        raise RunError(f"no job could be submitted: {mine[0].refused}")
    report = next(one.script for one in written if one.array is None)
    try:
        jobs.report = submit(report, f"afterany:{':'.join(ids)}")
    except SlurmError as error:
        return jobs, str(error)
    kept.save(folder, jobs)
    return jobs, None


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
