"""What was submitted of a study: ``slurm/jobs.json`` in its folder, replaced at each submission and after what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from scalelab.launch.slurm.jobs import State
from scalelab.record import document
from scalelab.record.folder import write_atomic

FOLDER, FILE = "slurm", "jobs.json"


class Job(msgspec.Struct, kw_only=True):
    """An array of a study, or a part of one. ``id``: None where it was not submitted; ``refused``: Slurm's words where it can't run."""

    name: str
    workers: int
    nodes: int
    trainings: list[tuple[int, int]]
    """(place of the point in the plan, repeat) of each task"""
    id: str | None = None
    refused: str | None = None
    later: str | None = None
    """sbatch's words where the site had no room for it: it is to be submitted when there is"""
    first: int = 0
    """the index of its first task: an array that the site had no room for at once is submitted in parts"""

    def task(self, training: tuple[int, int]) -> str | None:
        """The id of the task that makes a training; None where none does."""
        if self.id is None or training not in self.trainings:
            return None
        return f"{self.id}_{self.first + self.trainings.index(training)}"


class Jobs(msgspec.Struct, kw_only=True):
    """All that were submitted, the latest last; ``report``: the id of the job that makes the report."""

    kind: str = "study-jobs"
    jobs: list[Job] = []
    report: str | None = None

    @property
    def ids(self) -> list[str]:
        """Of the arrays and the report's job."""
        return [job.id for job in self.jobs if job.id is not None] + ([self.report] if self.report else [])

    def alive(self, states: Mapping[str, State], further: Sequence[str] = ()) -> list[str]:
        """The ids of those that wait or run; of ``further`` tasks too, which were submitted by hand."""
        living = {one.job.partition("_")[0] for one in states.values() if not one.over}
        return [job for job in dict.fromkeys([*self.ids, *(one.partition("_")[0] for one in further)]) if job in living]

    @property
    def left(self) -> list[Job]:
        """Those that the site had no room for yet."""
        return [job for job in self.jobs if job.id is None and job.later is not None]

    def called(self, name: str) -> list[Job]:
        """The array of a script as it was written last, in the parts that it was submitted in, the last of them first."""
        found: list[Job] = []
        for job in reversed(self.jobs):
            if job.name == name:
                found.append(job)
                if job.first == 0:
                    break
        return found

    def of(self, training: tuple[int, int]) -> Job | None:
        """The latest that had this training to make."""
        return next((job for job in reversed(self.jobs) if training in job.trainings), None)


def read(folder: Path) -> Jobs:
    """What was submitted of the study in ``folder``. Raises ScalelabError for a file that can't be read."""
    advice = "remove it, when no job of this study is left"
    try:
        return document.read(folder / FOLDER / FILE, Jobs, "the jobs of a study", advice)
    except FileNotFoundError:
        return Jobs()


class Unfit(msgspec.Struct, kw_only=True):
    """A training that was not begun, because it would not fit the node that its task was on. ``task``: JOB_TASK."""

    why: str
    host: str
    task: str


def keep_unfit(folder: Path, training: tuple[int, int], found: Unfit) -> None:
    """Write it down, for the report."""
    write_atomic(_unfit(folder, training), msgspec.json.encode(found))


def unfit(folder: Path, training: tuple[int, int], task: str | None) -> Unfit | None:
    """What ``task``, the latest that had this training to make, has written down; None where it has nothing."""
    with suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode(_unfit(folder, training).read_bytes(), type=Unfit)
        return found if found.task == task else None
    return None


def _unfit(folder: Path, training: tuple[int, int]) -> Path:
    return folder / FOLDER / f"unfit-{training[0]}-{training[1]}.json"


def save(folder: Path, jobs: Jobs) -> None:
    """Write what was submitted of the study in ``folder``, in place of what the file held."""
    write_atomic(folder / FOLDER / FILE, msgspec.json.format(msgspec.json.encode(jobs), indent=1))
