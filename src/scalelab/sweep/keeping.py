"""A sweep's folder: written before anything starts, and what it says now.

FOLDER/
    sweep.json  tasks.jsonl                what is to be run
    tasks/N.json  tasks/N.out              what became of task N
    launcher.json                          who runs it, or did last
    slurm/                                 batch scripts, the numbers of their tasks, submitted.jsonl
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil

from scalelab.errors import RunError, ScalelabError
from scalelab.record import document, many
from scalelab.record.atomic import write_atomic
from scalelab.record.folder import now
from scalelab.record.sweep import PlannedTask, SweepRecord, TaskRecord
from scalelab.record.sweep import TaskState as TaskState

SWEEP, PLAN, TASKS, LAUNCHER = "sweep.json", "tasks.jsonl", "tasks", "launcher.json"


class Launcher(msgspec.Struct, frozen=True, kw_only=True):
    """The process that runs a sweep here or over hosts."""

    host: str
    pid: int
    started: str

    @property
    def alive(self) -> bool | None:
        """Whether it lives; None where it is on another machine, whose processes can't be seen from here."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            began = process.create_time()
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
        except psutil.NoSuchProcess:
            return False
        return began <= datetime.fromisoformat(self.started).timestamp() + 1


def default_folder(program: str) -> Path:
    """``sweeps/<utc time>-<program>-<short id>``."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(program).name).strip("-.")[:40] or "program"
    return Path("sweeps") / f"{stamp}-{safe}-{os.urandom(3).hex()}"


def make(folder: Path) -> None:
    """Make the folder of a sweep, or take one that is there. Raises ScalelabError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScalelabError(f"--out {str(folder)!r}: cannot be made: {error.strerror}") from None


def create(folder: Path, sweep: SweepRecord, tasks: Sequence[PlannedTask]) -> None:
    """Write what is to be run. Raises ScalelabError where the folder holds a sweep already, or can't be written."""
    if (folder / SWEEP).exists():
        raise ScalelabError(f"{folder}: holds a sweep already; `scalelab sweep resume` goes on with it, or choose another --out")
    try:
        (folder / TASKS).mkdir(exist_ok=True)
        encoder = msgspec.json.Encoder()
        write_atomic(folder / PLAN, b"".join(encoder.encode(task) + b"\n" for task in tasks))
        write_atomic(folder / SWEEP, msgspec.json.format(encoder.encode(sweep), indent=1))  # last: with it the sweep is there
    except OSError as error:
        raise ScalelabError(f"--out {str(folder)!r}: cannot be made: {error.strerror}") from None
    except RunError as error:
        raise ScalelabError(str(error)) from None


def load(folder: Path) -> SweepRecord:
    """The sweep in ``folder``. Raises ScalelabError where there is none."""
    try:
        return document.read(folder / SWEEP, SweepRecord, "a sweep")
    except FileNotFoundError:
        raise ScalelabError(f"{folder}: holds no {SWEEP}; name a sweep's folder, such as sweeps/2026…") from None


def plan(folder: Path, sweep: SweepRecord) -> list[PlannedTask]:
    """Its tasks, in order. Raises ScalelabError, also where they are not those of ``sweep``."""
    try:
        found = list(document.lines(folder / PLAN, PlannedTask, "a task"))
    except FileNotFoundError:
        raise ScalelabError(f"{folder / PLAN}: is missing: what the sweep was to run is not known") from None
    if [task.task for task in found] != list(range(sweep.tasks)):
        raise ScalelabError(f"{folder / PLAN}: is damaged: it should have the tasks 0 to {sweep.tasks - 1}, a line each")
    return found


def results(folder: Path, known: Mapping[int, TaskRecord] | None = None) -> dict[int, TaskRecord]:
    """The records of the tasks that were begun, by number.

    One that can't be read, or is another task's, counts as not there: its task is run again. Those that were completed when they were
    read before, ``known``, are not read again.
    """
    decoder = msgspec.json.Decoder(TaskRecord)
    found = {task: record for task, record in (known or {}).items() if record.status == "completed"}
    done = {f"{task}.json" for task in found}

    def wanted(name: str) -> bool:
        return name.endswith(".json") and not name.startswith(".") and name not in done  # a dot: half written

    try:
        for name, body in many.bodies(folder / TASKS, wanted):
            with contextlib.suppress(*document.DAMAGED):
                record = decoder.decode(body)
                if name == f"{record.task}.json":
                    found[record.task] = record
    except OSError as error:
        raise ScalelabError(f"{folder / TASKS}: cannot be read: {error.strerror}") from None
    return found


def states(
    tasks: int, records: dict[int, TaskRecord], alive: bool | None, queued: Container[int] = (), running: Container[int] = ()
) -> list[TaskState]:
    """What each task is now.

    ``alive``: whether the process that runs the sweep lives (None: not to be known from here, its word is taken); ``queued`` and
    ``running``: what Slurm has.
    """
    return [_state(task, records.get(task), alive, queued, running) for task in range(tasks)]


def _state(
    task: int, record: TaskRecord | None, alive: bool | None, queued: Container[int], running: Container[int]
) -> TaskState:
    if record is not None and record.status == "completed":
        return "completed"
    if task in running:
        return "running"
    if task in queued:
        return "queued"
    if record is None:
        return "missing" if alive is False else "queued"
    if record.status == "running":
        return "lost" if alive is False else "running"
    return record.status


def open_tasks(states: Iterable[TaskState]) -> list[int]:
    """The tasks that ``resume`` runs: what failed, was ended or lost, or has not begun."""
    return [task for task, state in enumerate(states) if state in ("failed", "interrupted", "lost", "missing")]


def mark_launcher(folder: Path) -> None:
    """Say that this process runs the sweep. Raises RunError."""
    mine = Launcher(host=socket.gethostname(), pid=os.getpid(), started=now())
    write_atomic(folder / LAUNCHER, msgspec.json.encode(mine))


def unmark_launcher(folder: Path) -> None:
    """Nobody runs the sweep any more."""
    (folder / LAUNCHER).unlink(missing_ok=True)


def launcher(folder: Path) -> Launcher | None:
    """Who runs the sweep, or did last."""
    try:
        return document.read(folder / LAUNCHER, Launcher, "who runs a sweep")
    except (FileNotFoundError, ScalelabError):
        return None


def output_of(folder: Path, task: int) -> Path:
    """Where a task's output is."""
    return folder / TASKS / f"{task}.out"


def keep(folder: Path, record: dict[str, Any]) -> None:
    """Write a task's record that came from another host. Raises RunError."""
    write_atomic(folder / TASKS / f"{record['task']}.json", msgspec.json.format(msgspec.json.encode(record), indent=1))
