"""Workers that have gone silent, told from those that only take long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from scalelab.launch import silence
from scalelab.launch.pool import Pool
from scalelab.launch.silence import Silence


def test_a_worker_is_silent_that_neither_computes_nor_writes_nor_has_started_what_does(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four at once, each watched by itself. To find children reads every process of the host, on the cores that workers compute on."""
    looked: list[int] = []
    children = silence._children
    monkeypatch.setattr(silence, "_children", lambda pid: looked.append(pid) or children(pid))
    does = {"nothing": "idle", "computes": "compute", "its child computes": "let_compute", "writes": "idle"}
    processes = {name: pool.start(f"tests.launch.idling:{what}", ["60"]) for name, what in does.items()}
    try:
        while any(process.pid is None for process in processes.values()):
            pool.poll(0.1)
        for name in does:
            (tmp_path / name).mkdir()
        watching = {name: Silence(tmp_path / name, [process], 1.0) for name, process in processes.items()}
        fallen, end = set[str](), time.monotonic() + 4.5
        while time.monotonic() < end or not fallen:
            pool.poll(0.1)
            with (tmp_path / "writes" / "steps.jsonl").open("a") as file:
                file.write("{}\n")
            fallen |= {name for name, one in watching.items() if one.fell()}
    finally:
        pool.end(list(processes.values()))
    assert fallen == {"nothing"}
    assert processes["its child computes"].pid in looked
    assert processes["computes"].pid not in looked


def test_the_time_for_which_this_process_was_stopped_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(silence.time, "monotonic", lambda: now)
    watching = Silence(tmp_path, [], 3.0, pulse=lambda: False)
    found = {}
    for now in (1.5, 1000.0, 1001.5, 1003.0):
        found[now] = watching.fell()
    assert found == {1.5: False, 1000.0: False, 1001.5: False, 1003.0: True}
