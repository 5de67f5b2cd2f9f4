"""Studies as jobs of Slurm: what is decided and written before anything is submitted, and what is made of Slurm's words afterwards."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalelab.cli.study.on_slurm import refused_sizes
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.pool import Pool
from scalelab.launch.slurm.jobs import State
from scalelab.record.study import StudyRecord
from scalelab.spec import Spec
from scalelab.studies.running.planning import Case
from scalelab.studies.slurm import kept, task
from scalelab.studies.slurm.arrays import Shape, grouped, shape
from scalelab.studies.slurm.concluding import closed, planned_of, reason
from scalelab.studies.slurm.kept import Job, Jobs
from scalelab.studies.study import Point, Run
from tests.conftest import Command
from tests.studies import made

SMALL = [
    "--data",
    "synthetic",
    "--image-size",
    8,
    "--classes",
    4,
    "--train-limit",
    640,
    "--test-limit",
    30,
    "--model-arg",
    "width=4",
]
SCALING = [*SMALL, "--quick", "--steps", 8, "--probe-steps", 0]


@pytest.mark.parametrize(
    ("workers", "per_node", "expected"),
    [
        (1, 8, Shape(1, 1)),
        (8, 8, Shape(1, 8)),
        (64, 8, Shape(8, 8)),
        (6, 4, Shape(2, 3)),
        (12, 8, Shape(2, 6)),
        (7, 4, Shape(7, 1)),
    ],
)
def test_all_nodes_of_a_job_have_equally_many_workers(workers: int, per_node: int, expected: Shape) -> None:
    assert shape(workers, per_node) == expected
    assert shape(workers, per_node).workers == workers


def test_a_job_has_the_trainings_of_one_size_and_the_serial_ones_are_a_job_of_their_own() -> None:
    found = grouped([((0, 0), 1), ((1, 0), 4), ((2, 0), 2), ((0, 1), 1), ((1, 1), 4)], 2, 9)
    assert [(one.name, one.shape, one.trainings, one.indices) for one in found] == [
        ("1-worker", Shape(1, 1), ((0, 0), (0, 1)), "0-1"),
        ("2-workers", Shape(1, 2), ((2, 0),), "0-0"),
        ("4-workers", Shape(2, 2), ((1, 0), (1, 1)), "0-1"),
    ]


def test_more_trainings_than_an_array_may_have_are_several_arrays() -> None:
    found = grouped([((place, 0), 2) for place in range(5)] + [((5, 0), 1)], 2, 2)
    assert [(one.name, [place for place, _ in one.trainings], one.indices) for one in found] == [
        ("1-worker", [5], "0-0"), ("2-workers", [0, 1], "0-1"), ("2-workers-2", [2, 3], "0-1"), ("2-workers-3", [4], "0-0"),
    ]  # fmt: skip


def test_sizes_that_cannot_run_stand_in_the_table() -> None:
    points = [Point(label=str(size), spec=Spec(workers=size), factors={}) for size in (8, 3, 3, 1)]
    cases = [Case(point, None, "no" if point.spec.workers > 1 else None) for point in points]
    assert refused_sizes(cases) == [("–", "–", "3", "0", "can't run: 2 points"), ("–", "–", "8", "0", "can't run: 1 point")]


def directives(script: Path) -> dict[str, str]:
    """What a script asks sbatch for."""
    return dict(re.findall(r"^#SBATCH (--[\w-]+)=(.*)$", script.read_text(), re.M))


def test_a_dry_run_writes_a_script_for_each_size_and_submits_nothing(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "a study; echo 'x'"
    flags = [
        "--workers",
        "4,8,16,32,64",
        "--workers-per-node",
        8,
        "--cpus-per-task",
        3,
        "--partition",
        "long",
        "--time",
        "1:00:00",
    ]
    ended = command(
        "study",
        "weak-scaling",
        "--slurm-dry-run",
        *SCALING,
        *flags,
        "--batch-per-worker",
        4,
        "--slurm-arg=--exclusive",
        "--out",
        folder,
    )
    assert ended.status == 0, ended.err
    assert "written, not submitted" in ended.err
    scripts = {path.stem: directives(path) for path in (folder / "slurm").glob("*.sh")}
    sizes = {name: (asked["--nodes"], asked["--ntasks-per-node"], asked.get("--array")) for name, asked in scripts.items()}
    assert sizes == {
        "1-worker": ("1", "1", "0-1"), "4-workers": ("1", "4", "0-0"), "8-workers": ("1", "8", "0-0"), "16-workers": ("2", "8", "0-0"),
        "32-workers": ("4", "8", "0-0"), "64-workers": ("8", "8", "0-0"), "report": ("1", "1", None),
    }  # fmt: skip
    for name, asked in scripts.items():
        assert asked["--cpus-per-task"] == ("1" if name == "report" else "3")
        assert (asked["--partition"], asked["--time"]) == ("long", "1:00:00")
    assert "#SBATCH --exclusive" in (folder / "slurm" / "64-workers.sh").read_text()
    assert kept.read(folder).ids == []
    record = msgspec.json.decode((folder / "study.json").read_bytes(), type=StudyRecord)
    assert record.asked["spec"]["threads_per_worker"] == 3
    assert not any("all 3 cores" in one.label for one in record.trainings)


def test_the_serial_base_of_a_strong_scaling_with_horovod_is_torchs(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("horovod")
    flags = ["--engine", "horovod", "--workers", "4,64", "--workers-per-node", 8, "--batch", 256]
    ended = command("study", "strong-scaling", "--slurm-dry-run", *SCALING, *flags, "--out", tmp_path / "study")
    assert ended.status == 0, ended.err
    rows = msgspec.json.decode((tmp_path / "study" / "plan.json").read_bytes())["rows"]
    found = {(row["spec"]["strategy"], row["spec"]["engine"], row["spec"]["workers"], row["derived"]["threads"]) for row in rows}
    assert found == {("single", "torch", 1, 1), *(("ddp", "horovod", workers, 1) for workers in (1, 4, 64))}


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cpus-per-task", "many"], "--cpus-per-task 'many': expected a whole number, at least 1"),
        (["--cpus-per-task", "2", "--threads-per-worker", "3"], "a worker has --cpus-per-task 2 threads"),
        (["--env", "A=3"], "--env: not with --slurm"),
        (["--interface", "lo"], "--interface: not with --slurm"),
        (["--slurm-arg", "exclusive"], "an option of sbatch begins with -"),
        (["--time", "1:00\n#SBATCH --wrap"], "can't hold a line break"),
    ],
)
def test_flags_that_no_job_can_have_are_refused(flags: list[str], said: str, command: Command, tmp_path: Path) -> None:
    ended = command("study", "weak-scaling", "--slurm-dry-run", *SCALING, *flags, "--out", tmp_path / "study")
    assert ended.status == 2
    assert said in ended.error
    assert not (tmp_path / "study").exists()


def job(**values: Any) -> Job:
    return Job(**{"name": "2-workers", "workers": 2, "nodes": 1, "trainings": [(0, 0), (0, 1)], "id": "12", **values})


@pytest.mark.parametrize(
    ("job", "state", "said"),
    [
        (None, None, "not submitted"),
        (job(id=None), None, "not submitted"),
        (job(id=None, refused="sbatch: Node count specification invalid"), None, "could not run it: sbatch: Node count"),
        (job(), State("12_1", "PENDING", "ReqNodeNotAvail"), "waits in Slurm's queue: ReqNodeNotAvail"),
        (job(), State("12_1", "RUNNING"), "is running as Slurm's job 12_1"),
        (job(), State("12_1", "TIMEOUT", "TimeLimit"), "TIMEOUT, its time was over (--time), TimeLimit"),
        (job(), State("12_1", "NODE_FAIL"), "NODE_FAIL, a node of it failed"),
        (job(), None, "Slurm knows job 12_1 no more"),
        (job(), State("12_1", "FAILED", "exit status 0:53"), "the nodes probably don't see the study's folder"),
    ],
)
def test_a_training_without_a_record_has_slurms_reason(job: Job | None, state: State | None, said: str) -> None:
    assert said in reason(job, (0, 1), state)


def test_the_latest_job_of_a_training_is_the_one_that_counts() -> None:
    jobs = Jobs(jobs=[job(id="12"), job(id="15", trainings=[(0, 1)])], report="16")
    assert [(found := jobs.of(one)) and found.task(one) for one in ((0, 0), (0, 1), (3, 0))] == ["12_0", "15_0", None]
    states = {"12_0": State("12_0", "COMPLETED"), "15_0": State("15_0", "RUNNING"), "16": State("16", "PENDING", "Dependency")}
    assert jobs.alive(states) == ["15", "16"]


def test_a_training_that_is_missing_is_named_in_the_table(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    flags = ["--workers", "2,64", "--workers-per-node", 8, "--batch-per-worker", 4]
    assert command("study", "weak-scaling", "--slurm-dry-run", *SCALING, *flags, "--out", folder).status == 0
    ended = command("study", "--conclude", folder, "--json")
    assert ended.status == 1
    record = msgspec.json.decode(ended.out, type=StudyRecord)
    assert record.answer == "No training was completed, so nothing can be answered."
    assert {one.reason for one in record.trainings} == {"not submitted"}


def trained(status: str) -> Run:
    point = Point("single", {}, Spec())
    return Run(0, Path("run"), msgspec.structs.replace(made.record(point, 0.1, 64), status=status))


@pytest.mark.parametrize(
    ("status", "state", "silent", "expected"),
    [
        ("completed", State("12_0", "COMPLETING"), None, True),
        ("running", State("12_0", "RUNNING"), None, False),
        ("running", State("12_0", "NODE_FAIL"), None, True),
        ("running", None, None, True),
        ("running", None, "squeue: no answer in 60 s", False),
        ("failed", None, "squeue: no answer in 60 s", True),
        ("failed", State("15_0", "PENDING", "Priority"), None, False),
    ],
)
def test_a_training_is_given_up_only_where_slurm_or_its_record_says_that_it_is_over(
    status: str, state: State | None, silent: str | None, expected: bool
) -> None:
    assert closed(trained(status), state, silent) is expected


def test_only_what_is_missing_is_made(
    command: Command, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "study"
    asked = ["study", "batch-size", "--slurm-dry-run", *SCALING, "--batch", 12, 24, "--out", folder]
    assert command(*asked).status == 0
    (array,) = kept.read(folder).jobs
    made_already = array.trainings[1]
    training.train(pool, planned_of(folder).row(*made_already), [], lambda run: None)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert task.main(folder, array.name) == 0
    assert "is finished already" in capfd.readouterr().out
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with pytest.raises(ScalelabError, match="has 2 trainings, so no task 3"):
        task.main(folder, array.name)
    assert command(*asked).status == 0
    (left,) = kept.read(folder).jobs
    assert left.trainings == [one for one in array.trainings if one != made_already]
    assert len(list((folder / "runs").iterdir())) == 1


def test_what_does_not_fit_its_node_is_refused_with_that_reason(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    command("study", "batch-size", "--slurm-dry-run", *SCALING, "--batch", 12, 24, "--out", folder)
    jobs = kept.read(folder)
    jobs.jobs[0].id = "12"
    kept.save(folder, jobs)
    first, second = jobs.jobs[0].trainings
    kept.keep_unfit(folder, first, kept.Unfit(why="memory: would need about 90 GiB", host="h3", task="12_0"))
    kept.keep_unfit(folder, second, kept.Unfit(why="memory: would need about 90 GiB", host="h3", task="9_1"))  # of a job before
    monkeypatch.setenv("PATH", str(tmp_path))
    command("study", "--conclude", folder)
    record = msgspec.json.decode((folder / "study.json").read_bytes(), type=StudyRecord)
    assert [(one.status, (one.reason or "").partition(":")[0]) for one in record.trainings] == [
        ("refused", "could not run on h3"), ("planned", "not known, Slurm does not answer"),
    ]  # fmt: skip


def test_conclude_of_no_study_is_refused(command: Command, tmp_path: Path) -> None:
    assert "holds no study.json" in command("study", "--conclude", tmp_path).error


def test_where_slurm_does_not_answer_nothing_is_submitted_and_a_report_can_be_made(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    asked = ["study", "weak-scaling", *SCALING, "--workers", 2, "--batch-per-worker", 4, "--out", folder]
    assert command(*asked, "--slurm-dry-run").status == 0
    jobs = kept.read(folder)
    jobs.jobs[0].id = "12"
    kept.save(folder, jobs)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "under way is not known: squeue: not found" in command(*asked, "--slurm").error
    assert command("study", "--conclude", folder).status == 1
    record = msgspec.json.decode((folder / "study.json").read_bytes(), type=StudyRecord)
    assert record.status == "submitted", "its jobs may go on"
    assert {one.status for one in record.trainings} == {"planned"}
    assert all("not known, Slurm does not answer: squeue: not found" in (one.reason or "") for one in record.trainings)


SBATCH = """#!/bin/sh
for script; do :; done
case "$script" in *report.sh) echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1;; esac
echo $((11 + $(ls "{folder}" | wc -l))); touch "{folder}/$(basename "$script")"
"""
SQUEUE = """#!/bin/sh
for script in "{folder}"/*; do [ -e "$script" ] && echo "12_0|12|0|PENDING|Resources|0:00|5:00|N/A||"; done
exit 0
"""


def slurm_that_takes_arrays(tmp_path: Path) -> str:
    """A PATH with programs that answer as Slurm's do where a user may submit no further job."""
    programs, taken = tmp_path / "programs", tmp_path / "taken"
    taken.mkdir()
    programs.mkdir()
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE}.items():
        (programs / name).write_text(text.replace("{folder}", str(taken)))
        (programs / name).chmod(0o755)
    return f"{programs}{os.pathsep}{os.environ['PATH']}"


def test_a_report_that_is_refused_is_said_and_nothing_is_submitted_twice(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    asked = ["study", "weak-scaling", *SCALING, "--workers", 2, "--batch-per-worker", 4, "--slurm", "--out", folder]
    monkeypatch.setenv("PATH", slurm_that_takes_arrays(tmp_path))
    ended = command(*asked)
    assert ended.status == 0, ended.err
    assert "submitted, without the report" in ended.err
    assert "report: sbatch: QOSMaxSubmitJobPerUserLimit; when all are over: scalelab study --conclude" in ended.err
    jobs = kept.read(folder)
    assert (jobs.ids, jobs.report) == (["11", "12"], None)
    assert "job 12 of Slurm is under way" in command(*asked).error
    assert command("study", "--conclude", folder).status == 1
    assert msgspec.json.decode((folder / "study.json").read_bytes(), type=StudyRecord).status == "submitted"


SITE = """#!/bin/sh
# Slurm with three tasks an array: SITE/queue is what it has, SITE/room how many more it takes, SITE/last the latest job,
# SITE/reason why new ones wait.
cd "{folder}"
case "${0##*/}" in
  scontrol) echo "MaxArraySize = 3";;
  squeue) cat queue;;
  scancel) for job; do sed -i "/^${job}[|_]/d" queue; done;;
  sbatch)
    for script; do case "$script" in --array=*) array=${script#--array=};; esac; done
    [ -n "$array" ] || array=$(sed -n 's/^#SBATCH --array=//p' "$script")
    first=${array%%-*}; last=${array##*-}
    count=$((${last:-0} - ${first:-0} + 1))
    if [ $count -gt $(cat room) ]; then echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; fi
    echo $(($(cat room) - count)) > room
    job=$(($(cat last) + 1)); echo $job > last
    echo "$job $*" >> lines
    why=$(cat reason)
    for task in $(seq ${first:-0} ${last:-0}); do echo "$job${array:+_$task}|$job|0|PENDING|$why|0:00|5:00|N/A||$script" >> queue; done
    echo $job;;
esac
"""


class Site:
    """A site that takes so many more tasks."""

    def __init__(self, folder: Path, room: int) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in {"queue": "", "lines": "", "last": "10\n", "reason": "Priority\n", "room": f"{room}\n"}.items():
            (folder / name).write_text(text)
        for name in ("sbatch", "squeue", "scontrol", "scancel"):
            (folder / name).write_text(SITE.replace("{folder}", str(folder)))
            (folder / name).chmod(0o755)

    def room(self, tasks: int) -> None:
        (self.folder / "room").write_text(f"{tasks}\n")

    def submitted(self) -> list[str]:
        """``11 --array=0-1 -- 1-worker.sh``: each job, and sbatch's own words."""
        lines = (self.folder / "lines").read_text().splitlines()
        return [re.sub(r"--parsable |/\S*/", "", line) for line in lines]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path / "site", 0)
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    return made


def test_what_the_site_has_no_room_for_is_submitted_by_the_next_call(command: Command, tmp_path: Path, site: Site) -> None:
    folder = tmp_path / "study"
    asked = ["study", "batch-size", *SCALING, "--batch", 4, 8, "--repeats", 2, "--slurm", "--out", folder]
    ended = command(*asked)
    assert (ended.status, ended.err.splitlines()[-1]) == (
        1, "scalelab: no job could be submitted: sbatch: QOSMaxSubmitJobPerUserLimit",
    )  # fmt: skip
    site.room(2)
    assert "3 trainings not submitted yet: sbatch: QOSMaxSubmitJobPerUserLimit; the same command again" in command(*asked).err
    assert site.submitted() == ["11 --array=0-0 -- 1-worker.sh", "12 --dependency=afterany:11 -- report.sh"]
    site.room(4)
    assert command(*asked).status == 0
    assert site.submitted()[2:] == [
        "13 --array=1-2 -- 1-worker.sh", "14 -- 1-worker-2.sh", "15 --dependency=afterany:11:13:14 -- report.sh",
    ]  # fmt: skip
    jobs = kept.read(folder)
    assert [(job.id, job.first, len(job.trainings)) for job in jobs.jobs] == [("11", 0, 1), ("13", 1, 2), ("14", 0, 1)]
    assert "12|" not in (site.folder / "queue").read_text(), "its report would come too early"
    assert "jobs 11, 13, 14, 15 of Slurm are under way" in command(*asked).error


def test_what_is_submitted_later_and_would_wait_for_ever_is_cancelled_too(command: Command, tmp_path: Path, site: Site) -> None:
    asked = ["study", "batch-size", *SCALING, "--batch", 4, 8, "--slurm", "--out", tmp_path / "study"]
    site.room(1)
    assert "1 training not submitted yet" in command(*asked).err
    site.room(1)
    (site.folder / "reason").write_text("PartitionConfig\n")
    assert "1-worker: it would wait for ever: PartitionConfig; cancelled" in command(*asked).err
    assert [line.split("_")[0] for line in (site.folder / "queue").read_text().splitlines() if "PartitionConfig" in line] == []


def test_a_task_of_a_part_has_the_training_of_its_index(tmp_path: Path) -> None:
    (tmp_path / kept.FOLDER).mkdir()
    before, first = job(id="9", trainings=[(7, 0), (8, 0), (9, 0)]), job(trainings=[(0, 0)])
    second = job(id=None, later="QOSMaxSubmit", first=1, trainings=[(1, 0), (2, 0)])
    kept.save(tmp_path, Jobs(jobs=[before, first, job(name="4-workers", trainings=[(3, 0)]), second]))
    assert [task.training_of(tmp_path, "2-workers", number) for number in range(3)] == [(0, 0), (1, 0), (2, 0)]
    with pytest.raises(ScalelabError, match="has 3 trainings, so no task 3"):
        task.training_of(tmp_path, "2-workers", 3)
    assert msgspec.structs.replace(second, id="13").task((2, 0)) == "13_2"
    assert reason(second, (2, 0), None) == "not submitted yet: QOSMaxSubmit"


def test_hosts_are_not_slurms_to_choose(command: Command) -> None:
    assert "give --hosts in place of --slurm" in command("study", "hosts", "--slurm").error
