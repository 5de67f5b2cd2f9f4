#!/usr/bin/env -S sh -c 'exec "$(dirname "$0")/../.venv/bin/python" "$0" "$@"'
"""How long `scalelab sweep status` takes for a sweep of many tasks on Slurm: `benchmarks/sweep_status.py [--tasks 10000]`.

`--against FOLDER` has another checkout's `src` asked in turn, and tells the ratio of both: on a machine that does other things too, times
mean little, and ratios of runs side by side mean much.

The folder is as such a sweep leaves it: half of the tasks completed, some failed, some running, the rest in the queue. Slurm is a program
that answers as squeue does, at once: what is measured is our part. How often it was called is told too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scalelab.measure.statistics import figure
from scalelab.record import text
from scalelab.record.sweep import MetricRead, PlannedTask, SweepRecord, TaskRecord
from scalelab.sweep import keeping, slurm

SQUEUE = """#!/bin/sh
echo "$0 $*" >> {calls}
cat {answer}
"""


def main() -> int:
    """Make the folder, ask, tell the medians; the exit status is 1 where it takes too long, or Slurm is called more than once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="the src of another checkout")
    parsed = parser.parse_args()
    places = [Path(__file__).parents[1] / "src", *([parsed.against.resolve()] if parsed.against else [])]
    with tempfile.TemporaryDirectory() as scratch:
        folder, programs = Path(scratch) / "sweep", Path(scratch) / "bin"
        programs.mkdir()
        make(folder, parsed.tasks)
        pretend(programs, parsed.tasks)
        took: list[list[Took]] = [[] for _ in places]
        for run in range(parsed.runs):
            for which in range(len(places)) if run % 2 else reversed(range(len(places))):
                took[which].append(ask(folder, programs, places[which]))
        calls = len((programs / "calls").read_text().splitlines()) / parsed.runs / len(places)
    ours = statistics.median(one.seconds for one in took[0])
    counts = {name: took[0][-1].told[name] for name in ("completed", "failed", "running", "queued")}
    print(f"{parsed.tasks:,} tasks {counts}: {ours:.2f} s (median of {parsed.runs}), {calls:g} call of Slurm each")
    if parsed.against:
        for what, unit in (("seconds", "s"), ("computed", "s of processor time")):
            here, there = ([getattr(one, what) for one in runs] for runs in took)
            ratios = figure([a / b for a, b in zip(here, there, strict=True)], "ratio")
            medians = f"here {statistics.median(here):.2f}, there {statistics.median(there):.2f} {unit}"
            print(f"{medians}: {text.shown(ratios, text.number)} × [{text.interval(ratios, text.number)}]")
    return int(ours > parsed.limit or calls != 1)


@dataclass(frozen=True)
class Took:
    """One call: seconds on the clock, of processor time, and what it told."""

    seconds: float
    computed: float
    told: dict[str, Any]


def ask(folder: Path, programs: Path, source: Path) -> Took:
    """Ask for the status once, with the scalelab in ``source``."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(source)}
    before, began = used(), time.perf_counter()
    line = [sys.executable, "-m", "scalelab", "sweep", "status", folder, "--json"]
    done = subprocess.run(line, capture_output=True, env=environment)
    return Took(time.perf_counter() - began, used() - before, json.loads(done.stdout))


def used() -> float:
    """Seconds of processor time of all programs that were waited for."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


def make(folder: Path, tasks: int) -> None:
    """A sweep of which half is completed, one in fifty failed, and 64 run."""
    planned = [
        PlannedTask(task=n, values={"lr": f"{n / tasks:.5f}", "seed": str(n)}, seed=n, argv=["./train", str(n)])
        for n in range(tasks)
    ]
    sweep = SweepRecord(
        name="train", command=["scalelab", "sweep"], argv=["./train", "{lr}", "{seed}"], cwd="/", parameters=["lr", "seed"], tasks=tasks,
        metrics=[MetricRead(name="accuracy", pattern="accuracy (.*)")], goal="accuracy", place="slurm", created="2026-01-01T00:00:00.000Z",
    )  # fmt: skip
    keeping.make(folder)
    keeping.create(folder, sweep, planned)
    encoder = msgspec.json.Encoder()
    for task in planned[: tasks // 2 + 64]:
        status = "running" if task.task >= tasks // 2 else "failed" if task.task % 50 == 0 else "completed"
        record = TaskRecord(
            task=task.task, status=status, values=task.values, seed=task.seed, argv=task.argv, metrics={"accuracy": task.task % 97 / 97},
            exit_status=0, started="2026-01-01T00:00:00.000Z", seconds=3.2, peak_memory_bytes=1 << 28, host="node17",
            environment={"OMP_NUM_THREADS": "4"}, slurm={"job": "1", "array": "1", "index": str(task.task)},
        )  # fmt: skip
        (folder / "tasks" / f"{task.task}.json").write_bytes(msgspec.json.format(encoder.encode(record), indent=1))
    array = slurm.Array(job="1", numbers="array-1.tasks", tasks=tasks, submitted="2026-01-01T00:00:00.000Z")
    (folder / "slurm").mkdir()
    (folder / "slurm" / "array-1.tasks").write_text("".join(f"{n}\n" for n in range(tasks)))
    (folder / "slurm" / "submitted.jsonl").write_bytes(encoder.encode(array) + b"\n")


def pretend(programs: Path, tasks: int) -> None:
    """squeue, with a line for each task of the array that is not over."""
    lines = [f"1_{n}|1|{n}|RUNNING|None|1:00|1:00:00|N/A|node17|{programs}/script.sh" for n in range(tasks // 2, tasks // 2 + 64)]
    lines += [
        f"1_{n}|1|{n}|PENDING|JobArrayTaskLimit|0:00|1:00:00|N/A||{programs}/script.sh" for n in range(tasks // 2 + 64, tasks)
    ]
    (programs / "answer").write_text("\n".join(lines) + "\n")
    for name in ("squeue", "sacct", "scontrol"):
        (programs / name).write_text(SQUEUE.format(calls=programs / "calls", answer=programs / "answer"))
        (programs / name).chmod(0o755)


if __name__ == "__main__":
    sys.exit(main())
