"""What a finished training leaves in its folder."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scalelab import spec as specs
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record.schema import TrainRecord
from tests.trainings import SPREAD, completed, tiny, train


def test_a_run_folder_holds_what_the_design_says(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="ddp", workers=2, epochs=2)
    folder = tmp_path / record.run
    names = {path.name for path in folder.iterdir()}
    assert {"record.json", "steps.jsonl", "steps.parquet", "spec.yaml", "logs", "checkpoints"} <= names
    assert sum(name.startswith("events.out.tfevents") for name in names) == 1
    assert sorted(path.name for path in (folder / "logs").iterdir()) == ["rank-0.txt", "rank-1.txt"]
    assert not [name for name in names if name.endswith(".tmp")]


def test_steps_parquet_equals_steps_jsonl(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="ddp", workers=2, epochs=2)
    lines = [msgspec.to_builtins(step) for step in records.read_steps(tmp_path / record.run)]
    assert len(lines) == 8
    assert pq.read_table(tmp_path / record.run / "steps.parquet").to_pylist() == lines


def test_tensorboard_reads_the_events(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=2)
    events = EventAccumulator(str(tmp_path / record.run)).Reload()
    losses = events.Scalars("train/loss")
    assert losses[-1].step == 8
    assert [e.value for e in losses] == pytest.approx([sum(record.losses[:4]) / 4, sum(record.losses[4:]) / 4], rel=1e-6)
    accuracies = [(e.step, pytest.approx(e.value)) for e in events.Scalars("test/accuracy")]
    assert accuracies == [(4, record.epochs[0].accuracy), (8, record.accuracy)]
    assert {"train/learning_rate", "train/images_per_second", "test/loss", "test/precision", "test/recall"} <= set(
        events.Tags()["scalars"]
    )


def test_the_spec_of_a_record_can_be_fed_back(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="ddp", workers=2, lr=0.03, name='it\'s: "a" name')
    spec = specs.load(tmp_path / record.run / "spec.yaml")
    assert spec == tiny(tmp_path, strategy="ddp", workers=2, lr=0.03, name='it\'s: "a" name')
    assert msgspec.convert(record.spec, specs.Spec) == spec
    values = msgspec.to_builtins(spec)
    again = completed(pool, Path(values.pop("out")), **values)
    assert again.losses == record.losses


def test_the_record_on_disk_is_the_one_returned(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path)
    assert msgspec.json.encode(records.load(tmp_path / record.run)) == msgspec.json.encode(record)
    assert msgspec.json.decode(msgspec.json.encode(record), type=TrainRecord).losses == record.losses


def test_derived_numbers_and_facts(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="zero3", workers=2, accumulate=3)
    derived = record.derived
    assert (derived.batch, derived.micro_batch, derived.accumulate, derived.data, derived.shard, derived.pipe) == (
        24,
        4,
        3,
        1,
        2,
        1,
    )
    assert record.data is not None
    assert (record.data.train, record.data.test, record.data.shape) == (96, 30, [3, 8, 8])
    assert record.environment.backend in ("gloo", "nccl")
    assert record.attempts[0].start_seconds is not None
    assert record.attempts[0].start_seconds > 0


def test_throughput_is_the_batch_over_the_step_time(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, epochs=10, warmup_steps=5)
    steps = [step.seconds for step in records.read_steps(tmp_path / record.run)][5:]
    assert record.step_seconds.n == record.images_per_second.n == 3  # of 35 timed steps, blocks of 10
    means = sorted(sum(steps[i : i + 10]) / 10 for i in (0, 10, 20))
    assert record.step_seconds.median == pytest.approx(means[1])
    assert record.images_per_second.median == pytest.approx(24 / means[1])


def test_a_run_shorter_than_its_warm_up_claims_no_throughput(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, steps=3, warmup_steps=5)
    for figure in (record.images_per_second, record.step_seconds, record.compute_seconds):
        assert figure.median is None
        assert "warm-up" in (figure.reason or "")


def test_sharding_saves_the_memory_it_promises(pool: Pool, tmp_path: Path) -> None:
    """Bytes that a worker holds of parameters, gradients and momentum, as shares of the model's size, on 2 workers."""
    promised = {"ddp": (1, 1, 1), "zero1": (1, 1, 0.5), "zero2": (0.5, 0.5, 0.5), "zero3": (0.5, 0.5, 0.5)}
    for strategy in SPREAD:
        record = completed(pool, tmp_path, strategy=strategy, workers=2, steps=2, model_args={"width": 16})
        assert record.model is not None
        memory, size = record.memory_bytes, record.model.bytes
        found = (memory.parameters or 0, memory.gradients or 0, memory.optimizer or 0)
        for share, bytes_held in zip(promised[strategy], found, strict=True):
            assert bytes_held / size == pytest.approx(
                share, abs=0.3 if strategy == "zero1" else 0.1
            )  # zero1 deals out whole tensors


def test_peak_memory_is_one_number_a_worker(pool: Pool, tmp_path: Path) -> None:
    memory = completed(pool, tmp_path, strategy="ddp", workers=3).memory_bytes
    assert memory.peak.n == len(memory.per_worker) == 3
    assert all((memory.baseline or 0) * 0.8 < peak < 8e9 for peak in memory.per_worker)


def test_a_larger_model_has_a_larger_peak(pool: Pool, tmp_path: Path) -> None:
    small, large = (
        completed(pool, tmp_path, model_args={"width": width}, steps=2).memory_bytes.peak.median or 0 for width in (4, 256)
    )
    weights = 256 * 512 * 9 * 4 + 512 * 1024 * 9 * 4
    assert large - small > 2 * weights  # the weights and the gradients at the very least


def test_a_failed_run_has_a_record_too(pool: Pool, tmp_path: Path) -> None:
    record = train(pool, tmp_path, lr=1e20, epochs=3)
    assert record.status == "failed"
    assert records.load(tmp_path / record.run).failure == record.failure
