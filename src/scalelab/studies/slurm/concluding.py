"""From the records of a study's folder to its findings, wherever they were made; what is not there has Slurm's reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scalelab import studies
from scalelab.errors import ScalelabError
from scalelab.launch.slurm import jobs as slurm
from scalelab.launch.slurm.jobs import State
from scalelab.launch.slurm.programs import SlurmError
from scalelab.launch.slurm.settling import unopened
from scalelab.record import folder as records
from scalelab.record.schema import Failure
from scalelab.record.study import StudyRecord
from scalelab.studies.running import keeping
from scalelab.studies.running.keeping import BUSY, RUNS, Finished, asked_of, key
from scalelab.studies.running.planning import Planned, as_trained, order, points_of, recall, trainings
from scalelab.studies.running.running import Runs, conclude
from scalelab.studies.slurm import kept
from scalelab.studies.slurm.kept import Job, Jobs
from scalelab.studies.study import Run

ENDED = {
    "TIMEOUT": "its time was over (--time)", "NODE_FAIL": "a node of it failed", "CANCELLED": "it was cancelled",
    "OUT_OF_MEMORY": "it took more memory than it had asked for", "PREEMPTED": "another job took its place",
    "DEADLINE": "its deadline was over", "BOOT_FAIL": "its nodes did not start",
}  # fmt: skip
"""what Slurm's words for the end of a job mean: squeue(1), "JOB STATE CODES" """
WAITS, GOING, UNKNOWN = "waits in Slurm's queue: ", "is running as Slurm's job ", "not known, Slurm does not answer: "
REFUSED, NOT_SUBMITTED = "Slurm could not run it: ", "not submitted"
UNFIT = "could not run on "
"""how the reasons of trainings without a record begin"""
UNSEEN = "the nodes probably don't see the study's folder; --out must be on a disk that all hosts share"


@dataclass(frozen=True)
class Stand:
    """What became of the trainings of a plan: those with records, and why others have none.

    ``alive``: arrays of Slurm that are not over; ``report``: the job that makes the report, while it is not. ``silent``: why Slurm could
    not be asked; then neither is known.
    """

    runs: Runs
    absent: Mapping[tuple[int, int], str]
    alive: list[str]
    report: list[str]
    silent: str | None = None


def planned_of(folder: Path) -> Planned:
    """The plan that ``folder`` holds, of a study that was planned before. Raises ScalelabError."""
    held = keeping.read(folder)
    if held is None:
        raise ScalelabError(f"{folder}: holds no study.json; name the folder of a study")
    study, asked = studies.load(held.study), asked_of(held.asked)
    cases = recall(folder, points_of(study, asked, folder), refused=True)
    if cases is None:
        raise ScalelabError(f"{folder}: its plan was made by another version of scalelab; give the study's own command again")
    return Planned(study, asked, held.repeats, folder, cases, order(cases, held.repeats, asked.base.seed), Finished(folder), held)


def look(planned: Planned) -> Stand:
    """How a plan stands now: its records, and Slurm's states of its jobs (one squeue, one sacct at most)."""
    jobs = kept.read(planned.folder)
    by_hand = _by_hand(planned.folder, jobs)
    states, unknown, silent = _states(planned, jobs, by_hand)
    tried = _latest(planned.folder)  # after the states: a job that is over writes no more
    runs: Runs = {}
    absent: dict[tuple[int, int], str] = {}
    for one in planned.order:
        run = planned.done(*one) or tried.get(key(msgspec.to_builtins(planned.row(*one).spec)))
        job = jobs.of(one)
        state = _state(job, one, run, states)
        if run is not None and closed(run, state, silent):
            runs[one] = _ended(Run(one[1], run.folder, run.record), state)
        else:
            absent[one] = _unfit(planned.folder, one, job) or (
                f"{UNKNOWN}{silent}" if silent else reason(job, one, state, unknown)
            )
    alive = jobs.alive(states, by_hand)
    arrays, report = [job for job in alive if job != jobs.report], [job for job in alive if job == jobs.report]
    return Stand(runs, absent, arrays, report, silent)


def under_way(folder: Path) -> list[str]:
    """The jobs of the study in ``folder`` that are not over. Raises ScalelabError where Slurm does not answer."""
    jobs = kept.read(folder)
    by_hand = _by_hand(folder, jobs)
    try:
        return jobs.alive(slurm.states([*jobs.ids, *by_hand]).states, by_hand)
    except SlurmError as error:
        raise ScalelabError(f"whether jobs of this study are under way is not known: {error}") from None


def _by_hand(folder: Path, jobs: Jobs) -> list[str]:
    """The jobs, by the records, of scripts that somebody has submitted by hand."""
    if all(job.id is not None for job in jobs.jobs):
        return []
    found = {attempt.job for run in _latest(folder).values() for attempt in run.record.attempts[-1:] if attempt.job}
    return sorted(one for one in found if one.partition("_")[0] not in jobs.ids)


