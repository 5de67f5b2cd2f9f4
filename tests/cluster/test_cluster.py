"""The test cluster itself: its hosts are apart as far as they say, joined by links as fast as they say."""

from __future__ import annotations

from collections.abc import Callable

from tests.cluster.cluster import Cluster


def test_a_host_is_reached_by_its_name_with_its_key_checked(cluster: Cluster) -> None:
    for name in cluster.hosts:
        assert cluster.h0.run(["ssh", name, "hostname"], check=True).stdout == f"{name}\n"
    assert cluster.h0.run(["ssh", "-p", "2222", "h2", "hostname"], check=True).stdout == "h2\n"


def test_a_wrong_host_key_is_refused(fresh: Callable[..., Cluster]) -> None:
    cluster = fresh(hosts=("h1",))
    cluster.hosts["h1"].change_host_key()
    refused = cluster.h0.run(["ssh", "h1", "hostname"])
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
