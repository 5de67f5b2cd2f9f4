"""Calling Slurm's programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from scalelab.errors import ScalelabError

PATIENCE = 60.0
"""seconds that a program of Slurm may take; it waits about ten for a controller that does not answer"""
KEPT = ("SLURM_CONF", "SLURM_JWT")
"""of the variables that begin with SLURM_: how to reach the cluster"""


class SlurmError(ScalelabError):
    """Slurm said no, in the words that follow; or it does not answer."""


def call(line: Sequence[str], outside: bool = True, patience: float = PATIENCE) -> str:
    """What a program of Slurm prints. Raises SlurmError with its words.

    ``outside``: it is not told of the job that this process may be in; what stands there would go on to the new one.
    ``patience``: seconds that it may take.
    """
    environment = {name: value for name, value in os.environ.items() if not (outside and _of_a_job(name))}
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=patience, env=environment, stdin=subprocess.DEVNULL, errors="replace",
            start_new_session=True,
        )  # fmt: skip  # Ctrl-C is for us alone: a job that sbatch was just submitting would be nobody's
    except FileNotFoundError:
        raise SlurmError(f"{line[0]}: not found; --slurm works where Slurm's programs are: on a cluster's login node") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{line[0]}: no answer in {patience:g} s") from None
    if done.returncode:
        raise SlurmError(f"{line[0]}: {words(done.stderr, line[0]) or f'exit status {done.returncode}'}")
    return done.stdout


def _of_a_job(name: str) -> bool:
    return name.startswith(("SLURM_", "SLURMD_")) and name not in KEPT


def words(errors: str, program: str) -> str:
    """What a program wrote to stderr, in one line without its own name."""
    lines = (line.strip().removeprefix(f"{program}: ").removeprefix("error: ") for line in errors.splitlines())
    return "; ".join(line for line in lines if line and not line.startswith('Try "'))
