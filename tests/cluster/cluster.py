"""The cluster as a whole: a context manager; everything it makes lives in namespaces that end with the process that made them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.cluster import network, ssh
from tests.cluster.host import HOME, SHARED, TMP, Host
from tests.cluster.namespaces import Space, create, until

HOSTS = ("h1", "h2", "h3", "h4")
PASSED_ON = ("CI", "TERM", "PYTHONDONTWRITEBYTECODE")
"""of the environment: what programs on the hosts get too"""

OUTER = """\
mount -t tmpfs -o mode=755 run /run
mkdir -p {shared}/disks
{disks}
mount -t tmpfs -o mode=755 ssh /etc/ssh
ip link set lo up
sed 's|^\\(root:[^:]*:[^:]*:[^:]*:[^:]*\\):[^:]*:|\\1:{home}:|' /etc/passwd > {shared}/passwd
chmod 644 {shared}/passwd
mount --bind {shared}/passwd /etc/passwd
echo '{hosts}' > {shared}/hosts
mount --bind {shared}/hosts /etc/hosts
"""


class Cluster:
    """Hosts h1…h4 and the login machine h0, with network and sshd: ``cluster.h0.run(["ssh", "h2", "hostname"])``.

    The file system is the test's own on all of them (``folder`` is a shared one), but /mnt, home, /run, /dev/shm and TMPDIR,
    which each has for itself. ``rate``: of each host's cable; ``racks``: h1, h2 (and h0) and h3, h4 are on two bridges that a
    cable of ``uplink`` joins; ``disk``: the size of each host's own disk, as mount writes it.
    """

    def __init__(
        self,
        *,
        racks: bool = False,
        rate: str = "1gbit",
        uplink: str = "250mbit",
        disk: str = "2g",
        hosts: Sequence[str] = HOSTS,
        folder: Path | None = None,
    ) -> None:
        self.racks, self.rate, self.uplink, self.disk = racks, rate, uplink, disk
        self.names = ("h0", *hosts)
        self.hosts: dict[str, Host] = {}
        self._folder = folder
        self._outer: Space | None = None

    @property
    def h0(self) -> Host:
        """The machine that a person logs in to."""
        return self._all["h0"]

    @property
    def folder(self) -> Path:
        """A folder that the test and all hosts see: the one it was made with."""
        assert self._folder is not None, "the cluster was made without a folder"
        return self._folder

    @property
    def outer(self) -> Space:
        """The namespaces that hold the bridges, around those of the hosts."""
        assert self._outer is not None, "the cluster is not up"
        return self._outer

    def __enter__(self) -> Cluster:
        disks = "\n".join(
            f"mkdir {SHARED}/disks/{name}\nmount -t tmpfs -o size={self.disk} disk {SHARED}/disks/{name}" for name in self.names
        )
        script = OUTER.format(shared=SHARED, home=HOME, disks=disks, hosts=network.hosts_file(self.names).strip())
        try:
            self._outer = create(script, tied=True)
            ssh.write(self._outer.path(ssh.FOLDER), self.names, TMP)
            network.build(self._outer, self.racks, self.uplink)
            environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            self._all = {name: Host(self._outer, name, self._bridge(name), self.rate, environment) for name in self.names}
            self.hosts = {name: self._all[name] for name in self.names if name != "h0"}
            for host in self._all.values():
                host.power_on()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for host in getattr(self, "_all", {}).values():
            if host.on:
                host.end()
        if self._outer is not None:
            self._outer.end()
            until(self._outer.gone, 10, "the end of the cluster")
            self._outer = None

    def _bridge(self, name: str) -> str:
        return "br1" if self.racks and name not in ("h0", "h1", "h2") else "br0"

    def uplink_bytes(self) -> int:
        """Bytes that went over the cable between the racks, both directions together."""
        return network.sent(self.outer, network.UPLINK) + network.sent(self.outer, "up1")
