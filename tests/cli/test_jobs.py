"""``scalelab jobs`` and ``scalelab cancel``, of studies and sweeps. Slurm's programs are stand-ins; the real ones are in tests/cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from scalelab.record.study import StudyRecord
from scalelab.studies.running import keeping as studies
from scalelab.studies.slurm import kept
from scalelab.sweep import keeping
from tests.conftest import Command


class Programs:
    """squeue lists what a test has said; scancel takes it out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        cancel = 'for job; do sed -i "/^${job}[_|]/s/PENDING\\|RUNNING/CANCELLED/" "${0%/*}/queue"; done'
        bodies = {"sbatch": 'cat "${0%/*}/job"', "scontrol": "", "squeue": 'cat "${0%/*}/queue"', "scancel": cancel}
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(0o755)
        self.queue()

    def queue(self, *tasks: str, script: object = "") -> None:
        """``12_0 RUNNING``: jobs and their states; ``script``: of all of them."""
        parted = (task.split() for task in tasks)
        lines = (f"{job}|{job}|0|{state}|Priority|1:02|58:00|N/A|h1|{script}\n" for job, state in parted)
        (self.folder / "queue").write_text("".join(lines))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.chdir(tmp_path)
    made = Programs(tmp_path / "programs")
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    return made


def jobs(command: Command) -> dict[str, Any]:
    """The one row."""
    (row,) = json.loads(command("jobs", "--json").out)["jobs"]
    return dict(row)


def jobs_of(command: Command) -> list[dict[str, Any]]:
    """All rows."""
    return list(json.loads(command("jobs", "--json").out)["jobs"])


def submitted(command: Command, programs: Programs, job: int, *words: object) -> None:
    (programs.folder / "job").write_text(f"{job}\n")
    command("sweep", *words)


def task(number: int, status: str) -> None:
    keeping.keep(Path("sweeps/s"), {"task": number, "status": status, "values": {}})


def test_a_sweeps_tasks_count_once_each_however_often_it_was_resumed(command: Command, programs: Programs) -> None:
    submitted(command, programs, 12, "--repeats", 3, "--slurm", "--out", "sweeps/s", "--", "echo", "{task}")
    task(0, "completed")
    task(1, "failed")
    task(2, "failed")
    assert (jobs(command)["status"], jobs(command)["state"]) == ("failed", "2 failed, 1 completed")
    submitted(command, programs, 13, "resume", "sweeps/s")
    programs.queue("12_0 COMPLETED", "12_1 FAILED", "12_2 FAILED", "13_0 RUNNING", "13_1 PENDING")
    row = jobs(command)
    assert (row["status"], row["state"]) == ("running", "1 completed, 1 running, 1 queued")
    assert (row["elapsed"], row["left"], row["nodes"], row["reason"]) == ("1:02", "58:00", "h1", "Priority")
    task(1, "completed")
    task(2, "completed")
    programs.queue()
    assert (jobs(command)["status"], jobs(command)["state"]) == ("completed", "3 completed")


def test_a_sweep_that_was_cancelled_says_so(command: Command, programs: Programs) -> None:
    submitted(command, programs, 12, "--repeats", 2, "--slurm", "--out", "sweeps/s", "--", "echo", "{task}")
    programs.queue("12_0 PENDING", "12_1 PENDING")
    assert "sweeps/s: cancelled\n" in command("cancel", "sweeps/s").out
    programs.queue()
    assert jobs(command)["status"] == "cancelled"


@pytest.fixture
def study(programs: Programs) -> Path:
    """One that was submitted twice: its second training, a job of 2 workers, was to be made again."""
    folder = Path("studies/weak")
    (folder / kept.FOLDER).mkdir(parents=True)
    studies.save(folder, StudyRecord(study="weak-scaling", question="", status="submitted"))
    asked = [("12", [(0, 0), (1, 0)]), ("13", [(1, 0)])]
    tasks = [kept.Job(name=id, workers=1, nodes=1, trainings=trainings, id=id) for id, trainings in asked]
    kept.save(folder, kept.Jobs(jobs=tasks, report="14"))
    programs.queue("12_0 COMPLETED", "12_1 FAILED", "13_0 RUNNING", "14 PENDING")
    return folder


