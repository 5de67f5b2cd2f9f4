"""The end of a run, as its record keeps it: also on a disk with no byte left."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import msgspec

from scalelab.errors import RunError
from scalelab.measure.pacing import summed_up
from scalelab.record import folder as records
from scalelab.record.schema import Failure, Status, TrainRecord


def close(folder: Path, status: Status, failure: Failure | None) -> TrainRecord:
    """Complete the record, also of a run whose ranks died: its status, its failure, the losses up to there.

    What is returned is true even where the disk is so full that the file can't be replaced.
    """
    for part in (folder, folder / "checkpoints", folder / "failures"):
        for half_written in part.glob(".*.tmp"):
            half_written.unlink(missing_ok=True)
    record = _ended(folder, records.load(folder), status, failure)
    error = _save(folder, record)
    if error is None:
        return record
    if status == "completed":
        told = Failure(error=str(error), host=socket.gethostname(), expected=True)
        record = _ended(folder, record, "failed", told)
    with contextlib.suppress(OSError):
        for log in (folder / "logs").glob("rank-*.txt"):  # what it says of the failure is in the record
            os.truncate(log, 0)
        if _save(folder, record) is not None:
            _mark(folder / "record.json", record.status)
    return record


def _ended(folder: Path, record: TrainRecord, status: Status, failure: Failure | None) -> TrainRecord:
    record.status, record.failure = status, failure
    record.attempts[-1] = msgspec.structs.replace(record.attempts[-1], status=status, ended=records.now())
    if status != "completed":
        steps = list(records.read_steps(folder))
        record.losses, record.steps = [step.loss for step in steps], len(steps)
        if record.attempts[-1].start_seconds is not None:  # else its ranks never began
            summed_up(record, steps)
    return record


def _save(folder: Path, record: TrainRecord) -> RunError | None:
    try:
        records.save(folder, record)
    except RunError as error:
        return error
    return None


def _mark(path: Path, status: Status) -> None:
    """Say how it ended in the bytes that the file has already, which takes no room."""
    body = path.read_bytes()
    word, ended = b'"running"', f'"{status}"'.encode()
    if len(ended) > len(word):  # "interrupted" does not fit: a record whose launcher is gone reads as lost
        return
    with path.open("r+b") as file:
        file.write(body.replace(b'"status": ' + word, b'"status": ' + ended.ljust(len(word))))
