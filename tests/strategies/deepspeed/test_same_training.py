"""Engine deepspeed: the same training as one process, in float32 on models without kinks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab.errors import NotApplicable
from scalelab.launch.pool import Pool
from tests.strategies.deepspeed.same import ADAM, CLOSE, SAME, ZERO, apart
from tests.trainings import Reference, completed, final, train


@pytest.mark.parametrize("strategy", [*ZERO, "pipeline"])
def test_equals_one_process(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    spread = completed(pool, tmp_path, **SAME, accumulate=2, engine="deepspeed", strategy=strategy, workers=2)
    assert apart(tmp_path, spread, reference(**SAME, accumulate=2)) < CLOSE


@pytest.mark.parametrize("strategy", ZERO[1:])
def test_three_workers_three_micro_batches_and_adam(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    values = {**ADAM, "batch": 27}
    spread = completed(pool, tmp_path, **values, accumulate=3, engine="deepspeed", strategy=strategy, workers=3)
    assert apart(tmp_path, spread, reference(**values, accumulate=3)) < CLOSE


def test_pipeline_times_data(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    spread = completed(pool, tmp_path, **ADAM, accumulate=3, engine="deepspeed", strategy="pipeline", workers=4, stages=2)
    assert apart(tmp_path, spread, reference(**ADAM, accumulate=3)) < CLOSE


@pytest.mark.parametrize(
    ("strategy", "offload", "values"),
    [("zero1", "optimizer", SAME), ("zero2", "optimizer", ADAM), ("zero3", "all", SAME)],
    ids=["zero1", "zero2", "zero3-all"],
)
def test_what_is_offloaded_is_updated_by_the_same_optimizer(
    pool: Pool, tmp_path: Path, reference: Reference, strategy: str, offload: str, values: dict[str, Any]
) -> None:
    cell = {"engine": "deepspeed", "strategy": strategy, "workers": 2, "offload": offload}
    spread = completed(pool, tmp_path, **values, accumulate=2, **cell)
    assert apart(tmp_path, spread, reference(**values, accumulate=2)) < CLOSE


@pytest.mark.parametrize(("strategy", "model"), [("ddp", "odd:tied"), ("zero3", "odd:tied"), ("pipeline", "odd:bare")])
def test_odd_models(pool: Pool, tmp_path: Path, reference: Reference, strategy: str, model: str) -> None:
    values = {**SAME, "model": model, "model_args": {}, "lr": 0.01}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=2)
    assert spread.losses == pytest.approx(reference(**values)[1].losses, rel=1e-5)


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_a_frozen_layer(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    values = {**SAME, "model": "odd:frozen", "model_args": {}}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=2)
    assert apart(tmp_path, spread, reference(**values)) < CLOSE


def test_uneven_shares(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    for strategy, workers in (("zero2", 2), ("pipeline", 4)):
        stages = {"stages": 2} if strategy == "pipeline" else {}
        spread = completed(pool, tmp_path, **SAME, engine="deepspeed", strategy=strategy, workers=workers, shares="3:1", **stages)
        assert apart(tmp_path, spread, reference(**SAME)) < CLOSE


def test_recomputation(pool: Pool, tmp_path: Path, reference: Reference) -> None:
    values = {**SAME, "model": "odd:tied", "model_args": {}, "lr": 0.01}
    for strategy in ("zero3", "pipeline"):
        spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=2, recompute=True)
        assert spread.losses == pytest.approx(reference(**values)[1].losses, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adafactor", "lamb"])
def test_an_optimizer_of_whole_tensors_has_them_in_stage_0_only(
    pool: Pool, tmp_path: Path, reference: Reference, optimizer: str
) -> None:
    values = {**SAME, "optimizer": optimizer, "lr": 0.01, "epochs": 1}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy="ddp", workers=2)
    assert apart(tmp_path, spread, reference(**values)) < 1e-5
    with pytest.raises(NotApplicable, match="looks at whole tensors"):
        train(pool, tmp_path, **values, engine="deepspeed", strategy="zero1", workers=2)


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_bf16_weights_with_wide_masters(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    half = {**SAME, "precision": "bf16"}
    spread = completed(pool, tmp_path, **half, engine="deepspeed", strategy=strategy, workers=2)
    assert spread.losses == pytest.approx(reference(**SAME)[1].losses, rel=1e-2)
    weights = final(tmp_path, spread)["model/9.weight"]
    assert str(weights.dtype) == "float32"
    assert (weights.view("uint32") & 0xFFFF).any()  # not merely bf16 written wide
    assert spread.memory_bytes.parameters <= 6688 / 2


PADDED = """
import torch
from torch import nn

def build(num_classes):
    torch.use_deterministic_algorithms(True)  # uninitialised memory is filled with NaN
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.SiLU(), nn.Flatten(), nn.Linear(180, num_classes))
"""


@pytest.mark.parametrize("strategy", ["zero1", "zero3"])
def test_what_pads_a_shard_is_no_weight(pool: Pool, tmp_path: Path, reference: Reference, strategy: str) -> None:
    (tmp_path / "padded.py").write_text(PADDED)
    values = {**SAME, "model": f"{tmp_path}/padded.py:build", "model_args": {}}
    spread = completed(pool, tmp_path, **values, engine="deepspeed", strategy=strategy, workers=3)
    assert apart(tmp_path, spread, reference(**values)) < CLOSE
