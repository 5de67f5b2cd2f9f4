"""What the processes that measure a ceiling make of it, and what they keep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from scalelab.measure.ceiling import Work, copy, fastest, products, timed
from scalelab.worker import ceiling

CPU = torch.device("cpu")


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``measured()``: the answer of one process of one thread, with a cache of its own, in a fifth of the usual time."""
    threads = torch.get_num_threads()
    monkeypatch.setenv("SCALELAB_CACHE", str(tmp_path / "cache"))
    for name in ("TRIAL", "PRODUCTS", "COPIES", "STRETCH"):
        monkeypatch.setattr(ceiling, name, getattr(ceiling, name) / 5)

    def measure(precision: str = "fp32") -> dict[str, Any]:
        answer = tmp_path / "answer.json"
        (tmp_path / "meeting").unlink(missing_ok=True)
        assert ceiling.rank("0", "1", "1", "cpu", precision, str(tmp_path / "meeting"), str(answer)) == 0
        return dict(json.loads(answer.read_text()))

    yield measure
    torch.set_num_threads(threads)


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*"))


def test_what_was_measured_in_quiet_is_known_the_next_time(
    measured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "QUIET", 0.0)
    first = measured()
    assert measured() == first
    (entry,) = entries(tmp_path)
    entry.write_text("{")  # damaged: measured again
    assert measured() != first
    assert len(entries(tmp_path)) == 1
    measured("fp64")
    assert len(entries(tmp_path)) == 2


def test_what_was_measured_on_a_busy_machine_says_so_and_is_not_kept(
    measured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceiling, "QUIET", 2.0)
    found = measured()["flops_per_second"]
    assert found["median"] > 0
    assert "the machine was busy" in found["reason"]
    assert entries(tmp_path) == []


def test_the_share_of_the_cores_is_of_those_that_were_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling.psutil, "cpu_count", lambda: 4)

    def busy(each: float, everyone: float | None = None, **asked: Any) -> str | None:
        pieces = [ceiling._Piece("", 1.0, [], each, 2 * each if everyone is None else everyone)] * 2
        return ceiling._busy(pieces, {"device": "cpu", "cores": 4, "workers": 2, "threads": 1, **asked})

    assert busy(0.95) is None
    assert "50 % of the cores" in str(busy(0.5))
    assert busy(0.5, cores=1) is None  # two processes on one core: half of it each
    assert busy(1.0, threads=2) is not None
    assert busy(0.1, device="a GPU") is None
    assert busy(2.0, threads=2) is None
    assert "other programs took 1.0 cores" in str(busy(2.0, 5.0, threads=2))  # threads that wait for one another look busy
    assert busy(1.0, 4.0) is None  # two cores are left to others


def test_the_fastest_work_is_the_one_that_does_most_in_a_second() -> None:
    short, long = torch.ones(10), torch.ones(10_000_000)
    little, much = Work("little", 10.0, short.clone), Work("much", 10.0, long.clone)
    assert fastest([much, little], CPU, 0.01) is little


def test_pieces_are_timed_one_after_the_other_and_amount_to_what_they_say() -> None:
    times = timed(Work("", 1.0, torch.ones(10).clone), CPU, 0.02)
    assert times == sorted(times)
    assert times[-1] - times[0] >= 0.02
    assert copy(CPU).amount == 2 * 128 * 2**20
    assert [work.amount for work in products(CPU, "fp32")[:2]] == [2 * 512**3, 2 * 1024**3]
    assert products(CPU, "fp32")[2].amount == 2 * 9 * 64 * 64 * 8 * 32 * 32
