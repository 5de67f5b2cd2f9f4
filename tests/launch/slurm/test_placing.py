"""Where a rank of a job is, and where the ranks meet."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.environments import tasks_per_host
from scalelab.launch.slurm import rank
from scalelab.launch.slurm.allocation import PORTS, Allocation, free_port
from scalelab.launch.slurm.pulse import Samples
from scalelab.launch.slurm.rank import variables
from scalelab.measure.interfaces import leading_to
from scalelab.record.schema import Sample

STEP = {
    "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "h[1-2]", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "1", "MASTER_ADDR": "127.0.0.1",
}  # fmt: skip
"""of a task that srun started on the second of two hosts"""


def test_slurms_variables_become_torchruns() -> None:
    found = variables(STEP)
    assert {name: found[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")} == {
        "RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    assert found["GLOO_SOCKET_IFNAME"] == "lo"


def test_an_interface_that_was_said_stays() -> None:
    assert "GLOO_SOCKET_IFNAME" not in variables({**STEP, "GLOO_SOCKET_IFNAME": "eth7"})


def test_the_first_host_meets_the_others_on_the_way_to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own name may well be 127.0.1.1 to itself."""
    monkeypatch.setattr(rank, "leading_to", {"h1": "lo", "h2": "eth0"}.get)
    step = {**STEP, "MASTER_ADDR": "h1", rank.SECOND: "h2"}
    assert variables({**step, "SLURM_NODEID": "0"})["GLOO_SOCKET_IFNAME"] == "eth0"
    assert variables({**step, "SLURM_NODEID": "1"})["GLOO_SOCKET_IFNAME"] == "lo"
    assert variables({**step, "SLURM_NODEID": "0", rank.SECOND: ""})["GLOO_SOCKET_IFNAME"] == "lo"


def test_no_route_no_interface() -> None:
    assert leading_to("no-such-host.invalid") is None


def test_tasks_of_each_host() -> None:
    assert tasks_per_host("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_host("8") == [8]


def test_a_port_follows_from_the_job_unless_it_is_in_use() -> None:
    port = free_port(41, None)
    assert port in PORTS
    assert free_port(41, None) == port != free_port(42, None)
    with socket.socket() as taken:
        taken.bind(("", port))
        taken.listen()
        assert free_port(41, None) != port
        with pytest.raises(ScalelabError, match=f"--master-port {port}: in use"):
            free_port(41, port)


def test_outside_of_a_job_one_line_says_so() -> None:
    with pytest.raises(ScalelabError, match="this is no job of Slurm's"):
        Allocation({"PATH": "/bin"})


def test_ranks_elsewhere_are_alive_while_they_compute(tmp_path: Path) -> None:
    pulse = Samples(tmp_path)
    assert pulse.beat(), "none has come to its first sample"
    file = tmp_path / "resources" / "rank-0.jsonl"
    file.parent.mkdir()
    append(file, cpu=90.0)
    assert pulse.beat()
    assert not pulse.beat(), "no sample since"
    append(file, cpu=0.3)
    assert not pulse.beat(), "one that waits is sampled too"
    append(file, cpu=40.0)
    assert pulse.beat()


def test_samples_of_an_earlier_attempt_say_nothing_of_this_one(tmp_path: Path) -> None:
    file = tmp_path / "resources" / "rank-0.jsonl"
    file.parent.mkdir()
    append(file, cpu=90.0)
    pulse = Samples(tmp_path)
    assert pulse.beat()
    assert pulse.beat(), "the ranks still start"
    append(file, cpu=0.3)
    assert not pulse.beat()


def append(file: Path, cpu: float) -> None:
    """A sample of a rank."""
    with file.open("ab") as out:
        out.write(msgspec.json.encode(Sample(at=0.0, rank=0, cpu_percent=cpu, threads=1, resident_bytes=1)) + b"\n")
