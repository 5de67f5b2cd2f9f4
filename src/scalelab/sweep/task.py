"""``python -m scalelab.sweep.task``: what runs tasks. Standard library only: it has started in the time of an empty Python.

    FOLDER N                     task N of the sweep in FOLDER, here and now
    FOLDER --of FILE             the task whose number is on line SLURM_ARRAY_TASK_ID (from 0) of FILE: a task of a Slurm array
    --serve                      what is told on stdin (``serve.py``)

Exit status 0: completed; 1: not, and ``tasks/N.json`` says why; 2: there is no such task.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from scalelab.errors import ScalelabError
from scalelab.sweep import job as jobs
from scalelab.sweep import serve, slots
from scalelab.sweep.runner import TICK, Runner

ENDED_BY = {signal.SIGTERM: "ended from outside (SIGTERM): cancelled, preempted, or out of time", signal.SIGINT: "interrupted"}
TOGETHER = 0.3
"""seconds within which a job's processes all have had the signal that ends it"""


def main(words: list[str]) -> int:
    """The program; its exit status."""
    if words == ["--serve"]:
        return serve.serve()
    folder = Path(words[0])
    try:
        task = int(_line(Path(words[2]), int(os.environ["SLURM_ARRAY_TASK_ID"]))) if words[1] == "--of" else int(words[1])
        return run(folder, task)
    except (OSError, ValueError, LookupError) as error:
        print(f"scalelab: {folder}: {error}", file=sys.stderr)
        return 2
    except ScalelabError as error:
        print(f"scalelab: {error}", file=sys.stderr)
        return 1


def run(folder: Path, task: int) -> int:
    """Run a task of a sweep, unless it is completed already (a job that was requeued); 0 where it is completed then."""
    if finished(folder, task):
        return 0
    sweep = json.loads((folder / "sweep.json").read_bytes())
    line = json.loads(_line(folder / "tasks.jsonl", task))
    ended: list[dict[str, Any]] = []
    cores = os.environ.get("SLURM_CPUS_PER_TASK")  # Slurm itself binds a task to them
    runner = Runner(folder, [slots.Slot(threads=int(cores) if cores else None)], ended.append)
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    def asked(status: int) -> str | None:
        if not came and status == -signal.SIGTERM:
            time.sleep(TOGETHER)
        return ENDED_BY[signal.Signals(came[0])] if came else None

    for number in ENDED_BY:
        signal.signal(number, note)
    runner.asked = asked
    runner.start(jobs.of(sweep, line, env=_known(sweep["env"])))
    while runner.running:
        if came and runner.ending is None:
            runner.end(asked(0) or "")
        runner.wait(TICK)
    if ended[-1]["status"] != "completed":
        print(f"scalelab: task {task}: {ended[-1]['reason']}", file=sys.stderr)
        return 1
    return 0


def finished(folder: Path, task: int) -> bool:
    """Whether a task's record says that it is completed."""
    try:
        return bool(json.loads((folder / "tasks" / f"{task}.json").read_bytes())["status"] == "completed")
    except (OSError, ValueError, KeyError):
        return False


def _known(env: dict[str, str]) -> dict[str, str]:
    """What is set for all tasks; a secret's value, which no file holds, is in the job's environment already."""
    return {name: value for name, value in env.items() if value != jobs.HIDDEN}


def _line(path: Path, number: int) -> str:
    with path.open(encoding="utf-8") as file:
        found = next(islice(file, number, None), None)
    if found is None:
        raise ValueError(f"{path.name} has no line {number}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
