"""Slurm on the test cluster: its settings, and its daemons on h0 and on each host."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.namespaces import Space
from tests.cluster.places import DISK
from tests.waiting import until

if TYPE_CHECKING:
    from tests.cluster.host import Host

FOLDER = "/etc/slurm"
CONF = f"{FOLDER}/slurm.conf"
KEY = "/etc/munge/munge.key"
SOCKET = "/run/munge/munge.socket.2"
MOUNTS = f"mount -t tmpfs -o mode=755 slurm {FOLDER}\nmount -t tmpfs -o mode=700 munge /etc/munge\n"
"""of the outer namespaces' script: whatever the machine has there is out of sight"""
PORT = 6818  # of slurmd


@dataclass(frozen=True)
class Settings:
    """What a test may want otherwise. Times in seconds."""

    cpus: int = 8
    """of each node, whatever the machine has"""
    gpus: int = 8
    """of each node; they do not compute"""
    max_array: int = 1001
    """MaxArraySize: an array's largest index is one less"""
    grace: int = 0
    """from a preempted job's SIGTERM to its end"""
    node_timeout: int = 30
    """SlurmdTimeout: after how long a silent node counts as down, and its jobs are requeued"""
    message_timeout: int = 10
    """MessageTimeout: how long commands try to reach a controller, and the controller a node"""
    kill_wait: int = 30
    """from SIGTERM to SIGKILL when a job's time is over or it is cancelled: Slurm's default, for less is a race with a slow machine"""
    max_submit: int | None = None
    """MaxSubmitJobs of the user: how many jobs and tasks may be queued or run at once; with accounting only"""
    extra: tuple[str, ...] = ()
    """more lines of slurm.conf, which win over those that stand here"""


def conf(nodes: Sequence[str], racks: bool, accounting: bool, settings: Settings) -> str:
    """slurm.conf. What is not for tests' sake short or fake here is as on a real cluster."""
    lines = {
        "ClusterName": "test",
        "SlurmctldHost": "h0",
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={SOCKET},cred_expire=5",  # a requeued job waits until its old credential has expired; less is not taken
        "StateSaveLocation": "/run/slurmctld",
        "SlurmdSpoolDir": "/run/slurmd",
        "SlurmctldPidFile": "/run/slurmctld.pid",
        "SlurmdPidFile": "/run/slurmd.pid",
        "MailProg": "/bin/true",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": "128",
        "SlurmdParameters": "config_overrides",  # a node may have more CPUs than there are
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=2,sched_min_interval=0,bf_interval=2,batch_sched_delay=0,requeue_delay=0",
        "JobRequeue": "1",
        "MaxArraySize": str(settings.max_array),
        "GresTypes": "gpu",
        "TmpFS": DISK,
        "TopologyPlugin": "topology/tree" if racks else "topology/none",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SlurmdTimeout": str(settings.node_timeout),
        "MessageTimeout": str(settings.message_timeout),
        "KillWait": str(settings.kill_wait),
        "ReturnToService": "2",
        "JobCompType": "jobcomp/filetxt",
        "JobCompLoc": "/run/log/jobs",
        "JobAcctGatherType": "jobacct_gather/linux" if accounting else "jobacct_gather/none",
        "AccountingStorageType": "accounting_storage/slurmdbd" if accounting else "accounting_storage/none",
        "AccountingStorageHost": "h0",
    }
    if settings.max_submit is not None:
        lines["AccountingStorageEnforce"] = "limits"
    lines |= dict(line.split("=", 1) for line in settings.extra)
    every = ",".join(nodes)
    shared = f"Nodes={every} State=UP MaxTime=INFINITE DefaultTime=30 GraceTime={settings.grace}"
    return "".join(f"{name}={value}\n" for name, value in lines.items()) + (
        f"NodeName={every} CPUs={settings.cpus} RealMemory=16384 TmpDisk=1 Gres=gpu:{settings.gpus} State=UNKNOWN\n"
        f"PartitionName=main Default=YES PriorityTier=1 {shared}\n"
        f"PartitionName=urgent PriorityTier=10 PreemptMode=OFF {shared}\n"
    )


def write(outer: Space, nodes: Sequence[str], racks: bool, accounting: bool, settings: Settings) -> None:
    """Slurm's files and munge's key, the same on all hosts."""
    folder = outer.path(FOLDER)
    (folder / "slurm.conf").write_text(conf(nodes, racks, accounting, settings))
    (folder / "gres.conf").write_text(f"Name=gpu File=/run/gpu[0-{settings.gpus - 1}]\n" if settings.gpus > 1 else "")
    half = (len(nodes) + 1) // 2
    switches = {"rack1": nodes[:half], "rack2": nodes[half:]}
    lines = [f"SwitchName={name} Nodes={','.join(those)}\n" for name, those in switches.items() if those]
    (folder / "topology.conf").write_text("".join(lines) + "SwitchName=spine Switches=rack[1-2]\n" if racks else "")
    key = outer.path(KEY)
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)


def start_munge(host: Host) -> None:
    """munged, which signs what Slurm's parts tell each other."""
    host.path("/run/munge").mkdir(mode=0o755, exist_ok=True)
    state = ["--pid-file=/run/munge/munged.pid", "--seed-file=/run/munge/seed", "--log-file=/run/munge/log"]
    host.serve("munged", ["/usr/sbin/munged", "--foreground", f"--key-file={KEY}", f"--socket={SOCKET}", *state])
    until(lambda: host.path(SOCKET).exists(), f"munged of {host.name}")


def start_controller(host: Host) -> None:
    """slurmctld; it goes on from the state that an earlier one has left."""
    host.path("/run/slurmctld").mkdir(mode=0o700, exist_ok=True)
    host.serve("slurmctld", ["/usr/sbin/slurmctld", "-D", "-i"])
    until(lambda: _up(host, "slurmctld", 6817), "slurmctld")


def start_node(host: Host, gpus: int) -> None:
    """munged and slurmd."""
    for number in range(gpus):
        device: Path = host.path(f"/run/gpu{number}")
        if not device.exists():
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # /dev/null by another name
    start_munge(host)
    start_slurmd(host)


def start_slurmd(host: Host) -> None:
    """slurmd alone."""
    host.path("/run/slurmd").mkdir(mode=0o755, exist_ok=True)
    host.serve("slurmd", ["/usr/sbin/slurmd", "-D", "-N", host.name])
    until(lambda: _up(host, "slurmd", PORT), f"slurmd of {host.name}")


def _up(host: Host, daemon: str, port: int) -> bool:
    if host.daemons[daemon].poll() is not None:
        raise RuntimeError(f"{daemon} of {host.name} has ended:\n{host.log(daemon)}")
    return host.listens(port)


def idle(controller: Host, nodes: Sequence[str]) -> bool:
    """Whether all nodes are up and free."""
    seen = controller.run(["sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t"]).stdout.split("\n")
    return sorted(filter(None, seen)) == sorted(f"{name} idle" for name in nodes)


QUICK = Settings(node_timeout=10, message_timeout=5)
"""for tests that wait for a dead node, or for commands that find no controller; with less, a busy machine's nodes are missed too"""
