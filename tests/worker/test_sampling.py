"""What each worker used, sampled while it trains."""

from __future__ import annotations

import resource
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import torch

from scalelab.launch.pool import Pool
from scalelab.measure import resources
from scalelab.record import folder as records
from scalelab.record import samples
from scalelab.record.schema import Sample
from scalelab.worker.sampling import _append
from tests.trainings import completed

LONG = {"epochs": 40, "evaluate": False, "checkpoint": False}


def test_each_worker_leaves_a_line_a_sample(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="ddp", workers=2, sample_seconds=0.1, **LONG)
    folder = tmp_path / record.run
    lines = [path.read_bytes().splitlines() for path in sorted((folder / "resources").iterdir())]
    assert len(lines) == 2
    for rank, own in enumerate(lines):
        taken = [msgspec.json.decode(line, type=Sample) for line in own]
        assert len(taken) >= 2
        assert {sample.rank for sample in taken} == {rank}
        assert all(sample.resident_bytes > 10e6 and sample.threads > 1 for sample in taken)
        assert max(sample.cpu_percent for sample in taken) > 5
        assert max(sample.sent_per_second or 0 for sample in taken) > 1000  # gradients over the loopback
    assert [sample.at for sample in samples.read(folder)] == sorted(sample.at for sample in samples.read(folder))


def test_the_record_has_their_figures_and_says_what_is_missing(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, strategy="ddp", workers=2, sample_seconds=0.1, **LONG)
    found = record.resources
    assert found is not None
    assert found.cpu_percent.n >= 1
    assert (found.resident_bytes.median or 0) > 10e6
    assert (found.sent_bytes_per_second.median or 0) > 0
    if record.environment.device == "cpu":
        assert (found.gpu_percent.median, found.gpu_percent.reason) == (None, resources.NO_GPU)
    assert "per cent of one core" in record.method["resources"]


def test_one_worker_sends_nothing_and_none_is_sampled_unasked(pool: Pool, tmp_path: Path) -> None:
    alone = completed(pool, tmp_path, sample_seconds=0.1, **LONG)
    assert alone.resources is not None
    assert alone.resources.sent_bytes_per_second.reason == resources.ALONE
    off = completed(pool, tmp_path, sample_seconds=0)
    assert off.resources is None
    assert not (tmp_path / off.run / "resources").exists()


def test_a_step_ended_between_the_samples_around_it(pool: Pool, tmp_path: Path) -> None:
    before = time.time()
    record = completed(pool, tmp_path, sample_seconds=0.1, **LONG)
    steps = list(records.read_steps(tmp_path / record.run))
    ends = [step.at or 0.0 for step in steps]
    assert before < min(ends) < max(ends) < time.time()
    gaps = [b - a for a, b in pairwise(ends)]
    assert all(gap > 0 for gap in gaps)
    assert sum(gaps) == pytest.approx(sum(step.seconds for step in steps[1:]), rel=0.5)
    assert samples.read(tmp_path / record.run)[-1].at > max(ends) - 0.2


def test_a_resumed_run_appends_and_its_figures_are_the_new_attempts(pool: Pool, tmp_path: Path) -> None:
    first = completed(pool, tmp_path, sample_seconds=0.1, epochs=20, evaluate=False)
    folder = tmp_path / first.run
    taken = len(samples.read(folder))
    again = completed(pool, tmp_path, resume=folder, epochs=22, sample_seconds=0)
    assert (len(samples.read(folder)), again.resources) == (taken, None)
    again = completed(pool, tmp_path, resume=folder, epochs=40, sample_seconds=0.05)
    assert again.resources is not None
    assert len(samples.read(folder)) > taken
    assert len(samples.read(folder, since=time.time())) == 0


def test_a_line_that_does_not_fit_is_not_there_in_part(tmp_path: Path) -> None:
    path, limits = tmp_path / "rank-0.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    with path.open("ab", buffering=0) as file:
        _append(file.fileno(), b"first\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
        try:
            with pytest.raises(OSError, match="full"):
                _append(file.fileno(), b"second\n")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"first\n"


def test_lines_that_are_not_whole_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "resources").mkdir()
    whole = msgspec.json.encode(Sample(at=1.0, rank=0, cpu_percent=1.0, threads=1, resident_bytes=1))
    torn = whole[:20] + whole + b"\n"  # its host went down in the middle of a line, and the run was resumed
    (tmp_path / "resources" / "rank-0.jsonl").write_bytes(whole + b"\n" + torn + whole + b"\n" + whole[:9])
    assert [sample.at for sample in samples.read(tmp_path)] == [1.0, 1.0]


def test_cpu_time_is_told_in_per_cent_of_one_core() -> None:
    reader = resources.Reader(torch.device("cpu"), None)
    end = time.process_time() + 0.3
    while time.process_time() < end:
        sum(range(1000))
    wall, busy = reader.since(), reader.sample(0).cpu_percent
    assert busy / 100 * wall == pytest.approx(0.3, abs=0.1)


def test_the_interface_is_the_one_that_leads_to_the_rendezvous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert resources.interface("127.0.0.1") == "lo"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "none-such")
    assert resources.interface("127.0.0.1") == "lo"
