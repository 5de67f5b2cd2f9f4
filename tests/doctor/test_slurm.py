"""What the doctor makes of Slurm's own programs: stand-ins that print what Slurm's do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalelab.doctor import slurm
from scalelab.doctor.node import Order

ORDER = Order("c0de", "runs", "/token", 7, {})
PROGRAMS = {
    "scontrol": "echo 'MaxArraySize = 1001'",
    "sinfo": r"printf 'main|infinite|idle|3\nmain|infinite|alloc|1\nurgent|infinite|idle|2\n'",
    "sacct": "exit 1",
    "srun": 'echo "$@" >> "$ASKED"; echo "srun: error: no" >&2; exit 1',
}


@pytest.mark.parametrize(
    ("nodes", "args", "most"),
    [
        (9, [], 4),
        (4, [], None),
        (3, ["--partition=urgent"], 2),
        (2, ["--partition=urgent"], None),
        (9, ["--partition=hidden"], None),
    ],
)
def test_more_nodes_than_there_are_are_not_waited_for(
    nodes: int, args: list[str], most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, says in PROGRAMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    found = slurm.diagnosed(ORDER, nodes, args)
    (fault,) = (one for one in found.findings if one.check == "nodes")
    waited = "--immediate" in (tmp_path / "asked").read_text()
    assert waited == (most is None)
    assert not found.fit
    if most is not None:
        assert fault.found.startswith(f"--nodes {nodes}: no partition of ")
        assert f"has more than {most} nodes" in fault.found
        assert fault.fix.startswith(f"at most --nodes {most}")
