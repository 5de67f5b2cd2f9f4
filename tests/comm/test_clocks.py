"""Clocks of different hosts are brought together, and the doubt is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.launch.pool import Pool


@pytest.mark.parametrize("what", ["clocks_that_are_apart_are_aligned", "one_host_is_one_clock"])
def test_clocks(pool: Pool, tmp_path: Path, what: str) -> None:
    store, logs = tmp_path / "store", [tmp_path / f"{rank}.txt" for rank in range(3)]
    target, env = f"tests.comm.clock_ranks:{what}", {"GLOO_SOCKET_IFNAME": "lo"}
    processes = [pool.start(target, [str(store), str(rank), "3"], env, log) for rank, log in enumerate(logs)]
    assert [pool.wait(process) for process in processes] == [0, 0, 0], "\n".join(log.read_text() for log in logs)
