"""Engine deepspeed: what its import and its start leave alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from scalelab.launch.pool import Pool
from tests.trainings import completed


def test_it_is_quiet_and_compiles_nothing(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, engine="deepspeed", strategy="zero3", workers=2, epochs=1)
    assert (tmp_path / record.run / "logs" / "rank-0.txt").read_text() == ""


COUNT = """
import os, torch
import scalelab.worker.preload
before = len(os.listdir("/proc/self/task"))
import scalelab.strategies.deepspeed_engine.preload
assert len(os.listdir("/proc/self/task")) == before
torch.set_num_interop_threads(1)  # refused once torch's pool has started
"""


def test_preloading_starts_no_thread() -> None:
    """A fork of a process with threads would hang in the first that it waits for."""
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_configuration_needs_neither_deepspeed_nor_torch() -> None:
    line = "import sys, scalelab.strategies.deepspeed_engine.config; assert not {'torch', 'deepspeed'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", line], check=False).returncode == 0
