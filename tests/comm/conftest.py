"""Functions of ``tests.comm.ranks`` on real ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scalelab.launch.pool import Pool

OnRanks = Callable[[str, int], None]


@pytest.fixture
def on_ranks(pool: Pool, tmp_path: Path) -> OnRanks:
    """``on_ranks("function", n)``: call it on n ranks joined by gloo; a rank's failed assertion fails the test."""

    def run(function: str, size: int) -> None:
        store = tmp_path / function
        logs = [tmp_path / f"{function}-{rank}.txt" for rank in range(size)]
        target = f"tests.comm.ranks:{function}"
        env = {"GLOO_SOCKET_IFNAME": "lo"}
        processes = [pool.start(target, [str(store), str(rank), str(size)], env, log) for rank, log in enumerate(logs)]
        statuses = [pool.wait(process) for process in processes]
        assert statuses == [0] * size, "\n".join(log.read_text() for log in logs)

    return run
