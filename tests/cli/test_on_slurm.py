"""``scalelab train --slurm``, as far as no Slurm is needed: what is asked for, and what is refused before anything is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from scalelab import spec as specs
from scalelab.cli.places.on_slurm import to_check
from scalelab.record import folder as records
from tests.conftest import Command
from tests.trainings import FLAGS

ASKED = ("train", *FLAGS, "--strategy", "ddp", "--check-in-job")


def directives(command: Command, *words: object) -> dict[str, str]:
    """The ``#SBATCH`` lines that ``--dry-run`` prints."""
    done = command(*ASKED, "--slurm", "--dry-run", *words)
    assert done.status == 0, done.err
    lines = [line.removeprefix("#SBATCH ") for line in done.out.splitlines() if line.startswith("#SBATCH ")]
    return dict((line + "=").split("=")[:2] for line in lines)


@pytest.mark.parametrize(
    ("flags", "nodes", "each"),
    [
        (("--nodes", 2), 2, 1),
        (("--nodes", 2, "--workers-per-node", 4), 2, 4),
        (("--workers", 8, "--workers-per-node", 4), 2, 4),
        (("--workers", 8, "--nodes", 2), 2, 4),
        (("--workers", 3), 3, 1),
    ],
)
def test_nodes_and_workers_follow_from_each_other(command: Command, flags: tuple[object, ...], nodes: int, each: int) -> None:
    found = directives(command, *flags, "--batch", 24)
    assert (found["--nodes"], found["--ntasks-per-node"]) == (str(nodes), str(each))


def test_a_dry_run_prints_the_script_and_the_command_and_writes_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*ASKED, "--slurm", "--dry-run", "--nodes", 2, "--time", "1:00:00", "--stop-seconds", 0, "--attempts", 3)
    assert done.out.startswith("#!/bin/bash\n")
    assert "#SBATCH --time=1:00:00" in done.out
    assert "--signal" not in done.out
    assert f"-m scalelab.launch.slurm.job {tmp_path}/runs/RUN --attempts=3\n" in done.out
    assert done.out.endswith(f"# sbatch --parsable -- {tmp_path}/runs/RUN/slurm/job.sh\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--nodes", 2), "--nodes: means something with --slurm only"),
        (("--wait",), "--wait: means something with --slurm only"),
        (("--slurm", "--nodes", 0), "--nodes 0: expected a whole number, at least 1"),
        (("--slurm", "--nodes", "two"), "--nodes 'two': expected a whole number, at least 1"),
        (
            ("--slurm", "--nodes", 2, "--workers", 3),
            "--workers 3: 2 nodes with 2 workers each are 4; use 2 or 4, or leave it out",
        ),
        (("--slurm", "--hosts", "h1,h2"), "--hosts: Slurm chooses the hosts; leave it or --slurm out"),
        (
            ("--slurm", "--nodes", 2, "--partition", "a\nb"),
            "--partition 'a\\nb': a line of a Slurm script can't hold a line break",
        ),
        (
            ("--slurm", "--time", "1"),
            "--time 1: is 60 s, and the checkpoint is --stop-seconds 120 before its end: ask for more time, or say fewer --stop-seconds",
        ),
        (
            ("--slurm", "--slurm-arg=--nodes=4"),
            "--slurm-arg '--nodes=4': --nodes of the job's script is set by scalelab; say --nodes, or --workers",
        ),
        (("--slurm", "--nodes", 5), "--batch 24 does not divide over 5 workers; nearest: 20 or 25"),
    ],
)
def test_what_can_not_be_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[object, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*ASKED, *flags)
    assert (done.status, done.error) == (2, said)
    assert list(tmp_path.iterdir()) == []


def test_without_slurm_here_one_line_says_so_and_nothing_stays(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = command(*ASKED, "--slurm", "--nodes", 2)
    assert done.error == "sbatch: not found; --slurm works where Slurm's programs are: on a cluster's login node"
    assert list((tmp_path / "runs").iterdir()) == []


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **bodies: str) -> None:
    """Programs of these names, as shell scripts, are what is found."""
    folder.mkdir()
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_job_that_its_run_can_not_know_of_is_cancelled(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unwritable = 'for script; do :; done; mkdir -p "$(dirname "$script")/job.json/in the way"; echo 77'
    programs(tmp_path / "bin", monkeypatch, sbatch=unwritable, scancel=f"echo $@ > {tmp_path}/cancelled")
    done = command(*ASKED, "--slurm", "--nodes", 2)
    assert (done.status, "cannot be written" in done.error) == (2, True)
    assert (tmp_path / "cancelled").read_text() == "77\n"
    assert list((tmp_path / "runs").iterdir()) == []


def test_ctrl_c_while_it_is_submitted_leaves_no_run_without_its_job(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    programs(tmp_path / "bin", monkeypatch, sbatch="kill -INT $PPID; sleep 0.2; echo 77")
    assert command(*ASKED, "--slurm", "--nodes", 2).status == 130
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "slurm" / "job.json").read_text())["job"] == "77"


