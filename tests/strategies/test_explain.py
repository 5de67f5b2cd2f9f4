"""What a strategy says that it sends is what it really sends: formulas against counted collectives, and against the network interface."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalelab import spec as specs
from scalelab import strategies
from scalelab.launch.asking import ask
from scalelab.launch.pool import Pool
from scalelab.strategies import STRATEGIES
from scalelab.strategies.formulas.explanation import Explained
from tests import loopback
from tests.trainings import completed, tiny

WITHIN = 0.02
SPLITS = {2: "4", 3: "4,8", 4: "4,8,12"}
"""where basic_cnn and the odd model are cut, for so many stages: a measured cut may differ from one run to the next"""
TWICE = {2: "2,4,8", 4: "2,4,6,8,9,10,12"}
"""and with two stages on each worker"""

ODD = """
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.unused = nn.Linear(13, 13), nn.Linear(13, 13), nn.Linear(3, 5)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x).tanh())

    def build(num_classes):
        frozen = nn.Linear(13, 11).requires_grad_(False)
        layers = [nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten(), nn.Linear(7, 13)]
        layers += [nn.BatchNorm1d(13), nn.Tanh(), Tied(), frozen, nn.Tanh(), nn.Linear(11, 11), nn.Tanh(), nn.Linear(11, num_classes)]
        return nn.Sequential(*layers)
