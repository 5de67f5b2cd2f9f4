"""A run's folder: made at the start, appended while it runs, replaced atomically, never half a record.

runs/<utc time>-<name>-<short id>/
    record.json  spec.yaml  steps.jsonl  (steps.parquet at the end)  events.out.tfevents…
    logs/rank-N.txt  failures/rank-N.json  checkpoints/
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from scalelab.errors import ScalelabError
from scalelab.record import document
from scalelab.record.atomic import write_atomic as write_atomic
from scalelab.record.schema import Attempt, Failure, Step, TrainRecord
from scalelab.record.times import now as now

TRACE = "trace.json.gz"
"""of a run that was profiled"""


def create(out: Path, name: str) -> Path:
    """A new run folder under ``out``. Raises ScalelabError where it cannot be made."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "run"
    folder = out / f"{stamp}-{safe}-{os.urandom(3).hex()}"
    try:
        for part in ("logs", "failures", "checkpoints"):
            (folder / part).mkdir(parents=True)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ScalelabError(f"--out {str(out)!r}: a run folder cannot be made there: {error.strerror}") from None
    return folder


@contextmanager
def held(folder: Path, doing: str = "training this run") -> Iterator[None]:
    """Hold a run for one attempt, or a study. Raises ScalelabError at once while another process, or thread, holds it.

    The kernel lets go of it when the process ends, however that comes about.
    """
    try:
        file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ScalelabError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(file)
            raise ScalelabError(f"{folder}: another process is {doing} now; wait for it, or end it") from None
        # a file system without locks: the status in the record is then all that warns
    try:
        yield
    finally:
        os.close(file)


def save(folder: Path, record: TrainRecord) -> None:
    """Replace record.json."""
    write_atomic(folder / "record.json", msgspec.json.format(msgspec.json.encode(record), indent=1))


def load(folder: Path) -> TrainRecord:
    """The record in ``folder``; one whose launcher died without a word is ``lost``.

    Raises ScalelabError when there is none, or it is not one of ours.
    """
    try:
        record = document.read(folder / "record.json", TrainRecord, "a record")
    except FileNotFoundError:
        raise ScalelabError(f"{folder}: holds no record.json; name a run folder, such as runs/2026…") from None
    if record.status == "running" and record.attempts and _launcher_gone(record.attempts[-1]):
        record.status = "lost"
    return record


def _launcher_gone(attempt: Attempt) -> bool:
    """Whether the attempt's launcher ran on this host and no longer does (or its id is another process's by now)."""
    if attempt.pid is None or attempt.host != socket.gethostname():
        return False
    try:
        began = psutil.Process(attempt.pid).create_time()
    except psutil.NoSuchProcess:
        return True
    return began > datetime.fromisoformat(attempt.started).timestamp() + 1


def read_steps(folder: Path, start: int = 0) -> Iterator[Step]:
    """The steps written so far, from line ``start``; a last line still being written is left out.

    Raises ScalelabError for a line that is damaged.
    """
    with contextlib.suppress(FileNotFoundError):
        yield from document.lines(folder / "steps.jsonl", Step, "a step", start)


def find(names: list[str], out: Path) -> list[Path]:
    """Run folders for ``names``: paths, folder names under ``out``, or a unique part of one; all runs when empty.

    ``latest`` is the newest run. Raises ScalelabError naming what matched nothing, or too much.
    """
    runs = sorted(path.parent for path in out.glob("*/record.json"))
    if not names:
        return runs
    found = []
    for name in names:
        path = Path(name)
        matches = [path] if (path / "record.json").exists() else [run for run in runs if name in run.name]
        if name == "latest":
            matches = runs[-1:]
        if len(matches) != 1:
            what = "no run" if not matches else f"{len(matches)} runs"
            raise ScalelabError(
                f"{what} match{'es' if len(matches) < 2 else ''} '{name}' in {out}; `scalelab runs list --out {out}` shows them"
            )
        found.append(matches[0])
    return found


def load_all(folders: list[Path], named: bool) -> tuple[dict[Path, TrainRecord], list[str]]:
    """The readable records by their folders, and a line on each that is not. Raises ScalelabError for one that was ``named``."""
    readable, faults = {}, []
    for folder in folders:
        try:
            readable[folder] = load(folder)
        except ScalelabError as error:
            if named:
                raise
            faults.append(f"left out: {error}")
    return readable, faults


def write_failure(folder: Path, rank: int, failure: Failure) -> None:
    """What a dying rank leaves for the launcher: its own error and traceback, with the time for the order."""
    body = {"time": now(), **msgspec.to_builtins(failure)}
    write_atomic(folder / "failures" / f"rank-{rank}.json", json.dumps(body))
