"""Slurm jobs for tests: submit, look, wait."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster import slurm
from tests.cluster.bounds import BOUND
from tests.cluster.host import Host
from tests.waiting import PATIENCE, until


def submit(host: Host, script: str, *flags: object, cwd: object) -> int:
    """Hand a batch script to sbatch; the job's id. Its output goes where ``flags`` say, else to slurm-ID.out in ``cwd``."""
    text = script if script.startswith("#!") else f"#!/bin/sh\n{script}"
    done = host.run(["sbatch", "--parsable", *flags], cwd=cwd, input=text, check=True)
    return int(done.stdout.split(";")[0])


def fields(host: Host, job: int | str) -> dict[str, str]:
    """What ``scontrol show job`` says of a job (of an array: of its first task); RuntimeError when Slurm knows none."""
    done = host.run(["scontrol", "--oneliner", "show", "job", job])
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return dict(re.findall(r"(\w+)=(\S*)", done.stdout.splitlines()[0]))


def states(host: Host, job: int | str) -> list[str]:
    """State of a job, or of each task of an array."""
    shown = host.run(["scontrol", "--oneliner", "show", "job", job]).stdout
    return re.findall(r"JobState=(\w+)", shown)


def queued(host: Host) -> list[str]:
    """Each job and task that Slurm still has to do with: ``7_3 RUNNING``."""
    return host.run(["squeue", "--noheader", "--array", "--format=%i %T"], check=True).stdout.splitlines()


def reach(host: Host, job: int | str, *wanted: str, seconds: float = PATIENCE) -> None:
    """Wait until a job and all its tasks are in one of these states; AssertionError that says in which they are."""
    end = time.monotonic() + seconds
    while not (seen := states(host, job)) or not set(seen) <= set(wanted):
        assert time.monotonic() < end, f"job {job} is {seen}, not {wanted}, after {seconds:g} s: {fields(host, job)}"
        time.sleep(0.05)


def until_idle(host: Host, nodes: Sequence[str], seconds: float = PATIENCE) -> None:
    """Wait until Slurm says that these nodes are up and free, and no others are there."""
    until(lambda: slurm.idle(host, nodes), f"{', '.join(nodes)} idle", seconds)


def cancel_all(host: Host, nodes: Sequence[Host], seconds: float = BOUND) -> None:
    """Cancel what is queued or runs, and wait until nothing of it is left on any node."""
    host.run(["scancel", "--user=root"], check=True)
    for node in nodes:
        node.idle(seconds)


def text(path: Path, ready: Callable[[str], bool] = bool, seconds: float = PATIENCE) -> str:
    """What a file holds once ``ready`` says of its text that it is complete."""
    end = time.monotonic() + seconds
    while not (path.exists() and ready(path.read_text())):
        assert time.monotonic() < end, f"{path.name} after {seconds:g} s: {path.read_text() if path.exists() else 'not there'}"
        time.sleep(0.05)
    return path.read_text()
