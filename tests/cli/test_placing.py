"""Where trainings run, as the command line says and shows it."""

from __future__ import annotations

import argparse
import os

import pytest

from scalelab.cli.places.placing import launcher_of, show_commands
from scalelab.cli.terminal import console
from scalelab.launch.launcher import Command
from tests.launch import captured

SSH = Command(os.uname().nodename, ("ssh", "h2"), {})


def test_a_dry_run_over_several_hosts_names_the_host_of_every_rank(capsys: pytest.CaptureFixture[str]) -> None:
    own, other = (Command(host, ("run",), {"RANK": rank}) for rank, host in (("0", SSH.host), ("1", "h2")))
    show_commands(console(), [SSH, own, other])
    assert capsys.readouterr().out.splitlines() == ["ssh h2", f"# on {SSH.host}", "RANK=0 run", "# on h2", "RANK=1 run"]
    show_commands(console(), [own, own])
    assert capsys.readouterr().out.splitlines() == ["RANK=0 run"] * 2


@pytest.mark.parametrize("rank", ["0", "3"])
def test_that_each_process_of_a_step_trains_by_itself_is_said_once(
    rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**captured.STEP, "SLURM_PROCID": rank}.items():
        monkeypatch.setenv(name, value)
    launcher_of(argparse.Namespace(on="local", hosts=None), one=True).close()
    said = capsys.readouterr().err.splitlines()
    assert [line.startswith("scalelab: slurm has started 4 of this command; with --on local each runs all") for line in said] == (
        [True] if rank == "0" else []
    )
