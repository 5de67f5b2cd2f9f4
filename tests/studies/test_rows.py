"""One kind of device for all rows of a study."""

from __future__ import annotations

from dataclasses import replace

import msgspec
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


@pytest.mark.parametrize(("devices", "chosen"), [(1, "cpu"), (2, "auto")])
def test_over_hosts_the_workers_of_the_first_decide_and_each_other_host_for_itself(devices: int, chosen: str) -> None:
    made = [(workers, row("ddp", workers, devices)) for workers in (1, 4)]
    fit = [(workers, replace(one, derived=msgspec.structs.replace(one.derived, oversubscribed=False))) for workers, one in made]
    rows = [replace(one, local=min(workers, 2), cores=1000) for workers, one in fit]
    found = on_one_device(rows, several=True)
    assert {one.spec.device for one in found} == {chosen}
    assert not any(one.derived.oversubscribed for one in found), "2 x 500 threads on 1000 cores of each host"


@pytest.mark.parametrize(("gpus", "chosen"), [((1, 0), "auto"), ((0, 1), "cpu")])
def test_a_host_without_gpu_that_is_compared_leaves_the_first_host_its_own(gpus: tuple[int, int], chosen: str) -> None:
    alone = [replace(row("ddp", 1, count), hosts=(host,), local=1) for host, count in zip(("h1", "h2"), gpus, strict=True)]
    together = replace(row("ddp", 2, gpus[0]), hosts=("h1", "h2"), local=1)
    assert {one.spec.device for one in on_one_device([*alone, together], several=True)} == {chosen}


def test_what_is_known_of_another_hosts_cores_stays_known() -> None:
    one = replace(row("ddp", 4, 0), local=1, cores=1000)
    crowded = replace(one, derived=msgspec.structs.replace(one.derived, oversubscribed=True))
    assert [found.derived.oversubscribed for found in on_one_device([crowded], several=True)] == [True]


def test_what_was_asked_for_stays() -> None:
    rows = on_one_device([row("single", 1, 8, "cpu"), row("ddp", 2, 8, "cpu")])
    assert {found.spec.device for found in rows} == {"cpu"}


def test_prepare_counts_this_hosts_devices(pool: Pool) -> None:
    import torch

    prepared = training.prepare(pool, Spec(train_limit=64))
    assert prepared.devices == torch.cuda.device_count()
    assert replace(prepared, devices=0).spec.device == "auto"
