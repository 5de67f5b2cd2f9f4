"""Trainings over hosts that share no folder: equal to those of one host to the bit, and all they leave is here."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scalelab import spec as specs
from scalelab.cli.train import spec_of
from scalelab.errors import ScalelabError
from scalelab.launch import training
from scalelab.launch.hosts.placement import Place
from scalelab.launch.hosts.remote import Remote
from scalelab.launch.pool import Pool
from scalelab.record import folder as records
from scalelab.record import samples
from scalelab.record.schema import TrainRecord
from scalelab.studies.running import ceiling, planning, running
from scalelab.studies.running.running import Watching
from scalelab.studies.study import Asked
from scalelab.studies.verifying.variants import named
from scalelab.studies.verifying.verify import verify
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import _possible
from tests.cluster.entering import ssh_of
from tests.cluster.host import Host
from tests.studies import toy
from tests.trainings import completed, equal, final, scores, tiny

HOSTS = ("h1", "h2", "h3", "h4")
RECIPE: dict[str, Any] = {"strategy": "ddp", "workers": 4, "epochs": 3, "augment": "crop+flip", "schedule": "cosine"}


@dataclass(frozen=True)
class Here:
    """A launcher in this process over four hosts, and the lines that it showed."""

    remote: Remote
    shown: list[str]
    scratch: Path
    hosts: dict[str, Host]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """Warm agents for all tests of this file, on a cluster of its own: on the shared one no test leaves a process."""
    _possible()
    shown: list[str] = []
    folder = tmp_path_factory.mktemp("hosts")
    with Cluster(folder=folder) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{ssh_of(cluster, folder / 'bin')}:{os.environ['PATH']}")
        with Remote([Place(host) for host in HOSTS], say=shown.append) as remote:
            yield Here(remote, shown, folder, cluster.hosts)
        for name in HOSTS:
            cluster.hosts[name].idle()
            assert not list(cluster.hosts[name].path("/mnt/tmp").glob("scalelab-*"))


def train(here: Here, out: Path, **values: Any) -> TrainRecord:
    """A small training over the hosts, which must not fail."""
    spec = spec_of({**values, "resume": str(values["resume"])}) if "resume" in values else tiny(out, **values)
    record = training.train(here.remote, training.prepare(here.remote, spec), ["test"], lambda folder: None)
    assert record.status == "completed", record.failure
    return record


def test_the_same_to_the_bit_as_on_one_host(here: Here, pool: Pool, tmp_path: Path) -> None:
    there = train(here, tmp_path / "hosts", **RECIPE, sample_seconds=0.05)
    one = completed(pool, tmp_path / "one", **RECIPE)
    assert there.losses == one.losses
    assert scores(there) == scores(one)
    assert equal(final(tmp_path / "hosts", there), final(tmp_path / "one", one))
    assert [(host.name, host.workers) for host in there.environment.hosts] == [(name, 1) for name in HOSTS]
    assert len(there.memory_bytes.per_worker) == 4
    folder = tmp_path / "hosts" / there.run
    assert sorted(path.name for path in (folder / "logs").iterdir()) == [f"rank-{rank}.txt" for rank in range(4)]
    assert {sample.rank for sample in samples.read(folder)} == set(range(4))  # each host's came from there
    assert there.resources is not None
    assert there.resources.sent_bytes_per_second.median  # of the interface that the ranks speak over
    assert not list(folder.rglob("*.tmp"))


def test_a_run_goes_on_with_other_hosts_though_they_have_none_of_its_files(here: Here, pool: Pool, tmp_path: Path) -> None:
    """Half on one host, then on two others, then on all: as if it had never stopped."""
    values = {**RECIPE, "batch_norm": "sync"}
    whole = completed(pool, tmp_path / "whole", **values)
    first = completed(pool, tmp_path / "parts", **values, stop_after_epoch=1)
    folder = tmp_path / "parts" / first.run
    train(here, tmp_path, resume=folder, workers=2, stop_after_epoch=2)
    last = train(here, tmp_path, resume=folder, workers=4)
    assert last.losses[:4] == whole.losses[:4]
    assert last.losses == pytest.approx(whole.losses, rel=1e-4)
    assert [attempt.first_step for attempt in last.attempts] == [0, 4, 8]
    assert [host.name for host in last.environment.hosts] == list(HOSTS)


def test_resume_is_exact_to_the_bit(here: Here, pool: Pool, tmp_path: Path) -> None:
    values = {**RECIPE, "strategy": "zero3", "workers": 2, "optimizer": "adamw", "lr": 0.01}
    whole = completed(pool, tmp_path / "whole", **values)
    first = train(here, tmp_path / "parts", **values, stop_after_epoch=1)
    second = train(here, tmp_path / "parts", resume=tmp_path / "parts" / first.run)
    assert second.losses == whole.losses
    assert equal(final(tmp_path / "parts", second), final(tmp_path / "whole", whole))


def test_a_trace_of_all_hosts_is_one(here: Here, tmp_path: Path) -> None:
    record = train(here, tmp_path, strategy="ddp", workers=2, epochs=1, profile=2, warmup_steps=1)
    folder = tmp_path / record.run
    events = json.loads(gzip.decompress((folder / records.TRACE).read_bytes()))["traceEvents"]
    assert {event["pid"] for event in events if event.get("ph") == "X"} == {0, 1}
    assert not (folder / "profile").exists()


TALKS = """
import sys
from torch import nn

