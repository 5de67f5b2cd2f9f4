"""The test cluster itself: its hosts are apart as far as they say, joined by links as fast as they say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import carry, network
from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.cluster.host import Host
from tests.cluster.places import DISK, HOME, TMP
from tests.waiting import PATIENCE, until

Fresh = Callable[..., Cluster]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[Cluster]:
    """Two racks; cables so slow that this machine has no trouble to fill them."""
    with Cluster(racks=True, rate="160mbit", uplink="80mbit", folder=tmp_path_factory.mktemp("slow")) as slow:
        yield slow


TRIES = 10


def rate(sender: Host, receiver: Host, name: str, size: int = 6_000_000) -> float:
    """Bits per second of data from one host to another one that it calls ``name``."""
    python = [sys.executable, "-I", carry.__file__]
    with receiver.start([*python, "receive", 4000], stdout=subprocess.PIPE) as taking:
        assert taking.stdout.readline() == "ready\n"
        sender.run([*python, "send", name, 4000, size], check=True)
        return 8 * float(taking.stdout.read())


def reached(sender: Host, receiver: Host, name: str, cable: float, size: int = 6_000_000) -> None:
    """Data come as fast as a cable of so many bits per second carries them, once the machine has time for both ends."""
    carried, found = pytest.approx(cable * 1448 / 1514, rel=0.1), list[float]()  # of 1514 bytes of a frame, TCP has 1448
    while carried not in found:
        assert len(found) < TRIES, f"{found}, and the cable carries {carried}"
        found.append(rate(sender, receiver, name, size))


def test_a_cluster_is_up_in_seconds(fresh: Fresh) -> None:
    begin = time.monotonic()
    fresh(racks=True)
    assert time.monotonic() - begin < BOUND


def test_a_host_is_reached_by_its_name_with_its_key_checked(cluster: Cluster) -> None:
    for name in cluster.hosts:
        assert cluster.h0.run(["ssh", name, "hostname"], check=True).stdout == f"{name}\n"
    assert cluster.h0.run(["ssh", "-p", "2222", "h2", "hostname"], check=True).stdout == "h2\n"


def test_a_wrong_host_key_is_refused(fresh: Fresh) -> None:
    cluster = fresh(hosts=("h1",))
    cluster.hosts["h1"].change_host_key()
    refused = cluster.h0.run(["ssh", "h1", "hostname"])
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr


def test_a_host_may_have_another_name_in_the_users_ssh_config(cluster: Cluster) -> None:
    folder = cluster.h0.path(f"{HOME}/.ssh")
    folder.mkdir(mode=0o700)
    (folder / "config").write_text("Host other\n  HostName h3\n  HostKeyAlias h3\n  Port 2222\n")
    try:
        assert cluster.h0.run(["ssh", "other", "hostname"], check=True).stdout == "h3\n"
    finally:
        shutil.rmtree(folder)


def test_hosts_have_both_kinds_of_addresses(cluster: Cluster) -> None:
    for flag, host in (("-4", cluster.hosts["h1"]), ("-6", cluster.hosts["h4"])):
        assert cluster.h0.run(["ping", flag, "-c1", "-w30", host.name]).returncode == 0
        assert cluster.h0.run(["ssh", host.address if flag == "-4" else host.address6, "hostname"]).stdout == f"{host.name}\n"


def test_a_cable_carries_its_rate(slow: Cluster) -> None:
    h1, h2 = slow.hosts["h1"], slow.hosts["h2"]
    before = h1.sent()
    rate(h1, h2, "h2")
    assert h1.sent() - before == pytest.approx(6_000_000, rel=0.02)
    reached(h1, h2, "h2", 160e6)


def test_the_racks_are_joined_by_a_slower_cable(slow: Cluster) -> None:
    before = slow.uplink_bytes()
    rate(slow.hosts["h2"], slow.hosts["h3"], "h3")
    assert slow.uplink_bytes() - before == pytest.approx(6_000_000, rel=0.06)
    reached(slow.hosts["h2"], slow.hosts["h3"], "h3", 80e6)


def test_a_cable_gets_another_rate(slow: Cluster) -> None:
    h4 = slow.hosts["h4"]
    h4.shape("40mbit")
    reached(h4, slow.hosts["h3"], "h3", 40e6, 3_000_000)
    reached(slow.hosts["h3"], h4, "h4", 40e6, 3_000_000)


def test_each_host_has_its_own_disk_and_a_folder_that_all_see(cluster: Cluster) -> None:
    h1, h2 = cluster.hosts["h1"], cluster.hosts["h2"]
    for place in (DISK, HOME, TMP, "/run", "/dev/shm"):  # noqa: S108
        h1.run(["touch", f"{place}/mine"], check=True)
        assert h1.path(f"{place}/mine").exists()
        assert h2.run(["ls", f"{place}/mine"]).returncode != 0
        assert not Path(f"{place}/mine").exists()
    h1.run(["touch", cluster.folder / "ours"], check=True)
    assert h2.run(["ls", cluster.folder / "ours"]).returncode == 0


def test_a_program_finds_its_hosts_own_temporary_folder_however_it_came_there(cluster: Cluster) -> None:
    asking = [sys.executable, "-Ic", "import os, tempfile; print(tempfile.gettempdir(), os.path.expanduser('~'))"]
    assert cluster.hosts["h1"].run(asking, check=True).stdout.split() == [TMP, HOME]
    asking[-1] = f'"{asking[-1]}"'
    assert cluster.h0.run(["ssh", "h1", *asking], check=True).stdout.split() == [TMP, HOME]


def test_a_disk_is_full_and_free_again(cluster: Cluster) -> None:
    h1 = cluster.hosts["h1"]
    h1.fill_disk()
    copying = ["cp", "/etc/hosts", f"{TMP}/file"]
    assert "No space left on device" in h1.run(copying).stderr
    h1.free_disk()
    h1.run(copying, check=True)


def test_interfaces_and_processes_are_the_hosts_own(cluster: Cluster) -> None:
    h1 = cluster.hosts["h1"]
    assert h1.run(["ls", "/sys/class/net"], check=True).stdout.split() == ["eth0", "lo"]
    assert len(h1.run(["ps", "-eo", "pid="], check=True).stdout.split()) < 6


def test_processes_are_what_runs_besides_the_hosts_own_daemons(cluster: Cluster) -> None:
    h1 = cluster.hosts["h1"]
    assert h1.processes() == []
    started = h1.start(["sh", "-c", "(exec sleep 71) & exec sleep 72"])
    until(lambda: sorted(one.command for one in h1.processes()) == ["sleep 71", "sleep 72"], "both programs")
    with pytest.raises(AssertionError, match=r"still on h1 after 0\.1 s: .*sleep 71"):
        h1.idle(0.1)
    assert h1.kill("sleep 72", signal.SIGTERM) == [started.pid]
    assert started.wait(PATIENCE) == -signal.SIGTERM
    assert [one.command for one in h1.processes()] == ["sleep 71"]
    h1.kill("sleep")
    h1.idle()


def test_a_host_may_have_fewer_cores(fresh: Fresh) -> None:
    cluster = fresh(hosts=("h1",))
    cluster.hosts["h1"].pin(0)
    counting = "import os; print(len(os.sched_getaffinity(0)))"
    assert cluster.hosts["h1"].run([sys.executable, "-Ic", counting], check=True).stdout == "1\n"
    assert cluster.h0.run(["ssh", "h1", sys.executable, "-Ic", f"'{counting}'"], check=True).stdout == "1\n"


def test_a_signal_reaches_the_program_itself(cluster: Cluster) -> None:
    program = (
        "import signal, sys\nsignal.signal(signal.SIGINT, lambda *_: sys.exit(7))\nprint('ready', flush=True)\nsignal.pause()"
    )
    with cluster.h0.start([sys.executable, "-Ic", program], stdout=subprocess.PIPE) as started:
        assert started.stdout.readline() == "ready\n"
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(PATIENCE) == 7


def test_a_firewall_lets_in_what_it_is_told_to(cluster: Cluster) -> None:
    h3 = cluster.hosts["h3"]
    h3.firewall(22)
    try:
        assert cluster.h0.run(["ssh", "h3", "hostname"], check=True).stdout == "h3\n"
        assert h3.run(["ssh", "h2", "hostname"], check=True).stdout == "h2\n"
        refused = cluster.h0.run(["ssh", "-o", "ConnectTimeout=1", "-4", "-p", "2222", "h3", "hostname"])
        assert "timed out" in refused.stderr
    finally:
        h3.open_firewall()
    assert cluster.h0.run(["ssh", "-p", "2222", "h3", "hostname"], check=True).stdout == "h3\n"


def test_a_virtual_network_is_a_second_way_to_a_host(fresh: Fresh) -> None:
    cluster = fresh(hosts=("h1", "h2"), vpn=True)
    h1, h2 = cluster.hosts.values()
    before = h1.sent(network.VPN)
    assert h1.run(["ping", "-c1", "-w30", h2.address_vpn]).returncode == 0
    assert h1.sent(network.VPN) > before
    assert h1.run(["ls", "/sys/class/net"], check=True).stdout.split() == ["eth0", "lo", "vpn0"]


def test_a_cut_cable_is_silent_until_it_is_mended(cluster: Cluster) -> None:
    h2 = cluster.hosts["h2"]
    h2.cut()
    assert cluster.h0.run(["ping", "-c1", "-W1", "h2"]).returncode == 1
    h2.mend()
    assert cluster.h0.run(["ping", "-c1", "-w30", "h2"]).returncode == 0


def test_a_host_loses_its_power_without_a_last_word_and_keeps_its_disk(cluster: Cluster) -> None:
    h4 = cluster.hosts["h4"]
    h4.run(["touch", f"{DISK}/kept", "/run/lost"], check=True)
    running = h4.start(["sleep", "73"])
    talking = cluster.h0.start(["ssh", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=4", "h4", "echo ready; sleep 74"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert talking.stdout.readline() == "ready\n"
    h4.power_off()
    assert running.wait(PATIENCE) == -signal.SIGKILL
    assert "not responding" in talking.communicate(timeout=PATIENCE)[1]
    assert not h4.on
    h4.power_on()
    assert h4.path(f"{DISK}/kept").exists()
    assert not h4.path("/run/lost").exists()
    assert cluster.h0.run(["ssh", "h4", "hostname"], check=True).stdout == "h4\n"


def test_the_documentations_example_is_one_of_these_tests() -> None:
    page = (Path(__file__).parents[2] / "docs" / "test-cluster.md").read_text()
    example = page.split("```text\ndef ")[1].split("```")[0]
    assert f"def {example}" in Path(__file__).read_text()
