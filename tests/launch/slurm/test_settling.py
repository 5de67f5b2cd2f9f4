"""Records of runs whose job ended without a last word, and of those that go into the queue again."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from scalelab.batch import derive
from scalelab.launch import training
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.jobs import State
from scalelab.launch.slurm.requeue import wait_again
from scalelab.launch.slurm.settling import settle
from scalelab.record import folder as records
from scalelab.record.schema import Attempt, Status
from tests.trainings import tiny


@pytest.fixture
def queued(tmp_path: Path) -> Path:
    """A run whose job waits."""
    return made(tmp_path, "queued")


def made(out: Path, status: Status) -> Path:
    """A run with one attempt of this status."""
    spec = tiny(out)
    folder = training.create(spec)
    (folder / places.PART).mkdir()
    attempt = Attempt(started=records.now(), status=status, host=f"not-{socket.gethostname()}", pid=1)
    record = training.new_record(
        folder,
        spec,
        attempt,
        {"strategy": "single", "engine": "torch", "workers": 1, "derived": derive(spec, (1, 1, 1), 1), "spec": {}},
    )
    record.status = status
    records.save(folder, record)
    places.note_submission(folder, "12")
    return folder


@pytest.mark.parametrize(
    ("state", "status", "why"),
    [
        (State("12", "CANCELLED"), "interrupted", "cancelled"),
        (State("12", "TIMEOUT"), "interrupted", "time limit"),
        (State("12", "NODE_FAIL", nodes="h2"), "failed", "a node was lost"),
        (State("12", "FAILED", "NonZeroExitCode"), "failed", "the job ended as FAILED (NonZeroExitCode)"),
        (None, "lost", "Slurm does not know job 12 any more"),
    ],
)
@pytest.mark.parametrize("before", ["queued", "running"])
def test_a_record_whose_job_is_over_says_so(tmp_path: Path, before: Status, state: State | None, status: str, why: str) -> None:
    folder = made(tmp_path, before)
    record = settle(folder, records.load(folder), "12", state)
    last = record.attempts[-1]
    assert (record.status, last.status, last.why, last.job) == (status, status, why, "12")
    assert last.ended is not None
    assert (record.failure is not None) == (status == "failed")
    assert records.load(folder) == record


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED"])
def test_a_record_whose_job_lives_stays(queued: Path, state: str) -> None:
    before = records.load(queued)
    assert settle(queued, before, "12", State("12", state)) == before


def test_a_record_that_is_being_written_stays(queued: Path) -> None:
    with records.held(queued):
        assert settle(queued, records.load(queued), "12", None).status == "queued"


def test_a_record_that_is_closed_stays(tmp_path: Path) -> None:
    folder = made(tmp_path, "completed")
    assert settle(folder, records.load(folder), "12", None).status == "completed"


def test_a_run_that_waits_again_keeps_why_and_its_job(tmp_path: Path) -> None:
    folder = made(tmp_path, "interrupted")
    wait_again(folder, "preempted", "12")
    record = records.load(folder)
    assert record.status == "queued"
    assert [(one.status, one.why, one.job) for one in record.attempts] == [
        ("interrupted", "preempted", "12"), ("queued", None, "12"),
    ]  # fmt: skip
    assert places.job_of(folder, record) == "12"


def test_a_resumed_run_that_waits_is_not_in_the_job_of_before(tmp_path: Path) -> None:
    folder = made(tmp_path, "interrupted")
    wait_again(folder, "preempted", "12")
    record = records.load(folder)
    record.attempts[-1] = Attempt(started=records.now(), status="queued")
    records.save(folder, record)
    places.note_submission(folder, "13")
    assert places.job_of(folder, records.load(folder)) == "13"
