"""Engine horovod: the same training as one process, counted, timed and ended like every other strategy's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from scalelab import strategies
from scalelab.errors import NotApplicable
from scalelab.launch.pool import Pool
from tests.conftest import Command
from tests.support import missing
from tests.trainings import VERIFY_FLAGS, completed, final, largest_difference, processes_of, train

SAME: dict[str, Any] = {"precision": "fp64", "batch_norm": "sync", "epochs": 1, "momentum": 0.9, "weight_decay": 0.01}
HOROVOD: dict[str, Any] = {"strategy": "ddp", "engine": "horovod"}


@pytest.fixture(autouse=True)
def _built() -> None:
    if not strategies.installed("horovod"):
        missing("horovod: `make engines` builds it")


def apart(pool: Pool, out: Path, **values: Any) -> float:
    """The largest difference of a Horovod training's final state and losses from those of one process. Sgd's momentum included."""
    spread = completed(pool, out, **{**SAME, **HOROVOD, **values})
    alone = completed(pool, out, **{**SAME, **values, "workers": 1, "compress": "none"})
    losses = max(abs(a - b) for a, b in zip(spread.losses, alone.losses, strict=True))
    return max(losses, largest_difference(final(out, spread), final(out, alone)))


@pytest.mark.parametrize(("workers", "accumulate"), [(2, 1), (2, 3), (3, 2)])
def test_equals_one_process(pool: Pool, tmp_path: Path, workers: int, accumulate: int) -> None:
    assert apart(pool, tmp_path, workers=workers, accumulate=accumulate) < 1e-13


def test_weights_that_lie_channels_last_or_not(pool: Pool, tmp_path: Path) -> None:
    for layout in ("on", "off"):
        assert apart(pool, tmp_path, workers=2, channels_last=layout, recompute=True) < 1e-13


def test_local_batch_norm_equals_one_process_that_normalises_in_slices(pool: Pool, tmp_path: Path) -> None:
    local = {**SAME, "batch_norm": "local"}
    spread = completed(pool, tmp_path, **local, **HOROVOD, workers=2)
    alone = completed(pool, tmp_path, **local, norm_slices=2)
    assert spread.losses == pytest.approx(alone.losses, rel=1e-12)


ODD = """
    import torch
    from torch import nn

    class Odd(nn.Module):
        \"\"\"A frozen layer, tied weights, a layer that nothing uses, and one that only bright images go through.\"\"\"

        def __init__(self):
            super().__init__()
            self.a, self.b, self.rare, self.never = (nn.Linear(192, 192) for _ in range(4))
            self.tied, self.out = nn.Linear(192, 192), nn.Linear(192, 4)
            self.a.requires_grad_(False)
            self.tied.weight = self.b.weight

        def forward(self, x):
            x = x.flatten(1)
            bright = x.mean(1) > {threshold}
            x = torch.tanh(self.b(torch.tanh(self.a(x))))
            if bright.any():
                x = x.index_add(0, bright.nonzero()[:, 0], torch.tanh(self.rare(x[bright])))
            return self.out(torch.tanh(self.tied(x)))

    def build(num_classes):
        return Odd()
