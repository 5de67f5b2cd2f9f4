"""A study's plan: every point prepared, every training in its order, what is finished, what can't run and why. Nothing is trained."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.asking import Silent
from scalelab.launch.launcher import Launcher, Prepared
from scalelab.measure.environment import code, files
from scalelab.record import folder as records
from scalelab.record.document import DAMAGED
from scalelab.record.study import StudyPlan, StudyRecord, Trained
from scalelab.spec import Spec
from scalelab.studies.running.estimate import Estimate, estimate
from scalelab.studies.running.keeping import LOCAL, PLAN, RUNS, Finished, refuse_another
from scalelab.studies.running.rows import on_one_device
from scalelab.studies.study import Asked, Point, Run, Study


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
    finished: Finished
    held: StudyRecord | None = None
    """what the folder held of this study"""
    estimate: Estimate = field(default_factory=Estimate)

    def row(self, place: int, repeat: int) -> Prepared:
        """The training of one repeat of a point."""
        return named(self.cases[place], self.study.seeded, repeat)

    def done(self, place: int, repeat: int) -> Run | None:
        """That training, where it is finished already."""
        return self.finished.of(self.row(place, repeat).spec, repeat)

    @property
    def missing(self) -> list[tuple[int, int]]:
        """What is to be trained, in its order."""
        return [one for one in self.order if self.done(*one) is None]


class Kept(msgspec.Struct, frozen=True):
    """plan.json: how the points were prepared, for as long as nothing changed: then a finished study needs no process to be shown again."""

    made_with: dict[str, Any]
    points: list[tuple[str, dict[str, Any], tuple[str, ...]]]
    rows: list[dict[str, Any] | None]
    refused: list[str | None]


Say = Callable[[str], None]
"""is told the question, once it can be asked, and what is done then, a line each"""


def plan(launcher: Launcher, study: Study, asked: Asked, repeats: int, folder: Path, say: Say = lambda line: None) -> Planned:
    """Prepare every point. Raises ScalelabError when none can run, a model hangs, or ``folder`` holds another study.

    Where all trainings are finished no process is started.
    """
    held, finished = refuse_another(folder, study, asked), Finished(folder)
    points = points_of(study, asked, folder)
    say(study.question)
    kept = recall(folder, points)
    if kept is not None:
        known = Planned(study, asked, repeats, folder, kept, order(kept, repeats, asked.base.seed), finished, held)
        if not known.missing:
            return known
    say(f"checking {len(points)} point{'s' * (len(points) != 1)}")
    cases = some(study, foreseen(launcher, study, prepare(launcher, points)))
    made = Planned(study, asked, repeats, folder, cases, order(cases, repeats, asked.base.seed), finished, held)
    if not launcher.answers_there:
        return replace(made, estimate=Estimate(said="no estimate: the pace of the nodes is not known here"))
    found = estimate(launcher, [made.cases[place].row for place, _ in made.missing], say)
    cases = some(study, [without_failing(made, place, found) for place in range(len(cases))])
    return replace(made, cases=cases, order=order(cases, repeats, asked.base.seed), estimate=found)


def points_of(study: Study, asked: Asked, folder: Path) -> list[Point]:
    """The points of a question, whose trainings go into ``folder``. Raises ScalelabError for what can't be asked."""
    points = study.points(asked)
    refuse_doubles(points)
    return [replace(point, spec=msgspec.structs.replace(point.spec, out=str(folder / RUNS))) for point in points]


def some(study: Study, cases: Sequence[Case]) -> Sequence[Case]:
    """The cases. Raises ScalelabError where none can run of those that the study is about, with what stops most of them."""
    asked = [case for case in cases if study.subject(case.point)]
    if not any(case.row for case in asked):
        reasons = Counter(case.refused for case in asked if case.refused).most_common(1)
        raise ScalelabError(reasons[0][0] if reasons else f"study {study.name}: nothing to train")
    return cases


def without_failing(made: Planned, place: int, found: Estimate) -> Case:
    """A case, refused where measuring its pace showed that it can't be trained; never one that was."""
    case = made.cases[place]
    why = found.refused(case.row) if case.row is not None else None
    if why is None or any(made.done(place, repeat) for repeat in range(made.repeats)):
        return case
    return replace(case, row=None, refused=why)


def refuse_doubles(points: Sequence[Point]) -> None:
    """Raises ScalelabError where two points have one name: a study that can't tell them apart can't be read."""
    labels = [point.label for point in points]
    for label in labels:
        if labels.count(label) > 1:
            raise ScalelabError(f"two points of this study are called {label!r}: a value is given twice; leave one out")


def prepare(launcher: Launcher, points: Sequence[Point]) -> list[Case]:
    """Check every distinct spec once; what is refused has its reason."""
    known: dict[bytes, Prepared | str] = {}
    found = []
    for point in points:
        mark = msgspec.json.encode([point.hosts, msgspec.to_builtins(point.spec)], order="sorted")
        if mark not in known:
            try:
                known[mark] = replace(training.prepare(launcher.part(point.hosts), point.spec), hosts=point.hosts)
            except Silent:
                raise
            except ScalelabError as error:
                known[mark] = str(error)
        answer = known[mark]
        found.append(Case(point, None, answer) if isinstance(answer, str) else Case(point, answer))
    rows = iter(
        on_one_device(
            [case.row for case in found if case.row is not None], len(launcher.places) > 1 or not launcher.answers_there
        )
    )
    return [replace(case, row=next(rows)) if case.row is not None else case for case in found]


