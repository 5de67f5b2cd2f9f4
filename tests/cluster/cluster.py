"""The cluster as a whole: a context manager; everything it makes lives in namespaces that end with the process that made them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from tests.cluster import accounting, network, slurm, ssh
from tests.cluster.host import Host
from tests.cluster.namespaces import Space, create
from tests.cluster.places import HOME, OWN, SHARED, TMP
from tests.cluster.slurm import Settings
from tests.waiting import until

HOSTS = ("h1", "h2", "h3", "h4")
PASSED_ON = ("CI", "TERM", "PYTHONDONTWRITEBYTECODE")
"""of the environment: what programs on the hosts get too"""

OUTER = """\
mount -t tmpfs -o mode=755 run /run
mkdir -p {shared}/disks
{disks}
mount -t tmpfs -o mode=755 ssh /etc/ssh
mount -t tmpfs -o mode=755 log /var/log
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
    which each has for itself. ``slurm``: its controller on h0, a node on each host; ``accounting``: sacct too.
    ``rate``: of each host's cable; ``racks``: h1, h2 (and h0) and h3, h4 are on two bridges that a cable of ``uplink`` joins;
    ``vpn``: every host has an address (``address_vpn``) in a second network, vpn0; ``disk``: the size of each host's own disk, as
    mount writes it.
    """

    def __init__(
        self,
        slurm: bool = False,
        accounting: bool = False,
        racks: bool = False,
        rate: str = "1gbit",
        uplink: str = "250mbit",
        *,
        vpn: bool = False,
        disk: str = "1g",
        hosts: Sequence[str] = HOSTS,
        folder: Path | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.slurm, self.accounting, self.settings = slurm or accounting, accounting, settings or Settings()
        if self.settings.max_submit is not None and not accounting:
            raise ValueError("max_submit needs accounting")
        self.racks, self.rate, self.uplink, self.vpn, self.disk = racks, rate, uplink, vpn, disk
        self.hosts: dict[str, Host] = {}
        self._names = ("h0", *hosts)
        self._all: dict[str, Host] = {}
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
        for path in (Path(sys.prefix), Path.cwd(), *([self._folder] if self._folder else [])):
            if any(path.resolve().is_relative_to(place) for place in OWN):
                raise RuntimeError(
                    f"{path} is in a place that each host has for itself ({', '.join(OWN)}): it would be out of sight"
                )
        try:
            self._outer = create(self._script(), tied=True)
            network.build(self.outer, self.racks, self.uplink)
            ssh.write(self.outer.path(ssh.FOLDER), self._names, TMP)
            if self.slurm:
                slurm.write(self.outer, self._names[1:], self.racks, self.accounting, self.settings)
            self._all = {name: self._host(name) for name in self._names}
            self.hosts = {name: host for name, host in self._all.items() if name != "h0"}
            for host in self._all.values():
                host.power_on()
            if self.slurm:
                until(lambda: slurm.idle(self.h0, list(self.hosts)), "all nodes idle")
            if self.settings.max_submit is not None:
                accounting.limit(self.h0, self.settings.max_submit)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        for host in self._all.values():
            if host.on:
                host.end()
        if self._outer is not None:
            self._outer.end()
            until(self._outer.gone, "the end of the cluster")
            self._outer = None

    def _script(self) -> str:
        disks = "\n".join(
            f"mkdir {SHARED}/disks/{name}\nmount -t tmpfs -o size={self.disk} disk {SHARED}/disks/{name}" for name in self._names
        )
        script = OUTER.format(shared=SHARED, home=HOME, disks=disks, hosts=network.hosts_file(self._names).strip())
        return script + (slurm.MOUNTS if self.slurm else "")

    def _host(self, name: str) -> Host:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        if self.slurm:
            environment["SLURM_CONF"] = slurm.CONF
        bridge = "br1" if self.racks and name not in ("h0", "h1", "h2") else "br0"
        host = Host(self.outer, name, bridge, self.rate, self.vpn, environment)
        if self.slurm and name == "h0":
            host.at_boot += [slurm.start_munge, *([accounting.start] if self.accounting else []), slurm.start_controller]
        elif self.slurm:
            host.at_boot += [partial(slurm.start_node, gpus=self.settings.gpus)]
        return host

    def uplink_bytes(self) -> int:
        """Bytes that went over the cable between the racks, both directions together."""
        return network.sent(self.outer, network.UPLINK) + network.sent(self.outer, "up1")

    def stop_slurmctld(self, how: int = signal.SIGTERM) -> None:
        """End Slurm's controller; jobs go on. After a SIGKILL it forgets what happened in the last seconds (Slurm saves every 5)."""
        self.h0.stop("slurmctld", how)

    def start_slurmctld(self) -> None:
        """Start Slurm's controller again, with the state it had."""
        slurm.start_controller(self.h0)