def test_a_job_that_would_wait_for_ever_is_given_up_with_slurms_reason(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "77|77|N/A|$state|PartitionConfig|0:00|1:00|N/A||"
    asked = f'state=PENDING; [ -e {tmp_path}/cancelled ] && state=CANCELLED; echo "{line}"'
    programs(tmp_path / "bin", monkeypatch, sbatch="echo 77", squeue=asked, scancel=f"echo $@ > {tmp_path}/cancelled")
    done = command(*ASKED, "--slurm", "--cpus-per-task", 99, "--wait")
    why = "it would wait for ever: PartitionConfig; lower --cpus-per-task, --gpus-per-node or --nodes, or choose another --partition"
    assert done.status == 1
    assert done.err.endswith(f"scalelab: job 77: {why}; cancelled\n")
    assert (tmp_path / "cancelled").read_text() == "77\n"
    (run,) = (tmp_path / "runs").iterdir()
    told = json.loads((run / "record.json").read_text())
    assert (told["status"], told["attempts"][-1]["why"]) == ("interrupted", why)


def test_a_run_that_was_cancelled_in_the_queue_begins_at_its_first_step(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    programs(tmp_path / "bin", monkeypatch, sbatch="echo 77", squeue="echo '77|77|N/A|CANCELLED|None|0:00|1:00|N/A||'")
    command(*ASKED, "--slurm")
    (run,) = (tmp_path / "runs").iterdir()
    (row,) = json.loads(command("jobs", "--json").out)["jobs"]
    assert (row["status"], row["reason"], row["attempts"]) == ("interrupted", "cancelled", 0)
    again = specs.load(run / "spec.yaml")
    again = msgspec.structs.replace(again, resume=str(run))
    assert to_check(again).resume is None
    assert command("train", "--resume", run, "--slurm", "--check-in-job").status == 0
    record = records.load(run)
    assert [(one.status, one.why) for one in record.attempts] == [("queued", None)], "the one that never began is none"
    record.attempts = [msgspec.structs.replace(record.attempts[0], host="h1", status="failed")]
    records.save(run, record)
    assert to_check(again).resume == str(run), "it trained: only a checkpoint leads on"


def test_a_job_that_could_not_begin_has_the_likely_cause_as_its_reason(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    programs(tmp_path / "bin", monkeypatch, sbatch="echo 77", squeue="echo '77|77|N/A|FAILED|JobLaunchFailure|0:00|1:00|N/A|h1|'")
    command(*ASKED, "--slurm")
    (row,) = json.loads(command("jobs", "--json").out)["jobs"]
    assert row["status"] == "failed"
    assert "FAILED (JobLaunchFailure); it printed nothing: the nodes probably don't see" in row["reason"]


def test_where_a_job_is_looked_after_is_told_with_its_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    programs(tmp_path / "bin", monkeypatch, sbatch="echo 77", squeue="")
    assert command(*ASKED, "--slurm").err.endswith("\nscalelab jobs shows it, scalelab cancel 77 ends it\n")
    said = command(*ASKED, "--slurm", "--out", "my runs").err.splitlines()[-1]
    assert said == "scalelab jobs --out 'my runs' shows it, scalelab cancel 77 --out 'my runs' ends it"
    assert json.loads(command("jobs", "--out", "my runs", "--json").out)["jobs"][0]["job"] == "77"


def test_a_dry_run_is_one_document_for_programs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(command(*ASKED, "--slurm", "--dry-run", "--json").out)
    assert told["script"].startswith("#!/bin/bash\n")
    assert told["argv"] == ["sbatch", "--parsable", "--", f"{tmp_path}/runs/RUN/slurm/job.sh"]


def test_no_requeue_is_the_scripts_word(command: Command) -> None:
    assert "--requeue" in directives(command)
    found = directives(command, "--slurm-arg=--no-requeue")
    assert "--no-requeue" in found
    assert "--requeue" not in found
