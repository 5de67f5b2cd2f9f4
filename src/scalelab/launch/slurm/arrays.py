"""Arrays of jobs: how many tasks one may have here, and how many of them the site takes now."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from scalelab.launch.slurm.programs import SlurmError, call

USUAL = {"MaxArraySize": 1001, "MaxJobCount": 10_000}
"""limits where Slurm does not tell them: their defaults, slurm.conf(5)"""
FULL = re.compile(r"submit ?limit|MaxSubmit|QOSMax|AssocMax|accounting/QOS policy|temporarily unable|too many jobs", re.I)
"""sbatch's words where the site takes no more jobs now: fewer may fit, and the rest later"""
Task = TypeVar("Task")
Array = TypeVar("Array")


@dataclass(frozen=True)
class Sent(Generic[Task, Array]):
    """What was submitted, and what was not, with sbatch's reason."""

    arrays: list[Array]
    left: list[Task]
    why: str = ""


def largest() -> int:
    """Tasks that an array may have here: MaxArraySize limits the index, MaxJobCount all jobs that Slurm keeps. Raises SlurmError."""
    told = dict(re.findall(r"^(\w+)\s*=\s*(\d+)", call(["scontrol", "show", "config"]), re.M))
    return max(1, min(int(told.get(name, usual)) for name, usual in USUAL.items()))


def likely_largest() -> int:
    """The same; Slurm's default where it can't be asked."""
    with suppress(SlurmError):
        return largest()
    return min(USUAL.values())


def spread(tasks: int, at_once: int | None, first: int = 0) -> str:
    """The indices of an array: ``0-199%8``."""
    return f"{first}-{first + tasks - 1}" + (f"%{at_once}" if at_once else "")


def full(words: str) -> bool:
    """Whether sbatch's words say that the user, or the site, has as many jobs as may be."""
    return FULL.search(words) is not None


def send_all(
    tasks: Sequence[Task],
    most: int,
    submit: Callable[[Sequence[Task]], Array],
    waits: bool,
    stopped: Callable[[], bool],
    no_room: Callable[[str], bool] = full,
) -> Sent[Task, Array]:
    """Submit tasks as arrays of ``most`` at most, as many as the site takes: half of what it had no room for, until some fit.

    ``waits``: what the site has no room for at all may wait, for jobs are there whose end is waited for. Ends early where ``stopped()``.
    Raises SlurmError where not one is taken: what was taken runs, whatever becomes of the rest.
    """
    left, arrays = list(tasks), list[Array]()
    size, refused = min(len(left), most), ""
    while left and size and not stopped():
        try:
            made = submit(left[:size])
        except SlurmError as error:
            if not arrays and (not no_room(str(error)) or (size == 1 and not waits)):
                raise
            refused, size = str(error), size // 2 if no_room(str(error)) else 0
            continue
        arrays.append(made)
        left = left[size:]
        if refused:  # as many as fit: the next ones when some have ended
            break
        size = min(len(left), most)
    return Sent(arrays, left, refused)
