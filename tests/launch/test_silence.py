"""Workers that have gone silent, told from those that only take long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from scalelab.launch import silence
from scalelab.launch.pool import Pool
from scalelab.launch.silence import Silence


def watched(pool: Pool, folder: Path, does: str, timeout: float, seconds: float) -> bool:
    """Whether a process that ``does`` so is found silent within ``seconds``."""
    process = pool.start(f"tests.launch.idling:{does}", ["60"])
    try:
        while process.pid is None:
            pool.poll(0.1)
        watching = Silence(folder, [process], timeout)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pool.poll(0.1)
            if watching.fell():
                return True
        return False
    finally:
        pool.end([process])


def test_a_worker_that_does_nothing_is_silent(pool: Pool, tmp_path: Path) -> None:
    assert watched(pool, tmp_path, "idle", timeout=1.0, seconds=6.0)


def test_a_worker_that_computes_is_not_whatever_it_writes(pool: Pool, tmp_path: Path) -> None:
    assert not watched(pool, tmp_path, "compute", timeout=1.0, seconds=3.5)


def test_what_it_started_computes_for_it(pool: Pool, tmp_path: Path) -> None:
    assert not watched(pool, tmp_path, "let_compute", timeout=1.0, seconds=4.5)


def test_children_are_not_looked_for_while_the_worker_computes(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That reads every process of the host, on the cores that the workers compute on."""
    looked: list[bool] = []
    monkeypatch.setattr(silence, "_children", lambda pid: looked.append(True) or [])
    assert not watched(pool, tmp_path, "compute", timeout=1.0, seconds=2.5)
    assert not looked


def test_a_file_that_grows_is_a_sign_of_life(pool: Pool, tmp_path: Path) -> None:
    process = pool.start("tests.launch.idling:idle", ["60"])
    try:
        watching, steps = Silence(tmp_path, [process], 1.0), tmp_path / "steps.jsonl"
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            pool.poll(0.2)
            with steps.open("a") as file:
                file.write("{}\n")
            assert not watching.fell()
    finally:
        pool.end([process])


def test_the_time_for_which_this_process_was_stopped_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(silence.time, "monotonic", lambda: now)
    watching = Silence(tmp_path, [], 3.0, pulse=lambda: False)
    found = {}
    for now in (1.5, 1000.0, 1001.5, 1003.0):
        found[now] = watching.fell()
    assert found == {1.5: False, 1000.0: False, 1001.5: False, 1003.0: True}
