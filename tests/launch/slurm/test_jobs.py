"""What Slurm says of jobs, taken apart."""

from __future__ import annotations

import pytest

from scalelab.launch.slurm.jobs import members


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
