"""Runs tasks on one machine, several at once, and leaves ``tasks/N.json`` and ``tasks/N.out`` of each. Standard library only."""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from scalelab.errors import RunError
from scalelab.launch.signals import named
from scalelab.record.atomic import write_atomic
from scalelab.record.times import now
from scalelab.sweep import metric as metrics
from scalelab.sweep.job import Job
from scalelab.sweep.program import Outcome, Program
from scalelab.sweep.slots import Slot

TICK = 0.25
"""seconds between two looks at what nobody tells: time limits, programs that don't end"""
SLURM = {
    "job": "SLURM_JOB_ID", "array": "SLURM_ARRAY_JOB_ID", "index": "SLURM_ARRAY_TASK_ID", "restarts": "SLURM_RESTART_COUNT",
    "cluster": "SLURM_CLUSTER_NAME",
}  # fmt: skip
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""what colours a line or moves the cursor"""
Tell = Callable[[dict[str, Any]], None]


@dataclass
class Running:
    """A task that runs: its present attempt, and what was of the earlier ones."""

    job: Job
    slot: Slot
    began: str
    env: dict[str, str]
    cwd: str
    out: IO[bytes]
    program: Program | None = None
    start: int = 0
    """where in the output this attempt begins"""
    seen: metrics.Seen = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)


class Runner:
    """Runs jobs in slots.

    ``tell`` hears a record at the start and at the end of each task. ``home``: where tasks run whose own folder is not on this machine.
    """

    def __init__(self, folder: Path, slots: list[Slot], tell: Tell, home: Path | None = None) -> None:
        self.tasks = folder / "tasks"
        self.free = list(slots)
        self.tell, self.home = tell, home
        self.selector = selectors.DefaultSelector()
        self.running: dict[int, Running] = {}
        """by their tasks' numbers"""
        self.ending: str | None = None
        self.guard: Callable[[int], None] = lambda pid: None
        """told of each program that has begun, and with a minus that has ended"""
        self.asked: Callable[[int], str | None] = lambda status: None
        """why this process itself was told to end, asked when a program has ended: Slurm signals both, in any order"""

    def start(self, job: Job) -> None:
        """Begin a task; there is a free slot. What prevents that is in its record."""
        slot = self.free.pop(0)
        env = {**os.environ, **job.env}
        env |= slot.environment(env)
        try:
            out = _output(self.tasks / f"{job.task}.out")
            cwd = job.cwd if self.home is None or Path(job.cwd).is_dir() else str(self.home)
            one = Running(job, slot, now(), env, cwd, out)
            record = self._record(one, status="running")
            self._write(record, sync=False)
        except (OSError, RunError) as error:
            self.free.append(slot)
            self.tell(_fields(job) | {"status": "failed", "reason": f"it was not begun: {error}", "host": socket.gethostname()})
            return
        self.running[job.task] = one
        self.tell(record)
        self._attempt(one)

    def wait(self, timeout: float) -> list[Any]:
        """Take in what happens within ``timeout`` seconds; what the selector's other members have that became readable."""
        others = []
        for key, _ in self.selector.select(min(timeout, TICK)):
            if isinstance(key.data, Running):
                self._ended(key.data)
            else:
                others.append(key.data)
        for one in list(self.running.values()):
            self._pulse(one)
        return others

    def end(self, why: str) -> None:
        """Begin to end all tasks; ``wait`` until none runs."""
        self.ending = why
        for one in self.running.values():
            if one.program is not None:
                one.program.end(why)

    def _attempt(self, one: Running) -> None:
        one.start = one.out.seek(0, 2)
        one.seen = metrics.look(one.job.metrics, Path(one.cwd))
        try:
            one.program = Program(one.job.argv, one.cwd, one.env, one.out, one.slot.cpus)
        except (OSError, ValueError) as error:  # ValueError: a null character in an argument
            what = "the folder to run in" if getattr(error, "filename", None) == one.cwd else "cannot be started"
            named = one.cwd if what != "cannot be started" else one.job.argv[0]
            reason = f"{named}: {what}: {getattr(error, 'strerror', None) or error}"
            self._finish(one, {"status": "failed", "reason": reason, "ended": now()})
            return
        self.guard(one.program.process.pid)
        self.selector.register(one.program.pidfd, selectors.EVENT_READ, one)

    def _pulse(self, one: Running) -> None:
        program = one.program
        if program is None:
            return
        limit = one.job.timeout
        if limit is not None and (time.perf_counter_ns() - program.began) / 1e9 > limit:
            program.end(f"timed out after {limit:g} s")
        program.pulse()

    def _ended(self, one: Running) -> None:
        assert one.program is not None, "it was waited for"
        self.selector.unregister(one.program.pidfd)
        outcome = one.program.reap()
        self.guard(-one.program.process.pid)
        why = self.asked(outcome.status)
        if why is not None and one.program.ending is None:
            self.ending = one.program.ending = why
        found = self._judged(one, outcome)
        if found["status"] == "failed" and len(one.attempts) < one.job.retries and self.ending is None:
            one.attempts.append({"started": one.began, **{name: found[name] for name in ("seconds", "exit_status", "reason")}})
            one.began = now()
            self._line(one, f"--- attempt {len(one.attempts) + 1}, after: {found['reason']} ---\n")
            self._attempt(one)
        else:
            self._finish(one, found)

    def _judged(self, one: Running, outcome: Outcome) -> dict[str, Any]:
        """What the record says of an attempt. Completed is only what ended by itself, with exit status 0 and every metric."""
        assert one.program is not None, "it has ended"
        output = self.tasks / f"{one.job.task}.out"
        ended_by = named(-outcome.status) if outcome.status < 0 else None
        values, fault = metrics.catch(one.job.metrics, output, one.start, Path(one.cwd), one.seen)
        reason = f"no metric: {fault}" if fault else None
        if outcome.status:
            last = last_line(output, one.start)
            reason = (f"ended by {ended_by}" if ended_by else f"exit status {outcome.status}") + (f": {last}" if last else "")
        status = "failed" if reason else "completed"
        if one.program.ending is not None:  # it did not end by itself, whatever it says
            reason = one.program.ending
            status = "failed" if reason != self.ending else "interrupted"
        return {
            "status": status, "reason": reason, "metrics": values, "exit_status": None if ended_by else outcome.status,
            "signal": ended_by, "ended": now(), "seconds": round(outcome.seconds, 4), "cpu_seconds": round(outcome.cpu_seconds, 4),
            "peak_memory_bytes": outcome.peak_memory_bytes,
        }  # fmt: skip

    def _finish(self, one: Running, found: dict[str, Any]) -> None:
        """Keep the record, if there is room for it: a task whose record could not be kept is not completed."""
        one.out.close()
        record = self._record(one, **found)
        try:
            self._write(record, sync=True)
        except RunError as error:
            record |= {"status": "failed", "reason": f"its record could not be kept: {error}"}
        del self.running[one.job.task]
        self.free.append(one.slot)
        self.tell(record)

    def _record(self, one: Running, **more: Any) -> dict[str, Any]:
        pid = one.program.process.pid if one.program else None
        return {
            **_fields(one.job), "cwd": one.cwd, "started": one.began, "host": socket.gethostname(), "pid": pid,
            "cpus": None if one.slot.cpus is None else list(one.slot.cpus), "attempts": one.attempts,
            "environment": {name: _text(one.env[name]) for name in one.job.recorded if name in one.env},
            "slurm": {name: os.environ[key] for name, key in SLURM.items() if key in os.environ}, **more,
        }  # fmt: skip

    def _write(self, record: dict[str, Any], sync: bool) -> None:
        write_atomic(self.tasks / f"{record['task']}.json", json.dumps(record, ensure_ascii=False, indent=1), sync)

    def _line(self, one: Running, text: str) -> None:
        try:
            one.out.write(text.encode(errors="replace"))
        except OSError:  # a full disk: the next attempt tells
            return


def _output(path: Path) -> IO[bytes]:
    """An empty file, opened to be appended to.

    A program that opens /dev/stderr has a second position in it: without appending, its writes and those to its descriptor would
    overwrite each other.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644), "ab", buffering=0)


def _fields(job: Job) -> dict[str, Any]:
    """What a record says of a task however it goes."""
    return {
        "kind": "sweep-task", "format": 1, "task": job.task, "values": job.values, "repeat": job.repeat, "seed": job.seed,
        "argv": list(job.argv), "cwd": job.cwd,
    }  # fmt: skip


def _text(value: str) -> str:
    """``value``, which may hold bytes that are no text, as JSON can."""
    return value.encode(errors="replace").decode()


def last_line(output: Path, start: int, most: int = 160) -> str:
    """The last line of an output that says something, in at most ``most`` characters."""
    with output.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(start, end - 4096))
        lines = CONTROL.sub("", file.read().decode(errors="replace").replace("\r", "\n")).splitlines()
    said = next((line.strip() for line in reversed(lines) if re.search(r"\w", line)), "")
    return said if len(said) <= most else f"{said[: most - 1]}…"
