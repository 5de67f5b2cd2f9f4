"""What the runner of tasks is told of one. Plain values: it travels as JSON, by file and by pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from scalelab.sweep.metric import Metric
from scalelab.sweep.template import fill

HIDDEN = "****"
"""what a file has for the value of a secret"""


@dataclass(frozen=True)
class Job:
    """A task to be run: its program, and what is to be known of it afterwards."""

    task: int
    argv: tuple[str, ...]
    cwd: str
    values: dict[str, str] = field(default_factory=dict)
    repeat: int = 0
    seed: int = 0
    env: dict[str, str] = field(default_factory=dict)
    recorded: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    timeout: float | None = None
    retries: int = 0


def placeholders(values: Mapping[str, str], task: int, repeat: int, seed: int) -> dict[str, str]:
    """What ``{…}`` may say in a task's command: its parameters, and what every task has."""
    return {"task": str(task), "repeat": str(repeat + 1), "seed": str(seed), **values}


def of(sweep: Mapping[str, Any], line: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Job:
    """The job of a line of tasks.jsonl under sweep.json, both as JSON has them; ``env`` where the sweep's own lacks secrets."""
    values, repeat, seed = line.get("values", {}), line.get("repeat", 0), line.get("seed", 0)
    filled = placeholders(values, line["task"], repeat, seed)
    metrics = [Metric(one["name"], one.get("pattern"), one.get("file"), one.get("path")) for one in sweep.get("metrics", ())]
    return Job(
        task=line["task"],
        argv=tuple(line["argv"]),
        cwd=sweep["cwd"],
        values=dict(values),
        repeat=repeat,
        seed=seed,
        env=dict(sweep.get("env", {}) if env is None else env),
        recorded=tuple(sweep.get("recorded", ())),
        metrics=tuple(one if one.file is None else replace(one, file=fill(one.file, filled)) for one in metrics),
        timeout=sweep.get("timeout"),
        retries=sweep.get("retries", 0),
    )


def to_wire(job: Job) -> dict[str, Any]:
    """The job as plain values that JSON can hold."""
    return asdict(job)


def from_wire(told: Mapping[str, Any]) -> Job:
    """The job that ``to_wire`` made plain."""
    lists = {name: tuple(told[name]) for name in ("argv", "recorded")}
    return Job(**{**told, **lists, "metrics": tuple(Metric(**one) for one in told["metrics"])})
