"""What Slurm says of jobs, taken apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalelab.launch.slurm.jobs import cancel, members, seconds, short
from scalelab.launch.slurm.programs import SlurmError


@pytest.mark.parametrize(
    ("row", "tasks"),
    [
        ("12", ["12"]),
        ("12_3", ["12_3"]),
        ("12_[0-2]", ["12_0", "12_1", "12_2"]),
        ("12_[0-1,7%4]", ["12_0", "12_1", "12_7"]),
    ],
)
def test_a_row_of_sacct_stands_for_these_tasks(row: str, tasks: list[str]) -> None:
    assert members(row) == tasks


@pytest.mark.parametrize(
    ("sacct", "squeue", "all"),
    [
        ("00:00:11", "0:11", 11),
        ("00:12:05", "12:05", 725),
        ("01:02:03", "1:02:03", 3723),
        ("1-02:03:04", "1-02:03:04", 93784),
        ("UNLIMITED", "UNLIMITED", None),
    ],
)
def test_times_are_written_in_one_way(sacct: str, squeue: str, all: int | None) -> None:
    assert (short(sacct), short(squeue), seconds(sacct)) == (squeue, squeue, all)


def test_a_step_is_asked_to_end_and_not_killed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    cancel(["12", "13.0", "14_1", "15.2"])
    assert (tmp_path / "asked").read_text().splitlines() == ["--signal=TERM 13.0 15.2", "12 14_1"]


def test_a_step_that_is_over_already_does_not_keep_the_other_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = f'echo "$@" >> {tmp_path}/asked; case "$*" in *13.0*) echo "scancel: error: already completing" >&2; exit 1;; esac'
    (tmp_path / "scancel").write_text(f"#!/bin/sh\n{over}\n")
    (tmp_path / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(SlurmError, match="already completing"):
        cancel(["13.0", "12"])
    assert (tmp_path / "asked").read_text().splitlines() == ["--signal=TERM 13.0", "12"]
