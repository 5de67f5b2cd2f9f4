"""How a study or a sweep stands that is jobs of Slurm: by its own files, and by what Slurm says of those tasks that are not over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.jobs import Known, State
from scalelab.studies.running import keeping as studies
from scalelab.studies.slurm import kept
from scalelab.sweep import keeping
from scalelab.sweep import slurm as arrays


@dataclass(frozen=True)
class Several:
    """How it stands."""

    status: str
    """queued, running, completed, partly, failed, cancelled, interrupted, lost"""
    counts: Counter[str]
    """how many of its tasks are in which state"""
    living: list[State]
    """Slurm's of the tasks that wait or run"""


def study(folder: Path, known: Known) -> Several:
    """Each training counts once, in the latest job that had it to make; what is over has the study's own word."""
    jobs, made = kept.read(folder), studies.read(folder)
    states, counts = [], Counter[str]()
    for training in dict.fromkeys(one for job in jobs.jobs for one in job.trainings):
        job = jobs.of(training)
        task = job.task(training) if job is not None else None
        if job is not None and job.refused is not None:
            counts["refused"] += 1
        elif job is not None and job.later is not None:
            counts["not submitted yet"] += 1
        elif task is not None and (state := known.of(task)) is not None:
            states.append(state)
    report = known.of(jobs.report) if jobs.report else None
    states += [report] if report is not None else []
    counts.update(state.state for state in states)
    unheard = "cancelled" if places.cancelled(folder) or counts["CANCELLED"] else "lost"
    return _several(made.status if made is not None and made.status != "submitted" else unheard, counts, states)


def sweep(folder: Path, known: Known) -> Several:
    """Each task counts once, as ``scalelab sweep status`` has it."""
    told, living = keeping.load(folder), {}
    for array in arrays.submitted(folder):
        numbers = [int(line) for line in (folder / arrays.FOLDER / array.numbers).read_text().split()]
        for state in known.all_of([array.job]):
            index = state.job.partition("_")[2]
            if not state.over and index.isdecimal() and int(index) < len(numbers):
                living[numbers[int(index)]] = state
    waiting = {task for task, state in living.items() if state.waiting}
    states = keeping.states(told.tasks, keeping.results(folder), False, waiting, living.keys() - waiting)
    counts = Counter[str](states)
    over = (
        "completed" if counts["completed"] == told.tasks else "cancelled" if places.cancelled(folder)
        else "failed" if counts["failed"] + counts["lost"] else "interrupted"
    )  # fmt: skip
    return _several(over, counts, list(living.values()))


def _several(over: str, counts: Counter[str], states: Iterable[State]) -> Several:
    living = [state for state in states if not state.over]
    status = "running" if any(state.running for state in living) else "queued" if living else over
    return Several(status, counts, living)


KINDS: dict[str, Callable[[Path, Known], Several]] = {"study": study, "sweep": sweep}
"""what is several jobs"""
