"""What of ours is in Slurm's hands: runs, studies and sweeps, by the files that they keep of their jobs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.jobs import State, queue
from scalelab.launch.slurm.programs import SlurmError
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from scalelab.studies.running import keeping as studies
from scalelab.studies.slurm import kept
from scalelab.sweep import keeping
from scalelab.sweep import slurm as arrays


@dataclass(frozen=True)
class Entry:
    """A run, a study or a sweep, and its jobs' ids, the oldest first. ``record`` is a run's."""

    kind: str
    folder: Path
    jobs: tuple[str, ...]
    status: str
    record: TrainRecord | None = None


def _runs(out: Path) -> Iterator[Entry]:
    readable, _ = records.load_all(records.find([], out), named=False)
    for folder, record in readable.items():
        job = places.job_of(folder, record)
        if job is not None:
            yield Entry("run", folder, (job,), record.status, record)


def _studies(out: Path) -> Iterator[Entry]:
    for file in sorted(out.glob(f"*/{kept.FOLDER}/{kept.FILE}")):
        folder = file.parents[1]
        jobs = kept.read(folder)
        if jobs.ids:
            made = studies.read(folder)
            yield Entry("study", folder, tuple(jobs.ids), made.status if made else "submitted")


def _sweeps(out: Path) -> Iterator[Entry]:
    for file in sorted(out.glob(f"*/{keeping.SWEEP}")):
        jobs = tuple(one.job for one in arrays.submitted(file.parent))
        if jobs:
            yield Entry("sweep", file.parent, jobs, "submitted")


KINDS: dict[str, Callable[[Path], Iterator[Entry]]] = {"run": _runs, "study": _studies, "sweep": _sweeps}
"""what may be in Slurm's hands, each with a function that finds those in a folder"""
PLACES = {"run": "runs", "study": "studies", "sweep": "sweeps"}
"""where they are kept when nothing else was said"""
FILES = ("record.json", f"{kept.FOLDER}/{kept.FILE}", keeping.SWEEP)
"""one of which each of them holds"""


def looked_in(out: Path | None) -> str:
    """The folders that are looked through, in words."""
    return ", ".join([str(out)] if out else sorted(PLACES.values()))


def how_to_look(kind: str, folder: Path, name: str) -> str:
    """``scalelab jobs shows it, scalelab cancel NAME ends it``, with the --out that finds a folder which is elsewhere than usual."""
    out = folder.absolute().parent
    said = "" if out == Path(PLACES[kind]).absolute() else f" --out {shlex.quote(min(str(out), os.path.relpath(out), key=len))}"
    return f"scalelab jobs{said} shows it, scalelab cancel {shlex.quote(name)}{said} ends it"


def entries(out: Path | None) -> list[Entry]:
    """All in ``out``, of whatever kind; without it, those that are where each kind is kept."""
    return [entry for kind, find in KINDS.items() for entry in find(out or Path(PLACES[kind]))]


def elsewhere(seen: Mapping[str, State], known: Collection[Entry]) -> list[Entry]:
    """Those in other folders than the usual ones, whose jobs squeue lists (``seen``): a job's script is in the folder that it is of."""
    scripts = {Path(state.script) for state in seen.values() if state.script}
    folders = {script.parents[1] for script in scripts if script.suffix == ".sh" and script.parent.name == places.PART}
    shown = {os.path.realpath(entry.folder) for entry in known}  # scripts have their true paths, runs/ may be a link
    folders = {one for one in folders if os.path.realpath(one) not in shown and any(os.path.exists(one / file) for file in FILES)}
    return [entry for out in sorted({one.parent for one in folders}) for entry in entries(out) if entry.folder in folders]


def find(name: str, out: Path | None) -> Entry:
    """The one of a name (its folder, or a part of that which only one has) or of a job's id. Raises ScalelabError: only ours are known."""
    path = Path(name)
    if path.is_dir():
        matches = [entry for entry in entries(path.absolute().parent) if entry.folder.absolute() == path.absolute()]
    else:
        matches = _called(name, entries(out))
    if not matches and out is None and not path.is_dir():
        with suppress(SlurmError):  # it is not here, or does not answer: the usual folders are all that is known
            matches = _called(name, elsewhere(queue(), ()))
    if len(matches) != 1:
        where = looked_in(out)
        what = "none of ours" if not matches else f"{len(matches)} of ours"
        raise ScalelabError(
            f"'{name}': {what} in {where} is in a Slurm job of that name or id; `scalelab jobs` shows them, --out where"
        )
    return matches[0]


def _called(name: str, known: list[Entry]) -> list[Entry]:
    return [entry for entry in known if (name in entry.jobs if name.isdigit() else name in entry.folder.name)]
