"""A training, whatever launches it: from a run folder that is there from the start to a record that is complete."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import Derived, decoding, derive
from scalelab.errors import RunError, ScalelabError
from scalelab.launch.ending import close
from scalelab.launch.failure import first_failure, with_log
from scalelab.launch.hosts.forwarding import recordable
from scalelab.launch.launcher import Launcher, Meeting, Prepared, Process
from scalelab.launch.signals import uninterrupted
from scalelab.launch.silence import Silence
from scalelab.measure.environment import environment
from scalelab.record import folder as records
from scalelab.record.naming import options, spread
from scalelab.record.schema import (
    Attempt,
    Communication,
    DataFacts,
    Failure,
    Figure,
    Host,
    Memory,
    ModelFacts,
    Status,
    TrainRecord,
)
from scalelab.spec import Spec

POLL = 0.1
"""seconds between two looks at the workers and at the run's folder"""
NOT_YET = "the run has not come to it"
"""why a figure is absent from a record until it is measured"""
OVERSUBSCRIBED, GOES_ON = "oversubscribed", "--resume goes on"
"""the beginning and the end of notes that are of one attempt: the next has its own"""
SETTLE = 1.0
"""seconds that other ranks get to report their own failure after the first one failed"""


def prepare(launcher: Launcher, spec: Spec) -> Prepared:
    """Check a spec against its data, model and strategy, in a process of its own. Raises ScalelabError; nothing is left behind."""
    local = launcher.workers_of(spec)[0]
    launcher.check(spec)
    derived = derive(spec, strategies.degrees(spec), launcher.cores, local)
    found = launcher.ask("scalelab.worker.prepare:prepare", spec)
    model, data = msgspec.convert(found["model"], ModelFacts), msgspec.convert(found["data"], DataFacts)
    launcher.check(spec, model)
    derived = decoding(spec, derived, launcher.cores, data.streamed, local)
    if launcher.crowded(spec):
        derived = msgspec.structs.replace(derived, oversubscribed=True)
    plan = {name: int(value) for name, value in found["plan"].items()}
    return Prepared(spec, derived, model, data, plan, found["devices"], launcher.cores, local)


def train(
    launcher: Launcher, prepared: Prepared, command: list[str], watch: Callable[[Path], None], folder: Path | None = None
) -> TrainRecord:
    """Run a training to its end; the record, whatever the end was. ``watch(folder)`` is called about ten times a second.

    ``folder``: the run's, where it is there already with a record that waits for its first attempt.
    Raises ScalelabError before anything was started, and KeyboardInterrupt after the record was closed as interrupted.
    """
    spec = prepared.spec
    with launcher.reserve(spec) as meeting, ExitStack() as held:
        made = folder is None and spec.resume is None
        folder = folder or (Path(spec.resume) if spec.resume else create(spec))
        try:
            with uninterrupted():
                held.enter_context(records.held(folder))
                begin(folder, prepared, launcher.hosts(spec), command, launcher.job)
        except ScalelabError:
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        except KeyboardInterrupt:  # it waited until the run was begun
            close(folder, "interrupted", None)
            raise
        record = _attempt(launcher, folder, prepared, meeting, watch)
    watch(folder)
    return record


def _attempt(
    launcher: Launcher, folder: Path, prepared: Prepared, meeting: Meeting, watch: Callable[[Path], None]
) -> TrainRecord:
    """All ranks from their start to their end, in a folder that was begun; the record, closed whatever happens."""
    processes: list[Process] = []
    status: Status = "failed"
    failure: Failure | None = None
    try:
        launcher.start_ranks(folder, prepared.spec, prepared.derived, meeting, processes)
        failure = follow(launcher, folder, processes, watch, prepared.spec.timeout)
        status = "failed" if failure is not None else "interrupted" if asked_to_stop(folder) else "completed"
    except KeyboardInterrupt:
        if not launcher.failed_first(processes):
            status = "interrupted"
            raise
        failure = first_failure(folder, processes)
    except RunError as error:  # the processes can't be heard any more
        failure = Failure(error=str(error), host=socket.gethostname(), expected=True)
    finally:
        with uninterrupted():
            try:
                if failure is not None:  # those that still run may be the ones that the others waited for
                    launcher.stacks(processes)
                launcher.end(processes)
                failure = failure and with_log(folder, failure)
            finally:
                record = close(folder, status, failure)
    return record


def asked_to_stop(folder: Path) -> bool:
    """Whether the ranks of a run ended because they were asked to, with a checkpoint."""
    return records.load(folder).attempts[-1].stopped is not None