def foreseen(launcher: Launcher, study: Study, cases: Sequence[Case]) -> list[Case]:
    """The cases, without those that the study itself says must not be started here."""
    rows = [case.row for case in cases if case.row is not None]
    if study.foresee is None or not rows or not launcher.answers_there:
        return list(cases)
    reasons = iter(study.foresee(launcher, rows))
    told = [next(reasons) if case.row is not None else None for case in cases]
    return [replace(case, row=None, refused=why) if why is not None else case for case, why in zip(cases, told, strict=True)]


def order(cases: Sequence[Case], repeats: int, seed: int) -> list[tuple[int, int]]:
    """Every point once, in random order, then every point again: what drifts meets all points alike.

    The order of a repeat is its own: more repeats later leave those before as they were.
    """
    found = []
    for repeat in range(repeats):
        places = [place for place, case in enumerate(cases) if case.row is not None]
        random.Random(f"{seed} {repeat}").shuffle(places)
        found += [(place, repeat) for place in places]
    return found


def named(case: Case, seeded: bool, repeat: int) -> Prepared:
    """The training of one repeat, called by its point; with a seed of its own where the study compares what is learnt."""
    assert case.row is not None, "only what can run is in the order"
    spec = case.row.spec
    seed = spec.seed + repeat if seeded else spec.seed
    where = f" on {'+'.join(case.point.hosts)}" if case.point.hosts else ""
    name = f"{case.point.label}, {f'seed {seed}' if seeded else f'repeat {repeat + 1}'}{where}"
    return replace(case.row, spec=msgspec.structs.replace(spec, name=name, seed=seed))


def trainings(planned: Planned) -> list[Trained]:
    """Every training as it stands before the study begins, or goes on; then each refused point."""
    found = []
    for place, repeat in planned.order:
        case, done = planned.cases[place], planned.done(place, repeat)
        made = Trained(label=case.point.label, repeat=repeat, factors=case.point.factors)
        expected = planned.estimate.seconds(case.row) if case.row is not None else None
        found.append(as_trained(made, done) if done is not None else msgspec.structs.replace(made, expected=expected))
    for case in planned.cases:
        if case.refused is not None:
            found.append(
                Trained(label=case.point.label, repeat=0, factors=case.point.factors, status="refused", reason=case.refused)
            )
    return found


def as_trained(planned: Trained, run: Run) -> Trained:
    """A planned training with what became of it."""
    record = run.record
    return msgspec.structs.replace(
        planned, status=record.status, run=record.run, reason=record.failure.error if record.failure else None,
        seconds=took(run), code=record.environment.code,
    )  # fmt: skip


def took(run: Run) -> float | None:
    """Seconds from the start of a training to its end; None where its record does not say."""
    ended = run.record.attempts[-1].ended if run.record.attempts else None
    if ended is None:
        return None
    first, last = (datetime.fromisoformat(text) for text in (run.record.attempts[0].started, ended))
    return (last - first).total_seconds()


def described(planned: Planned) -> StudyPlan:
    """The plan as ``--dry-run`` tells it."""
    listed, missing = trainings(planned), planned.missing
    return StudyPlan(
        study=planned.study.name, question=planned.study.question, folder=str(planned.folder), repeats=planned.repeats,
        trainings=listed, finished=len(planned.order) - len(missing), to_train=len(missing),
        refused=sum(case.refused is not None for case in planned.cases), expected_seconds=expected(planned),
        estimate=planned.estimate.said,
    )  # fmt: skip


def expected(planned: Planned) -> float | None:
    """The estimate for all that is to be trained; None where nothing can be said of one of them, 0 where nothing is."""
    found = [planned.estimate.seconds(row) for place, _ in planned.missing if (row := planned.cases[place].row) is not None]
    known = [seconds for seconds in found if seconds is not None]
    return sum(known) if len(known) == len(found) else None


def keep(planned: Planned) -> None:
    """Write plan.json."""
    points = [case.point for case in planned.cases]
    body = Kept(
        made_with(points), [_mark(point) for point in points],
        [None if case.row is None else msgspec.to_builtins(case.row) for case in planned.cases], [c.refused for c in planned.cases],
    )  # fmt: skip
    records.write_atomic(planned.folder / PLAN, msgspec.json.encode(body))


def recall(folder: Path, points: Sequence[Point], refused: bool = False) -> list[Case] | None:
    """The points as plan.json has them prepared; None where there is none, or the points are others.

    With other code what was refused then may be possible now; what was trained was trained. ``refused``: it is still as it was.
    """
    try:
        kept = msgspec.json.decode((folder / PLAN).read_bytes(), type=Kept)
        rows = [None if row is None else msgspec.convert(row, Prepared) for row in kept.rows]
    except (OSError, *DAMAGED):
        return None
    if kept.points != [_mark(point) for point in points] or (
        any(kept.refused) and not refused and kept.made_with != made_with(points)
    ):
        return None
    return [Case(point, row, why) for point, row, why in zip(points, rows, kept.refused, strict=True)]


def made_with(points: Sequence[Point]) -> dict[str, Any]:
    """The code that prepared, and trains: scalelab's own, and the user's files."""
    return {"code": code(), "files": files_of(point.spec for point in points)}


def files_of(specs: Iterable[Spec]) -> Mapping[str, str]:
    """The digests of the user's files that any of ``specs`` names."""
    found: dict[str, str] = {}
    for spec in specs:
        found |= files(spec)
    return found


def _mark(point: Point) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(point.spec))
    return point.label, {name: value for name, value in values.items() if name not in LOCAL}, point.hosts
