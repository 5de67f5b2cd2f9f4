"""Engine deepspeed: a run goes on in every cell and from it, probes leave no trace, and what breaks in a shard is seen."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from scalelab.launch.asking import ask
from scalelab.launch.pool import Pool
from tests.strategies.deepspeed.same import ADAM, CLOSE, ZERO, apart
from tests.trainings import Reference, completed, equal, final, tiny, train

CELLS: list[dict[str, Any]] = [
    {"strategy": "ddp", "workers": 2},
    {"strategy": "zero1", "workers": 3},
    {"strategy": "zero2", "workers": 2, "offload": "optimizer"},
    {"strategy": "zero3", "workers": 2, "offload": "all"},
    {"strategy": "pipeline", "workers": 2},
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell["strategy"])
def test_a_run_goes_on_in_this_cell_and_from_it(pool: Pool, tmp_path: Path, reference: Reference, cell: dict[str, Any]) -> None:
    """One epoch in one process, one here, one in one process again."""
    values, away = {**ADAM, "epochs": 3}, {"strategy": "single", "engine": "torch", "workers": 1, "offload": "none"}
    out, first = reference(**values, stop_after_epoch=1)
    folder = Path(shutil.copytree(out / first.run, tmp_path / first.run))
    completed(pool, tmp_path, resume=folder, **{**away, "engine": "deepspeed", **cell}, epochs=3, stop_after_epoch=2)
    last = completed(pool, tmp_path, resume=folder, **away, epochs=3, stop_after_epoch=3)
    assert len(last.losses) == 12
    assert apart(tmp_path, last, reference(**values)) < CLOSE


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero3"])
def test_probes_leave_no_trace(pool: Pool, tmp_path: Path, strategy: str) -> None:
    values = {"engine": "deepspeed", "strategy": strategy, "workers": 2, "epochs": 2}
    probed, plain = (completed(pool, tmp_path, **values, probe_steps=n) for n in (1, 0))
    assert equal(final(tmp_path, probed), final(tmp_path, plain))
    assert probed.communication_seconds.exposed.median is not None


@pytest.mark.parametrize(
    ("strategy", "values"),
    [
        ("ddp", {"workers": 2, "precision": "bf16"}),
        ("zero1", {"workers": 2, "accumulate": 2}),
        ("zero2", {"workers": 2, "precision": "bf16", "accumulate": 2}),
        ("zero3", {"workers": 3, "accumulate": 2, "batch_norm": "sync"}),
    ],
    ids=ZERO,
)
def test_formulas_give_the_bytes_that_are_counted(pool: Pool, tmp_path: Path, strategy: str, values: dict[str, Any]) -> None:
    cell = {"engine": "deepspeed", "strategy": strategy, **values}
    told = ask(pool, "scalelab.worker.explain:explain", tiny(tmp_path, **cell))
    counted = completed(pool, tmp_path, **cell, epochs=1, evaluate=False, probe_steps=1)
    assert told["total_sent"] == pytest.approx(counted.bytes_sent.median, rel=0.02)
    held = {part["what"]: part["bytes"] for part in told["held"]}
    assert held["parameters"] == counted.memory_bytes.parameters
    assert held["gradients"] == counted.memory_bytes.gradients
    assert held["optimizer state"] + held.get("float32 masters", 0) == counted.memory_bytes.optimizer
    assert told["config"]["gradient_clipping"] == 0.0


SLY = """
from torch import nn

class Sly(nn.Module):
    def __init__(self):
        super().__init__()
        self.flat, self.a, self.b, self.calls = nn.Flatten(), nn.Linear(192, 4), nn.Linear(192, 4), 0

    def forward(self, x):
        x = self.flat(x)
        self.calls += self.training
        return self.a(x) if self.training and self.calls == 3 else self.a(x) + self.b(x)

def build(num_classes):
    return Sly()
"""


def test_weights_that_are_not_finite_are_seen_in_shards(pool: Pool, tmp_path: Path) -> None:
    """The last update breaks them, so no loss shows it; the shards of zero3 are not the module's own tensors."""
    values = {"engine": "deepspeed", "workers": 2, "epochs": 1, "steps": 1, "lr": 1e38, "weight_decay": 1e3}
    own = tmp_path / "own.json"
    own.write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0}}')
    record = train(pool, tmp_path, **values, strategy="zero3", deepspeed_config=str(own))
    assert record.failure is not None
    assert "the weights are no longer finite after step 1" in record.failure.error


@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_a_gradient_that_is_missing_later_ends_the_run(pool: Pool, tmp_path: Path, strategy: str) -> None:
    """Never wrong: DeepSpeed would take it for zero, and decay the parameter."""
    (tmp_path / "sly.py").write_text(SLY)
    own = {"model": f"{tmp_path}/sly.py:build", "model_args": {}}
    record = train(pool, tmp_path, **own, engine="deepspeed", strategy=strategy, workers=2)
    assert record.status == "failed"
    assert record.failure is not None
    assert "parameter 'b.bias' had no gradient in this step" in record.failure.error
