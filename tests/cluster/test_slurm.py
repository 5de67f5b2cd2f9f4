"""Slurm on the test cluster does what scalelab relies on."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import jobs
from tests.cluster.cluster import Cluster


def test_four_nodes_are_idle(slurm: Cluster) -> None:
    seen = slurm.h0.run(["sinfo", "--noheader", "--partition=main", "--format=%D %t"], check=True)
    assert seen.stdout.split() == ["4", "idle"]


def test_srun_reaches_every_node(slurm: Cluster) -> None:
    done = slurm.h0.run(["srun", "-N4", "hostname"], check=True)
    assert sorted(done.stdout.split()) == ["h1", "h2", "h3", "h4"]


def test_an_array_runs_each_of_its_tasks(slurm: Cluster, tmp_path: Path) -> None:
    job = jobs.submit(slurm.h0, "echo $SLURM_ARRAY_TASK_ID", "--array=0-5%3", "--output=%a.txt", cwd=tmp_path)
    jobs.reach(slurm.h0, job, "COMPLETED")
    assert [(tmp_path / f"{task}.txt").read_text() for task in range(6)] == [f"{task}\n" for task in range(6)]
