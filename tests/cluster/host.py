"""One host of the test cluster: what runs on it, its cable, its disk, its power switch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster import network, slurm, ssh
from tests.cluster.bounds import BOUND
from tests.cluster.namespaces import Space, create, members, start
from tests.cluster.places import DISK, HOME, PATH, SHARED, TMP
from tests.waiting import PATIENCE, until

BOOT = """\
mount --bind {shared}/disks/{name} {disk}
mount -t tmpfs -o mode=755,size=512m run /run
mount -t tmpfs -o mode=1777 shm /dev/shm
mkdir -p /run/sshd /run/log /run/lock /run/cgroup {tmp}
mkdir -p -m 700 {home}
chmod 1777 {tmp} /run/lock
echo {name} > /proc/sys/kernel/hostname
[ ! -e /proc/sys/net/ipv6 ] || echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6
[ ! -d /sys/fs/cgroup ] || mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
[ ! -d /sys/fs/cgroup ] || mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup 2> /dev/null || true
"""
"""/sys shows the host's own interfaces, and still the control groups that were there"""


HELPERS = ("slurmctld: slurmscriptd",)
"""command lines of processes that a host's daemons start for themselves"""


class Process(NamedTuple):
    """A process of a host: its id as the test sees it (a ``Popen``'s), and its command line."""

    pid: int
    command: str


