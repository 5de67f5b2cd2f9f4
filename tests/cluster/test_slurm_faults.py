"""Trainings as Slurm jobs survive what happens to jobs, each within seconds; the record says what it was, and nothing is left running."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.cluster import jobs
from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.cluster.slurm import QUICK
from tests.cluster.slurm_runs import going, idle, line, long, passed, scalelab, submit, when
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.usefixtures("_own_cache")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory, slurm: Cluster) -> Iterator[Cluster]:
    """A cluster that soon misses a node."""
    with Cluster(slurm=True, settings=QUICK, folder=tmp_path_factory.mktemp("quick")) as quick:
        yield quick


def whole(run: Path, record: TrainRecord) -> None:
    """Each step was made once, in order; each attempt went on where the checkpoint of the one before is."""
    assert [step.step for step in records.read_steps(run)] == list(range(1, record.steps + 1))
    ran = [attempt for attempt in record.attempts if attempt.start_seconds is not None]
    for before, after in pairwise(ran):
        assert after.first_step == before.stopped


def test_preempted_at_its_time_limit_requeued_and_given_up(slurm: Cluster, tmp_path: Path) -> None:
    run, job = submit(slurm, tmp_path, *long(tmp_path))
    going(run, 1)
    stronger = jobs.submit(
        slurm.h0, "sleep 2", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", cwd=tmp_path
    )
    record = when(run, lambda record: record.status == "queued", BOUND, "preempted")
    assert record.attempts[0].why == "preempted"
    assert (record.attempts[0].stopped or 0) >= 20
    jobs.reach(slurm.h0, stronger, "COMPLETED")
    going(run, 2)
    slurm.h0.run(["scancel", "--batch", "--signal=USR1", job], check=True)  # as --signal does before the time limit
    record = when(run, lambda record: record.status == "queued", BOUND, "time limit")
    assert record.attempts[1].why == "time limit (SIGUSR1)"
    assert "after: time limit" in scalelab(slurm, tmp_path, "jobs").stdout
    when(run, lambda record: record.status == "running", PATIENCE, "it runs again")
    slurm.h0.run(["scontrol", "requeue", job], check=True)  # its ranks still import torch
    record = when(run, lambda record: record.status == "queued", BOUND, "requeued")
    assert record.attempts[2].why == "requeued by hand"
    when(run, lambda record: record.status == "running", PATIENCE, "it runs again")
    slurm.h0.run(["scancel", "--batch", "--signal=USR1", job], check=True)
    record = when(run, lambda record: record.attempts[-1].why, BOUND, "an attempt that came no further is the last")
    assert record.status == "interrupted"
    assert "saved no further step" in (record.attempts[3].why or "")
    jobs.reach(slurm.h0, job, "FAILED")
    assert {attempt.job for attempt in record.attempts} == {job}
    whole(run, record)
    idle(slurm)


def test_slurms_own_daemons_are_away_and_then_a_node_is_lost(quick: Cluster, tmp_path: Path) -> None:
    """The run goes on without the daemons, and elsewhere without the node, and --wait follows it until it is cancelled.

    h2's slurmd is away only while slurmctld is, which would otherwise count it as lost on a machine that is slow enough.
    """
    told = tmp_path / "told"
    flags = (*long(tmp_path), "--train-limit", "1200")
    with told.open("w") as err:
        waiting = quick.h0.start(line("train", "--slurm", "--wait", *flags), env=passed(), cwd=tmp_path, stderr=err, stdout=err)
    until(lambda: records.find([], tmp_path / "runs"), "the run")
    (run,) = records.find([], tmp_path / "runs")
    going(run, 1)
    quick.stop_slurmctld()
    quick.hosts["h2"].stop_slurmd()
    jobs.text(told, lambda text: "the job may go on, so this waits on" in text)
    before = len(records.load(run).epochs)
    when(run, lambda record: len(record.epochs) > before, PATIENCE, "an epoch without a controller")
    quick.hosts["h2"].start_slurmd()
    quick.start_slurmctld()
    record = records.load(run)
    (job,) = {attempt.job for attempt in record.attempts}
    jobs.reach(quick.h0, job or "", "RUNNING")
    lost = record.environment.hosts[1].name
    quick.hosts[lost].power_off()
    record = going(run, 2)
    assert (record.attempts[0].why, record.attempts[0].status) == (f"a node was lost: {lost}", "interrupted")
    assert record.attempts[1].first_step >= 50
    assert lost not in {one.name for one in record.environment.hosts}
    scalelab(quick, tmp_path, "cancel", job)
    record = records.load(run)
    assert (record.status, record.attempts[-1].why) == ("interrupted", "cancelled")
    assert [step.step for step in records.read_steps(run)] == list(range(1, record.steps + 1))
    assert waiting.wait(PATIENCE) == 1, told.read_text()
    idle(quick)
