"""Before any rank starts: every host of the job answers with what it is, and what it runs and sees.

``python -m scalelab.launch.slurm.rollcall FILE`` answers for one host; ``call_roll`` asks all of them by one srun, and compares.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import msgspec

from scalelab.errors import ScalelabError
from scalelab.launch.slurm.programs import words
from scalelab.measure import environment
from scalelab.record.schema import Host

PATIENCE = 120.0
"""seconds for all hosts to answer: a shared file system may take long over the first import of the day"""
MARK = "scalelab host: "
"""before an answer: whatever else a login script prints is none"""


class Answer(msgspec.Struct, frozen=True):
    """What one host says of itself."""

    node: str
    """Slurm's name for it, which need not be the host's own"""
    host: Host
    versions: dict[str, str]
    """what must be equal on all: of Python, torch, and the digest of scalelab's own source"""
    sees: bool
    """whether it sees the run's folder"""


def answer(file: Path) -> Answer:
    """This host's. ``file`` is one of the run's."""
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "missing"
    versions = {"Python": platform.python_version(), "torch": torch, "scalelab's own source": environment.code()}
    return Answer(os.environ["SLURMD_NODENAME"], environment.host(), versions, file.exists())


def call_roll(srun: list[str], file: Path, hosts: list[str]) -> list[Host]:
    """The facts of ``hosts``, in their order. ``srun`` starts one process on each.

    Raises ScalelabError that names each host that differs, does not see ``file``, or did not answer.
    """
    line = [*srun, sys.executable, "-m", __spec__.name, str(file)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, errors="replace")
    except subprocess.TimeoutExpired:
        raise ScalelabError(f"not all hosts of the job ({', '.join(hosts)}) answered in {PATIENCE:g} s") from None
    told = [text.removeprefix(MARK) for text in done.stdout.splitlines() if text.startswith(MARK)]
    found = {one.node: one for one in (msgspec.json.decode(text, type=Answer) for text in told)}
    missing = [host for host in hosts if host not in found]
    if missing:
        raise ScalelabError(f"{', '.join(missing)}: did not answer; srun: {words(done.stderr, 'srun')}")
    answers = [found[host] for host in hosts]
    faults = [fault for host, one in zip(hosts, answers, strict=True) for fault in differing(host, one, hosts[0], answers[0])]
    faults += [f"{host} does not see {file}" for host, one in zip(hosts, answers, strict=True) if not one.sees]
    if faults:
        raise ScalelabError(f"{'; '.join(faults)}: all hosts of a job need the same versions and a shared folder (--out)")
    return [one.host for one in answers]


def differing(host: str, one: Answer, first: str, other: Answer) -> list[str]:
    """What is not the same on two hosts, in words."""
    return [
        f"{what} is {found} on {host} and {other.versions.get(what)} on {first}"
        for what, found in one.versions.items()
        if found != other.versions.get(what)
    ]


if __name__ == "__main__":
    print(MARK + msgspec.json.encode(answer(Path(sys.argv[1]))).decode(), flush=True)
