"""What a job does when Slurm is about to end it: programs of Slurm's are scripts here, which say what Slurm's were heard to say."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scalelab import spec as specs
from scalelab.batch import derive
from scalelab.launch import training
from scalelab.launch.ending import close
from scalelab.launch.launcher import Meeting, Process
from scalelab.launch.slurm.allocation import Allocation
from scalelab.launch.slurm.job import Job
from scalelab.launch.slurm.programs import SlurmError
from scalelab.launch.slurm.requeue import requeue
from scalelab.record import folder as records
from scalelab.record.schema import Attempt, Failure
from tests.trainings import tiny
from tests.waiting import PATIENCE

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "h[1-2]", "SLURM_TASKS_PER_NODE": "1(x2)", "SLURM_CPUS_ON_NODE": "1"}
DEAF = "trap '' TERM USR1\necho 'srun: error: {said}' >&2\nwhile :; do sleep 0.1; done"
"""an srun that no signal but SIGKILL ends, for a rank waits for another one"""
Programs = Callable[..., None]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """What this process does with signals that a job hears is afterwards as it was."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """``programs(srun="exit 3")``: programs of these names are what is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(**bodies: str) -> None:
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)

    return write


@pytest.fixture
def started(tmp_path: Path, programs: Programs) -> Iterator[Callable[[str], Allocation]]:
    """``started(words)``: two ranks of a job, by an srun that says these words, and does not end."""
    launcher: list[Allocation] = []

    def start(said: str) -> Allocation:
        programs(scontrol="printf 'h1\\nh2\\n'", srun=DEAF.format(said=said), squeue="echo RUNNING 0")
        launcher.append(Allocation(JOB))
        spec, processes = tiny(tmp_path, workers=2, strategy="ddp"), list[Process]()
        launcher[0].start_ranks(tmp_path, spec, derive(spec, (2, 1, 1), 1), Meeting("h1", 20000), processes)
        while not launcher[0].said:
            launcher[0].poll(0.1)
        return launcher[0]

    yield start
    launcher[0].deadline = time.monotonic()
    launcher[0].close()


def test_ranks_whose_other_host_is_gone_are_not_waited_for(started: Callable[[str], Allocation]) -> None:
    launcher = started("Node failure on h2")
    launcher.poll(0.1)  # it may be told of it before it is to stop
    launcher.deadline = time.monotonic() + 1000
    launcher.stop()
    with pytest.raises(KeyboardInterrupt):
        launcher.poll(0.1)


def test_ranks_that_may_still_save_are_waited_for(started: Callable[[str], Allocation]) -> None:
    launcher = started("h2: task 1: something else")
    launcher.deadline = time.monotonic() + 1000
    launcher.stop()
    launcher.poll(0.1)


def test_when_their_time_is_over_the_record_does_not_wait_for_them(started: Callable[[str], Allocation]) -> None:
    launcher = started("h2: task 1: something else")
    launcher.deadline = began = time.monotonic()
    launcher.end([], grace=10 * PATIENCE)
    assert time.monotonic() - began < PATIENCE


REVOKED = "srun: error: Task launch for StepId=7.1 failed on node h1: Job credential revoked"
CANCELLED = "slurmstepd-h1: error: *** JOB 7 ON h1 CANCELLED AT 2026-11-22T00:46:19 DUE TO JOB REQUEUE ***"


@pytest.mark.parametrize(("squeue", "status", "why"), [("PENDING 1", 0, "requeued by hand"), ("RUNNING 0", 1, None)])
def test_a_job_that_is_requeued_while_its_ranks_start_has_not_failed(
    programs: Programs, run: Path, squeue: str, status: int, why: str | None
) -> None:
    """srun then can't start them, and says so before the job itself hears of its end."""
    programs(scontrol="printf 'h1\\nh2\\n'", squeue=f"echo {squeue}")
    job = Job(run, Allocation(JOB), attempts=20)
    job.launcher.said = [REVOKED, CANCELLED]
    ended = close(run, "failed", Failure(error=REVOKED, host="h1", expected=True))
    assert job.conclude(ended) == status
    record = records.load(run)
    assert record.attempts[0].why == why
    assert [one.status for one in record.attempts] == (["interrupted", "queued"] if why else ["failed"])


def test_nor_has_one_that_is_requeued_before_they_start(programs: Programs, run: Path) -> None:
    programs(scontrol="printf 'h1\\nh2\\n'", squeue="echo PENDING 1")
    records.write_atomic(run / "spec.yaml", specs.dump(tiny(run.parent)))  # of one worker, and the job has two tasks
    assert Job(run, Allocation(JOB), attempts=20).run() == 0
    assert [(one.status, one.why) for one in records.load(run).attempts] == [
        ("interrupted", "requeued by Slurm"),
        ("queued", None),
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose attempt stopped at its time limit."""
    folder = training.create(tiny(tmp_path / "runs"))
    attempt = Attempt(started=records.now(), status="interrupted", job="7")
    facts = {"strategy": "single", "engine": "torch", "workers": 1, "derived": derive(tiny(tmp_path), (1, 1, 1), 1), "spec": {}}
    record = training.new_record(folder, tiny(tmp_path), attempt, facts)
    record.status = "interrupted"
    records.save(folder, record)
    return folder


def test_a_job_that_was_requeued_is_though_scontrol_ended_with_it(programs: Programs, run: Path) -> None:
    """Slurm ends all processes of the job, and this one is slow to say that all is well."""
    programs(scontrol="kill -TERM $$; sleep 60", squeue="echo PENDING 3")
    requeue(run, "time limit", "7", restarts=2)
    assert [(one.status, one.why) for one in records.load(run).attempts] == [("interrupted", "time limit"), ("queued", None)]


@pytest.mark.parametrize("squeue", ["echo RUNNING 2", "exit 1"])
def test_a_job_that_slurm_does_not_requeue_leaves_the_record_as_it_was(programs: Programs, run: Path, squeue: str) -> None:
    programs(scontrol="echo 'Requested operation is presently disabled' >&2; exit 1", squeue=squeue)
    before = (run / "record.json").read_bytes()
    with pytest.raises(SlurmError, match="presently disabled"):
        requeue(run, "time limit", "7", restarts=2)
    assert (run / "record.json").read_bytes() == before
