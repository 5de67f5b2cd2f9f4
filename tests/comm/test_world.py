from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

from scalelab import spec as specs
from scalelab.comm import world
from scalelab.errors import RunError
from scalelab.record.schema import Host
from scalelab.worker.main import with_devices


def agreed(*devices: tuple[str, str]) -> list[tuple[set[str], tuple[str, ...]]]:
    store = dist.HashStore()
    with ThreadPoolExecutor(len(devices)) as threads:
        under_way = [threads.submit(world.agree, store, rank, len(devices), *device) for rank, device in enumerate(devices)]
        return [one.result(10) for one in under_way]


def test_all_ranks_learn_that_some_have_a_gpu_and_others_none() -> None:
    first, second, third = agreed(("cuda", "NVIDIA H200"), ("cpu", "cpu"), ("cuda", "NVIDIA T4"))
    assert first == ({"cuda", "cpu"}, ("NVIDIA H200", "cpu", "NVIDIA T4"))
    assert second == third == ({"cuda", "cpu"}, ())


def test_ranks_that_are_alike_agree_on_that() -> None:
    assert [kinds for kinds, _ in agreed(("cuda", "a"), ("cuda", "b"))] == [{"cuda"}, {"cuda"}]
    assert agreed(("cpu", "cpu")) == [({"cpu"}, ("cpu",))]


def test_what_gloo_can_not_do_for_gpus_is_refused_where_only_some_have_one() -> None:
    for values in ({"strategy": "zero3"}, {"strategy": "ddp", "engine": "deepspeed"}, {"strategy": "ddp", "batch_norm": "sync"}):
        with pytest.raises(RunError, match="some workers have a GPU and others none: of the strategies only ddp and local-sgd"):
            world._check_mixed(specs.from_mapping({"workers": 2, **values}))
    world._check_mixed(specs.from_mapping({"workers": 2, "strategy": "ddp"}))


def test_the_record_has_each_hosts_own_gpus() -> None:
    hosts = [Host(name="a", workers=2), Host(name="b", workers=1)]
    assert [host.devices for host in with_devices(hosts, ("H200", "H200", "cpu"))] == [["H200"], []]
    assert [host.devices for host in with_devices([Host(name="a")], ("H200", "T4"))] == [["H200", "T4"]]
