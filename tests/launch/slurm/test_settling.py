"""Records of runs whose job ended without a last word, and of those that go into the queue again."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from scalelab.batch import derive
from scalelab.launch import training
from scalelab.launch.slurm import folder as places
from scalelab.launch.slurm.job import LIMIT, close_lost, futile
from scalelab.launch.slurm.jobs import State
from scalelab.launch.slurm.requeue import wait_again
from scalelab.launch.slurm.settling import closed_where_over, current, settle
from scalelab.record import folder as records
from scalelab.record.pointer import any_saved, newest_step
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


def test_a_run_of_another_user_stays_where_its_job_is_not_known(queued: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: queued.stat().st_uid + 1)
    assert settle(queued, records.load(queued), "12", None).status == "queued"
    assert settle(queued, records.load(queued), "12", State("12", "CANCELLED")).status == "interrupted"


@pytest.mark.parametrize(("minutes", "status"), [(1, "queued"), (3, "lost")])
def test_a_run_that_never_became_a_job_is_lost_after_a_while(queued: Path, minutes: int, status: str) -> None:
    (queued / "slurm" / "job.json").unlink()
    record = records.load(queued)
    then = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    record.attempts[-1] = msgspec.structs.replace(record.attempts[-1], queued=then)
    records.save(queued, record)
    assert current(queued).status == status


def test_an_attempt_whose_host_is_gone_is_lost(tmp_path: Path) -> None:
    folder = made(tmp_path, "running")
    close_lost(folder, records.load(folder))
    (last,) = records.load(folder).attempts
    assert (last.status, last.why) == ("lost", "ended by Slurm, unheard")


def test_a_job_goes_into_the_queue_again_while_that_leads_on(tmp_path: Path) -> None:
    folder = made(tmp_path, "interrupted")
    record = records.load(folder)
    ended = msgspec.structs.replace(record.attempts[-1], job="12", start_seconds=1.0, first_step=10, why=LIMIT)
    preempted = msgspec.structs.replace(ended, why="preempted")
    record.attempts = [*[preempted] * 9, ended, ended]
    assert futile(record, 20, "12", 3) is None, "being preempted is no attempt that ended at the time limit"
    assert "all of --attempts" in (futile(record, 20, "12", 2) or "")
    assert futile(record, 20, "13", 2) is None, "submitted anew"
    assert "saved no further step" in (futile(record, 10, "12", 3) or "")
    assert "no checkpoint" in (futile(record, None, "12", 3) or "")
    record.attempts[-1] = msgspec.structs.replace(ended, start_seconds=None, first_step=0)
    assert "saved no further step" in (futile(record, 20, "12", 3) or ""), "it never came to train"


def test_the_checkpoint_before_counts_while_a_new_one_is_being_named(tmp_path: Path) -> None:
    folder = made(tmp_path, "interrupted")
    (folder / "checkpoints").mkdir(exist_ok=True)
    assert not any_saved(folder)
    (folder / "checkpoints" / "previous.json").write_text('{"file": "step-1.safetensors", "sha256": "", "step": 1}')
    assert any_saved(folder)
    assert newest_step(folder) == 1


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


@pytest.mark.parametrize(
    ("state", "printed", "unseen"),
    [
        (State("12", "FAILED", "exit status 0:53"), "", True),
        (State("12", "FAILED", "RaisedSignal:53(Real-time_signal_19)"), "of the attempt before", True),
        (State("12", "FAILED", "JobLaunchFailure"), "of the attempt before", True),
        (State("12", "FAILED", "NonZeroExitCode"), "", True),
        (State("12", "FAILED", "NonZeroExitCode"), "words", False),
        (State("12", "OUT_OF_MEMORY"), "", False),
    ],
)
def test_a_job_that_printed_nothing_may_not_see_its_folder(queued: Path, state: State, printed: str, unseen: bool) -> None:
    places.output(queued).write_text(printed)
    said = settle(queued, records.load(queued), "12", state).failure
    assert said is not None
    assert (f"the nodes probably don't see {queued}; --out must be on a disk that all hosts share" in said.error) == unseen
    assert ("what it printed is in slurm/output.txt" in said.error) == (printed == "words")


SLURM = {
    "scontrol": '[ "$3" = h1 ] && exit; echo "Node $3 not found" >&2; exit 1',
    "squeue": 'case "$*" in *--steps*) echo 12.4;; *) echo "12|12|N/A|RUNNING|None|1:00|9:00|N/A|h1|";; esac',
    "sacct": "echo Slurm accounting storage is disabled >&2; exit 1",
}
"""its one node is h1, on which the job 12 runs, with the one step 12.4"""


@pytest.mark.parametrize(
    ("host", "job", "status", "why"),
    [
        ("h1", "12.3", "lost", "Slurm's step 12.3 is over, and left no last word"),
        ("h1", "12.4", "running", None),
        ("h1", "12", "running", None),
        ("h1", "11", "lost", "Slurm does not know job 11 any more"),
        ("elsewhere", "12.3", "running", None),
        ("h1", None, "running", None),
    ],
    ids=["a step that is over", "a step that goes on", "a job that goes on", "a job that is over", "another cluster's", "no job"],
)
def test_who_looks_at_runs_finds_those_closed_that_slurm_says_are_over(
    host: str, job: str | None, status: Status, why: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, body in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    folder = made(tmp_path / "runs", "running")
    record = records.load(folder)
    record.attempts[-1] = msgspec.structs.replace(record.attempts[-1], host=host, job=job)
    records.save(folder, record)
    seen = closed_where_over({folder: records.load(folder)})[folder]
    assert (seen.status, seen.attempts[-1].why) == (status, why)
    assert records.load(folder).status == status, "in the file too"


def test_a_controller_that_does_not_answer_is_asked_once_however_many_hosts_runs_are_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SLURM:
        (tmp_path / name).write_text(
            f"#!/bin/sh\necho {name} >> {tmp_path}/asked\necho 'Unable to contact slurm controller' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = {}
    for number in range(3):
        folder = made(tmp_path / str(number), "running")
        found[folder] = record = records.load(folder)
        record.attempts[-1] = msgspec.structs.replace(record.attempts[-1], host=f"h{number}", job=f"{number}.0")
    assert closed_where_over(found) == found
    assert (tmp_path / "asked").read_text().split() == ["squeue"]
