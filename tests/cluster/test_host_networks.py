"""Over which network the ranks of several hosts speak."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster.cluster import Cluster
from tests.cluster.over import completed


def test_a_subnet_picks_each_hosts_interface_in_it(fresh: Callable[..., Cluster]) -> None:
    """A VPN's interface is called vpn0 on h1 and tun7 on h2: ranks meet there, and the gradients take that way."""
    cluster = fresh(hosts=("h1", "h2"), vpn=True)
    for words in ("vpn0 down", "vpn0 name tun7", "tun7 up"):
        cluster.hosts["h2"].run(["ip", "link", "set", *words.split()], check=True)
    subnet = f"{cluster.hosts['h1'].address_vpn}/24"
    record = completed(cluster.h0, cluster.folder, "--hosts", "h1,h2", "--interface", subnet, "--threads-per-worker", "1")
    assert record.model is not None
    for name, link in (("h1", "vpn0"), ("h2", "tun7")):
        assert cluster.hosts[name].sent(link) > 4 * record.steps * record.model.parameters


def test_hosts_that_have_ipv6_alone(fresh: Callable[..., Cluster]) -> None:
    cluster = fresh(hosts=("h1", "h2"))
    for host in cluster.hosts.values():
        host.run(["ip", "address", "del", f"{host.address}/24", "dev", "eth0"], check=True)
    named = ",".join(f"[{host.address6}]:1" for host in cluster.hosts.values())
    record = completed(cluster.h0, cluster.folder, "--hosts", named, "--threads-per-worker", "1")
    assert [host.name for host in record.environment.hosts] == [host.address6 for host in cluster.hosts.values()]
