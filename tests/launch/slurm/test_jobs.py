"""What Slurm says of jobs, taken apart."""

from __future__ import annotations

import pytest

from scalelab.launch.slurm.jobs import members, seconds, short


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
