"""What srun says of the ranks that it started, read from its stderr."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterable

from scalelab.launch.launcher import Process

ENDED = re.compile(r"srun: error: \S+: tasks? ([\d,-]+): (.+)")
"""``srun: error: h2: tasks 2-3: Killed``"""
CODE = re.compile(r"Exited with exit code (\d+)")
CANCELLED = re.compile(r"\*\*\* (?:STEP|JOB) \S+ ON \S+ CANCELLED AT \S+ DUE TO ([A-Z]+(?: [A-Z]+)*)")
"""slurmstepd's last word, which srun passes on"""
LOST = re.compile(r"srun: error: Node failure on (\S+)")
REASONS = {
    "PREEMPTION": "preempted",
    "TIME LIMIT": "time limit",
    "JOB REQUEUE": "requeued by hand",
    "NODE FAILURE": "a node was lost",
}
"""Slurm's reasons in the words of an ``Attempt``"""
SIGNALS = {text: -number for number in signal.valid_signals() if (text := signal.strsignal(number))}
"""what a shell, and srun, call the end by a signal: ``Killed``, ``Segmentation fault``"""
SIGNALS["Out Of Memory"] = -signal.SIGKILL


def take_in(line: str, processes: list[Process]) -> None:
    """Note the ends that a line tells of in the ranks' ``processes``."""
    found = ENDED.search(line)
    if found is None:
        return
    for rank in ranks(found[1]):
        if rank < len(processes) and processes[rank].status is None:
            processes[rank].status, processes[rank].ended = status(found[2]), time.time()


def status(text: str) -> int:
    """``Exited with exit code 3`` → 3, ``Killed`` → -9; 1 for what is not known."""
    code = CODE.search(text)
    return int(code[1]) if code else SIGNALS.get(text.split(" (")[0], 1)


def ranks(text: str) -> list[int]:
    """``0,2-3`` → [0, 2, 3]."""
    ends = (part.split("-") for part in text.split(","))
    return [rank for end in ends for rank in range(int(end[0]), int(end[-1]) + 1)]


def reason(lines: Iterable[str]) -> str | None:
    """Why Slurm ended the job's processes, in our words, where srun was told."""
    lines = list(lines)
    if nodes := gone(lines):
        return lost(nodes)
    told = (found[1] for line in lines if (found := CANCELLED.search(line)))
    return next((REASONS.get(text, text.lower()) for text in told), None)


def gone(lines: Iterable[str]) -> list[str]:
    """The hosts that Slurm has lost, where srun was told."""
    return list(dict.fromkeys(found[1] for line in lines if (found := LOST.search(line))))


def lost(hosts: Iterable[str]) -> str:
    """``a node was lost: h2``."""
    return f"{REASONS['NODE FAILURE']}: {', '.join(hosts)}"


def failure(lines: Iterable[str]) -> str | None:
    """The first of srun's own errors that is none of a rank, such as a step that could not be made."""
    said = (line for line in lines if line.startswith("srun: error:") and ENDED.search(line) is None)
    return next((line.removeprefix("srun: error: ") for line in said), None)
