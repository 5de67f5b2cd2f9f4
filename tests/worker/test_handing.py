"""Files between ranks that share no folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalelab.launch.pool import Pool


@pytest.mark.parametrize("what", ["bodies", "files"])
def test_all_bytes_arrive(pool: Pool, tmp_path: Path, what: str) -> None:
    ranks = [
        pool.start(f"tests.worker.handing_ranks:{what}", [str(tmp_path / "store"), str(rank), "3"], {"RUNS": str(tmp_path)})
        for rank in range(3)
    ]
    assert [pool.wait(rank) for rank in ranks] == [0, 0, 0]
