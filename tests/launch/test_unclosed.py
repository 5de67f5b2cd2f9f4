"""A run whose record says that it is running, while its launcher's host is another one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.unclosed import refuse_running
from scalelab.record.schema import Attempt

STEP = Attempt(started="2026-01-01T00:00:00.000Z", host="h1", pid=7, job="12.0")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Slurm whose one node is h1, on which the step 13.0 runs."""
    for name, script in (("scontrol", '[ "$3" = h1 ] && exit; echo "Node $3 not found"; exit 1'), ("squeue", "echo 13.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_a_step_that_slurm_lists_no_more_is_over(slurm: None) -> None:
    refuse_running(Path("run"), STEP)


@pytest.mark.parametrize(
    ("host", "job", "told"),
    [
        ("h1", "13.0", "if it is gone: resume it on h1, or where `squeue --steps` works"),
        ("h1", "13", "if it is gone: `scalelab jobs` closes its record where job 13 is over"),
        ("elsewhere", "12.0", "process 7 on elsewhere is training it"),
        ("h1", None, 'if it is gone: resume it on h1, or say "status": "lost" in record.json'),
        (socket.gethostname(), None, "is training it; wait for it, or end it$"),
    ],
    ids=["it runs", "a whole job", "another cluster's", "no job", "here"],
)  # fmt: skip
def test_what_may_still_run_is_refused_with_what_to_do(slurm: None, host: str, job: str | None, told: str) -> None:
    with pytest.raises(ScalelabError, match=told):
        refuse_running(Path("run"), Attempt(started=STEP.started, host=host, pid=7, job=job))
