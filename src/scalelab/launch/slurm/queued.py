"""A training on Slurm, before it runs: its folder, its record, its script, its place in the queue."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import Derived, decoding, derive
from scalelab.errors import RunError, ScalelabError
from scalelab.launch import training
from scalelab.launch.launcher import Prepared
from scalelab.launch.signals import uninterrupted
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.jobs import cancel
from scalelab.launch.slurm.options import stays
from scalelab.launch.slurm.request import Request
from scalelab.launch.slurm.script import Script
from scalelab.launch.slurm.submit import submit
from scalelab.measure.environment import environment
from scalelab.record import folder as records
from scalelab.record.pointer import any_saved
from scalelab.record.schema import Attempt
from scalelab.spec import Spec

ABOUT = (
    "A training of scalelab. Its record is in the folder above this one, and says what becomes of it.",
    "By hand: sbatch {script}",
)


@dataclass(frozen=True)
class Asked:
    """A training and what it asks Slurm for. ``prepared``: where it was checked here already, else the job does it."""

    spec: Spec
    request: Request
    attempts: int
    prepared: Prepared | None = None

    @property
    def derived(self) -> Derived:
        """The numbers that follow, on hosts that have the cores that are asked for. Raises ScalelabError."""
        return derived(self.spec, self.request, self.prepared)

    def check(self) -> None:
        """Raises ScalelabError where the numbers don't fit, before anything is written."""
        derived(self.spec, self.request, self.prepared)

    def script(self, folder: Path) -> Script:
        """The job's, for a run in ``folder``, an absolute path. Raises ScalelabError for one that Slurm can't hold."""
        job = [sys.executable, "-m", "scalelab.launch.slurm.job", str(folder), f"--attempts={self.attempts}"]
        about = [line.format(script=str(places.script(folder)).encode("unicode_escape").decode()) for line in ABOUT]
        more = ("--open-mode=append", *(() if stays(self.request.args) else ("--requeue",)))
        return Script(self.request, Path.cwd(), places.output(folder), [job], about, more=more)


def derived(spec: Spec, request: Request, prepared: Prepared | None = None) -> Derived:
    """The numbers that follow from a spec on the hosts of ``request``. Raises ScalelabError."""
    cores, local = request.workers_per_node * request.cpus_per_task, request.workers_per_node
    found = derive(spec, strategies.degrees(spec), cores, local)
    return decoding(spec, found, cores, prepared.data.streamed if prepared else False, local)


def unbegun(folder: Path) -> bool:
    """Whether a run came no further than the queue, so that it goes on at its first step."""
    return not any_saved(folder) and not any(one.began for one in records.load(folder).attempts)


def enqueue(asked: Asked, command: list[str]) -> tuple[Path, str]:
    """Make the run's folder, record and script, and submit it; the folder, as ``--out`` names it, and the job's id.

    Raises ScalelabError; a folder that was made for it is taken away again, one of a run that goes on is as it was. Ctrl-C waits: either
    there is a job that the folder knows, or there is none.
    """
    with uninterrupted():
        return _enqueue(asked, command)


def _enqueue(asked: Asked, command: list[str]) -> tuple[Path, str]:
    spec = asked.spec
    jobs: list[str] = []
    folder = Path(spec.resume) if spec.resume else training.create(spec)
    kept = {path: path.read_bytes() for name in ("record.json", "spec.yaml") if (path := folder / name).exists()}
    try:
        with records.held(folder):
            _write(folder, asked, command)
        jobs.append(submit(places.script(folder)))
        places.note_submission(folder, jobs[0])
    except (ScalelabError, OSError) as error:
        if jobs:
            cancel(jobs)
        if spec.resume is None:
            shutil.rmtree(folder, ignore_errors=True)
        for path, body in kept.items():
            records.write_atomic(path, body)
        if isinstance(error, ScalelabError) and not isinstance(error, RunError):
            raise
        raise ScalelabError(str(error)) from None
    return folder, jobs[0]


def _write(folder: Path, asked: Asked, command: list[str]) -> None:
    spec, prepared, now = asked.spec, asked.prepared, records.now()
    (folder / places.PART).mkdir(exist_ok=True)
    (folder / places.PART / "job.json").unlink(missing_ok=True)
    attempt = Attempt(started=now, queued=now, status="queued")
    here = environment(command, asked.derived.threads, spec)
    facts = {
        "strategy": spec.strategy, "engine": spec.engine, "workers": spec.workers, "derived": asked.derived,
        "spec": msgspec.to_builtins(spec), "environment": msgspec.structs.replace(here, hosts=[]),
    } | ({"model": prepared.model, "data": prepared.data} if prepared else {})  # fmt: skip
    if spec.resume:
        record = records.load(folder)
        record.attempts = [*(one for one in record.attempts if one.began), attempt]
        for name, value in facts.items():
            setattr(record, name, value)
    else:
        record = training.new_record(folder, spec, attempt, facts)
    record.status, record.failure = "queued", None
    if prepared:
        places.note_plan(folder, prepared.plan)
    records.write_atomic(folder / "spec.yaml", specs.dump(spec))
    records.write_atomic(places.script(folder), asked.script(folder.absolute()).text())
    places.script(folder).chmod(0o755)
    records.save(folder, record)