def test_a_studys_trainings_count_once_each(command: Command, study: Path) -> None:
    row = jobs(command)
    assert (row["status"], row["state"], row["nodes"]) == ("running", "1 COMPLETED, 1 RUNNING, 1 PENDING", "h1")


def test_a_study_that_is_over_has_its_records_word(command: Command, study: Path, programs: Programs) -> None:
    programs.queue()
    assert jobs(command)["status"] == "lost", "no job of it is left, and none has made its report"
    studies.save(study, StudyRecord(study="weak-scaling", question="", status="partly"))
    assert jobs(command)["status"] == "partly"


def test_one_job_of_a_study_is_cancelled_alone(command: Command, study: Path, programs: Programs) -> None:
    assert command("cancel", 13).out == f"{study}: cancelled (job 13 of its 3; the others stay)\n"
    row = jobs(command)
    assert (row["status"], row["state"]) == ("queued", "1 COMPLETED, 1 CANCELLED, 1 PENDING")
    assert command("cancel", "weak").out == f"{study}: cancelled\n"
    programs.queue()
    assert jobs(command)["status"] == "cancelled"


def test_what_is_elsewhere_is_found_by_the_script_of_its_jobs(
    command: Command, study: Path, programs: Programs, tmp_path: Path
) -> None:
    folder = study.rename(tmp_path / "my | study")
    assert jobs_of(command) == []
    programs.queue("12_0 RUNNING", "13_0 PENDING", script=folder / "slurm" / "1-worker.sh")
    (row,) = jobs_of(command)
    assert (row["folder"], row["kind"], row["status"]) == (str(folder), "study", "running")
    assert f"{folder}: cancelled" in command("cancel", "my |").out
    programs.queue("12_0 RUNNING", script="/bin/somebody/elses/slurm/job.sh")
    assert jobs_of(command) == []
    assert "none of ours" in command("cancel", "my |").error


def test_a_folder_that_is_reached_by_a_link_is_shown_once(
    command: Command, study: Path, programs: Programs, tmp_path: Path
) -> None:
    study.parent.rename(tmp_path / "large disk")
    study.parent.symlink_to(tmp_path / "large disk")  # scripts are submitted by their true paths
    programs.queue("12_0 RUNNING", "13_0 PENDING", script=tmp_path / "large disk" / "weak" / "slurm" / "1-worker.sh")
    assert [row["folder"] for row in jobs_of(command)] == [str(study)]


def test_where_somebody_elses_script_is_nothing_is_looked_for(command: Command, programs: Programs, tmp_path: Path) -> None:
    beside = tmp_path / "home" / "another" / "slurm"
    beside.mkdir(parents=True)
    (beside / "jobs.json").write_text("[]")
    programs.queue("12_0 RUNNING", script=tmp_path / "home" / "me" / "slurm" / "job.sh")
    assert jobs_of(command) == []


def test_where_there_is_no_slurm_there_are_no_jobs(command: Command, programs: Programs) -> None:
    (programs.folder / "squeue").write_text("#!/bin/sh\necho squeue: error: nobody is there >&2; exit 1\n")
    ended = command("jobs", "--json")
    assert (ended.status, json.loads(ended.out)) == (0, {"jobs": [], "without": "squeue: nobody is there"})


def test_without_a_terminal_a_row_is_a_line(command: Command, study: Path, programs: Programs) -> None:
    (study.parent / ("deep" * 50)).mkdir()
    study.rename(study.parent / ("deep" * 50) / "weak")
    title, row = command("jobs", "--out", study.parent / ("deep" * 50)).out.splitlines()
    assert title.split() == ["run", "job", "status", "Slurm", "reason", "used", "left", "nodes"]
    assert row.startswith(f"studies/{'deep' * 50}/weak  12 13 14  running  1 COMPLETED, 1 RUNNING, 1 PENDING  Priority  1:02")


def test_where_nothing_is_found_it_says_where_it_looked(command: Command, programs: Programs) -> None:
    assert command("jobs").out.startswith("no jobs of ours in runs, studies, sweeps; --out names another folder")
    assert "in elsewhere;" in command("jobs", "--out", "elsewhere").out
