"""A task of a study's array: ``python -m scalelab.studies.slurm.task FOLDER ARRAY``, in the batch script of its job.

It trains what ``slurm/jobs.json`` has at SLURM_ARRAY_TASK_ID, over the whole allocation, into the study's ``runs/``. Where the task is
requeued it begins anew: of a training that was cut in two no time would be right.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

from scalelab import strategies
from scalelab.batch import Derived, decoding, derive
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.launcher import Launcher, Meeting, Prepared, Process
from scalelab.launch.pool import Pool
from scalelab.launch.signals import ENDING
from scalelab.launch.slurm.allocation import Allocation
from scalelab.measure.environment import usable_cores
from scalelab.record import text
from scalelab.spec import Spec
from scalelab.studies.running import keeping
from scalelab.studies.running.planning import Planned
from scalelab.studies.slurm import kept
from scalelab.studies.slurm.concluding import planned_of


class Job(Allocation):
    """The job's hosts, for a training whose folder is made in it."""

    def on(self, folder: Path) -> Job:
        """Where all hosts must see what is in ``folder``: the study's until the training has one."""
        self._seen = folder / keeping.FILE
        return self

    def start_ranks(self, folder: Path, spec: Spec, derived: Derived, meeting: Meeting, processes: list[Process]) -> None:
        """All ranks, whose signs of life are in the training's folder."""
        super().on(folder)
        super().start_ranks(folder, spec, derived, meeting, processes)


def main(folder: Path, name: str) -> int:
    """Train one; the exit status."""
    place, repeat = training_of(folder, name, int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)))
    planned = planned_of(folder)
    row = planned.row(place, repeat)
    if planned.done(place, repeat) is not None:
        print(f"{row.spec.name}: is finished already")
        return 0
    for number in ENDING:
        signal.signal(number, _interrupt)
    if (why := unfit(planned, row)) is not None:
        task = f"{os.environ.get('SLURM_ARRAY_JOB_ID')}_{os.environ.get('SLURM_ARRAY_TASK_ID', 0)}"
        kept.keep_unfit(folder, (place, repeat), kept.Unfit(why=why, host=socket.gethostname(), task=task))
        print(f"{row.spec.name}: not begun: {why}")
        return 1
    with Job().on(folder) as launcher:
        asked = planned.held.command if planned.held else []  # not this task's own: what a person would type again
        record = training.train(launcher, there(launcher, row), asked, lambda run: None)
    rate = record.images_per_second.median
    said = record.failure.error if record.failure else "" if rate is None else f"{text.rate(rate)} images/s"
    print(f"{row.spec.name}: {record.status}{', ' if said else ''}{said}")
    return 0 if record.status == "completed" else 1


def training_of(folder: Path, name: str, number: int) -> tuple[int, int]:
    """The training of task ``number`` of an array. Raises ScalelabError."""
    parts = kept.read(folder).called(name)
    if not parts:
        raise ScalelabError(f"{folder}: no array of this study is called {name}")
    for part in parts:
        if part.first <= number < part.first + len(part.trainings):
            return part.trainings[number - part.first]
    count = sum(len(part.trainings) for part in parts)
    raise ScalelabError(f"{folder}: {name} has {count} trainings, so no task {number}; see --array in its script")


def unfit(planned: Planned, row: Prepared) -> str | None:
    """Why the study says that a training must not be begun on this node, such as for want of memory; None where it does not."""
    if planned.study.foresee is None:
        return None
    with Pool() as pool:
        return planned.study.foresee(pool, [row])[0]


def there(launcher: Launcher, row: Prepared) -> Prepared:
    """The training with the cores that it really has: Slurm may count more on a node than there are."""
    spec, local = row.spec, launcher.workers_of(row.spec)[0]
    cores = min(launcher.cores, usable_cores())
    derived = decoding(spec, derive(spec, strategies.degrees(spec), cores, local), cores, row.data.streamed, local)
    return replace(row, derived=derived, cores=cores, local=local)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """Slurm ends the job: the record is closed as interrupted."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
    except ScalelabError as error:
        print(f"scalelab: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("scalelab: interrupted", file=sys.stderr)
        sys.exit(130)
