"""What runs on the hosts that are looked at."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import sys
from functools import partial
from pathlib import Path

import pytest

from scalelab.doctor.there import links, machine, programs, ways
from scalelab.doctor.there.answers import answer
from tests.trainings import start
from tests.waiting import until

TOPOLOGY = """\
\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\x1b[0m
GPU0\t X \tNV18\tSYS\tPIX\t0-15
GPU1\tNV18\t X \tPHB\tSYS\t0-15
GPU2\tSYS\tPHB\t X \tSYS\t16-31
NIC0\tPIX\tSYS\tSYS\t X \t

Legend:
  NV#  = Connection traversing a bonded set of # NVLinks
"""


def test_a_machine_tells_what_it_has(tmp_path: Path) -> None:
    told = answer({"name": "machine", "out": str(tmp_path / "not" / "made" / "yet")})
    assert told["cores"] >= told["usable"] >= 1
    assert told["memory"] >= told["free"] > 0
    assert told["out_free"] > 0
    assert told["packages"]["torch"]
    assert "lo" in told["interfaces"]
    assert "torch" not in sys.modules or told["code"], "it imports none for that"


def test_variables_that_no_rank_heeds_are_not_told() -> None:
    assert machine.relevant({"NCCL_DEBUG": "INFO", "MASTER_ADDR": "h1", "AWS_SECRET_ACCESS_KEY": "x"}) == {
        "NCCL_DEBUG": "INFO",
        "MASTER_ADDR": "h1",
    }


def test_a_control_groups_share_of_cores_is_read(tmp_path: Path) -> None:
    own = next(line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0:"))
    folder = tmp_path / own.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text("max 100000\n")
    assert machine.quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.quota(tmp_path) in (1.5, None if folder == tmp_path else 1.5)


def test_links_between_gpus_are_read_from_the_matrix() -> None:
    assert programs.links(TOPOLOGY) == {"GPU0-GPU1": "NV18", "GPU0-GPU2": "SYS", "GPU1-GPU2": "PHB"}
    assert programs.links("") == {}


def test_whose_an_mpiexec_is_is_read_from_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"a": ("mpirun (Open MPI) 5.0.11", "Open MPI"), "b": ("HYDRA build details:", "MPICH (Hydra)"), "c": ("?", None)}
    for name, (said, whose) in answers.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mpiexec").write_text(f"#!/bin/sh\necho '{said}'\n")
        (folder / "mpiexec").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
        found = programs.mpi(partial(programs._run, []))
        assert found is not None
        assert (found["whose"], found["path"]) == (whose, str(folder / "mpiexec"))


def test_what_deepspeed_was_built_with_is_read_and_not_run(tmp_path: Path) -> None:
    info = tmp_path / "git_version_info_installed.py"
    info.write_text("version='1'\ninstalled_ops={'cpu_adam': True, 'async_io': False}\nraise SystemExit\n")
    assert programs._built(info) == ["cpu_adam"]
    assert programs._built(tmp_path / "none.py") == []


def test_a_file_is_known_by_its_inode(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("it is this one")
    assert ways.sees({"path": str(tmp_path / "token")}) == {"inode": (tmp_path / "token").stat().st_ino, "text": "it is this one"}
    assert ways.sees({"path": str(tmp_path / "none")}) == {"error": "No such file or directory"}


def test_a_name_that_nobody_has_is_an_error() -> None:
    assert "127.0.0.1" in ways.resolves({"host": "localhost"})["addresses"]
    assert ways.resolves({"host": "no-such-host.invalid"})["error"]


def test_a_link_is_measured_by_who_receives() -> None:
    served = links.serve({"range": [20000, 29999]})
    try:
        there = {"addresses": ["127.0.0.1"], "ports": served["ports"], "who": served["who"], "seconds": 1.0}
        assert len(served["ports"]) == links.PORTS
        assert "error" not in served
        reached = links.connect({**there, "ports": [*served["ports"], 1]})
        assert reached["address"] == "127.0.0.1"
        assert list(reached["closed"]) == ["1"]
        assert links.connect({**there, "who": "another"}) == {"error": "127.0.0.1: somebody else answers there"}, (
            "a bridge's address"
        )
        found = links.measure({"address": "127.0.0.1", "port": served["ports"][0], "seconds": 0.5})
    finally:
        links.stop({})
    assert len(found["round_trips"]) == links.ROUNDS
    assert 1e-6 < statistics.median(found["round_trips"]) < 0.1
    assert len(found["rates"]) >= 2
    assert statistics.median(found["rates"]) > 1e6
    assert "error" in links.connect(there), "nobody listens any more"


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        served = links.serve({"range": [20000, 29999], "port": port})
        links.stop({})
    assert served["error"] == f"port {port} is in use"


def test_who_ends_the_doctor_ends_the_programs_that_it_asks(tmp_path: Path) -> None:
    asked = tmp_path / "nvidia-smi"
    asked.write_text(f"""#!{sys.executable} -S
import pathlib, time
pathlib.Path({str(tmp_path / "asked")!r}).touch()
time.sleep(14)  # less than it may take
pathlib.Path({str(tmp_path / "answered")!r}).touch()
""")
    asked.chmod(0o755)
    doctor = start("doctor", "--out", tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    until((tmp_path / "asked").exists, "asking nvidia-smi")
    doctor.send_signal(signal.SIGTERM)
    _, said = doctor.communicate(timeout=60)
    assert (doctor.returncode, said) == (130, "scalelab: interrupted\n")
    assert not (tmp_path / "answered").exists()