def create(spec: Spec) -> Path:
    """A new folder for a run. Raises ScalelabError where it cannot be made."""
    return records.create(Path(spec.out), spec.name or f"{spec.model}-{spec.strategy}")


def begin(folder: Path, prepared: Prepared, hosts: list[Host], command: list[str], job: str | None = None) -> None:
    """Write the spec and the record of a run, or of a further attempt, that starts now. Raises ScalelabError: nothing was started.

    An attempt that waited in a cluster's queue is this one. ``job``: of the cluster, in which it runs.
    """
    spec, attempt = prepared.spec, Attempt(started=records.now(), host=socket.gethostname(), pid=os.getpid(), job=job)
    facts = {
        "strategy": spec.strategy, "engine": spec.engine, "workers": spec.workers, "derived": prepared.derived,
        "spec": msgspec.to_builtins(spec), "model": prepared.model, "data": prepared.data,
        "environment": environment(recordable(command), prepared.derived.threads, spec, hosts),
    }  # fmt: skip
    if (folder / "record.json").exists():
        record = records.load(folder)
        if record.attempts and (waited := record.attempts[-1]).status == "queued":
            record.attempts.pop()
            attempt = msgspec.structs.replace(attempt, queued=waited.queued)
        record.status, record.failure, record.attempts = "running", None, [*record.attempts, attempt]
        spread_so = {note for earlier in record.attempts for note in earlier.notes}
        record.notes = [note for note in record.notes if not _of_one_attempt(note) and note not in spread_so]
        for name, value in facts.items():
            setattr(record, name, value)
    else:
        record = new_record(folder, spec, attempt, facts)
    record.notes += [note for note in (*prepared.model.notes, *prepared.data.notes) if note not in record.notes]
    if prepared.derived.oversubscribed:
        record.notes.append(
            f"{OVERSUBSCRIBED}: {spec.workers} workers x {_threads(prepared.derived)} on {sum(host.cores for host in hosts)} cores"
        )
    try:
        records.write_atomic(folder / "spec.yaml", specs.dump(spec))
        records.save(folder, record)
        for old in (folder / "failures").glob("rank-*.json"):
            old.unlink()
    except RunError as error:
        raise ScalelabError(str(error)) from None
    except OSError as error:
        raise ScalelabError(f"{folder}: cannot be written: {error.strerror}") from None


def new_record(folder: Path, spec: Spec, attempt: Attempt, facts: dict[str, Any]) -> TrainRecord:
    """The record of a run that has not been measured yet; ``facts`` are further fields."""
    said = spread(spec.strategy, spec.engine, options(msgspec.to_builtins(spec)))
    name = spec.name or f"{spec.model} {said} ×{spec.workers}"
    return TrainRecord(run=folder.name, name=name, attempts=[attempt], **facts, **_unmeasured())


def _threads(derived: Derived) -> str:
    return f"{derived.threads} threads" + (f" + {derived.data_threads} that decode images" if derived.data_threads else "")


def follow(
    launcher: Launcher, folder: Path, processes: list[Process], watch: Callable[[Path], None], timeout: float
) -> Failure | None:
    """Wait for all ranks; the first failure ends the wait, after the others had a moment to say what they saw.

    So does silence for ``timeout`` seconds.
    """
    silence = Silence(folder, processes, timeout, launcher.pulse(processes))
    while any(p.status is None for p in processes):
        launcher.poll(POLL)
        watch(folder)
        if silence.fell():
            said = f"silent for {timeout:g} seconds (--timeout): no worker wrote or computed anything, so they were ended"
            return Failure(error=f"{said}; where each one stood is in its log", host=socket.gethostname(), expected=True)
        if any(p.status for p in processes):
            settled = time.monotonic() + SETTLE
            while any(p.status is None for p in processes) and time.monotonic() < settled:
                launcher.poll(POLL)
            return first_failure(folder, processes)
    return first_failure(folder, processes) if any(p.status for p in processes) else None


def _of_one_attempt(note: str) -> bool:
    return note.startswith(f"{OVERSUBSCRIBED}:") or note.endswith(GOES_ON)


def _unmeasured() -> dict[str, Any]:
    def none(unit: str) -> Figure:
        return Figure(unit=unit, reason=NOT_YET)

    seconds = none("s")
    return {
        "images_per_second": none("images/s"), "step_seconds": seconds, "compute_seconds": seconds, "data_wait_seconds": seconds,
        "communication_seconds": Communication(total=seconds, exposed=seconds, hidden=seconds, waited=seconds, bare=seconds),
        "memory_bytes": Memory(peak=none("bytes")), "bytes_sent": none("bytes"),
    }  # fmt: skip
