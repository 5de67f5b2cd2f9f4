"""Cores and GPUs shared out."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.sweep.slots import Slot, gpus, share

EIGHT = list(range(8))


@pytest.mark.parametrize(
    ("jobs", "each", "cpus"),
    [
        (None, None, [(0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,)]),
        (2, None, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (3, None, [(0, 1), (2, 3), (4, 5)]),
        (None, 4, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (3, 4, [(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 2, 3)]),
        (None, 16, [(0, 1, 2, 3, 4, 5, 6, 7)]),
    ],
)
def test_cores(jobs: int | None, each: int | None, cpus: list[tuple[int, ...]]) -> None:
    found = share(EIGHT, [], jobs, each, None)
    assert [slot.cpus for slot in found] == cpus
    assert all(slot.gpus is None for slot in found)


def test_more_tasks_than_cores_take_turns() -> None:
    assert [slot.cpus for slot in share([4, 6], [], 3, None, None)] == [(4,), (6,), (4,)]


@pytest.mark.parametrize(
    ("jobs", "each", "dealt"),
    [
        (2, None, [("0", "1"), ("2", "3")]),
        (4, None, [("0",), ("1",), ("2",), ("3",)]),
        (6, None, [("0",), ("1",), ("2",), ("3",), ("0",), ("1",)]),
        (None, 2, [("0", "1"), ("2", "3")]),
        (8, 1, [("0",), ("1",), ("2",), ("3",)]),
        (2, 0, [(), ()]),
        (None, 8, []),
    ],
)
def test_gpus(jobs: int | None, each: int | None, dealt: list[tuple[str, ...]]) -> None:
    assert [slot.gpus for slot in share(EIGHT, ["0", "1", "2", "3"], jobs, None, each)] == dealt


def test_a_program_is_told_its_share() -> None:
    told = Slot((2, 3), ("1",)).environment({"MKL_NUM_THREADS": "8"})
    assert told == {"CUDA_VISIBLE_DEVICES": "1", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    assert Slot().environment({}) == {}
    assert Slot((1,), ()).environment({})["CUDA_VISIBLE_DEVICES"] == ""


def test_the_gpus_of_a_machine(tmp_path: Path) -> None:
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert gpus({}, tmp_path) == ["2", "10"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "GPU-5, 3"}, tmp_path) == ["GPU-5", "3"]
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == []
