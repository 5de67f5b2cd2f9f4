"""Clocks of different hosts are brought together, and the doubt is told."""

from __future__ import annotations

from pathlib import Path

from scalelab.launch.pool import Pool


def test_clocks_that_are_apart_are_aligned(pool: Pool, tmp_path: Path) -> None:
    store, logs = tmp_path / "store", [tmp_path / f"{rank}.txt" for rank in range(3)]
    target, env = "tests.comm.clock_ranks:clocks_that_are_apart_are_aligned", {"GLOO_SOCKET_IFNAME": "lo"}
    processes = [pool.start(target, [str(store), str(rank), "3"], env, log) for rank, log in enumerate(logs)]
    assert [pool.wait(process) for process in processes] == [0, 0, 0], "\n".join(log.read_text() for log in logs)