"""
"""tied weights, a frozen layer, one that nothing uses, batch norms, sizes that no number of workers divides"""


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, Any]:
    """The flags of a model with all that makes formulas hard."""
    (tmp_path / "odd.py").write_text(textwrap.dedent(ODD))
    return {"model": f"{tmp_path}/odd.py:build", "model_args": {}}


def explained(pool: Pool, out: Path, **values: Any) -> Explained:
    """What the formulas say of a small training."""
    return msgspec.convert(ask(pool, "scalelab.worker.explain:explain", tiny(out, **values)), Explained)


def agree(pool: Pool, out: Path, **values: Any) -> Explained:
    """The formulas' bytes are those that a probe step's collectives counted, to 2 %."""
    said = explained(pool, out, **values)
    record = completed(pool, out, **values, steps=2, probe_steps=1, evaluate=False, checkpoint=False)
    assert record.bytes_sent.median == pytest.approx(said.total_sent, rel=WITHIN), said.sent
    assert record.bytes_sent.median
    return said


SPREAD = [name for name, entry in STRATEGIES.items() if entry.axis is not None]


def split(strategy: str, workers: int) -> dict[str, Any]:
    return {"split": SPLITS[workers]} if STRATEGIES[strategy].axis == "pipe" else {}


@pytest.mark.parametrize("strategy", SPREAD)
def test_bytes_by_formula_are_those_counted(pool: Pool, tmp_path: Path, strategy: str) -> None:
    agree(pool, tmp_path, strategy=strategy, workers=2, accumulate=2, **split(strategy, 2))


@pytest.mark.parametrize(("workers", "accumulate"), [(3, 2), (4, 1)])
@pytest.mark.parametrize("strategy", SPREAD)
def test_with_synchronised_batch_norm_tied_frozen_and_unused_parameters(
    pool: Pool, tmp_path: Path, odd: dict[str, Any], strategy: str, workers: int, accumulate: int
) -> None:
    values = {"strategy": strategy, "workers": workers, "accumulate": accumulate, **odd, **split(strategy, workers)}
    said = agree(pool, tmp_path, **values, batch_norm="sync")
    synced = STRATEGIES[strategy].axis != "pipe"  # there, all workers are one replica
    assert sum(part.what.startswith("batch norm") for part in said.sent) == (2 if synced else 0)


HYBRIDS: list[dict[str, Any]] = [
    {"strategy": "zero2", "shard": 2, "workers": 4, "accumulate": 2},
    {"strategy": "zero3", "shard": 2, "workers": 4},
    {"strategy": "zero3", "workers": 2, "offload": "all"},
    {"strategy": "zero1", "workers": 2, "compress": "fp16"},
    {
        "strategy": "ddp",
        "workers": 3,
        "compress": "powersgd",
        "powersgd_rank": 2,
        "model": "basic_cnn",
        "model_args": {"width": 8},
    },
    {"strategy": "ddp", "workers": 2, "recompute": True},
    {"strategy": "zero3", "workers": 2, "recompute": True, "accumulate": 2},
    {"strategy": "model", "workers": 4, "stages": 2, "accumulate": 2, "split": SPLITS[2]},
    {"strategy": "pipeline", "workers": 4, "stages": 2, "accumulate": 2, "split": SPLITS[2], "pipeline_schedule": "gpipe"},
    {"strategy": "pipeline", "workers": 2, "accumulate": 4, "split": TWICE[2], "pipeline_schedule": "interleaved"},
    {"strategy": "pipeline", "workers": 2, "accumulate": 2, "split": TWICE[2], "pipeline_schedule": "zero-bubble"},
    {"strategy": "local-sgd", "workers": 2, "sync_every": 3, "outer_momentum": 0.9},
    {"strategy": "ddp", "workers": 2, "shares": "3:1"},
]


@pytest.mark.parametrize("values", HYBRIDS, ids=lambda values: " ".join(map(str, values.values())))
def test_hybrids_and_options(pool: Pool, tmp_path: Path, odd: dict[str, Any], values: dict[str, Any]) -> None:
    agree(pool, tmp_path, **{**odd, "batch_norm": "sync", **values})


def test_narrow_parameters(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, 50), nn.ReLU(), nn.Linear(50, 30), nn.ReLU(), nn.Linear(30, num_classes))\n"
    )
    values = {"strategy": "zero3", "workers": 3, "param_dtype": "bf16", "model": f"{tmp_path}/plain.py:build", "model_args": {}}
    agree(pool, tmp_path, **values)


ENGINES = [
    (engine, name)
    for engine in strategies.ENGINES
    if engine != "torch"
    for name, entry in STRATEGIES.items()
    if engine in entry.where
]


@pytest.mark.parametrize(("engine", "strategy"), ENGINES)
def test_other_engines(pool: Pool, tmp_path: Path, engine: str, strategy: str) -> None:
    if not strategies.installed(engine):
        pytest.skip(f"missing: engine {engine} (`{strategies.ENGINES[engine].install}` installs it)")
    values = {"strategy": strategy, "engine": engine, "workers": 3, "accumulate": 2, **split(strategy, 3)}
    agree(pool, tmp_path, **values, batch_norm="sync")


ON_THE_WIRE = ("ddp", "zero1", "zero2", "zero3", "pipeline")
FEW, MORE = 4, 14


def test_bytes_by_formula_are_those_of_the_network_interface(pool: Pool, tmp_path: Path) -> None:
    """Of 3 workers; what 10 more steps add is the steps' alone. Headers and acknowledgements are the few per cent above."""
    if not loopback.apart():
        pytest.skip("missing: a network namespace of its own (root, or a kernel that lets users make one)")
    said, files = [], []
    for strategy in ON_THE_WIRE:
        values: dict[str, Any] = {"strategy": strategy, "workers": 3, "model_args": {"width": 96}, "batch": 6, "accumulate": 2}
        values |= {"evaluate": False, "checkpoint": False, **split(strategy, 3)}
        said.append(explained(pool, tmp_path, **values).total_sent)
        for steps in (FEW, MORE):
            files.append(tmp_path / f"{strategy}-{steps}.yaml")
            files[-1].write_text(specs.dump(tiny(tmp_path, **values, steps=steps)))
    sent = loopback.counted(files, own=True)
    measured = [(more - few) / (MORE - FEW) / 3 for few, more in zip(sent[::2], sent[1::2], strict=True)]
    ratios = {name: there / here for name, there, here in zip(ON_THE_WIRE, measured, said, strict=True)}
    assert all(1.0 < ratio < 1.06 for ratio in ratios.values()), ratios
