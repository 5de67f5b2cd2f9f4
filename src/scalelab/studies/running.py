"""A study from its plan to its findings: every training is prepared before the first starts; what is finished is never run again.

Folder: ``study.json``, ``runs/`` with a folder for each training, ``report.html``. A training is found again by its spec: the
study can be killed at any time, and nothing but the training that was running is lost.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch import local
from scalelab.launch.local import Prepared
from scalelab.launch.pool import Pool
from scalelab.measure.environment import code
from scalelab.record import folder as records
from scalelab.record.schema import Ceiling, TrainRecord
from scalelab.record.study import Findings, StudyRecord, Trained
from scalelab.spec import Spec, defaults
from scalelab.studies.ceiling import ceiling
from scalelab.studies.reference import Observe
from scalelab.studies.rows import on_one_device
from scalelab.studies.study import Asked, Point, Result, Run, Study

FILE = "study.json"
LOCAL = ("out", "name", "master_port", "timeout", "resume")
"""fields of the spec that say where and when, not what: they don't make another study"""


@dataclass(frozen=True)
class Case:
    """A point as it will be trained, or why it can't be."""

    point: Point
    row: Prepared | None
    refused: str | None = None


@dataclass(frozen=True)
class Planned:
    """Everything that is known before the first training starts. ``order``: (case, repeat) of each training, repeats interleaved."""

    study: Study
    asked: Asked
    repeats: int
    folder: Path
    cases: Sequence[Case]
    order: Sequence[tuple[int, int]]


def plan(pool: Pool, study: Study, asked: Asked, repeats: int, folder: Path) -> Planned:
    """Prepare every point. Raises ScalelabError when none can run, or ``folder`` holds another study."""
    refuse_another(folder, study, asked)
    found = []
    for point in study.points(asked):
        try:
            spec = msgspec.structs.replace(point.spec, out=str(folder / "runs"))
            found.append(Case(point, local.prepare(pool, spec)))
        except ScalelabError as error:
            found.append(Case(point, None, str(error)))
    if not any(case.row for case in found):
        raise ScalelabError(next((c.refused for c in found if c.refused), f"study {study.name}: nothing to train"))
    rows = iter(on_one_device([case.row for case in found if case.row is not None]))
    cases = [Case(c.point, next(rows) if c.row is not None else None, c.refused) for c in found]
    return Planned(study, asked, repeats, folder, cases, order(cases, repeats, asked.base.seed))


def order(cases: Sequence[Case], repeats: int, seed: int) -> list[tuple[int, int]]:
    """Every point once, in random order, then every point again: what drifts meets all points alike."""
    shuffled = random.Random(seed)
    found = []
    for repeat in range(repeats):
        places = [place for place, case in enumerate(cases) if case.row is not None]
        shuffled.shuffle(places)
        found += [(place, repeat) for place in places]
    return found


def identity(study: Study, asked: Asked) -> dict[str, Any]:
    """What makes a study this one and no other, as it is kept in study.json."""
    spec = {name: value for name, value in msgspec.to_builtins(asked.base).items() if name not in LOCAL}
    options = {**asked.options, "cores": asked.cores, "quick": asked.quick}
    found: dict[str, Any] = {"study": study.name, "spec": spec, "varied": asked.varied, "options": options}
    return found


