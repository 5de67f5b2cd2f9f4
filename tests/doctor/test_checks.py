"""What the doctor says of a host, by what the host has told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scalelab.doctor.asking import reached_by, rounds
from scalelab.doctor.findings import Finding
from scalelab.doctor.network import findings
from scalelab.doctor.told import Asked, Told

MACHINE: dict[str, Any] = {
    "host": "h1", "python": "3.11.2", "executable": "/env/bin/python", "packages": {"scalelab": "1.0"}, "code": "c0de", "cores": 8,
    "usable": 8, "quota": None, "memory": 64 << 30, "free": 60 << 30, "scratch": "/scratch", "scratch_free": 1 << 40, "out_free": 1 << 40,
    "interfaces": {"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"]}, "speeds": {}, "all": ["lo", "eth0"], "ports": [32768, 60999],
    "environment": {},
}  # fmt: skip
TORCH = {
    "version": "2.15.0+cpu", "cuda": None, "hip": None, "devices": 0, "names": [], "backends": ["gloo"],
    "horovod": {"error": "No module named 'horovod'"},
}  # fmt: skip
PROGRAMS: dict[str, Any] = {"torch": TORCH, "deepspeed": None, "mpi": None, "gpus": None}
ASKED = Asked(environment={}, code="c0de", inode=7, out="runs")
SOUND = Told("h1", machine=MACHINE, programs=PROGRAMS, clock=(0.001, 0.0005))
TWO_GPUS = {"rows": [["H200", "143771 MiB", "570.1", "Default"]] * 2, "links": {"GPU0-GPU1": "NV18"}}


def machine(**changes: Any) -> Told:
    """A sound host but for these facts of its machine."""
    return replace(SOUND, machine={**MACHINE, **changes})


def programs(**changes: Any) -> Told:
    """A sound host but for these of its programs."""
    return replace(SOUND, programs={**PROGRAMS, **changes})


def variables(**changes: str) -> Asked:
    """Ranks that would get these variables."""
    return replace(ASKED, environment=changes)


def said(told: Told, check: str, asked: Asked = ASKED, others: tuple[Told, ...] = ()) -> Finding:
    """What a check says of the first host, which is one thing."""
    (found,) = (one for one in findings([told, *others], asked) if (one.check, one.host) == (check, told.name))
    return found


def test_nothing_fails_on_a_sound_host() -> None:
    found = findings([SOUND, replace(SOUND, name="h2")], ASKED)
    assert {one.status for one in found} == {"ok", "absent"}
    assert not any(one.fix for one in found)


FAULTS: dict[str, tuple[Told, Asked, str, str, str]] = {
    "an old Python": (machine(python="3.9.1"), ASKED, "python", "fail", "3.9.1"),
    "another scalelab": (machine(code="0ther"), ASKED, "scalelab", "fail", "code 0ther; here it is code c0de"),
    "no torch": (
        programs(torch={"error": "no torch for /env/bin/python"}),
        ASKED,
        "torch",
        "fail",
        "no torch for /env/bin/python",
    ),
    "an old torch": (programs(torch={**TORCH, "version": "2.4.0"}), ASKED, "torch", "fail", "2.4.0"),
    "no gloo": (programs(torch={**TORCH, "backends": []}), ASKED, "backends", "fail", "none"),
    "GPUs without NCCL": (programs(torch={**TORCH, "devices": 1}), ASKED, "backends", "warn", "no nccl"),
    "a broken deepspeed": (
        programs(deepspeed={"error": "undefined symbol", "built": []}),
        ASKED,
        "deepspeed",
        "fail",
        "undefined symbol",
    ),
    "a broken horovod": (machine(packages={"horovod": "0.28.1"}), ASKED, "horovod", "fail", "No module named 'horovod'"),
    "an unknown MPI": (programs(mpi={"path": "/x/mpiexec", "whose": None, "said": "huh"}), ASKED, "mpi", "warn", "huh"),
    "a broken driver": (programs(gpus={"error": "couldn't communicate"}), ASKED, "gpus", "fail", "couldn't communicate"),
    "GPUs and a torch for CPUs": (programs(gpus=TWO_GPUS), ASKED, "gpus", "fail", "torch is built for CPUs"),
    "GPUs hidden": (
        programs(gpus=TWO_GPUS, torch={**TORCH, "cuda": "13.2", "devices": 1}),
        ASKED,
        "gpus",
        "warn",
        "torch sees 1",
    ),
    "a control group": (machine(quota=1.5), ASKED, "cores", "warn", "allows 1.5"),
    "few cores": (replace(machine(usable=2), workers=4), ASKED, "cores", "warn", "2 of 8 for 4 workers"),
    "little memory": (machine(free=1 << 20), ASKED, "memory", "warn", "1.00 MiB free"),
    "little disk": (machine(scratch_free=200 << 20), ASKED, "disk", "warn", "200 MiB free in /scratch"),
    "a full disk": (
        machine(scratch_free=1 << 20),
        ASKED,
        "disk",
        "fail",
        "TMPDIR: /scratch has 1.00 MiB free; 100 MiB are needed",
    ),
    "no scratch folder": (machine(scratch_free=None), ASKED, "disk", "fail", "TMPDIR: /scratch is no folder that can be written"),
    "not that subnet": (
        replace(SOUND, interface="10.99.0.0/24"),
        ASKED,
        "interfaces",
        "fail",
        "no interface has an address in 10.99.0.0/24; it has lo (127.0.0.1), eth0 (10.0.0.1)",
    ),
    "a clock that is late": (replace(SOUND, clock=(-40.0, 0.01)), ASKED, "clock", "fail", "−40.0 s ± 10.0 ms"),
    "Gloo's interface": (
        SOUND,
        variables(GLOO_SOCKET_IFNAME="ib0"),
        "variables",
        "fail",
        "GLOO_SOCKET_IFNAME=ib0: this host has no ib0",
    ),
    "NCCL's interface": (SOUND, variables(NCCL_SOCKET_IFNAME="ib,en"), "variables", "fail", "this host has no ib, en"),
    "no InfiniBand": (SOUND, variables(NCCL_IB_DISABLE="1"), "nccl", "warn", "NCCL does without InfiniBand"),
    "its own InfiniBand": (machine(environment={"NCCL_IB_DISABLE": "1"}), ASKED, "nccl", "warn", "NCCL does without InfiniBand"),
    "threads": (SOUND, variables(OMP_NUM_THREADS="64"), "threads", "warn", "OMP_NUM_THREADS=64, on 8 usable cores"),
    "a GPU that is not there": (
        programs(gpus=TWO_GPUS),
        variables(CUDA_VISIBLE_DEVICES="5"),
        "visible GPUs",
        "fail",
        "there are 2 GPUs",
    ),
    "an unknown master": (
        replace(SOUND, master={"error": "unknown"}),
        variables(MASTER_ADDR="x"),
        "master",
        "fail",
        "MASTER_ADDR=x",
    ),
    "a folder of its own": (
        replace(SOUND, sees={"inode": 8}),
        replace(ASKED, shared=True),
        "shared folder",
        "fail",
        "not the same",
    ),
    "a closed port": (replace(SOUND, closed={"h2": "timed out"}), ASKED, "ports", "fail", "h2 can't be reached: timed out"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_its_fix_told(name: str) -> None:
    told, asked, check, status, words = FAULTS[name]
    found = said(told, check, asked)
    assert found.status == status
    assert words in found.found
    assert found.fix


def test_hosts_that_differ_are_held_to_what_most_have() -> None:
    odd = replace(machine(python="3.12.1"), name="h3")
    found = findings([SOUND, replace(SOUND, name="h2"), odd], ASKED)
    assert [(one.host, one.found) for one in found if one.status == "fail"] == [
        ("h3", "3.12.1 (/env/bin/python); most hosts have 3.11")
    ]


def test_a_name_of_nccl_is_a_beginning_and_of_gloo_is_not() -> None:
    assert said(SOUND, "variables", variables(NCCL_SOCKET_IFNAME="eth")).status == "ok"
    assert said(SOUND, "variables", variables(NCCL_SOCKET_IFNAME="=eth")).status == "fail"
    assert said(SOUND, "variables", variables(NCCL_SOCKET_IFNAME="^docker")).status == "ok"
    assert said(SOUND, "variables", variables(GLOO_SOCKET_IFNAME="eth")).status == "fail"


def test_the_loopback_is_an_interface_for_one_host_only() -> None:
    asked = variables(GLOO_SOCKET_IFNAME="lo")
    assert said(SOUND, "variables", asked).status == "ok"
    assert said(SOUND, "variables", asked, (replace(SOUND, name="h2"),)).status == "fail"

    wanted = replace(SOUND, interface="lo")
    assert said(wanted, "interfaces").status == "ok"
    assert "is the loopback" in said(wanted, "interfaces", others=(replace(SOUND, name="h2"),)).found


def test_a_host_without_the_interface_is_no_matter_of_firewalls() -> None:
    mute = replace(SOUND, name="h2", interface="wg0")
    told = [replace(SOUND, closed={"h2": "it has no address there"}), mute]
    failed = {(one.host, one.check) for one in findings(told, ASKED) if one.status == "fail"}
    assert failed == {("h2", "interfaces")}


def test_over_ssh_a_folder_need_not_be_shared() -> None:
    apart = replace(SOUND, sees={"error": "No such file or directory"})
    assert said(apart, "shared folder").status == "ok"
    assert "need not be" in said(apart, "shared folder").found


def test_of_a_host_that_is_not_reached_only_that_is_said() -> None:
    gone = Told("h9", unreachable="ssh: connect to host h9 port 22: Connection refused")
    (found,) = (one for one in findings([SOUND, gone], ASKED) if one.host == "h9")
    assert (found.check, found.status) == ("reachable", "fail")
    assert "`ssh h9 true`" in found.fix


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_every_pair_of_hosts_meets_once_and_never_two_at_a_time(count: int) -> None:
    found = rounds(count)
    pairs = [pair for meetings in found for pair in meetings]
    assert sorted(pairs) == [(a, b) for a in range(count) for b in range(a + 1, count)]
    assert all(len({host for pair in meetings for host in pair}) == 2 * len(meetings) for meetings in found)


def test_an_interface_is_chosen_by_name_or_subnet() -> None:
    there = {"lo": ["127.0.0.1"], "eth0": ["10.0.0.1"], "wg0": ["10.9.0.1", "fd00::1"]}
    assert reached_by(there, None) == ["10.0.0.1", "10.9.0.1", "fd00::1"]
    assert reached_by(there, "wg0")[0] == "10.9.0.1"
    assert reached_by(there, "10.0.0.0/24") == ["10.0.0.1"]
    assert reached_by(there, "ib0") == []