class Host:
    """A host. Made by ``Cluster``, and on while that is."""

    def __init__(self, outer: Space, name: str, bridge: str, rate: str, vpn: bool, environment: Mapping[str, str]) -> None:
        self.name = name
        self.address = network.address(name)
        self.address6 = network.address6(name)
        self.private = Path(DISK)
        self.cores: tuple[int, ...] = ()
        self.address_vpn = network.address_vpn(name) if vpn else None
        self.rate = rate
        self.daemons: dict[str, subprocess.Popen[str]] = {}
        self.at_boot: list[Callable[[Host], None]] = []
        self._outer = outer
        self._bridge = bridge
        self._environment = dict(environment)
        self._started: list[subprocess.Popen[str]] = []
        self._space: Space | None = None

    # Power

    @property
    def on(self) -> bool:
        """Whether it has power."""
        return self._space is not None

    @property
    def space(self) -> Space:
        """Its namespaces; RuntimeError while it is off."""
        if self._space is None:
            raise RuntimeError(f"{self.name} is off")
        return self._space

    def power_on(self) -> None:
        """Boot: namespaces, cable, sshd, what else is to run there. Its disk is as it was."""
        network.unplug(self._outer, self.name)
        self._space = create(BOOT.format(shared=SHARED, name=self.name, disk=DISK, home=HOME, tmp=TMP), self._outer)
        network.plug(self._outer, self._space, self.name, self._bridge, self.rate)
        if self.address_vpn:
            network.join_vpn(self._space, self.name)
        self.serve("sshd", ssh.daemon(self.name))
        until(lambda: all(self.listens(port) for port in ssh.PORTS), f"sshd of {self.name}")
        for begin in self.at_boot:
            begin(self)

    def power_off(self) -> None:
        """Pull the plug: nobody hears a last word from it, then all its processes are dead."""
        self.cut()
        self.end()

    def end(self) -> None:
        """All its processes are dead; what this process had started is waited for."""
        space, self._space = self.space, None
        space.end()
        for child in [*self._started, *self.daemons.values()]:
            child.wait(PATIENCE)
        until(space.gone, f"{self.name} off")
        self._started.clear()
        self.daemons.clear()

    # Processes

    def start(self, line: Sequence[object], env: Mapping[str, str] | None = None, cwd: object = None, **options: Any) -> Any:
        """A process on this host as ``subprocess.Popen`` starts one, with a login's environment and ``env``.

        Its ``pid`` is the program's own as seen here, so that signals reach it; it lives on when the test has forgotten it.
        """
        words = [str(word) for word in line]
        place = [*self._pinned(), "env", f"--chdir={cwd or HOME}", "--", *words]
        started = start(self.space, place, env=self.environment(env), **options)
        self._started.append(started)
        return started

    def run(
        self,
        line: Sequence[object],
        env: Mapping[str, str] | None = None,
        cwd: object = None,
        timeout: float = PATIENCE,
        input: str | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, its output captured. ``check``: AssertionError with its output when it failed.

        After ``timeout`` seconds it is killed and subprocess.TimeoutExpired raised.
        """
        pipe = subprocess.PIPE
        feed = pipe if input is not None else subprocess.DEVNULL
        with self.start(line, env, cwd, stdin=feed, stdout=pipe, stderr=pipe, errors="replace") as child:
            try:
                out, err = child.communicate(input, timeout=timeout)
            except BaseException:
                child.kill()
                raise
        self._started.remove(child)
        if check and child.returncode:
            raise AssertionError(f"{self.name}: {line} ended with {child.returncode}\n{out}{err}")
        return subprocess.CompletedProcess([str(word) for word in line], child.returncode, out, err)

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """What a program started here finds: a login's, the interpreter's folder first in PATH, the cluster's, then ``more``."""
        base = {"HOME": HOME, "USER": "root", "LOGNAME": "root", "SHELL": "/bin/bash", "TMPDIR": TMP, "LANG": "C.UTF-8"}
        return {**base, "PATH": f"{Path(sys.executable).parent}:{PATH}", **self._environment, **(more or {})}

    def serve(self, name: str, line: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start one of the host's own daemons, in the foreground; its output goes to /run/log/NAME.log there."""
        with self.space.path(f"/run/log/{name}.log").open("a") as log:
            environment = {**self.environment(env), "PATH": PATH}
            words = [*self._pinned(), *line]
            self.daemons[name] = start(self.space, words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self.daemons[name]

    def stop(self, name: str, how: int = signal.SIGKILL) -> None:
        """End one of its daemons, and wait for that."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(how)
        daemon.wait(PATIENCE)

    def log(self, name: str) -> str:
        """What a daemon has written."""
        return self.space.path(f"/run/log/{name}.log").read_text()

    def processes(self) -> list[Process]:
        """What runs here besides the host's own daemons. A process that has ended and waits for the test is none."""
        own = {self.space.pid, *(daemon.pid for daemon in self.daemons.values())}
        found = ((pid, _command(pid)) for pid in members(self.space) if pid not in own)
        return [Process(pid, command) for pid, command in found if command is not None and command not in HELPERS]

    def idle(self, seconds: float = BOUND) -> None:
        """Wait until nothing runs here any more; AssertionError that names what does."""
        try:
            until(lambda: not self.processes(), "idle", seconds)
        except AssertionError:
            raise AssertionError(f"still on {self.name} after {seconds:g} s: {self.processes()}") from None

    def kill(self, what: int | str, how: int = signal.SIGKILL) -> list[int]:
        """Signal a process by its id, or all whose command line matches a regular expression; the ids that were signalled."""
        pids = [what] if isinstance(what, int) else [p.pid for p in self.processes() if re.search(what, p.command)]
        for pid in pids:
            os.kill(pid, how)
        return pids

    def listens(self, port: int) -> bool:
        """Whether some process accepts TCP connections at a port."""
        for table in ("tcp", "tcp6"):
            path = Path(f"/proc/{self.space.pid}/net/{table}")
            rows = (line.split() for line in path.read_text().splitlines()[1:]) if path.exists() else ()
            if any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows):
                return True
        return False

    def pin(self, *cores: int) -> None:
        """Give it these processors of the machine only, from now on: a login and Slurm's jobs start on them too. None: all."""
        self.cores = cores
        for daemon in self.daemons.values():
            os.sched_setaffinity(daemon.pid, cores or os.sched_getaffinity(0))

    def _pinned(self) -> list[str]:
        return ["taskset", "--cpu-list", ",".join(map(str, self.cores))] if self.cores else []

    # Its cable

    def cut(self) -> None:
        """Pull the network cable."""
        network.switch(self._outer, self.name, on=False)

    def mend(self) -> None:
        """Plug the network cable in again."""
        network.switch(self._outer, self.name, on=True)

    def shape(self, rate: str) -> None:
        """Limit its cable both ways: ``1gbit``, ``250mbit``."""
        self.rate = rate
        network.shape(self._outer, self.space, self.name, rate)

    def sent(self, interface: str = "eth0") -> int:
        """Bytes that left it since it was switched on, frames' headers included (but one for a large packet of TCP's)."""
        return network.sent(self.space, interface)

    def firewall(self, *ports: int) -> None:
        """Let connections in at these TCP ports only; what comes at others is lost without an answer. Replies and pings pass."""
        network.firewall(self.space, ports)

    def open_firewall(self) -> None:
        """Let everything in again."""
        network.open_firewall(self.space)

    # Its disk

    def path(self, inside: str | Path) -> Path:
        """A path as this host sees it, for the test: ``host.path("/mnt/x").read_text()``."""
        return self.space.path(inside)

    def fill_disk(self) -> None:
        """Leave no free byte on its own disk."""
        with self.path(f"{DISK}/ballast").open("wb", buffering=0) as ballast:
            block = bytes(1 << 20)
            for size in (len(block), 1):
                while _written(ballast.fileno(), block[:size]):
                    pass

    def free_disk(self) -> None:
        """Take away what filled it."""
        self.path(f"{DISK}/ballast").unlink(missing_ok=True)

    # Its daemons

    def restart_sshd(self) -> None:
        """End its sshd's listener, and start another; open connections stay."""
        self.stop("sshd")
        self.serve("sshd", ssh.daemon(self.name))
        until(lambda: all(self.listens(port) for port in ssh.PORTS), f"sshd of {self.name}")

    def stop_slurmd(self) -> None:
        """Kill its slurmd; jobs that run on it go on."""
        self.stop("slurmd")

    def start_slurmd(self) -> None:
        """Start its slurmd again."""
        slurm.start_slurmd(self)

    def change_host_key(self) -> None:
        """From now on it shows a key that nobody knows, as an impostor would."""
        ssh.make_key(self.path(f"{ssh.FOLDER}/host_{self.name}"), self.name)
        self.restart_sshd()


def _written(descriptor: int, block: bytes) -> bool:
    try:
        return os.write(descriptor, block) > 0
    except OSError:
        return False


def _command(pid: int) -> str | None:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        return line.replace(b"\0", b" ").decode(errors="replace").strip() or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it has ended meanwhile
        return None
