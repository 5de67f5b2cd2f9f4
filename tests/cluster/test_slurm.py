"""Slurm on the test cluster does what scalelab relies on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import jobs
from tests.cluster.cluster import Cluster
from tests.cluster.slurm import QUICK, Settings

Fresh = Callable[..., Cluster]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, slurm: Cluster) -> Iterator[Cluster]:
    """Two nodes, soon missed."""
    with Cluster(slurm=True, hosts=("h1", "h2"), settings=QUICK, folder=tmp_path_factory.mktemp("quick")) as quick:
        yield quick


def test_four_nodes_are_idle(slurm: Cluster) -> None:
    seen = slurm.h0.run(["sinfo", "--noheader", "--partition=main", "--format=%D %t"], check=True)
    assert seen.stdout.split() == ["4", "idle"]


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


def test_a_requeued_job_starts_again_with_its_count(slurm: Cluster, tmp_path: Path) -> None:
    script = "echo ${SLURM_RESTART_COUNT:-0}\n[ ${SLURM_RESTART_COUNT:-0} -gt 0 ] || sleep 76"
    job = jobs.submit(slurm.h0, script, "--output=out", "--open-mode=append", cwd=tmp_path)
    jobs.text(tmp_path / "out")
    slurm.h0.run(["scontrol", "requeue", job], check=True)
    jobs.reach(slurm.h0, job, "COMPLETED")
    assert (tmp_path / "out").read_text().startswith("0\n")
    assert (tmp_path / "out").read_text().endswith("1\n")


def test_an_urgent_job_takes_the_nodes_of_one_that_is_requeued(slurm: Cluster, tmp_path: Path) -> None:
    script = "[ ${SLURM_RESTART_COUNT:-0} -gt 0 ] || { echo ready; sleep 77; }"
    weak = jobs.submit(slurm.h0, script, "-N4", "--exclusive", "--output=weak", "--open-mode=append", cwd=tmp_path)
    jobs.text(tmp_path / "weak", lambda text: "ready" in text)
    begin = time.monotonic()
    slurm.h0.run(["srun", "--partition=urgent", "-N4", "--exclusive", "true"], check=True)
    assert time.monotonic() - begin < 10
    jobs.reach(slurm.h0, weak, "PENDING")
    assert jobs.fields(slurm.h0, weak)["Restarts"] == "1"
    slurm.h0.run(["scancel", weak], check=True)


def test_a_job_survives_that_slurmctld_and_slurmd_are_down(quick: Cluster, tmp_path: Path) -> None:
    script = "echo ready\nwhile [ ! -e go ]; do sleep 0.1; done\necho done"
    job = jobs.submit(quick.h0, script, "--nodelist=h2", "--output=out", cwd=tmp_path)
    jobs.text(tmp_path / "out")
    quick.stop_slurmctld()
    quick.hosts["h2"].stop_slurmd()
    assert "Unable to contact slurm controller" in quick.h0.run(["squeue"]).stderr
    quick.hosts["h2"].start_slurmd()
    quick.start_slurmctld()
    assert jobs.states(quick.h0, job) == ["RUNNING"]
    (tmp_path / "go").touch()
    jobs.reach(quick.h0, job, "COMPLETED")
    assert (tmp_path / "out").read_text() == "ready\ndone\n"


def test_the_job_of_a_dead_node_waits_for_another_one(quick: Cluster, tmp_path: Path) -> None:
    job = jobs.submit(quick.h0, "echo ready; exec sleep 78", "--nodelist=h2", "--output=out", cwd=tmp_path)
    jobs.text(tmp_path / "out")
    quick.hosts["h2"].power_off()
    jobs.reach(quick.h0, job, "PENDING")
    assert jobs.fields(quick.h0, job)["Restarts"] == "1"
    quick.h0.run(["scancel", job], check=True)
    quick.hosts["h2"].power_on()
    jobs.until_idle(quick.h0, ("h1", "h2"))


def test_racks_are_known(fresh: Fresh) -> None:
    cluster = fresh(slurm=True, racks=True)
    shown = cluster.h0.run(["scontrol", "show", "topology"], check=True).stdout
    assert "SwitchName=rack1 Level=0 LinkSpeed=1 Nodes=h1,h2" in shown
    assert "SwitchName=rack2 Level=0 LinkSpeed=1 Nodes=h3,h4" in shown


def test_sacct_says_that_there_is_no_accounting(slurm: Cluster) -> None:
    done = slurm.h0.run(["sacct"])
    assert done.returncode == 1
    assert "accounting storage is disabled" in done.stderr
