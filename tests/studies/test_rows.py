"""One kind of device for all rows of a study."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scalelab import spec as specs
from scalelab import strategies
from scalelab.batch import derive
from scalelab.launch import training
from scalelab.launch.launcher import Prepared
from scalelab.launch.pool import Pool
from scalelab.record.schema import DataFacts, ModelFacts
from scalelab.spec import Spec
from scalelab.studies.running.rows import on_one_device


def row(strategy: str, workers: int, devices: int, device: str = "auto") -> Prepared:
    """What ``prepare`` would answer on a host with so many GPUs, which this one may not have."""
    spec = specs.from_mapping({"strategy": strategy, "workers": workers, "device": device, "threads_per_worker": 500})
    facts = ModelFacts(name="m", parameters=1, bytes=4), DataFacts(name="d", train=64, test=1, classes=["a"], shape=[1, 8, 8])
    return Prepared(spec, derive(spec, strategies.degrees(spec), 4), *facts, {"total_steps": 1}, devices)


@pytest.mark.parametrize(("devices", "chosen"), [(0, "cpu"), (1, "cpu"), (2, "cuda"), (8, "cuda")])
def test_the_row_with_the_most_workers_decides(devices: int, chosen: str) -> None:
    rows = on_one_device([row("single", 1, devices), row("ddp", 2, devices), row("zero3", 2, devices)])
    assert {found.spec.device for found in rows} == {chosen}
    assert {found.derived.oversubscribed for found in rows} == {chosen == "cpu"}  # 500 threads matter on a CPU only


def test_what_was_asked_for_stays() -> None:
    rows = on_one_device([row("single", 1, 8, "cpu"), row("ddp", 2, 8, "cpu")])
    assert {found.spec.device for found in rows} == {"cpu"}


def test_prepare_counts_this_hosts_devices(pool: Pool) -> None:
    import torch

    prepared = training.prepare(pool, Spec(train_limit=64))
    assert prepared.devices == torch.cuda.device_count()
    assert replace(prepared, devices=0).spec.device == "auto"
