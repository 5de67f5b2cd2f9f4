"""A study from its plan to its findings: what is finished is never run again, what fails is recorded and the rest goes on."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.hosts.forwarding import recordable
from scalelab.launch.launcher import Launcher, Prepared
from scalelab.measure.environment import code, digests
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from scalelab.record.study import StudyRecord
from scalelab.studies.figures import said_once
from scalelab.studies.running import ceiling
from scalelab.studies.running.keeping import BUSY, RUNS, clear, identity, refuse_another, save
from scalelab.studies.running.planning import Planned, as_trained, expected, keep, took, trainings
from scalelab.studies.study import Result, Run

Runs = dict[tuple[int, int], Run]


@dataclass(frozen=True)
class Begins:
    """A training that begins now: which of how many, its name and steps, and how the study stands."""

    number: int
    of: int
    label: str
    steps: int
    elapsed: float
    """seconds since the study began, or went on"""
    remaining: float | None
    """estimate of the seconds until its end; None where nothing can be said"""


@dataclass(frozen=True)
class Ended:
    """How it ended."""

    begun: Begins
    record: TrainRecord
    seconds: float | None


class Watching:
    """Who follows a study: told when a training begins, what grows in its folder, and how it ended. This one looks away."""

    def begins(self, training: Begins) -> Callable[[Path], None]:
        """What is called about ten times a second with the training's folder."""
        return lambda folder: None

    def ended(self, training: Ended) -> None:
        """After the training's record was closed."""


def carry_out(launcher: Launcher, planned: Planned, watching: Watching) -> StudyRecord:
    """Train what is not finished yet, in order; the record, with findings if anything was completed.

    A training that fails is recorded and the rest goes on. KeyboardInterrupt passes through with the record saved, and so does
    a ScalelabError that no training can be made after, such as a full disk. Raises ScalelabError while another process is at work here.
    """
    make_folder(planned.folder)
    refuse_another(planned.folder, planned.study, planned.asked)  # again: plans take time
    with records.held(planned.folder, BUSY):
        clear(planned.folder)
        record = begin(planned)
        keep(planned)
        runs: Runs = {one: run for one in planned.order if (run := planned.done(*one)) is not None}
        try:
            if planned.missing:
                rows = [case.row for case in planned.cases if case.row is not None]
                record.ceilings = ceiling.measured(launcher, rows, record.ceilings)
                train(launcher, planned, record, runs, watching)
                record.ceilings = ceiling.measured(launcher, rows, record.ceilings, again=True)
        except (KeyboardInterrupt, ScalelabError):
            record.status, record.ended = "interrupted", records.now()
            with contextlib.suppress(ScalelabError):  # of a full disk: what ended the study is what is told
                save(planned.folder, record)
            raise
        return conclude(planned, record, runs)


