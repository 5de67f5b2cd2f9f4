"""A sweep's arrays: what is submitted when, and never twice. Slurm's programs are stand-ins here; the real ones are in tests/cluster."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.sweep.conftest import Sweep
from tests.trainings import start

SBATCH = """#!/bin/sh
cd "${0%/*}"; sleep 0.1
said=$(sed -n "$(($(wc -l < submitted) + 1))p" answers)
echo "$*" >> submitted
case "$said" in [0-9]*) echo "$said";; *) echo "sbatch: error: $said" >&2; exit 1;; esac
"""


class Slurm:
    """Programs that answer what a test has written down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        scontrol = "echo MaxArraySize = 5"
        for name, body in {"sbatch": SBATCH, "scontrol": scontrol, "squeue": 'cat "${0%/*}/queue"', "scancel": ""}.items():
            (folder / name).write_text(body if body.startswith("#!") else f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        (folder / "submitted").touch()
        self.queue()

    def answers(self, *lines: object) -> None:
        """What sbatch will say, call after call."""
        (self.folder / "answers").write_text("".join(f"{line}\n" for line in lines))

    def queue(self, *tasks: str, state: str = "PENDING", reason: str = "None") -> None:
        """What squeue lists, as waiting unless told otherwise."""
        lines = (f"{task}|{task.partition('_')[0]}|0|{state}|{reason}|0:00|1:00|N/A||\n" for task in tasks)
        (self.folder / "queue").write_text("".join(lines))

    def submitted(self) -> list[str]:
        """sbatch's arguments, a line a call."""
        return (self.folder / "submitted").read_text().splitlines()


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    made = Slurm(tmp_path / "programs")
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    return made


def test_what_slurm_took_is_kept_whatever_becomes_of_the_rest(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers(11, "Invalid qos specification")
    ended = sweep("--repeats", 8, "--slurm", "--out", "s", "--", "echo", "{task}")
    assert ended.status == 0, ended.err
    assert "3 of 8 tasks are not submitted yet: sbatch: Invalid qos specification" in " ".join(ended.err.split())
    assert [json.loads(line)["tasks"] for line in (tmp_path / "s/slurm/submitted.jsonl").read_text().splitlines()] == [5]


def test_nothing_is_left_where_slurm_takes_nothing(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers("Invalid qos specification")
    assert "Invalid qos" in sweep("--slurm", "--out", "s", "--", "true").error
    assert not (tmp_path / "s").exists()


def test_an_array_that_slurm_may_have_taken_without_an_answer_finds_no_tasks(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers(11, "Unable to contact slurm controller", 12)
    assert sweep("--repeats", 8, "--slurm", "--out", "s", "--", "echo", "{task}").status == 0
    slurm.queue(*(f"11_{index}" for index in range(5)))
    assert sweep("resume", "s").status == 0
    names = [line.split("/")[-1] for line in slurm.submitted()]
    assert names == ["array-1.sh", "array-2.sh", "array-3.sh"]
    assert not (tmp_path / "s/slurm/array-2.tasks").exists()


def test_two_at_a_time_submit_a_task_once(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers(11, 12, 13, 14)
    lines = ["--repeats", 3, "--slurm", "--out", "s", "--", "true"], ["--repeats", 3, "--slurm", "--out", "s", "--", "true"]
    children = [start("sweep", *line, cwd=tmp_path) for line in lines]
    with ThreadPoolExecutor() as both:
        said = list(both.map(lambda child: child.communicate(timeout=60)[1], children))
    assert sorted(child.returncode for child in children) == [0, 2]
    assert any("another process is running or submitting this sweep now" in one or "holds a sweep already" in one for one in said)
    assert len(slurm.submitted()) == 1
    assert len((tmp_path / "s/tasks.jsonl").read_text().splitlines()) == 3


def test_the_limit_of_tasks_at_once_holds_for_a_resume_too(sweep: Sweep, slurm: Slurm) -> None:
    slurm.answers(11, "accounting/QOS policy", "accounting/QOS policy", 12)
    sweep("--repeats", 6, "--slurm", "--max-running", 2, "--out", "s", "--", "true")
    slurm.queue("11_4")
    assert sweep("resume", "s").status == 0
    assert "--dependency=afterany:11 --array=0-1%2" in slurm.submitted()[-1]


def test_who_follows_a_sweep_that_is_cancelled_submits_no_more(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers(11, *["accounting/QOS policy"] * 99)
    slurm.queue("11_0")
    child = start("sweep", "--repeats", 7, "--slurm", "--wait", "--out", "s", "--", "true", cwd=tmp_path)
    while len(slurm.submitted()) < 3:
        assert child.poll() is None
        time.sleep(0.02)
    (tmp_path / "programs/scancel").write_text('#!/bin/sh\n: > "${0%/*}/queue"\n')
    assert sweep("cancel", "s").status == 0
    _, said = child.communicate(timeout=60)
    assert (child.returncode, "QOS" in said) == (1, False)  # it would have gone on until Slurm refuses even one task


def test_jobs_that_ended_without_a_trace_are_told_with_the_likely_reason(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers(11)
    slurm.queue("11_0", "11_1", state="FAILED", reason="NonZeroExitCode")
    ended = sweep("--repeats", 2, "--slurm", "--wait", "--out", "s", "--json", "--", "true")
    told = json.loads(ended.out)
    assert (ended.status, told["missing"]) == (1, 2)
    assert "jobs of tasks 0, 1 as FAILED (NonZeroExitCode)" in told["failures"][0]
    assert f"the nodes probably don't see {tmp_path / 's'}" in told["failures"][0]
    shown = sweep("status", "s")
    assert (shown.status, "resume" in shown.out) == (1, False)


def test_a_sweep_that_slurm_would_hold_for_ever_ends(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers(11)
    slurm.queue("11_0", reason="PartitionConfig")
    (slurm.folder / "scancel").write_text('#!/bin/sh\necho "$*" > "${0%/*}/cancelled"\n')
    ended = sweep("--slurm", "--cpus-per-task", 99, "--wait", "--out", "s", "--", "true")
    assert ended.status == 1
    assert "this sweep would wait for ever: PartitionConfig; begin a new one" in ended.err
    assert (slurm.folder / "cancelled").read_text() == "--jobname=sweep-s 11\n"


def test_a_status_says_why_tasks_wait(sweep: Sweep, slurm: Slurm) -> None:
    slurm.answers(11)
    slurm.queue("11_0", "11_1", reason="Priority")
    told = json.loads(sweep("--repeats", 2, "--slurm", "--out", "s", "--json", "--", "true").out)
    assert told["notes"] == ["2 tasks wait in Slurm's queue: Priority"]


def test_what_jobs_said_last_is_not_told_of_those_that_were_cancelled(sweep: Sweep, slurm: Slurm, tmp_path: Path) -> None:
    slurm.answers(11)
    sweep("--slurm", "--out", "s", "--", "true")
    (tmp_path / "s/slurm/array-1.log").write_text("slurmstepd: error: JOB 11 CANCELLED\n")
    assert "Slurm's jobs said" in sweep("status", "s").out
    assert "Slurm's jobs said" not in sweep("cancel", "s").out
