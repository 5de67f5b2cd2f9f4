"""What control groups leave of a host's memory."""

from __future__ import annotations

from pathlib import Path

import psutil

from scalelab.limits import available_bytes, memory_bytes

MIB = 1 << 20


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


def test_the_tightest_of_the_groups_above_counts(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/job/step\n")
    group(root / "job" / "step", max="max", current=str(1 * MIB))
    group(root / "job", max=str(100 * MIB), current=str(40 * MIB), stat=f"anon 5\ninactive_file {10 * MIB}")
    assert memory_bytes(root, own) == 100 * MIB
    assert available_bytes(root, own) == 70 * MIB


def test_the_first_version_is_understood(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/\n4:memory:/box\n")
    group(root / "memory" / "box", limit_in_bytes=str(64 * MIB), usage_in_bytes=str(60 * MIB), stat=f"total_inactive_file {MIB}")
    assert memory_bytes(root, own) == 64 * MIB
    assert available_bytes(root, own) == 5 * MIB


def test_without_a_group_it_is_the_hosts(tmp_path: Path) -> None:
    assert memory_bytes(tmp_path, tmp_path / "none") == psutil.virtual_memory().total
    assert 0 < available_bytes(tmp_path, tmp_path / "none") < psutil.virtual_memory().total