def make_folder(folder: Path) -> None:
    """Raises ScalelabError where it can't be made."""
    try:
        (folder / RUNS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScalelabError(f"--out {str(folder)!r}: cannot be made: {error.strerror}") from None


def train(launcher: Launcher, planned: Planned, record: StudyRecord, runs: Runs, watching: Watching) -> None:
    """Every training that is missing, in its order; ``runs`` and ``record`` grow."""
    began, missing = time.monotonic(), planned.missing
    clock = Clock(planned)
    for number, (place, repeat) in enumerate(missing, 1):
        row = planned.row(place, repeat)
        run = planned.finished.of(row.spec, repeat)  # the same training as another point's, made meanwhile
        if run is None and (why := given_up(planned, place, runs)) is not None:
            at = planned.order.index((place, repeat))
            record.trainings[at] = msgspec.structs.replace(record.trainings[at], status="refused", reason=why)
            continue
        if run is None:
            left = clock.remaining(missing[number - 1 :])
            now = Begins(number, len(missing), row.spec.name or "", row.plan["total_steps"], time.monotonic() - began, left)
            trained = training.train(launcher.part(row.hosts), row, command(), watching.begins(now))
            run = Run(repeat, planned.folder / RUNS / trained.run, trained)
            planned.finished.add(run.folder, trained)
            clock.note(place, took(run))
            watching.ended(Ended(now, trained, took(run)))
        runs[place, repeat] = run
        at = planned.order.index((place, repeat))
        record.trainings[at] = as_trained(record.trainings[at], run)
        record.seconds = time.monotonic() - began
        save(planned.folder, record)


def given_up(planned: Planned, place: int, runs: Runs) -> str | None:
    """Why the study does not try a point any more, by what became of the others so far."""
    if planned.study.give_up is None:
        return None
    tried = {at: [run for (other, _), run in sorted(runs.items(), key=lambda one: one[0]) if other == at] for at, _ in runs}
    results = [Result(planned.cases[at].point, mine) for at, mine in tried.items()]
    return planned.study.give_up(planned.cases[place].point, results)


class Clock:
    """How long what remains may take: as long as the same point took before, else its estimate, corrected by how far off others were."""

    def __init__(self, planned: Planned) -> None:
        self.planned = planned
        self.taken: dict[int, list[float]] = {}
        for place, repeat in planned.order:
            run = planned.done(place, repeat)
            self.note(place, None if run is None else took(run))

    def note(self, place: int, seconds: float | None) -> None:
        """A training of the point at ``place`` took so long."""
        if seconds is not None:
            self.taken.setdefault(place, []).append(seconds)

    def remaining(self, missing: Sequence[tuple[int, int]]) -> float | None:
        """Seconds; None where nothing can be said of one of them."""
        both = [(seconds, guess) for place, taken in self.taken.items() if (guess := self._guess(place)) for seconds in taken]
        correction = sum(seconds for seconds, _ in both) / sum(guess for _, guess in both) if both else 1.0
        total = 0.0
        for place, _ in missing:
            if taken := self.taken.get(place):
                total += sum(taken) / len(taken)
            elif (guess := self._guess(place)) is not None:
                total += guess * correction
            else:
                return None
        return total

    def _guess(self, place: int) -> float | None:
        row = self.planned.cases[place].row
        return None if row is None else self.planned.estimate.seconds(row)


def conclude(
    planned: Planned, record: StudyRecord, runs: Runs, absent: Mapping[tuple[int, int], str] = MappingProxyType({})
) -> StudyRecord:
    """Analyse what was trained; ``absent``: why a training (place, repeat) was not."""
    results = []
    for place, case in enumerate(planned.cases):
        mine = [with_ceilings(case.row, runs[place, r], r, record) for r in range(planned.repeats) if (place, r) in runs]
        why = case.refused or (None if mine else given_up(planned, place, runs) or absent.get((place, 0)))
        results.append(Result(case.point, mine, why))
    completed = [run for result in results for run in result.completed]
    record.ended = records.now()
    record.runs = list(dict.fromkeys(runs[one].folder.name for one in planned.order if one in runs))
    record.status = "failed" if not completed else "completed" if len(completed) == len(planned.order) else "partly"
    record.notes = notes(planned, runs)
    if completed:
        findings = planned.study.analyse(planned.asked, results)
        record.answer, record.sentences, record.tables = findings.answer, findings.sentences, findings.tables
        if planned.repeats == 1:
            names = [str(value) for result in results for value in (result.point.label, *result.point.factors.values())]
            record.sentences = said_once(record.answer, record.sentences, names)
        record.plots, record.rows, record.cards = findings.plots, findings.tables[0].rows, findings.cards
        record.notes = list(dict.fromkeys([*findings.notes, *record.notes]))
    else:
        record.answer = "No training was completed, so nothing can be answered."
    save(planned.folder, record)
    return record


def with_ceilings(row: Prepared | None, run: Run, repeat: int, record: StudyRecord) -> Run:
    """A training as the repeat that it is of its point, with the ceilings of its hosts."""
    return replace(run, repeat=repeat, ceilings=() if row is None else ceiling.of(row, run.record, record.ceilings))


def notes(planned: Planned, runs: Runs) -> list[str]:
    """What to know of the study as a whole."""
    found = []
    if planned.repeats == 1:
        what = "seed: how much of a difference is chance is not known" if planned.study.seeded else "repeat: no spread is known"
        more = f"{'--seeds' if planned.study.seeded else '--repeats'} 3 adds two more"
        found.append(f"one {what}{', as --quick asks' if planned.asked.quick else ''}; {more}")
    refused = [case.point.label for case in planned.cases if case.refused is not None]
    if refused:
        found.append(f"{len(refused)} of {len(planned.cases)} points could not run here: the table says why")
    failed = sum(run.record.status != "completed" for run in runs.values())
    if failed:
        found.append(f"{failed} of {len(planned.order)} trainings failed; the same command tries them again")
    found += planned.finished.faults
    machines = [] if planned.asked.places else other_machines(runs)
    return [*found, *machines, *other_code(runs)]


def other_machines(runs: Runs) -> list[str]:
    """Says that trainings ran on different processors: a folder that several machines share, or a study that was moved."""
    hosts = [host for run in runs.values() for host in run.record.environment.hosts]
    kinds = sorted({f"{host.processor or host.name}, {host.cores} cores" for host in hosts})
    return [f"the trainings ran on different machines ({'; '.join(kinds)}): a difference may be the machines'"] * (len(kinds) > 1)


def other_code(runs: Runs) -> list[str]:
    """Says which trainings were made with other code than there is now: scalelab's own, or the user's."""
    now = code()
    ours = sum(run.record.environment.code not in (None, now) for run in runs.values())
    theirs = sorted({name for run in runs.values() for name in _changed(run.record)})
    found = []
    if ours:
        found.append(
            f"{ours} of {len(runs)} trainings were made with another state of scalelab's code than now: a difference may be the code's"
        )
    if theirs:
        found.append(f"{', '.join(theirs)} changed after some trainings: a difference may be the change's")
    return found


def _changed(record: TrainRecord) -> list[str]:
    then = record.environment.files
    now = digests(then)
    return [name for name in then if now.get(name) != then[name]]


def begin(planned: Planned) -> StudyRecord:
    """The record of a study that starts now, or goes on; saved."""
    study, held = planned.study, planned.held
    record = StudyRecord(
        study=study.name, question=study.question, asked=identity(study, planned.asked), quick=planned.asked.quick,
        repeats=planned.repeats, trainings=trainings(planned), command=command(), started=held.started if held else records.now(),
        ceilings=held.ceilings if held else {}, expected_seconds=expected(planned) if planned.missing else None,
    )  # fmt: skip
    save(planned.folder, record)
    return record


def command() -> list[str]:
    """The command line as it is typed, without secrets: it stands in study.json, and on the page."""
    return ["scalelab", *recordable(sys.argv[1:])]
