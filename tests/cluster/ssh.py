"""Keys and settings of ssh in the cluster: each host has a key of its own, every client knows all of them and checks."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.network import address, address6

FOLDER = "/etc/ssh"
PORTS = (22, 2222)
SERVER = f"""\
{"".join(f"Port {port}" + chr(10) for port in PORTS)}UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthorizedKeysFile {FOLDER}/authorized_keys .ssh/authorized_keys
StrictModes no
UseDNS no
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
MaxStartups 200
MaxSessions 200
PidFile none
SetEnv TMPDIR={{tmp}}
Subsystem sftp internal-sftp
"""
CLIENT = f"""\
Host *
    IdentityFile {FOLDER}/id_ed25519
    GlobalKnownHostsFile {FOLDER}/ssh_known_hosts
    StrictHostKeyChecking yes
    ConnectTimeout 10
"""


def write(folder: Path, names: Sequence[str], tmp: str) -> None:
    """All that sshd and ssh read, into what will be /etc/ssh: ``folder`` is that folder as this process sees it."""
    make_key(folder / "id_ed25519", "launcher")
    (folder / "authorized_keys").write_text((folder / "id_ed25519.pub").read_text())
    for name in names:
        make_key(folder / f"host_{name}", name)
    (folder / "sshd_config").write_text(SERVER.format(tmp=tmp))
    (folder / "ssh_config").write_text(CLIENT)
    write_known_hosts(folder, names)


def make_key(path: Path, comment: str) -> None:
    """An ed25519 key pair; an older one of that name is replaced."""
    path.unlink(missing_ok=True)
    line = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(line, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def write_known_hosts(folder: Path, names: Sequence[str]) -> None:
    """Every host's present key, under its name and its addresses, at each port."""
    lines = []
    for name in names:
        key = " ".join((folder / f"host_{name}.pub").read_text().split()[:2])
        for port in PORTS:
            known = [name, address(name), address6(name)]
            lines.append(",".join(known if port == 22 else [f"[{one}]:{port}" for one in known]) + f" {key}\n")
    (folder / "ssh_known_hosts").write_text("".join(lines))


def daemon(name: str) -> list[str]:
    """The command of a host's sshd, in the foreground."""
    return ["/usr/sbin/sshd", "-D", "-e", "-f", f"{FOLDER}/sshd_config", "-h", f"{FOLDER}/host_{name}"]
