"""Options of sbatch: those that are scalelab's own to set, and what a time says."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from scalelab.errors import ScalelabError

OWN = {
    "nodes": "--nodes, or --workers", "ntasks": "--workers", "ntasks-per-node": "--workers-per-node", "ntasks-per-core": "",
    "ntasks-per-gpu": "", "ntasks-per-socket": "", "cpus-per-task": "--cpus-per-task", "gpus-per-node": "--gpus-per-node",
    "partition": "--partition", "time": "--time", "account": "--account", "job-name": "--name", "signal": "--stop-seconds",
    "wait": "--wait", "array": "", "output": "", "error": "", "open-mode": "", "chdir": "", "wrap": "",
}  # fmt: skip
"""options that are in scalelab's scripts, or that these depend on, and the flags of scalelab that set them; with none, nothing does"""
SHORT = {
    "N": "nodes", "n": "ntasks", "c": "cpus-per-task", "p": "partition", "t": "time", "A": "account", "J": "job-name", "W": "wait",
    "a": "array", "o": "output", "e": "error", "D": "chdir",
}  # fmt: skip
WHOLE = ("gpus",)
"""options that begin as one of ``OWN`` does, and are others: the rest of a name may be left out"""
TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?|(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)|(?P<M>\d+)(?::(?P<S>\d+))?)"
)
"""sbatch(1), --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds"""
UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1, "h": 3600, "m": 60, "s": 1, "M": 60, "S": 1}


def refuse_own(args: Iterable[str]) -> None:
    """Raises ScalelabError for an option of sbatch that is no user's to give as it is, with the flag that is."""
    for arg in args:
        own = _own(arg)
        if own is not None:
            flag = f"say {OWN[own]}" if OWN[own] else "leave it out"
            raise ScalelabError(f"--slurm-arg {arg!r}: --{own} of the job's script is set by scalelab; {flag}")


def _own(arg: str) -> str | None:
    found = re.match(r"--([\w-]+)|-(\w)", arg)
    if found is None or found[1] in WHOLE:
        return None
    if found[2]:
        return SHORT.get(found[2])
    return found[1] if found[1] in OWN else next((name for name in OWN if name.startswith(found[1])), None)


def stays(args: Iterable[str]) -> bool:
    """Whether the job is not to go into the queue again: ``--no-requeue``."""
    return any(len(arg) > len("--no-") and "--no-requeue".startswith(arg) for arg in args)


def limit(time: str) -> float | None:
    """The seconds of a time as sbatch has it; None for no limit (0, UNLIMITED), and for what sbatch will refuse.

    Slurm counts in minutes: seconds are rounded up to one.
    """
    found = TIME.fullmatch(time.strip())
    if found is None:
        return None
    seconds = sum(UNITS[name] * int(value) for name, value in found.groupdict().items() if value)
    return 60.0 * math.ceil(seconds / 60) or None
