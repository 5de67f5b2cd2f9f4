"""Workers that have gone silent, told from those that only take long."""

from __future__ import annotations

import time
from pathlib import Path

from scalelab.launch.pool import Pool
from scalelab.launch.silence import Silence


def watched(pool: Pool, folder: Path, does: str, timeout: float, seconds: float) -> bool:
    """Whether a process that ``does`` so is found silent within ``seconds``."""
    process = pool.start(f"tests.launch.idling:{does}", ["60"])
    try:
        while process.pid is None:
            pool.poll(0.1)
        silence = Silence(folder, [process], timeout)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pool.poll(0.1)
            if silence.fell():
                return True
        return False
    finally:
        pool.end([process])


def test_a_worker_that_does_nothing_is_silent(pool: Pool, tmp_path: Path) -> None:
    assert watched(pool, tmp_path, "idle", timeout=1.0, seconds=6.0)


def test_a_worker_that_computes_is_not_whatever_it_writes(pool: Pool, tmp_path: Path) -> None:
    assert not watched(pool, tmp_path, "compute", timeout=1.0, seconds=3.5)


def test_a_file_that_grows_is_a_sign_of_life(pool: Pool, tmp_path: Path) -> None:
    process = pool.start("tests.launch.idling:idle", ["60"])
    try:
        silence, steps = Silence(tmp_path, [process], 1.0), tmp_path / "steps.jsonl"
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            pool.poll(0.2)
            with steps.open("a") as file:
                file.write("{}\n")
            assert not silence.fell()
    finally:
        pool.end([process])
