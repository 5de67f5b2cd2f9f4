"""Submitting a script."""

from __future__ import annotations

import re
from pathlib import Path

from scalelab.launch.slurm.programs import SlurmError, call


def command(script: Path, dependency: str | None = None, array: str | None = None) -> list[str]:
    """The command line of sbatch. ``dependency`` and ``array`` as sbatch has them: ``afterany:12:13``, ``0-99%8``."""
    options = {"--dependency": dependency, "--array": array}
    return ["sbatch", "--parsable", *(f"{name}={value}" for name, value in options.items() if value), "--", str(script)]


def submit(script: Path, dependency: str | None = None, array: str | None = None) -> str:
    """Submit a script; the job's id. Raises SlurmError with sbatch's words where it refuses, or answers with no id."""
    said = call(command(script, dependency, array))
    found = re.fullmatch(r"(\d+)(;[^\s;]+)?", said.strip())  # "id;cluster" where there are several clusters
    if found is None:
        raise SlurmError(f"sbatch: expected a job's id, but it answered {said.strip()!r}")
    return found[1]
