"""A machine's cores and GPUs, shared out to the tasks that run at once. Imports nothing heavy: the runner of tasks uses it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""what libraries ask for the number of their threads: set to a slot's cores, but where the user has set it"""


@dataclass(frozen=True)
class Slot:
    """What a task may use. ``cpus`` None: as it is; ``gpus`` None: likewise, an empty tuple: none."""

    cpus: tuple[int, ...] | None = None
    gpus: tuple[str, ...] | None = None
    threads: int | None = None
    """as many as cores, where it has its own"""

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """The variables that tell a program its share, over those that are ``given``."""
        found = {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        threads = self.threads or len(self.cpus or ())
        return found | {name: str(threads) for name in THREADS if threads and name not in given}


def share(
    cpus: Sequence[int], gpus: Sequence[str], jobs: int | None, cpus_per_task: int | None, gpus_per_task: int | None
) -> list[Slot]:
    """As many slots as tasks may run at once: ``jobs``, else what cores and GPUs allow for.

    Cores are dealt in runs of neighbours; with more tasks than cores they take turns. GPUs likewise, unless ``gpus_per_task`` says how
    many each has: then there are no more slots than GPUs allow.
    """
    each = cpus_per_task or max(1, len(cpus) // jobs if jobs else 1)
    count = jobs or max(1, len(cpus) // each)
    if gpus_per_task:
        count = min(count, len(gpus) // gpus_per_task)
    dealt = [_deal(gpus, gpus_per_task or max(1, len(gpus) // max(count, 1)), place) for place in range(count)]
    none = not gpus and not gpus_per_task
    return [
        Slot(tuple(_deal(cpus, each, place)), None if none else () if gpus_per_task == 0 else tuple(dealt[place]))
        for place in range(count)
    ]


def _deal(things: Sequence[T], each: int, place: int) -> list[T]:
    """The ``place``-th share of ``each`` things, beginning again where they are all dealt."""
    whole = max(1, len(things) // each)
    start = place % whole * each
    return list(things[start : start + each])


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def gpus(given: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """The GPUs that programs started here would see: those that CUDA_VISIBLE_DEVICES names, else all of NVIDIA's."""
    named = given.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in (part.strip() for part in named.split(",")) if name and name != "-1"]
    return sorted(
        (path.name.removeprefix("nvidia") for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)), key=int
    )
