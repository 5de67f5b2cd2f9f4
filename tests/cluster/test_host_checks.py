"""Before anything starts all hosts are checked, and all that is wrong with any of them is told at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.host import Host
from tests.cluster.over import train
from tests.cluster.places import DISK

DATA = ("--data", "cifar10", "--model", "mine.py:build")
OTHERS = """\
#!/bin/sh
PYTHONPATH={folder}/other exec {python} "$@"
"""
TOO_OLD = """\
#!/bin/sh
exec {python} -c '
import runpy, sys
sys.version_info, sys.argv = (3, 9, 2), sys.argv[1:]
runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
' "$@"
"""


def rows(printed: str) -> list[list[str]]:
    """The table's rows: host (of a fault's first line, or the host above), check, found, what to do; lines that were wrapped are joined."""
    found: list[list[str]] = []
    for line in printed.splitlines():
        cells = [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]
        if len(cells) != 4 or cells[0] == "host":
            continue
        if cells[1]:
            found.append([cells[0] or found[-1][0], *cells[1:]])
        else:
            found[-1][2:] = [f"{before} {more}".strip() for before, more in zip(found[-1][2:], cells[2:], strict=True)]
    return found


def other_torch(folder: Path, python: str) -> Path:
    """An interpreter that has another version of torch, by what its packages say."""
    package = folder / "other" / "torch-2.11.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.11.0\n")
    wrapper = folder / "other-python"
    wrapper.write_text(OTHERS.format(folder=folder, python=python))
    wrapper.chmod(0o755)
    return wrapper


def test_all_faults_of_all_hosts_stand_in_one_table(fresh: Callable[..., Cluster]) -> None:
    cluster = fresh()
    h0, hosts, folder = cluster.h0, cluster.hosts, cluster.folder
    work = Path(DISK, "work")  # on each host's own disk: what is there on one is not on another
    for host in (h0, *hosts.values()):
        host.path(work).mkdir()
        if host.name != "h1":
            host.path(work / "mine.py").write_text("build = None  # " + ("another" if host.name == "h2" else "same"))
    python = h0.run(["python", "-c", "import sys; print(sys.executable)"], check=True).stdout.strip()
    h0.path(work / "hosts.txt").write_text(
        f"h1 data-dir=/nowhere/cifar\nh2 data-dir={folder}\n"
        f"h3 python='{other_torch(folder, python)}' data-dir={folder} interface=wg0\nh4 data-dir={folder}\n"
        f"h2b python=/nowhere/python\n"
    )
    h0.run(["sh", "-c", "mkdir -p -m 700 ~/.ssh && printf 'Host h2b\\n HostName h2\\n' > ~/.ssh/config"], check=True)
    hosts["h4"].change_host_key()
    done = train(h0, work, "--hosts", "hosts.txt", *DATA, "--strategy", "ddp")
    assert done.returncode == 2, done.stderr
    found = {(host, check): f"{what}; {todo}" for host, check, what, todo in rows(done.stderr)}
    expected = {
        ("h1", "file"): "mine.py is not there; copy it: `scp mine.py h1:mine.py`",
        ("h1", "data"): "/nowhere/cifar does not exist; copy it there, or say where it is with data-dir=",
        ("h2", "file"): "mine.py differs from the launching host's; copy it to h2 again",
        ("h3", "torch"): r"2\.11\.0; most hosts have 2\..*; install torch 2\..*, or name an interpreter that has it with python=",
        ("h3", "interface"): "no interface wg0 is up; it has lo",
        ("h4", "reachable"): "Host key verification failed.*; compare the key with its owner's, then `ssh-keygen -R h4`",
        ("h2b", "interpreter"): "/nowhere/python.*; name its interpreter with python= in the hostfile",
    }
    assert found.keys() == expected.keys(), done.stderr
    for place, said in expected.items():
        assert re.search(said, found[place]), (place, found[place])
    assert done.stderr.splitlines()[-1] == "scalelab: 7 faults on 5 of 5 hosts (h1, h2, h3, h4, h2b); nothing was started"
    assert not h0.path(work / "runs").exists()
    for host in (h0, *hosts.values()):
        host.idle()


def test_a_host_that_is_named_twice_or_can_not_connect_is_told(fresh: Callable[..., Cluster]) -> None:
    """10.77.0.11 is h1; h2 has no way to where the ranks would meet, h3 has."""
    cluster = fresh(hosts=("h1", "h2", "h3"))
    cluster.hosts["h2"].run(["ip", "route", "add", "prohibit", f"{cluster.hosts['h1'].address}/32"], check=True)
    done = train(cluster.h0, cluster.folder, "--hosts", f"h1,h2,{cluster.hosts['h1'].address},h3", "--batch", "16")
    assert done.returncode == 2, done.stderr
    found = rows(done.stderr)
    assert [row[:2] for row in found] == [["h2", "interface"], ["10.77.0.11", "one host"]], done.stderr
    assert "no route to 10.77.0.11" in found[0][2]
    assert found[1][2] == "this is the same host as h1"


def test_a_port_that_a_firewall_closes_is_told(fresh: Callable[..., Cluster]) -> None:
    """h1 has a firewall that lets ssh in and drops all else."""
    cluster = fresh(hosts=("h1", "h2"))
    cluster.hosts["h1"].firewall(22)
    done = train(cluster.h0, cluster.folder, "--hosts", "h1,h2", "--master-port", "23456")
    assert done.returncode == 2
    said = "scalelab: h2: connection: to h1 at 10.77.0.11 port 23456, by eth0: timed out; open the way in the firewall, or choose"
    assert done.stderr.splitlines()[-1].startswith(said), done.stderr


def test_one_fault_is_one_line(cluster: Cluster) -> None:
    done = train(cluster.h0, cluster.folder, "--hosts", "h1,h2", "--master-addr", "h1", "--master-port", "22")
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1]
        == "scalelab: h1: meeting place: --master-port 22: Address already in use; leave it out for a free one"
    )
    assert "┃" not in done.stderr
    idle(cluster)


def test_gloos_own_variable_names_the_interface(cluster: Cluster) -> None:
    done = train(cluster.h0, cluster.folder, "--hosts", "h1,h2", env={"GLOO_SOCKET_IFNAME": "eth7"})
    assert done.returncode == 2
    assert [(row[0], row[1]) for row in rows(done.stderr)] == [("h1", "interface"), ("h2", "interface")]
    assert "no interface eth7 is up (did you mean 'eth0'?)" in " ".join(rows(done.stderr)[1][2].split())


def test_another_scalelab_is_all_that_is_told_of_a_host(cluster: Cluster) -> None:
    """An interpreter that is too old says so itself."""
    folder = cluster.folder
    python = cluster.h0.run(["python", "-c", "import sys; print(sys.executable)"], check=True).stdout.strip()
    old = folder / "python3.9"
    old.write_text(TOO_OLD.format(python=python))
    old.chmod(0o755)
    (folder / "old.txt").write_text(f"h1\nh2 python={old}\n")
    done = train(cluster.h0, folder, "--hosts", "old.txt")
    assert done.returncode == 2
    assert re.search(r"scalelab: h2: interpreter: .*needs Python 3\.11 or newer, and this is 3\.9\.2", done.stderr), done.stderr
    idle(cluster)


def idle(cluster: Cluster) -> None:
    """Nothing was started, and nothing is left."""
    hosts: list[Host] = [cluster.h0, *cluster.hosts.values()]
    for host in hosts:
        host.idle()
