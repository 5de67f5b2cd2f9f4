"""Slurm on the test cluster does what scalelab relies on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import jobs
from tests.cluster.cluster import Cluster
from tests.cluster.slurm import Settings

Fresh = Callable[..., Cluster]


def test_four_nodes_are_idle(slurm: Cluster) -> None:
    jobs.until_idle(slurm.h0, list(slurm.hosts))


def test_srun_reaches_every_node(slurm: Cluster) -> None:
    done = slurm.h0.run(["srun", "-N4", "hostname"], check=True)
    assert sorted(done.stdout.split()) == ["h1", "h2", "h3", "h4"]


def test_srun_starts_ranks_by_pmix(slurm: Cluster) -> None:
    done = slurm.h0.run(["srun", "--mpi=pmix", "-N2", "-n4", "sh", "-c", "echo $PMIX_RANK"], check=True)
    assert sorted(done.stdout.split()) == ["0", "1", "2", "3"]


def test_gpus_are_given_out(slurm: Cluster) -> None:
    asked = ["srun", "-N2", "--gpus-per-node=3", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES"]
    assert slurm.h0.run(asked, check=True).stdout.split() == ["0,1,2", "0,1,2"]


def test_a_program_on_a_node_finds_the_nodes_own_temporary_folder(slurm: Cluster) -> None:
    assert slurm.h0.run(["srun", "sh", "-c", "echo $TMPDIR $HOME"], check=True).stdout == "/mnt/tmp /mnt/home\n"


def test_an_array_runs_each_of_its_tasks(slurm: Cluster, tmp_path: Path) -> None:
    job = jobs.submit(slurm.h0, "echo $SLURM_ARRAY_TASK_ID", "--array=0-5%3", "--output=%a.txt", cwd=tmp_path)
    jobs.reach(slurm.h0, job, "COMPLETED")
    assert [(tmp_path / f"{task}.txt").read_text() for task in range(6)] == [f"{task}\n" for task in range(6)]


def test_an_array_beyond_the_limit_is_refused(fresh: Fresh, tmp_path: Path) -> None:
    h0 = fresh(slurm=True, hosts=("h1",), settings=Settings(max_array=11)).h0
    assert jobs.submit(h0, "true", "--array=0-10", cwd=tmp_path) > 0
    with pytest.raises(AssertionError, match="Invalid job array specification"):
        jobs.submit(h0, "true", "--array=0-11", cwd=tmp_path)


def test_a_cancelled_job_hears_sigterm_and_leaves_nothing(slurm: Cluster, tmp_path: Path) -> None:
    script = "trap 'echo heard; exit 1' TERM\necho ready\nsleep 75 &\nwait"
    job = jobs.submit(slurm.h0, script, "--output=out", cwd=tmp_path)
    jobs.text(tmp_path / "out", lambda text: "ready" in text)
    slurm.h0.run(["scancel", "--full", job], check=True)
    jobs.text(tmp_path / "out", lambda text: "heard" in text)
    jobs.reach(slurm.h0, job, "CANCELLED")
    for host in slurm.hosts.values():
        host.idle()


def test_racks_are_known(fresh: Fresh) -> None:
    cluster = fresh(slurm=True, racks=True)
    shown = cluster.h0.run(["scontrol", "show", "topology"], check=True).stdout
    assert "SwitchName=rack1 Level=0 LinkSpeed=1 Nodes=h1,h2" in shown
    assert "SwitchName=rack2 Level=0 LinkSpeed=1 Nodes=h3,h4" in shown


def test_sacct_says_that_there_is_no_accounting(slurm: Cluster) -> None:
    done = slurm.h0.run(["sacct"])
    assert done.returncode == 1
    assert "accounting storage is disabled" in done.stderr
