"""Slurm's accounting on the test cluster's h0: slurmdbd, and a MariaDB whose files are in memory; sacct asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cluster.slurm import FOLDER
from tests.waiting import until

if TYPE_CHECKING:
    from tests.cluster.host import Host

DATA = "/run/mysql"
SOCKET = "/run/mysqld/mysqld.sock"  # where MariaDB's client library looks by itself
PORT = 6819
CONF = """\
AuthType=auth/munge
DbdHost=h0
SlurmUser=root
PidFile=/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
"""
SMALL = ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin"]


def start(host: Host) -> None:
    """The database and slurmdbd; slurmctld introduces its cluster to it by itself."""
    conf = host.path(f"{FOLDER}/slurmdbd.conf")
    conf.write_text(CONF)
    conf.chmod(0o600)
    host.path("/run/mysqld").mkdir(exist_ok=True)
    data = ["--no-defaults", "--user=root", f"--datadir={DATA}", *SMALL]
    host.run(["mariadb-install-db", *data, "--skip-test-db", "--auth-root-authentication-method=socket"], check=True)
    host.serve("mariadbd", ["/usr/sbin/mariadbd", *data, f"--socket={SOCKET}", "--skip-networking"])
    until(lambda: host.path(SOCKET).exists(), "MariaDB")
    host.serve("slurmdbd", ["/usr/sbin/slurmdbd", "-D"])
    until(lambda: host.listens(PORT), "slurmdbd")


def limit(host: Host, jobs: int) -> None:
    """The site's limit of what the user may have queued and running at once. For a slurmctld that is up and enforces limits."""
    asked = ["sacctmgr", "--parsable2", "--noheader", "show", "cluster", "format=Cluster"]
    until(lambda: "test" in host.run(asked).stdout, "the cluster in the accounts")
    host.run(["sacctmgr", "--immediate", "modify", "user", "where", "name=root", "set", f"MaxSubmitJobs={jobs}"], check=True)
