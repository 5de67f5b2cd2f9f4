"""`make cluster`, and what is said where there can be no cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import support
from tests.cluster import needs
from tests.cluster.cluster import HOSTS
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
LINE = [sys.executable, "-m", "tests.cluster"]


def run(line: list[str], typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, input=typed, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)


def test_a_person_gets_a_shell_on_the_login_machine_with_everything_up() -> None:
    if lacking := needs.lacking(*needs.SLURM):
        support.missing(lacking)
    done = run([*LINE, "--racks"], "hostname\nssh -n h3 hostname\nsinfo -ho '%D %t' -p main\ncommand -v scalelab\nexit 3\n")
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("This is h0, the login machine of a test cluster")
    assert "two racks, 250mbit between them" in done.stdout
    assert done.stdout.split("\n\n", 1)[1].splitlines() == ["h0", "h3", "4 idle", str(Path(sys.executable).parent / "scalelab")]


def test_who_may_not_make_one_is_told_in_a_line() -> None:
    if lacking := needs.lacking(*needs.SLURM):
        support.missing(lacking)
    done = run(["setpriv", "--bounding-set=-sys_admin", *LINE])
    assert done.returncode == 2
    assert done.stderr == "make cluster: needs root, with the right to make namespaces and to mount in them\n"


def test_a_missing_program_is_named() -> None:
    assert needs.lacking("no-such-program") == "needs no-such-program; tools/install-system-packages brings it"


def test_the_hostfile_has_the_clusters_hosts() -> None:
    lines = (ROOT / "tests" / "cluster" / "hostfile").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [f"{name} slots=1" for name in HOSTS]
