"""Hosts answer before anything trains: real processes, started by something that names them as srun does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.slurm.rollcall import call_roll

SRUN = ["env", "SLURMD_NODENAME=node7"]


def test_a_node_is_known_by_slurms_name_for_it(tmp_path: Path) -> None:
    (host,) = call_roll(SRUN, tmp_path, ["node7"])
    assert host.name == socket.gethostname() != "node7"


def test_who_does_not_answer_or_see_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="node8: did not answer"):
        call_roll(SRUN, tmp_path, ["node7", "node8"])
    with pytest.raises(ScalelabError, match=r"node7 does not see .*/nothing"):
        call_roll(SRUN, tmp_path / "nothing", ["node7"])
