"""What a sweep leaves behind: ``sweep.json``, a line for each task in ``tasks.jsonl``, and ``tasks/N.json`` of each that was begun."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from scalelab.record.schema import Figure

TaskStatus = Literal["running", "completed", "failed", "interrupted"]
"""as tasks/N.json says it"""
TaskState = Literal["completed", "failed", "interrupted", "lost", "running", "queued", "missing"]
"""as it is now: lost is what says that it runs, and does not; missing has not begun, and nobody will begin it"""


class MetricRead(msgspec.Struct, frozen=True, kw_only=True):
    """How a metric is caught: by ``pattern`` in the output, or at ``path`` in the JSON ``file``.

    Of ``pattern`` it is the first group, the last time that it matches; ``file`` ``-`` is the last line of the output that is a JSON
    object.
    """

    name: str
    pattern: str | None = None
    file: str | None = None
    path: str | None = None


class PlannedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A line of tasks.jsonl: the parameters' values as given, and the words that start the program."""

    task: int
    """counted from 0: the name of its files"""
    values: dict[str, str] = {}
    repeat: int = 0
    seed: int = 0
    argv: list[str]


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt at a task before its last one."""

    started: str
    seconds: float
    exit_status: int | None = None
    reason: str | None = None


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """tasks/N.json. Replaced whole: first when it begins, then when it has ended."""

    kind: Literal["sweep-task"] = "sweep-task"
    format: int = 1
    task: int
    status: TaskStatus
    """completed: exit status 0, and every metric was caught"""
    reason: str | None = None
    """why it is not completed"""
    values: dict[str, str]
    repeat: int = 0
    seed: int = 0
    argv: list[str] = []
    cwd: str = ""
    metrics: dict[str, float | None] = {}
    exit_status: int | None = None
    """None while it runs, and where it was ended by a signal or could not be started"""
    signal: str | None = None
    """the name of the signal that ended it"""
    started: str = ""
    ended: str | None = None
    seconds: float | None = None
    """of the last attempt, from start to end"""
    cpu_seconds: float | None = None
    """that its processes computed, as far as they were waited for"""
    peak_memory_bytes: int | None = None
    """of its largest process (getrusage's maxrss); never less than what the runner of tasks takes, about 15 MiB"""
    host: str = ""
    pid: int | None = None
    cpus: list[int] | None = None
    """the cores it was bound to; None where it was not"""
    environment: dict[str, str] = {}
    """of its environment, what is on the list of ``sweep.json``"""
    slurm: dict[str, str] = {}
    attempts: list[Try] = []
    """those before the last one"""


class SweepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """sweep.json: all that its tasks have in common. Written once."""

    kind: Literal["sweep"] = "sweep"
    format: int = 1
    name: str
    command: list[str]
    """what was typed"""
    argv: list[str]
    """the program and its arguments, with placeholders"""
    cwd: str
    parameters: list[str]
    tasks: int
    repeats: int = 1
    seed: int = 0
    metrics: list[MetricRead] = []
    goal: str = ""
    """the metric that *best* is about; empty where there is none"""
    least: bool = False
    """whether the least of it is the best"""
    timeout: float | None = None
    retries: int = 0
    env: dict[str, str] = {}
    """set for every task; a secret's value is not here"""
    recorded: list[str] = []
    """names of the variables that a task's record keeps"""
    place: str = "local"
    placing: dict[str, Any] = {}
    """how it is spread there: jobs, hosts, flags of sbatch"""
    created: str


class SweepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sweep --dry-run --json`` prints: the tasks, and on Slurm the batch script."""

    kind: Literal["sweep-plan"] = "sweep-plan"
    format: int = 1
    sweep: SweepRecord
    tasks: list[PlannedTask]
    script: str | None = None


class Best(msgspec.Struct, frozen=True, kw_only=True):
    """A point with the best median of the goal over its repeats."""

    values: dict[str, str]
    tasks: list[int]
    figure: Figure


class SweepStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What ``sweep status --json`` prints."""

    kind: Literal["sweep-status"] = "sweep-status"
    format: int = 1
    sweep: str
    """its folder"""
    tasks: int
    completed: int = 0
    failed: int = 0
    interrupted: int = 0
    lost: int = 0
    running: int = 0
    queued: int = 0
    missing: int = 0
    best: Best | None = None
    remaining_seconds: float | None = None
    """an estimate, from the times of those that are completed and how many run at once; None where nothing can be said"""
    failures: list[str] = []
    """the first of them, a line each"""
    notes: list[str] = []
