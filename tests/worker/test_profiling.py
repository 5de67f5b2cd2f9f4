"""``--profile``: a trace of a few steps, all ranks in one file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from scalelab.errors import ScalelabError
from scalelab.launch.pool import Pool
from scalelab.record.schema import TrainRecord
from scalelab.worker.profiling import merged
from tests.conftest import Command
from tests.trainings import FLAGS, completed, equal, final, only_run, train

COLLECTIVES = {"ddp": "gloo:all_reduce", "zero3": "gloo:all_gather", "pipeline": "gloo:send"}


def events(out: Path, record: TrainRecord) -> list[dict[str, Any]]:
    found = json.loads(gzip.decompress((out / record.run / "trace.json.gz").read_bytes()))
    return list(found["traceEvents"])


@pytest.mark.parametrize("strategy", ["single", *COLLECTIVES])
def test_every_rank_is_there_with_forward_backward_and_collectives(pool: Pool, tmp_path: Path, strategy: str) -> None:
    workers = 1 if strategy == "single" else 2
    record = completed(pool, tmp_path, strategy=strategy, workers=workers, profile=2, warmup_steps=1, device="cpu")
    found = events(tmp_path, record)
    names = {e["pid"]: e["args"]["name"] for e in found if e["name"] == "process_name"}
    assert names == {rank: f"rank {rank}" for rank in range(workers)}
    for rank in range(workers):
        own = [e for e in found if e["pid"] == rank and e["ph"] == "X"]
        said = {e["name"] for e in own}
        assert {"step 2", "step 3"} <= said
        assert "step 4" not in said
        assert "aten::conv2d" in said
        assert any("ConvolutionBackward" in name for name in said)
        assert any(name.startswith("Optimizer.step") for name in said)
    if workers > 1:
        assert any(e["name"].startswith(COLLECTIVES[strategy]) for e in found)
    assert not (tmp_path / record.run / "profile").exists()


def test_the_ranks_clocks_are_one(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="ddp", workers=2, profile=3, warmup_steps=1, device="cpu")
    found = events(tmp_path, record)
    assert min(e["ts"] for e in found if "dur" in e) == 0
    reduces = [[e for e in found if e["pid"] == rank and e["name"] == "gloo:all_reduce"] for rank in (0, 1)]
    assert len(reduces[0]) == len(reduces[1]) >= 3
    for one, other in zip(*(sorted(own, key=lambda e: e["ts"]) for own in reduces), strict=True):
        assert max(one["ts"], other["ts"]) < min(one["ts"] + one["dur"], other["ts"] + other["dur"])  # both are under way


def test_traced_steps_train_and_are_not_timed(pool: Pool, tmp_path: Path) -> None:
    plain = completed(pool, tmp_path / "plain", strategy="ddp", workers=2, epochs=12, warmup_steps=2)
    traced = completed(pool, tmp_path / "traced", strategy="ddp", workers=2, epochs=12, warmup_steps=2, profile=26)
    assert traced.losses == plain.losses
    assert equal(final(tmp_path / "traced", traced), final(tmp_path / "plain", plain))
    assert (plain.step_seconds.n, traced.step_seconds.n) == (4, 2)  # blocks of the 46 and of the 20 steps that are timed
    assert any("steps 3 to 28 were traced" in note for note in traced.notes)
    steps = {e["name"] for e in events(tmp_path / "traced", traced) if e["name"].startswith("step ")}
    assert len(steps) == 26  # over seven epochs


def test_a_resumed_run_traces_its_own_steps(pool: Pool, tmp_path: Path) -> None:
    first = completed(pool, tmp_path, epochs=1)
    again = completed(pool, tmp_path, resume=tmp_path / first.run, epochs=2, profile=1, warmup_steps=1)
    assert {e["name"] for e in events(tmp_path, again) if e["name"].startswith("step ")} == {"step 6"}


def test_a_training_that_ends_in_between_says_which_it_traced(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=2, stop_after_epoch=1, profile=4, warmup_steps=2)
    assert {e["name"] for e in events(tmp_path, record) if e["name"].startswith("step ")} == {"step 3", "step 4"}
    assert any("steps 3 to 4 were traced" in note for note in record.notes)
    assert record.step_seconds.reason == "no steps but the 2 of warm-up and the 4 that were traced: train longer"


def test_a_training_that_is_too_short_is_refused(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match="the training has 4 steps, of which the first 2 are warm-up"):
        train(pool, tmp_path, profile=3, warmup_steps=2)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_where_it_is(command: Command, tmp_path: Path) -> None:
    ended = command("train", *FLAGS, "--profile", 2, "--out", tmp_path)
    assert ended.status == 0, ended.err
    assert "trace.json.gz" in ended.out
    assert (only_run(tmp_path) / "trace.json.gz").exists()


def part(pid: int, base: int, ts: float, **more: Any) -> dict[str, Any]:
    """What a rank's profiler writes: its own process, a GPU, an arrow, the profiler's marks."""
    return {
        "baseTimeNanoseconds": base,
        "traceEvents": [
            {"ph": "X", "cat": "kernel", "name": "kernel", "pid": 0, "tid": 7, "ts": ts + 1, "dur": 2},
            {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": pid, "tid": pid, "ts": ts, "dur": 5, **more},
            {"ph": "s", "cat": "ac2g", "id": 1, "name": "ac2g", "pid": pid, "tid": pid, "ts": ts},
            {"ph": "i", "name": "Record Window End", "pid": "", "tid": "", "ts": 0},
            {"ph": "X", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": "PyTorch Profiler", "ts": 0, "dur": 1},
        ],
    }


def test_bases_and_clocks_of_other_hosts_are_taken_off() -> None:
    found = merged([(0, 0.0, part(4711, 5_000_000, 100.0)), (1, 250.0, part(4711, 6_000_000, 100.0))])["traceEvents"]
    times = {e["pid"]: e["ts"] for e in found if e.get("cat") == "cpu_op"}
    assert times == {0: 0.0, 1: 1000.0 - 250.0}
    assert {e["pid"] for e in found if e.get("cat") == "kernel"} == {1000, 1001}
    assert len({e["id"] for e in found if e["ph"] == "s"}) == 2
    assert {e["args"]["name"] for e in found if e["name"] == "process_name"} == {
        "rank 0",
        "rank 1",
        "rank 0: GPU 0",
        "rank 1: GPU 0",
    }
    assert not [e for e in found if not isinstance(e["pid"], int)]