def build(num_classes):
    print("välkommen\\x1b[31m", flush=True)
    print("Traceback (most recent call last):\\n  File x\\nValueError: handled", file=sys.stderr, flush=True)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))
"""


def test_logs_stream_back_with_host_and_rank_in_front(here: Here, tmp_path: Path) -> None:
    (tmp_path / "talks.py").write_text(TALKS)
    here.shown.clear()
    record = train(here, tmp_path, strategy="ddp", workers=2, epochs=1, model=f"{tmp_path}/talks.py:build", model_args={})
    assert {line for line in here.shown if "/" in line.partition(" ")[0]} == {
        f"{place} | {text}" for place in ("h1/0", "h2/1") for text in ("välkommen\x1b[31m", "ValueError: handled")
    }
    assert "  File x\n" in (tmp_path / record.run / "logs" / "rank-1.txt").read_text()


def test_a_study_over_hosts_measures_the_ceiling_of_each_on_it(here: Here, tmp_path: Path) -> None:
    base = specs.from_mapping({**toy.STUDY.base, "strategy": "ddp", "workers": 2})
    planned = planning.plan(here.remote, toy.STUDY, Asked(base, {"batch": [8]}, {}, False, 2), 1, tmp_path)
    record = running.carry_out(here.remote, planned, Watching())
    assert {key: (one.host, one.workers, one.threads) for key, one in record.ceilings.items()} == {
        f"1 x 1 on cpu in fp32, {name}": (name, 1, 1) for name in ("h1", "h2")
    }
    assert all((one.flops_per_second.median or 0) > 1e6 for one in record.ceilings.values())
    share = record.rows[0].figures["achieved"]
    assert 0 < (share.median or 0) < 1 or "ceiling was measured while the machine was busy" in (share.reason or "")
    for one in record.ceilings.values():
        kept = list(here.hosts[one.host].path("/mnt/home/.cache/scalelab").glob("ceiling-*.json"))
        assert len(kept) == (one.flops_per_second.reason is None), "what was measured on a quiet host is known there from then on"


def test_of_a_host_that_is_gone_there_is_no_ceiling_and_the_study_goes_on(here: Here, pool: Pool, tmp_path: Path) -> None:
    row = training.prepare(pool, tiny(tmp_path, strategy="ddp", workers=1, epochs=1))
    with Remote([Place("h9")]) as gone:
        assert ceiling.measured(gone, [row], {}) == {}


BREAKS = """
import os
from torch import nn

class Breaks(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))

    def forward(self, images):
        if os.environ.get("RANK") == "1":
            raise ValueError("the bug")
        return self.layers(images)
"""


def test_the_first_failing_ranks_own_traceback_is_told(here: Here, tmp_path: Path) -> None:
    model = tmp_path / "breaks.py"
    model.write_text(BREAKS)
    spec = tiny(tmp_path / "runs", strategy="ddp", workers=4, epochs=1, model=f"{model}:Breaks", model_args={})
    record = training.train(here.remote, training.prepare(here.remote, spec), ["test"], lambda folder: None)
    assert record.failure is not None
    assert (record.failure.error, record.failure.host, record.failure.rank) == ("ValueError: the bug", "h2", 1)
    assert "breaks.py" in record.failure.traceback


UNLIKE = """
import socket
import numpy as np

def make():
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (64, 3, 8, 8), dtype=np.uint8), np.arange(64) % 4
    if socket.gethostname() == "h2":
        images[17] = images[3]
    return (images, labels), (images[:16], labels[:16])
"""


def test_a_host_that_has_another_image_is_named_before_anything_trains(here: Here, tmp_path: Path) -> None:
    (tmp_path / "unlike.py").write_text(UNLIKE)
    spec = tiny(tmp_path, strategy="ddp", workers=2, epochs=1, data=f"{tmp_path}/unlike.py:make")
    record = training.train(here.remote, training.prepare(here.remote, spec), ["test"], lambda folder: None)
    assert record.failure is not None
    assert record.failure.error == (
        "rank 1 on h2 has other images than rank 0 on h1: 1 training and 0 test images of those that were compared, first training image "
        "17; copy the same data to all hosts"
    )
    assert record.losses == []


def test_verify_over_hosts(here: Here, tmp_path: Path) -> None:
    base = tiny(tmp_path, workers=2, steps=2, batch_norm="sync", test_limit=4)
    result = verify(here.remote, base, named(["ddp", "pipeline"], "torch"), False, lambda cell: None)
    assert [(cell.strategy, cell.status) for cell in result.cells] == [("ddp", "passed"), ("pipeline", "passed")]


def test_an_error_in_the_spec_reads_as_on_one_host(here: Here, tmp_path: Path) -> None:
    with pytest.raises(ScalelabError, match=r"^unknown model 'nonesuch'"):
        training.prepare(here.remote, tiny(tmp_path, model="nonesuch", workers=2, strategy="ddp"))
