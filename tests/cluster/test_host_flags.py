"""What a user says of the hosts reaches them as it was said, and --dry-run prints what runs. One training is looked at from all sides."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import pytest

from scalelab import spec as specs
from scalelab.launch import training
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.cluster.cluster import Cluster
from tests.cluster.host import Host
from tests.cluster.over import TINY, completed, train
from tests.cluster.places import HOME
from tests.waiting import PATIENCE, until

MODEL = """\
import json, os, pathlib, time
from torch import nn

def build(num_classes, width):
    rank, here = os.environ.get("RANK"), pathlib.Path(__file__).parent
    if rank is not None:
        (here / f"{rank}.tmp").write_text(json.dumps({**os.environ, "CWD": os.getcwd()}))
        (here / f"{rank}.tmp").rename(here / f"{rank}.json")
        while not (here / "go").exists():
            time.sleep(0.05)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
"""
NOTE = 'it\'s "two words" for $HOME; `true`'
HIDDEN = "s3cr3t\nof 'two' lines"
FLAGS = (
    "--model", "m.py:build", "--hosts", "my hosts.txt", "--workers", "3", "--batch", "15", "--master-port", "23456",
    "--env", f"NOTE={NOTE}", "--env", f"MY_TOKEN={HIDDEN}", "--ssh-arg=-oLogLevel=ERROR",
)  # fmt: skip
RANK = "-m scalelab.worker"


@dataclass(frozen=True)
class Seen:
    """A dry run, then the same for real, looked at while it ran."""

    folder: Path
    printed: str
    """by the dry run"""
    left: list[Path]
    """by the dry run"""
    commands: list[list[str]]
    """ssh's, on the launching host; the run's id is replaced"""
    agents: list[list[str]]
    """on h1"""
    ranks: dict[str, dict[str, str]]
    """the environment of each rank, and its CWD"""
    status: int
    record: TrainRecord


@pytest.fixture(scope="module")
def seen(cluster: Cluster) -> Iterator[Seen]:
    """In a folder whose name a shell would take apart, with an interpreter of such a name; ``big`` is h1's name in ~/.ssh/config."""
    folder = cluster.folder / 'it\'s "my" $HOME;\nfolder'
    folder.mkdir()
    (folder / "m.py").write_text(MODEL)
    wrapper = folder / "my 'own' $(python)"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    odd = cluster.folder / "link"  # a hostfile's line holds no newline
    odd.symlink_to(folder)
    (folder / "my hosts.txt").write_text(f"big slots=2 python={shlex.quote(str(odd / wrapper.name))}\nh2 slots=2 port=2222\n")
    (folder / ".scalelab_env").write_text("# of all hosts\nFROM_FILE=yes\n")
    config = cluster.h0.path(f"{HOME}/.ssh/config")
    config.parent.mkdir(mode=0o700, exist_ok=True)
    config.write_text("Host big\n  HostName h1\n  Port 2222\n")
    yield look(cluster, folder)
    config.unlink()


def look(cluster: Cluster, folder: Path) -> Seen:
    own = {"NCCL_DEBUG": "VERSION", "NOT_FORWARDED": "1"}
    shown = train(cluster.h0, folder, *FLAGS, "--dry-run", env=own)
    assert shown.returncode == 0, shown.stderr
    left = list(folder.glob("runs/*"))
    quiet = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    running = cluster.h0.start(["scalelab", "train", *TINY, *FLAGS], cwd=folder, env=own, **quiet)
    until(lambda: len(list(folder.glob("?.json"))) == 3 or running.poll() is not None, "three ranks")
    commands = [[re.sub(r"[0-9a-f]{12}$", "RUN_ID", word) for word in words] for words in words_of(cluster.h0, "ssh")]
    agents = words_of(cluster.hosts["h1"], "python")
    (folder / "go").touch()
    status = running.wait(PATIENCE)
    ranks = {path.stem: json.loads(path.read_text()) for path in folder.glob("?.json")}
    (run,) = records.find([], folder / "runs")
    return Seen(folder, shown.stdout + shown.stderr, left, commands, agents, ranks, status, records.load(run))


def words_of(host: Host, program: str) -> list[list[str]]:
    """Command lines of the processes of a host that run ``program``."""
    found = [Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")[:-1] for process in host.processes()]
    return [[word.decode() for word in words] for words in found if words and words[0].decode().endswith(program)]


def test_the_ssh_commands_are_those_that_a_dry_run_prints(seen: Seen) -> None:
    printed = [shlex.split(line) for line in seen.printed.splitlines() if line.startswith("ssh ")]
    assert len(printed) == 2
    assert sorted(words for words in seen.commands if words[-1].endswith("agent RUN_ID")) == sorted(printed)


def test_the_ranks_have_the_hosts_and_variables_that_a_dry_run_prints(seen: Seen) -> None:
    lines = seen.printed.splitlines()
    places = [line.removeprefix("# on ") for line in lines if line.startswith("# on ")]
    printed = [dict(word.split("=", 1) for word in shlex.split(line)[:-3] if "=" in word) for line in lines if RANK in line]
    assert (places, len(printed)) == (["big", "big", "h2"], 3)
    for variables in printed:
        found = seen.ranks[variables["RANK"]]
        assert variables.pop("MY_TOKEN") == "****"
        assert {name: found.get(name) for name in variables} == variables


def test_a_dry_run_starts_nothing(seen: Seen) -> None:
    assert seen.left == []


def test_the_environment_goes_along_as_it_is(seen: Seen) -> None:
    for found in seen.ranks.values():
        wanted = {"NOTE": NOTE, "MY_TOKEN": HIDDEN, "FROM_FILE": "yes", "NCCL_DEBUG": "VERSION", "NOT_FORWARDED": None}
        assert {name: found.get(name) for name in wanted} == wanted


def test_a_secret_is_in_no_record_and_no_command_line_but_the_users(seen: Seen) -> None:
    assert seen.agents
    assert "s3cr3t" not in repr([seen.commands, seen.agents]) + seen.printed
    assert "MY_TOKEN=****" in seen.record.environment.command
    written = [path for path in (seen.folder / "runs").rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if b"s3cr3t" in path.read_bytes()]


def test_folders_and_interpreters_may_have_any_name(seen: Seen) -> None:
    assert seen.status == 0
    assert {found["CWD"] for found in seen.ranks.values()} == {str(seen.folder)}
    assert [(host.name, host.workers) for host in seen.record.environment.hosts] == [("big", 2), ("h2", 1)]


def test_four_hosts_of_a_hostfile_give_the_losses_of_one(cluster: Cluster, pool: Pool, tmp_path: Path) -> None:
    """The command of a person on h0, against four workers of this machine."""
    there = completed(cluster.h0, tmp_path, "--hosts", Path(__file__).with_name("hostfile"), "--threads-per-worker", "1")
    assert [(host.name, host.workers) for host in there.environment.hosts] == [(f"h{n}", 1) for n in (1, 2, 3, 4)]
    spec = specs.from_mapping({**there.spec, "out": str(tmp_path / "one")})
    assert training.train(pool, training.prepare(pool, spec), ["test"], lambda folder: None).losses == there.losses
