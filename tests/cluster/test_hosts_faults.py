"""What breaks while hosts train together: all that was started ends within seconds, the record says what happened, --resume goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scalelab.cli.train import spec_of
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.hosts import connection
from scalelab.launch.hosts.channel import SILENT
from scalelab.launch.hosts.placement import Place
from scalelab.launch.hosts.remote import Remote
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import _possible
from tests.cluster.entering import ssh_of
from tests.cluster.host import Host
from tests.trainings import FLAGS, tiny
from tests.waiting import until

LONG: dict[str, Any] = {
    "strategy": "ddp",
    "workers": 2,
    "epochs": 100_000,
    "train_limit": 960,
    "sample_seconds": 0,
    "timeout": 60,
}
"""a checkpoint about twice a second"""


@dataclass(frozen=True)
class Here:
    """A launcher in this process, and the hosts that it uses."""

    cluster: Cluster
    remote: Remote
    out: Path

    @property
    def h1(self) -> Host:
        """Of rank 0."""
        return self.cluster.hosts["h1"]

    @property
    def h2(self) -> Host:
        """Of rank 1."""
        return self.cluster.hosts["h2"]

    def broken(self, act: Callable[[Path], object], **values: Any) -> tuple[TrainRecord, float]:
        """A long training in which ``act(its folder)`` happens when it has a checkpoint; its record, and how many seconds it lived on."""
        prepared = training.prepare(self.remote, tiny(self.out, **{**LONG, **values}))
        done: list[float] = []

        def watch(folder: Path) -> None:
            if not done and (folder / "checkpoints" / "last.json").exists():
                done.append(time.monotonic())
                act(folder)

        record = training.train(self.remote, prepared, ["test"], watch)
        assert record.status == "failed"
        assert record.failure is not None
        assert done, record.failure
        return record, time.monotonic() - done[0]

    def goes_on(self, record: TrainRecord) -> TrainRecord:
        """The run resumed for another epoch or two, from its last checkpoint."""
        folder = self.out / record.run
        spec = spec_of({"resume": str(folder), "epochs": str(records.load(folder).steps // 40 + 2)})
        resumed = training.train(self.remote, training.prepare(self.remote, spec), ["test"], lambda folder: None)
        assert resumed.status == "completed", resumed.failure
        assert resumed.attempts[-1].first_step > 0
        assert resumed.steps == spec.epochs * 40
        return resumed

    def ranks(self, host: Host) -> list[int]:
        """Processes there of this launcher that are neither agent nor the server that ranks are forked from, which may go on."""
        servers = [process.pid for process in host.processes() if "scalelab.launch.server" in process.command]
        return sorted(servers)[1:]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """Two hosts of this file's own, with small disks."""
    _possible()
    folder = tmp_path_factory.mktemp("faults")
    with Cluster(folder=folder, hosts=("h1", "h2"), disk="200m") as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{ssh_of(cluster, folder / 'bin')}:{os.environ['PATH']}")
        with Remote([Place("h1"), Place("h2")]) as remote:
            yield Here(cluster, remote, folder / "runs")
        for host in cluster.hosts.values():
            host.idle()
            assert not list(host.path("/mnt/tmp").glob("scalelab-*"))


def killed_rank(here: Here) -> None:
    os.kill(here.ranks(here.h2)[0], signal.SIGKILL)


def killed_all(here: Here) -> None:
    for process in here.h2.processes():
        os.kill(process.pid, signal.SIGKILL)


def told(record: TrainRecord) -> str:
    """Its failure, which must be of the rank on h2."""
    assert record.failure is not None
    assert (record.failure.host, record.failure.rank) == ("h2", 1)
    return record.failure.error


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (killed_rank, "ended with signal 9"),
        (lambda here: here.h2.kill("^sshd"), "its host was lost: the connection to it ended"),
        (killed_all, "its host was lost: the connection to it ended"),
    ],
    ids=["a rank", "its ssh session", "all of its processes"],
)
def test_what_is_killed_on_a_host_is_named_and_the_run_goes_on(here: Here, act: Callable[[Here], object], error: str) -> None:
    record, seconds = here.broken(lambda folder: act(here))
    assert told(record).startswith(error)
    assert seconds < BOUND
    until(lambda: not here.ranks(here.h1) + here.ranks(here.h2), "the end of all ranks", BOUND - seconds)
    here.goes_on(record)


