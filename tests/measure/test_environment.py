"""What a record says about where it was made, and what it must not say."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
import torch

from scalelab.measure import memory
from scalelab.measure.clock import clock
from scalelab.measure.environment import environment, usable_cores


def test_the_environment_holds_versions_host_and_command() -> None:
    found = environment(["scalelab", "train"], 2)
    assert found.versions["torch"] == torch.__version__.split("+")[0] or found.versions["torch"] == torch.__version__
    assert found.hosts[0].cores == usable_cores()
    assert found.hosts[0].memory_bytes > 1 << 28
    assert (found.threads, found.command) == (2, ["scalelab", "train"])


def test_environment_variables_are_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2-hunter2")
    assert b"hunter2" not in msgspec.json.encode(environment([], 1))


def test_the_commit_is_the_working_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment([], 1).git_commit is None
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    commit = environment([], 1).git_commit
    assert commit is not None
    assert len(commit) == 12


def test_cores_are_those_this_process_may_use() -> None:
    all_of_them = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(all_of_them)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, all_of_them)


def test_peak_memory_sees_what_was_freed_and_starts_anew_at_a_mark() -> None:
    device = torch.device("cpu")
    base = memory.mark(device)
    block = torch.ones(30 << 20, dtype=torch.uint8)
    del block
    risen = memory.peak(device)
    assert risen is not None
    assert risen >= base + (25 << 20)


def test_the_clock_counts_nanoseconds() -> None:
    now = clock(torch.device("cpu"))
    began = now()
    time.sleep(0.02)
    assert 0.02e9 <= now() - began < 5e9