def refuse_another(folder: Path, study: Study, asked: Asked) -> None:
    """Raises ScalelabError where ``folder`` holds another study, or something else."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        held = msgspec.json.decode((folder / FILE).read_bytes(), type=StudyRecord)
    except FileNotFoundError:
        raise ScalelabError(f"--out {str(folder)!r}: holds something else than a study; choose another folder") from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ScalelabError(f"{folder / FILE}: cannot be read as a study: {error}") from None
    wanted = identity(study, asked)
    if held.asked != wanted:
        differing = [
            f"{key} {held.asked.get(part, {}).get(key)!r} there, {value!r} here" if part != "study" else f"{held.study} there"
            for part in ("study", "spec", "varied", "options")
            for key, value in (wanted[part].items() if part != "study" else [("study", wanted["study"])])
            if (held.asked.get(part, {}).get(key) if part != "study" else held.study) != value
        ]
        raise ScalelabError(f"--out {str(folder)!r}: holds another study ({'; '.join(differing)}); choose another folder")


def carry_out(pool: Pool, planned: Planned, observe: Observe, on_change: Callable[[StudyRecord], None]) -> StudyRecord:
    """Train what is not finished yet, in order; the record, with findings if anything was completed.

    A training that fails is recorded and the rest goes on. ``on_change`` hears of every training that ended.
    KeyboardInterrupt passes through with the record saved.
    """
    planned.folder.joinpath("runs").mkdir(parents=True, exist_ok=True)
    record = begin(planned)
    finished = Finished(planned.folder / "runs")
    runs: dict[tuple[int, int], Run] = {}
    record.ceilings = ceilings(pool, [case.row for case in planned.cases if case.row is not None])
    try:
        for number, (place, repeat) in enumerate(planned.order):
            row = planned.cases[place].row
            assert row is not None, "only what can run is in the order"
            mine = named(row, planned, place, repeat)
            run = finished.of(mine.spec, repeat)
            if run is None:
                trained = local.train(pool, mine, sys.argv, observe(f"{number + 1}/{len(planned.order)} {mine.spec.name}"))
                run = Run(repeat, planned.folder / "runs" / trained.run, trained)
            run = replace(run, ceiling=record.ceilings.get(ceiling_key(mine)))
            runs[place, repeat] = run
            record.trainings[number] = _trained(record.trainings[number], run)
            save(planned.folder, record)
            on_change(record)
    except KeyboardInterrupt:
        record.status, record.ended = "interrupted", records.now()
        save(planned.folder, record)
        raise
    return conclude(planned, record, runs)


def ceiling_key(row: Prepared) -> str:
    """What a ceiling belongs to, in words."""
    return f"{row.spec.workers} x {row.derived.threads} on {row.spec.device} in {row.spec.precision}"


def ceilings(pool: Pool, rows: Sequence[Prepared]) -> dict[str, Ceiling]:
    """The machine's ceiling for each way of occupying it; one that can't be measured is left out, and its figures say so."""
    found: dict[str, Ceiling] = {}
    for row in rows:
        if (key := ceiling_key(row)) not in found:
            with contextlib.suppress(ScalelabError):
                found[key] = ceiling(pool, row.derived.threads, row.spec.device, row.spec.precision, row.spec.workers)
    return found


def conclude(planned: Planned, record: StudyRecord, runs: dict[tuple[int, int], Run]) -> StudyRecord:
    """Analyse what was trained."""
    results = [
        Result(case.point, [runs[place, r] for r in range(planned.repeats) if (place, r) in runs], case.refused)
        for place, case in enumerate(planned.cases)
    ]
    completed = [run for result in results for run in result.completed]
    record.ended, record.runs = records.now(), [run.folder.name for run in runs.values()]
    record.status = "failed" if not completed else "completed" if len(completed) == len(planned.order) else "partly"
    if completed:
        findings: Findings = planned.study.analyse(planned.asked, results)
        record.answer, record.sentences, record.tables = findings.answer, findings.sentences, findings.tables
        record.plots, record.rows = findings.plots, findings.tables[0].rows
        record.notes = [*findings.notes, *notes(planned, runs)]
    save(planned.folder, record)
    return record


def notes(planned: Planned, runs: dict[tuple[int, int], Run]) -> list[str]:
    """What to know of the study as a whole."""
    found = []
    codes = {run.record.environment.code for run in runs.values()}
    if len(codes) > 1:
        now = code()
        before = sum(run.record.environment.code != now for run in runs.values())
        found.append(f"{before} of {len(runs)} trainings were made with other code than now: the differences may be the code's")
    if planned.repeats == 1:
        found.append(
            "one training of each point: no spread between repeats is known" + (" (--quick)" if planned.asked.quick else "")
        )
    return found


def named(row: Prepared, planned: Planned, place: int, repeat: int) -> Prepared:
    """The training of one repeat: with its own name, and its own seed where the study compares what is learnt."""
    name = planned.cases[place].point.label + (
        f", {'seed' if planned.study.seeded else 'repeat'} {repeat + 1}" if planned.repeats > 1 else ""
    )
    seed = row.spec.seed + repeat if planned.study.seeded else row.spec.seed
    return msgspec_replace(row, name=name, seed=seed)


def msgspec_replace(row: Prepared, **values: Any) -> Prepared:

    return replace(row, spec=msgspec.structs.replace(row.spec, **values))


class Finished:
    """The completed trainings in a folder, found by their specs."""

    def __init__(self, folder: Path) -> None:
        self.found: dict[bytes, tuple[Path, TrainRecord]] = {}
        for path in records.find([], folder):
            record = records.load(path)
            if record.status == "completed":
                self.found[_key(record.spec)] = (path, record)

    def of(self, spec: Spec, repeat: int) -> Run | None:
        """The finished training of ``spec``, or None."""
        found = self.found.get(_key(msgspec.to_builtins(spec)))
        return None if found is None else Run(repeat, *found)


def _key(spec: dict[str, Any]) -> bytes:
    values = {**defaults(), **spec}
    return msgspec.json.encode({name: values[name] for name in sorted(values) if name != "out"})


def begin(planned: Planned) -> StudyRecord:
    """The record of a study that starts now, or goes on."""
    study = planned.study
    trainings = [
        Trained(label=planned.cases[place].point.label, repeat=repeat, factors=planned.cases[place].point.factors)
        for place, repeat in planned.order
    ]
    record = StudyRecord(
        study=study.name, question=study.question, asked=identity(study, planned.asked), quick=planned.asked.quick,
        repeats=planned.repeats, trainings=trainings, command=sys.argv, started=records.now(),
    )  # fmt: skip
    save(planned.folder, record)
    return record


def _trained(planned: Trained, run: Run) -> Trained:
    record = run.record
    return msgspec.structs.replace(
        planned, status=record.status, run=record.run, reason=record.failure.error if record.failure else None,
        seconds=record.seconds, code=record.environment.code,
    )  # fmt: skip


def save(folder: Path, record: StudyRecord) -> None:
    """Replace study.json."""
    records.write_atomic(folder / FILE, msgspec.json.format(msgspec.json.encode(record), indent=1))
