"""The local launcher: what is left behind when a run ends, whatever ended it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.conftest import Command
from tests.support import free_port
from tests.trainings import DATA_FLAGS, completed, only_run, processes_of, tiny, train
from tests.waiting import PATIENCE, until


def in_background(pool: Pool, out: Path, **values: object) -> tuple[threading.Thread, list[TrainRecord]]:
    """``train`` on a thread; its record is appended to the list."""
    ended: list[TrainRecord] = []
    thread = threading.Thread(target=lambda: ended.append(train(pool, out, **values)))
    thread.start()
    return thread, ended


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_fails_the_run_by_name(pool: Pool, tmp_path: Path, rank: int) -> None:
    thread, ended = in_background(pool, tmp_path, strategy="ddp", workers=2, steps=2_000_000)
    until(lambda: list(tmp_path.glob("*/checkpoints/last.json")))
    log = only_run(tmp_path) / "logs" / f"rank-{rank}.txt"
    (victim,) = processes_of(str(log))
    os.kill(victim, signal.SIGKILL)
    thread.join(60)
    (record,) = ended
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.rank == rank
    assert "SIGKILL" in record.failure.error
    assert record.losses == [step.loss for step in records.read_steps(tmp_path / record.run)]
    assert record.steps == len(record.losses) > 0
    assert processes_of(str(tmp_path)) == []


RAISING = """
import os, torch
from torch import nn
class Net(nn.Sequential):
    calls = 0
    def forward(self, x):
        self.calls += self.training
        if self.calls == 6 and os.environ["RANK"] == "1":
            raise ValueError("the user's own bug on " + os.environ["RANK"])
        return super().forward(x)
def build(num_classes):
    return Net(nn.Flatten(), nn.Linear(192, num_classes))
"""


@pytest.fixture
def raising(tmp_path: Path) -> str:
    """A model that raises on rank 1 at its sixth step."""
    (tmp_path / "raising.py").write_text(RAISING)
    return f"{tmp_path}/raising.py:build"


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_the_first_failing_ranks_own_traceback_is_what_is_read(pool: Pool, tmp_path: Path, raising: str, strategy: str) -> None:
    record = train(pool, tmp_path / "runs", strategy=strategy, workers=3, model=raising, model_args={}, epochs=9)
    assert record.status == "failed"
    assert record.failure is not None
    assert (record.failure.rank, record.failure.host) == (1, socket.gethostname())
    assert record.failure.error == "ValueError: the user's own bug on 1"
    assert "raising.py" in record.failure.traceback
    assert record.losses == [step.loss for step in records.read_steps(tmp_path / "runs" / record.run)]
    assert record.steps == 4  # the first epoch's were written
    assert processes_of(str(tmp_path / "runs")) == []


def test_the_command_shows_that_traceback_once(command: Command, tmp_path: Path, raising: str) -> None:
    words = [*DATA_FLAGS, "--model", raising, "--strategy", "ddp", "--workers", 2, "--epochs", 5]
    ended = command("train", *words, "--out", tmp_path / "runs")
    assert ended.status == 1
    assert ended.err.count("the user's own bug on 1") == 2  # the traceback's last line, and the one line after it
    assert "onnection" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("scalelab: ")]
    assert "rank 1 on" in line
    assert f"{only_run(tmp_path / 'runs')}/logs/rank-1.txt" in ended.err


def test_one_log_a_rank(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "talking.py").write_text(
        "import os\nfrom torch import nn\ndef build(num_classes):\n"
        "    print('hello from', os.environ.get('RANK'))\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    record = completed(pool, tmp_path / "runs", strategy="ddp", workers=3, model=f"{tmp_path}/talking.py:build", model_args={})
    for rank in range(3):
        assert (tmp_path / "runs" / record.run / "logs" / f"rank-{rank}.txt").read_text() == f"hello from {rank}\n"


def test_threads_are_set_and_recorded(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(
        "import os, torch\nfrom torch import nn\ndef build(num_classes):\n"
        "    if 'RANK' in os.environ:\n        print(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    values = {"model": f"{tmp_path}/counting.py:build", "model_args": {}, "threads_per_worker": 3}
    record = completed(pool, tmp_path / "runs", workers=2, strategy="ddp", **values)
    assert (tmp_path / "runs" / record.run / "logs" / "rank-1.txt").read_text() == "3 3\n"
    assert (record.derived.threads, record.environment.threads) == (3, 3)


def test_more_threads_than_cores_is_noted(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, workers=2, strategy="ddp", threads_per_worker=64, steps=1)
    assert record.derived.oversubscribed
    assert any(note.startswith("oversubscribed: 2 workers x 64 threads") for note in record.notes)


def test_many_launches_at_once_do_not_collide(pool: Pool, tmp_path: Path) -> None:
    """Three launchers, each with trainings one after another, all at the same time."""

    def several(name: str, launcher: Pool) -> None:
        for _ in range(4):
            done.append(completed(launcher, tmp_path / name, strategy="ddp", workers=2, epochs=2).losses)

    done: list[list[float]] = []
    with Pool() as second, Pool() as third:
        launchers = {"a": pool, "b": second, "c": third}
        threads = [threading.Thread(target=several, args=each) for each in launchers.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(done) == 12
    assert all(losses == done[0] for losses in done)


def test_checking_a_spec_leaves_nothing_behind(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ScalelabError):
        training.prepare(pool, tiny(tmp_path / "runs", batch=1000))
    training.prepare(pool, tiny(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_ranks_can_be_started_by_torchruns_variables_alone(tmp_path: Path, pool: Pool) -> None:
    """``python -m scalelab.worker SPEC.yaml`` on every rank, whoever starts it: here, this test does."""
    prepared = training.prepare(pool, tiny(tmp_path, strategy="ddp", workers=2))
    folder = records.create(tmp_path, "by-hand")
    training.begin(folder, prepared, pool.hosts(prepared.spec), ["test"])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "scalelab.worker", str(folder / "spec.yaml")],
            env={**os.environ, **shared, "RANK": str(r), "LOCAL_RANK": str(r)},
        )
        for r in range(2)
    ]
    assert [rank.wait(2 * PATIENCE) for rank in ranks] == [0, 0]  # each imports torch
    assert records.load(folder).losses == completed(pool, tmp_path / "launched", strategy="ddp", workers=2).losses


def test_a_world_of_another_size_is_refused(pool: Pool, tmp_path: Path) -> None:
    prepared = training.prepare(pool, tiny(tmp_path, strategy="ddp", workers=2))
    folder = records.create(tmp_path, "wrong")
    training.begin(folder, prepared, pool.hosts(prepared.spec), ["test"])
    log = tmp_path / "log.txt"
    process = pool.start("scalelab.worker.main:rank", [str(folder / "spec.yaml")], {"RANK": "0", "WORLD_SIZE": "3"}, log)
    assert pool.wait(process) == 1
    assert "WORLD_SIZE is 3 but the spec says workers 2" in log.read_text()
