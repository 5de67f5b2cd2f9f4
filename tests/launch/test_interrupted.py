"""A run that is broken off, by whatever signal: its record and its checkpoint are kept, and nothing that it started is left."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests.launch.test_children import model
from tests.trainings import completed, only_run, pictures, processes_of, start
from tests.waiting import SOON, until

LONG = [
    "--resize", "8", "--stream", "always", "--data-workers", "2", "--batch", "8", "--threads-per-worker", "1", "--strategy", "ddp",
    "--workers", "2", "--steps", "2000000", "--probe-steps", "0", "--warmup-steps", "0",
]  # fmt: skip
WITHIN = 5.0
"""seconds in which an interrupted run ends: what is promised"""


def ranks_of(out: Path) -> list[int]:
    """Process ids of the ranks of the run under ``out``: those that write its logs."""
    return sorted(processes_of(str(only_run(out) / "logs")))


@pytest.fixture
def long_run(tmp_path: Path, _own_cache: None) -> Iterator[subprocess.Popen[str]]:
    """A ``scalelab train`` of its own process that would go on for hours, after its first checkpoints.

    All that could survive it is there: ranks, threads that decode images, and a process that the user's model starts on each rank.
    """
    words = ["--data", f"folder:{pictures(tmp_path / 'data')}", "--model", model(tmp_path / "user"), "--out", tmp_path / "runs"]
    process = start("train", *LONG, *words, start_new_session=True)
    try:
        until(lambda: list((tmp_path / "runs").glob("*/checkpoints/previous.json")) or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        assert len(ranks_of(tmp_path / "runs")) == 2
        assert len(processes_of(f"STARTED_BY={tmp_path}/user")) == 2
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_and_keeps_the_record_which_goes_on(
    long_run: subprocess.Popen[str], pool: Pool, tmp_path: Path, number: signal.Signals
) -> None:
    sent = time.monotonic()
    long_run.send_signal(number)
    _, err = long_run.communicate(timeout=60)
    assert time.monotonic() - sent < WITHIN
    assert long_run.returncode == 130
    assert err.splitlines()[-1] == "scalelab: interrupted"
    assert "Traceback" not in err
    folder = only_run(tmp_path / "runs")
    assert f"the run up to here is kept: {folder}" in err.splitlines()
    assert f"its last checkpoint is kept: scalelab train --resume {folder}" in err.splitlines()
    record = records.load(folder)
    assert (record.status, record.failure, record.attempts[-1].status) == ("interrupted", None, "interrupted")
    assert record.steps == len(record.losses) == len(list(records.read_steps(folder))) > 0
    assert (folder / "checkpoints" / "last.json").exists()
    assert not list(folder.rglob("*.tmp"))
    until(lambda: not processes_of(str(tmp_path)), "the end of all processes", SOON)
    at = json.loads((folder / "checkpoints" / "last.json").read_text())["step"]
    record = completed(pool, tmp_path / "runs", resume=folder, steps=at + 4)
    assert [a.status for a in record.attempts] == ["interrupted", "completed"]
    assert record.steps == at + 4


def test_two_kinds_of_signals_at_once_leave_nothing_either(long_run: subprocess.Popen[str], tmp_path: Path) -> None:
    for number in (
        signal.SIGSTOP,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGCONT,
    ):  # so that all come at one moment
        long_run.send_signal(number)
    _, err = long_run.communicate(timeout=60)
    assert long_run.returncode == 130
    assert err.splitlines()[-1] == "scalelab: interrupted"
    until(lambda: not processes_of(str(tmp_path)), "the end of all processes", SOON)
    assert records.load(only_run(tmp_path / "runs")).status == "interrupted"


def test_ctrl_c_twice_leaves_nothing_either(long_run: subprocess.Popen[str], tmp_path: Path) -> None:
    long_run.send_signal(signal.SIGINT)
    time.sleep(0.1)
    long_run.send_signal(signal.SIGINT)
    long_run.communicate(timeout=60)
    until(lambda: not processes_of(str(tmp_path)), "the end of all processes", SOON)
    assert records.load(only_run(tmp_path / "runs")).status == "interrupted"


def test_no_worker_survives_a_killed_launcher(long_run: subprocess.Popen[str], tmp_path: Path) -> None:
    long_run.kill()
    until(lambda: not processes_of(str(tmp_path)), "the end of all processes", SOON)
    assert (only_run(tmp_path / "runs") / "checkpoints" / "last.json").exists()
    long_run.communicate()
    assert records.load(only_run(tmp_path / "runs")).status == "lost"