@pytest.fixture
def impatient(here: Here, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both ends give up after 6 seconds, not 15: the same code, by another figure."""
    monkeypatch.setattr(connection, "SILENT", 6.0)
    for agent in here.remote.agents:
        agent.be_patient(6.0)
    yield
    for agent in here.remote.agents:
        agent.be_patient(SILENT)


@pytest.mark.usefixtures("impatient")
def test_a_cable_that_is_cut_is_noticed_at_both_ends(here: Here) -> None:
    record, seconds = here.broken(lambda folder: here.h2.cut())
    ended = time.monotonic()
    assert "no sign of life for 6 seconds" in told(record)
    assert seconds < BOUND
    until(lambda: not here.h2.kill("scalelab", 0), "the end of all of scalelab on the host that is cut off", BOUND - seconds)
    assert time.monotonic() - ended + seconds < BOUND
    assert not here.ranks(here.h1)
    here.h2.mend()
    here.goes_on(record)


@pytest.mark.usefixtures("impatient")
def test_a_host_that_loses_its_power(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    record, seconds = here.broken(lambda folder: here.h2.power_off())
    assert "no sign of life for 6 seconds" in told(record)
    assert seconds < BOUND
    began = time.monotonic()
    monkeypatch.setattr(here.remote.hub, "ssh_args", ("-oConnectTimeout=3",))
    with pytest.raises(ScalelabError, match=r"h2"):  # it is down at the start of the next one
        training.prepare(here.remote, tiny(here.out, **LONG))
    assert time.monotonic() - began < BOUND
    monkeypatch.undo()
    here.h2.power_on()
    here.goes_on(record)


def test_a_full_disk_of_one_host(here: Here) -> None:
    record, seconds = here.broken(lambda folder: here.h1.fill_disk())
    here.h1.free_disk()
    assert record.failure is not None
    assert record.failure.host == "h1"
    assert "cannot be written: No space left on device; free some space or another TMPDIR there" in record.failure.error
    assert seconds < BOUND
    assert not here.ranks(here.h1) + here.ranks(here.h2)
    here.goes_on(record)


def test_a_full_disk_of_the_launching_host(here: Here) -> None:
    h0, before = here.cluster.h0, {process.pid for process in here.h1.processes()}
    words = [
        "train",
        "--hosts",
        "h1:2",
        *FLAGS,
        "--strategy",
        "ddp",
        "--epochs",
        100_000,
        "--train-limit",
        960,
        "--out",
        "/mnt/runs",
    ]
    with h0.start([sys.executable, "-m", "scalelab", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as launcher:
        until(lambda: list(h0.path("/mnt/runs").glob("*/checkpoints/last.json")), "a checkpoint")
        h0.fill_disk()
        said = launcher.communicate(timeout=BOUND)[1]
    assert launcher.returncode == 1
    assert "cannot be written: No space left on device; free some space or choose another --out" in said
    until(lambda: {process.pid for process in here.h1.processes()} <= before, "the end of all on h1", BOUND)
    h0.free_disk()
    assert (
        "status              failed"
        in h0.run([sys.executable, "-m", "scalelab", "runs", "show", "latest", "--out", "/mnt/runs"]).stdout
    )


HANGS = """
import os, time
from torch import nn

class Hangs(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes)), 0

    def forward(self, images):
        self.calls += self.training
        if os.environ.get("RANK") == "1" and self.calls > 60:
            self.stand_still()
        return self.layers(images)

    def stand_still(self):
        time.sleep(600)
"""


def test_a_rank_that_hangs_is_named_and_its_stack_is_in_its_log(here: Here) -> None:
    model = here.cluster.folder / "hangs.py"
    model.write_text(textwrap.dedent(HANGS))
    record, seconds = here.broken(lambda folder: None, model=f"{model}:Hangs", model_args={}, timeout=10)
    assert told(record).startswith("it hung: rank 0 waited for it until --timeout")
    assert seconds < BOUND
    assert "in stand_still" in (here.out / record.run / "logs" / "rank-1.txt").read_text()
    assert not here.ranks(here.h1) + here.ranks(here.h2)


def test_a_master_port_in_use_is_refused_before_anything_starts(here: Here) -> None:
    line = "import socket; s = socket.create_server(('', 29511)); print(flush=True); s.accept()"
    with here.h1.start([sys.executable, "-c", line], stdout=subprocess.PIPE) as taken:
        taken.stdout.readline()
        before = records.find([], here.out)
        with pytest.raises(ScalelabError, match="--master-port 29511: Address already in use"):
            training.prepare(here.remote, tiny(here.out, **LONG, master_port=29511))
        taken.kill()
    assert records.find([], here.out) == before


@pytest.mark.parametrize(
    ("number", "status", "hosts"),
    [(signal.SIGINT, "interrupted", "h1:2"), (signal.SIGTERM, "interrupted", "h1:2"), (signal.SIGKILL, "lost", "h1,h2")],
    ids=["Ctrl-C", "SIGTERM", "SIGKILL"],
)
def test_a_launcher_that_is_ended(here: Here, tmp_path: Path, number: int, status: str, hosts: str) -> None:
    words = ["train", "--hosts", hosts, *FLAGS, "--strategy", "ddp", "--epochs", 100_000, "--train-limit", 960, "--out", tmp_path]
    before = {host.name: {process.pid for process in host.processes()} for host in here.cluster.hosts.values()}
    h0 = here.cluster.h0
    launcher = h0.start([sys.executable, "-m", "scalelab", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: list(tmp_path.glob("*/checkpoints/last.json")), "a checkpoint")
    began = time.monotonic()
    launcher.send_signal(number)
    assert launcher.wait(BOUND) == (-number if number == signal.SIGKILL else 130)
    for host in here.cluster.hosts.values():
        until(lambda: {p.pid for p in host.processes()} <= before[host.name], f"the end of all on {host.name}", BOUND)  # noqa: B023
    assert time.monotonic() - began < BOUND
    (run,) = records.find([], tmp_path)
    assert f"status              {status}" in h0.run([sys.executable, "-m", "scalelab", "runs", "show", run]).stdout
    if number == signal.SIGKILL:
        words = ["train", "--hosts", "h1:2", "--resume", run, "--epochs", records.load(run).steps // 40 + 2]
        h0.run([sys.executable, "-m", "scalelab", *words], check=True)
        assert records.load(run).status == "completed"
