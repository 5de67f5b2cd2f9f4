"""Slurm's accounting on the test cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support
from tests.cluster import jobs, needs
from tests.cluster.cluster import Cluster
from tests.cluster.slurm import Settings
from tests.waiting import until

SITE = Settings(max_submit=5)


@pytest.fixture(scope="module")
def accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    lacking = needs.lacking(*needs.SLURM, *needs.ACCOUNTING)
    if lacking:
        support.missing(lacking)
    with Cluster(accounting=True, hosts=("h1", "h2"), folder=tmp_path_factory.mktemp("accounting"), settings=SITE) as cluster:
        yield cluster


def test_sacct_remembers_how_jobs_ended(accounting: Cluster, tmp_path: Path) -> None:
    good = jobs.submit(accounting.h0, "srun -N2 true", "-N2", cwd=tmp_path)
    bad = jobs.submit(accounting.h0, "exit 3", cwd=tmp_path)
    wanted = {f"{good}|COMPLETED|0:0|h[1-2]", f"{bad}|FAILED|3:0|h1"}

    def seen() -> set[str]:
        asked = ["sacct", "-XPn", "--format=JobID,State,ExitCode,NodeList"]
        return set(accounting.h0.run(asked, check=True).stdout.split())

    until(lambda: seen() >= wanted, f"sacct shows {wanted}")


def test_the_site_limits_how_many_jobs_are_submitted(accounting: Cluster, tmp_path: Path) -> None:
    jobs.reach(accounting.h0, jobs.submit(accounting.h0, "true", "--array=0-4", cwd=tmp_path), "COMPLETED")
    with pytest.raises(AssertionError, match="AssocMaxSubmitJobLimit"):
        jobs.submit(accounting.h0, "true", "--array=0-5", cwd=tmp_path)


def test_tasks_that_never_began_are_known_one_by_one(accounting: Cluster, tmp_path: Path) -> None:
    """sacct has them in one row, ``12_[0-2]``, as long as none has begun."""
    held = str(jobs.submit(accounting.h0, "true", "--hold", "--array=0-2", cwd=tmp_path))
    accounting.h0.run(["scancel", held], check=True)
    asked = (
        f"from scalelab.launch.slurm import jobs; print(*[(j, s.state) for j, s in sorted(jobs._accounted([{held!r}]).items())])"
    )
    wanted = " ".join(str((f"{held}_{index}", "CANCELLED")) for index in range(3))

    until(lambda: accounting.h0.run([sys.executable, "-c", asked], check=True).stdout.strip() == wanted, wanted)
