"""``scalelab train --slurm``: a script that can be read and submitted by hand, a record from the start, the same numbers as anywhere."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from scalelab import strategies
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from tests import support
from tests.cluster import jobs
from tests.cluster.bounds import BOUND
from tests.cluster.cluster import Cluster
from tests.cluster.slurm_runs import going, idle, line, long, passed, scalelab, submit, when
from tests.trainings import FLAGS, VERIFY_FLAGS, completed, train
from tests.waiting import PATIENCE, until

HOSTILE = 'a\'; echo foo "x" $HOME ü %j #5'
pytestmark = pytest.mark.usefixtures("_own_cache")


def test_two_nodes_compute_what_one_machine_does_whatever_the_folder_is_called(
    slurm: Cluster, tmp_path: Path, pool: Pool
) -> None:
    folder = tmp_path / HOSTILE
    folder.mkdir()
    flags = (*FLAGS, "--strategy", "ddp", "--epochs", "2", "--nodes", "2", "--name", "first")
    shown = scalelab(slurm, folder, "train", "--slurm", *flags, "--dry-run", "--check-in-job").stdout
    done = scalelab(slurm, folder, "train", "--slurm", *flags, "--wait", "--json")
    told = json.loads(done.stdout)
    run = folder / told["run"]
    assert run.parent == folder / "runs"
    assert (told["status"], told["workers"], len(told["attempts"])) == ("completed", 2, 1)
    assert [(host["name"], host["workers"]) for host in told["environment"]["hosts"]] == [("h1", 1), ("h2", 1)]
    assert (told["derived"]["threads"], told["environment"]["backend"]) == (1, "gloo")
    assert shown.replace("RUN", run.name).startswith((run / "slurm" / "job.sh").read_text())
    assert "job " in done.stderr
    assert f"its output: {told['run']}/slurm/output.txt" in done.stderr
    assert {path.name for path in (run / "logs").iterdir()} == {"rank-0.txt", "rank-1.txt"}
    alone = completed(pool, tmp_path / "here", strategy="ddp", workers=2, epochs=2)
    assert told["losses"] == alone.losses
    assert told["epochs"][-1]["accuracy"] == alone.accuracy
    idle(slurm)
    again = slurm.h0.run(["sbatch", "--parsable", "--wait", run / "slurm" / "job.sh"], cwd="/")
    assert again.returncode == 2, "by hand: a completed run has nothing to go on with"
    assert "is completed; `scalelab train --resume` goes on with more --epochs" in (run / "slurm" / "output.txt").read_text()
    assert records.load(run).status == "completed"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--partition", "nosuch"), "Invalid partition name specified"),
        (("--slurm-arg=--frob",), "unrecognized option '--frob'"),
        (("--time", "soon"), "Invalid --time specification"),
    ],
)
def test_what_slurm_refuses_leaves_nothing_but_its_words(
    slurm: Cluster, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    done = scalelab(
        slurm,
        tmp_path,
        "train",
        "--slurm",
        *FLAGS,
        "--strategy",
        "ddp",
        "--nodes",
        "2",
        "--check-in-job",
        *flags,
        status=2,
    )
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("scalelab: sbatch: ")
    assert words in said
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_job_asks_for_what_was_said_and_is_cancelled_in_the_queue(slurm: Cluster, tmp_path: Path) -> None:
    asked = ("--nodes", "2", "--workers-per-node", "2", "--cpus-per-task", "3", "--gpus-per-node", "2", "--partition", "urgent")
    more = (
        "--time",
        "7",
        "--account",
        "lab",
        "--slurm-arg=--begin=now+1hour",
        "--slurm-arg=--comment=a b",
        "--stop-seconds",
        "45",
    )
    free = [word for word in VERIFY_FLAGS if word not in ("--threads-per-worker", "1")]
    run, job = submit(slurm, tmp_path, *free, "--strategy", "ddp", "--check-in-job", *asked, *more, "--device", "cpu")
    fields = jobs.fields(slurm.h0, job)
    assert (fields["NumNodes"], fields["NumTasks"], fields["CPUs/Task"] if "CPUs/Task" in fields else fields["Task"]) == (
        "2-2",
        "4",
        "3",
    )
    assert (fields["Partition"], fields["TimeLimit"], fields["Account"]) == ("urgent", "00:07:00", "lab")
    assert fields["TresPerNode"] == "gres:gpu:2"
    record = records.load(run)
    assert (record.status, record.workers, record.derived.threads, record.losses) == ("queued", 4, 3, [])
    shown = json.loads(scalelab(slurm, tmp_path, "jobs", "--json").stdout)["jobs"]  # also what other tests have left in squeue
    (row,) = (row for row in shown if row["job"] == job)
    assert (row["status"], row["state"], row["reason"]) == ("queued", "PENDING", "BeginTime")
    refused = scalelab(slurm, tmp_path, "train", "--resume", run, status=2)
    assert "its job waits in the queue" in refused.stderr
    assert "interrupted" in scalelab(slurm, tmp_path, "cancel", run.name[-6:]).stdout
    record = records.load(run)
    assert (record.status, record.attempts[-1].why, record.attempts[-1].job) == ("interrupted", "cancelled", job)
    assert jobs.states(slurm.h0, job) == ["CANCELLED"]
    assert "its job is over already" in scalelab(slurm, tmp_path, "cancel", job, status=2).stderr


def test_only_our_jobs_are_cancelled(slurm: Cluster, tmp_path: Path) -> None:
    job = jobs.submit(slurm.h0, "exec sleep 60", "--hold", "--output=/dev/null", cwd=tmp_path)
    assert "none of ours" in scalelab(slurm, tmp_path, "cancel", job, status=2).stderr
    assert jobs.states(slurm.h0, job) == ["PENDING"]
    slurm.h0.run(["scancel", job], check=True)


def test_ctrl_c_while_waiting_leaves_the_job_and_a_failing_rank_is_named(slurm: Cluster, tmp_path: Path) -> None:
    waiting = slurm.h0.start(
        line("train", "--slurm", "--wait", *long(tmp_path)), env=passed(), cwd=tmp_path, stderr=-1, stdout=-1
    )  # until it trains
    runs = tmp_path / "runs"
    until(lambda: list(runs.glob("*/slurm/job.json")), "the submission")
    (run,) = records.find([], runs)
    job = json.loads((run / "slurm" / "job.json").read_text())["job"]
    going(run, 1)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=BOUND)
    assert waiting.returncode == 130
    assert f"job {job} goes on; scalelab jobs shows it, scalelab cancel {job} ends it" in err
    assert jobs.states(slurm.h0, job) == ["RUNNING"]
    (victim,) = slurm.hosts["h2"].kill(r"scalelab\.launch\.slurm\.rank")
    assert victim
    record = when(run, lambda record: record.status == "failed", BOUND, "a killed rank ends the run")
    assert record.failure is not None
    assert (record.failure.rank, record.failure.host) == (1, "h2")
    assert "SIGKILL" in record.failure.error
    idle(slurm)
    jobs.reach(slurm.h0, job, "FAILED")


def test_another_version_on_a_host_is_named_before_anything_trains(slurm: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "errors.py"
    import scalelab.errors

    source = Path(scalelab.errors.__file__)
    other.write_text(source.read_text() + "\n# another version\n")
    slurm.hosts["h2"].run(["mount", "--bind", other, source], check=True)
    try:
        run, _ = submit(slurm, tmp_path, *FLAGS, "--strategy", "ddp", "--nodes", "2", "--check-in-job")
        record = when(run, lambda record: record.status == "failed", PATIENCE, "the roll call")
    finally:
        slurm.hosts["h2"].run(["umount", source], check=True)
    assert record.failure is not None
    assert "scalelab's own source is" in record.failure.error
    assert "on h2 and" in record.failure.error
    assert record.losses == []
    idle(slurm)


def test_deepspeed_trains_on_two_nodes(slurm: Cluster, tmp_path: Path, pool: Pool) -> None:
    """Horovod does in test_study_slurm.py."""
    if not strategies.installed("deepspeed"):
        support.missing("engine deepspeed; `make engines` installs it")
    here = train(pool, tmp_path / "here", strategy="ddp", workers=2, steps=3)
    flags = (*FLAGS, "--engine", "deepspeed", "--strategy", "zero1", "--steps", "3", "--nodes", "2", "--check-in-job")
    done = scalelab(slurm, tmp_path, "train", "--slurm", "--wait", "--json", *flags)
    told = json.loads(done.stdout)
    assert (told["status"], len(told["environment"]["hosts"])) == ("completed", 2)
    assert told["losses"] == pytest.approx(here.losses, rel=1e-5), "what torch's own engine computes on one host"
    idle(slurm)
