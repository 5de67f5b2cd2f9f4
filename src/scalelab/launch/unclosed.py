"""Runs whose records say that they are running: whether one still does, as far as that can be known from here."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from scalelab.errors import ScalelabError
from scalelab.launch.slurm.programs import SlurmError, call
from scalelab.record.schema import Attempt

SOON = 10.0
"""seconds that who only looks waits for Slurm's controller"""


def refuse_running(folder: Path, attempt: Attempt) -> None:
    """Raises ScalelabError unless the last attempt of a run, whose record says that it is running, is known to be over.

    A launcher that is gone from this host was noticed when the record was read (``record.folder.load``). Of another host only Slurm
    can tell: a step that it does not list any more has no process left on any node.
    """
    if step_over(attempt):
        return
    said = f"{folder}: its record says that process {attempt.pid} on {attempt.host} is training it; wait for it, or end it"
    if attempt.host == socket.gethostname():
        raise ScalelabError(said)
    raise ScalelabError(f'{said}; if it is gone: {_way(attempt)}, or say "status": "lost" in record.json')


def _way(attempt: Attempt) -> str:
    if attempt.job is None:
        return f"resume it on {attempt.host}"
    if "." in attempt.job:
        return f"resume it on {attempt.host}, or where `squeue --steps` works"
    return f"`scalelab jobs` closes its record where job {attempt.job} is over"


def step_over(attempt: Attempt) -> bool:
    """Whether the attempt was a step of this cluster's Slurm (JOB.STEP) that is over. Where Slurm can't say so, it is not."""
    if attempt.job is None or "." not in attempt.job:
        return False
    try:
        going = call(["squeue", "--steps", "--noheader", "--format=%i"]).split()
    except SlurmError:
        return False
    return attempt.job not in going and of_this_cluster(attempt.host)


def of_this_cluster(host: str) -> bool:
    """Whether Slurm says so: the numbers of another cluster mean other jobs. Where it does not answer soon, nothing is known of it."""
    with suppress(SlurmError):
        call(["scontrol", "show", "node", host], patience=SOON)
        return True
    return False