def _states(planned: Planned, jobs: Jobs, by_hand: list[str]) -> tuple[dict[str, State], str, str | None]:
    """Slurm's of what is not finished, why it does not know of some, and why it could not be asked at all."""
    tasks = [task for one in planned.missing if (job := jobs.of(one)) and (task := job.task(one))]
    try:
        known = slurm.states([*tasks, *by_hand, *([jobs.report] if jobs.report else [])])
    except SlurmError as error:
        return {}, str(error), str(error)
    return known.states, known.without or "", None


def closed(run: Run, state: State | None, silent: str | None) -> bool:
    """Whether nothing more will become of a training: it is finished, or Slurm says that its job is over, or its record does."""
    if run.record.status == "completed":
        return True
    return state.over if state is not None else not silent or run.record.status not in ("running", "queued")


def _state(job: Job | None, training: tuple[int, int], run: Run | None, states: Mapping[str, State]) -> State | None:
    """Of the job that has this training to make; where none was submitted, of the one that a person had make it."""
    task = None if job is None else job.task(training)
    if task is None and run is not None and run.record.attempts:
        task = run.record.attempts[-1].job
    return None if task is None else states.get(task) or states.get(task.partition("_")[0])


def _latest(folder: Path) -> dict[bytes, Run]:
    """The newest training of each spec, however it ended."""
    readable, _ = records.load_all(records.find([], folder / RUNS), named=False)
    return {key(record.spec): Run(0, path, record) for path, record in readable.items()}


def _ended(run: Run, state: State | None) -> Run:
    """A training without a last word, whose job is over: with Slurm's reason, here only; its record stays as it is."""
    record = run.record
    if record.status in ("running", "queued", "lost"):
        record.status = "lost"
    if record.status != "completed" and record.failure is None:
        record.failure = Failure(error=f"Slurm: {_over(state)}" if state else "its job ended without a word", expected=True)
    return run


def _unfit(folder: Path, training: tuple[int, int], job: Job | None) -> str | None:
    """Why the job's own task has not begun a training."""
    found = kept.unfit(folder, training, None if job is None else job.task(training))
    return None if found is None else f"{UNFIT}{found.host}: {found.why}"


def reason(job: Job | None, training: tuple[int, int], state: State | None, unknown: str = "") -> str:
    """Why a training has no record."""
    if job is None:
        return NOT_SUBMITTED
    if job.refused is not None:
        return f"{REFUSED}{job.refused}"
    if job.id is None:
        return NOT_SUBMITTED if job.later is None else f"{NOT_SUBMITTED} yet: {job.later}"
    if state is None:
        why = f" ({unknown})" if unknown else ""
        return f"no record, and Slurm knows job {job.task(training)} no more{why}"
    if state.waiting:
        return f"{WAITS}{state.reason or state.state}"
    if state.running:
        return f"{GOING}{job.task(training)}"
    if unopened(state):
        return f"Slurm: {_over(state)}; {UNSEEN}"
    return f"Slurm: {_over(state)}; what it printed is in {kept.FOLDER}/{job.name}-{job.task(training)}.txt"


def _over(state: State) -> str:
    meaning = ENDED.get(state.state)
    more = f", {state.reason}" if state.reason and state.reason not in ("None", state.state) else ""
    return f"{state.state}{f', {meaning}' if meaning else ''}{more}"


def conclude_now(folder: Path) -> StudyRecord:
    """Analyse what was trained so far, and keep it. Raises ScalelabError where the folder holds no plan, or a process works on it."""
    planned = planned_of(folder)
    with records.held(folder, BUSY):
        stand = look(planned)
        record = planned.held
        assert record is not None, "planned_of raises where there is none"
        record.trainings = trainings(planned)
        for at, one in enumerate(planned.order):
            if one in stand.runs:
                record.trainings[at] = as_trained(record.trainings[at], stand.runs[one])
            else:
                record.trainings[at] = msgspec.structs.replace(record.trainings[at], **_absent(stand.absent[one]))
        record = conclude(planned, record, stand.runs, stand.absent)
        if stand.alive or (stand.silent and stand.absent):
            record.status = "submitted"
            why = again(stand.alive) if stand.alive else f"Slurm could not be asked about their jobs: {stand.silent}"
            record.notes.append(f"{len(stand.absent)} of {len(planned.order)} trainings are not finished yet; {why}")
            keeping.save(folder, record)
    return record


def _absent(why: str) -> dict[str, str]:
    """What the list of trainings says of one without a record."""
    status = (
        "planned"
        if why.startswith((WAITS, GOING, UNKNOWN, NOT_SUBMITTED))
        else "refused"
        if why.startswith((REFUSED, UNFIT))
        else "lost"
    )
    return {"status": status, "reason": why}


def again(alive: list[str]) -> str:
    """How to look after jobs."""
    return f"job{'s' * (len(alive) > 1)} {', '.join(alive)} of Slurm {'are' if len(alive) > 1 else 'is'} under way"