"""


@pytest.mark.parametrize(("threshold", "moves"), [(0.0, True), (0.16, True), (99.0, False)])
def test_parameters_frozen_tied_or_unused_on_some_ranks_or_on_all(
    pool: Pool, tmp_path: Path, threshold: float, moves: bool
) -> None:
    """One that had a gradient nowhere must not decay; one that had it on a single rank must move on all."""
    (tmp_path / "odd.py").write_text(textwrap.dedent(ODD).replace("{threshold}", str(threshold)))
    values = {"model": f"{tmp_path}/odd.py:build", "model_args": {}, "accumulate": 2, "epochs": 2}
    assert apart(pool, tmp_path / "runs", workers=3, **values) < 1e-13
    record = completed(pool, tmp_path / "runs", **{**SAME, **HOROVOD, **values}, workers=2)
    kept = final(tmp_path / "runs", record)
    assert ("optimizer/rare.weight/momentum_buffer" in kept) == moves
    assert "optimizer/never.weight/momentum_buffer" not in kept


def test_fp16_halves_the_bytes_and_changes_the_result_a_little(pool: Pool, tmp_path: Path) -> None:
    values = {**HOROVOD, "workers": 2, "probe_steps": 1, "epochs": 1}
    whole, half = (completed(pool, tmp_path, **values, compress=compress) for compress in ("none", "fp16"))
    assert whole.bytes_sent.median is not None
    assert half.bytes_sent.median is not None
    assert half.bytes_sent.median / whole.bytes_sent.median == pytest.approx(0.5, rel=0.05)
    assert half.losses != whole.losses
    assert half.losses == pytest.approx(whole.losses, rel=1e-2)


@pytest.mark.parametrize("compress", ["bf16", "powersgd"])
def test_a_compression_that_horovod_has_not_is_refused(pool: Pool, tmp_path: Path, compress: str) -> None:
    with pytest.raises(NotApplicable, match="fp16; the others are with --engine torch"):
        train(pool, tmp_path, **HOROVOD, workers=2, compress=compress)


def test_its_communication_is_counted_and_timed(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, **HOROVOD, workers=3, probe_steps=3, epochs=1)
    parameters = record.model.bytes
    assert record.bytes_sent.median == pytest.approx(2 * 2 / 3 * parameters, rel=0.02)  # ring: 2(n-1)/n · P
    seconds = record.communication_seconds
    assert seconds.exposed.median is not None
    assert seconds.total.median is not None
    assert seconds.total.median > 0
    assert "Horovod's timeline" in record.method["communication_seconds.total"]


def test_probes_leave_the_training_as_it_was(pool: Pool, tmp_path: Path) -> None:
    probed, plain = (completed(pool, tmp_path, **SAME | {"epochs": 2}, **HOROVOD, workers=2, probe_steps=n) for n in (2, 0))
    assert probed.losses == plain.losses


def test_a_run_goes_on_under_another_engine(pool: Pool, tmp_path: Path) -> None:
    values = {**SAME, "epochs": 2}
    whole = completed(pool, tmp_path / "whole", **values)
    part = completed(pool, tmp_path / "part", **values, **HOROVOD, workers=2, stop_after_epoch=1)
    resumed = completed(
        pool, tmp_path / "part", resume=str(tmp_path / "part" / part.run), epochs=2, strategy="zero3", engine="torch", workers=2
    )
    assert resumed.losses == pytest.approx(whole.losses, rel=1e-12)


BREAKS = """
    import os, signal, time
    from torch import nn

    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.steps = nn.Linear(192, 4), 0

        def forward(self, x):
            self.steps += self.training
            if self.steps == 3 and os.environ.get("RANK") == "1" and os.environ.get("WORLD_SIZE") == "3":
                {how}
            return self.out(x.flatten(1))

    def build(num_classes):
        return Breaks()
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [("raise ValueError('my own words')", "ValueError: my own words"), ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL")],
)
def test_a_failing_rank_ends_the_job_with_its_own_words(pool: Pool, tmp_path: Path, how: str, told: str) -> None:
    (tmp_path / "breaks.py").write_text(textwrap.dedent(BREAKS).replace("{how}", how))
    began = time.monotonic()
    record = train(pool, tmp_path / "runs", **HOROVOD, workers=3, model=f"{tmp_path}/breaks.py:build", model_args={})
    assert record.status == "failed"
    assert record.failure is not None
    assert (record.failure.rank, told in record.failure.error) == (1, True), record.failure
    assert time.monotonic() - began < 60  # seconds; its --timeout is 600
    assert processes_of(str(tmp_path / "runs" / record.run)) == []


def test_a_rank_that_hangs_is_given_up_after_the_timeout(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(textwrap.dedent(BREAKS).replace("{how}", "time.sleep(600)"))
    began = time.monotonic()
    record = train(pool, tmp_path / "runs", **HOROVOD, workers=3, model=f"{tmp_path}/breaks.py:build", model_args={}, timeout=3)
    assert record.status == "failed"
    assert time.monotonic() - began < 60
    assert processes_of(str(tmp_path / "runs" / record.run)) == []


@pytest.mark.parametrize(
    ("environment", "theirs"),
    [
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, True),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, False),  # the launcher is a task of Slurm's, the ranks are not
        ({}, False),
    ],
)
def test_an_mpi_is_used_where_it_started_the_ranks(environment: dict[str, str], theirs: bool) -> None:
    from scalelab.comm.world import World
    from scalelab.strategies.horovod_engine.meeting import by_mpi

    world = World(1, 2, 1, torch.device("cpu"), "gloo", 1, 2, "host", 0.5)
    assert by_mpi(world, environment) == theirs


def test_one_that_was_built_for_another_torch_is_told(tmp_path: Path) -> None:
    """Horovod's package can be imported then; its compiled part can't."""
    (tmp_path / "horovod" / "torch").mkdir(parents=True)
    for package in ("horovod", "horovod/torch"):
        (tmp_path / package / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", "from scalelab import strategies; strategies.load('ddp', 'horovod')"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert "NotApplicable: --engine horovod: it was built for another torch (" in done.stderr
    assert done.stderr.strip().endswith("`make engines` builds it anew")


def test_nothing_of_it_stays_in_this_process(pool: Pool, tmp_path: Path) -> None:
    """Ranks set Horovod's variables for themselves alone."""
    completed(pool, tmp_path, **HOROVOD, workers=2)
    assert not [name for name in os.environ if name.startswith("HOROVOD_")]


def test_all_ranks_hold_the_same_weights_at_the_end(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, **HOROVOD, workers=3, epochs=2)
    assert not [note for note in record.notes if "parameters differ" in note]


def test_its_formulas_say_what_is_counted(command: Command) -> None:
    flags = ["--workers", 3, "--batch-norm", "sync", "--accumulate", 2, "--compress", "fp16", "--count", "--json"]
    ended = command("explain", "ddp", "--engine", "horovod", *VERIFY_FLAGS, *flags)
    assert ended.status == 0, ended.err
    told = json.loads(ended.out)
    assert told["counted"]["bytes_sent"]["median"] == pytest.approx(told["total_sent"], rel=1e-3)
