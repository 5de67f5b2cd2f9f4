"""A disk without room: one line, the right exit status, a record that says so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests import support
from tests.cli.test_bad_input import told
from tests.conftest import Command
from tests.trainings import FLAGS, completed, only_run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    with support.small_disk(tmp_path / "disk") as folder:
        yield folder


def test_a_full_disk_ends_the_run_in_one_line(command: Command, small_disk: Path) -> None:
    words = [*FLAGS, "--model-arg", "width=16", "--epochs", 50, "--strategy", "ddp", "--workers", 2]
    ended = command("train", *words, "--out", small_disk / "runs")
    assert ended.status == 1
    assert "No space left on device; free some space or choose another --out" in told(ended)
    assert not list(small_disk.rglob("*.tmp"))
    record = records.load(only_run(small_disk / "runs"))
    assert (record.status, record.attempts[-1].status) == ("failed", "failed")


def fill(file: BinaryIO) -> None:
    """Write until the disk has no byte left."""
    for size in (4096, 1):
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(size))


def test_a_disk_without_a_byte_left_is_told_too(command: Command, small_disk: Path) -> None:
    """Another process takes each byte that becomes free."""
    ended = threading.Event()

    def take() -> None:
        with (small_disk / "other").open("wb", buffering=0) as file:
            while not ended.is_set():
                if list(small_disk.glob("runs/*/steps.jsonl")):
                    fill(file)
                time.sleep(0.001)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        found = command("train", *FLAGS, "--epochs", 500, "--strategy", "ddp", "--workers", 2, "--out", small_disk / "runs")
    finally:
        ended.set()
        thread.join()
    assert found.status == 1
    assert "No space left on device; free some space or choose another --out" in told(found)
    record = records.load(only_run(small_disk / "runs"))
    assert (record.status, record.attempts[-1].status) == ("failed", "failed")


def test_a_disk_that_is_full_from_the_start(command: Command, small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as file:
        while file.tell() < 1 << 19:
            file.write(bytes(4096))
    ended = command("train", *FLAGS, "--out", small_disk / "runs")
    assert ended.status == 2
    assert "No space left on device" in told(ended)
    assert not list(small_disk.glob("runs/*"))


def test_a_disk_that_is_full_at_a_resume_leaves_the_run_as_it_was(command: Command, pool: Pool, small_disk: Path) -> None:
    folder = small_disk / "runs" / completed(pool, small_disk / "runs", epochs=1).run
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with (small_disk / "other").open("wb", buffering=0) as file:
        fill(file)
    ended = command("train", "--resume", folder, "--epochs", 2)
    assert ended.status == 2
    assert "No space left on device" in told(ended)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
