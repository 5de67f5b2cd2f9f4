"""State that moves: a checkpoint of any strategy, engine and world size goes on under any other as if nothing had been."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from scalelab.launch.pool import Pool
from scalelab.strategies import installed
from tests.trainings import completed

EXACT: dict[str, Any] = {"precision": "fp64"}
SMOOTH: dict[str, Any] = {"precision": "fp32", "smooth": True}
"""for an engine that keeps float32 weights: without kinks, so that rounding stays rounding"""
RECIPE: dict[str, Any] = {
    "optimizer": "adamw", "lr": 0.01, "weight_decay": 0.01, "schedule": "cosine", "warmup_epochs": 1, "augment": "crop+flip",
    "batch_norm": "sync", "accumulate": 2, "epochs": 3, "evaluate": False,
}  # fmt: skip

BEFORE: dict[str, dict[str, Any]] = {
    "ddp x2": {"strategy": "ddp", "workers": 2},
    "zero1 x2": {"strategy": "zero1", "workers": 2},
    "zero2 x2": {"strategy": "zero2", "workers": 2},
    "zero3 x2": {"strategy": "zero3", "workers": 2},
    "zero3 x4": {"strategy": "zero3", "workers": 4},
    "HSDP 2x2": {"strategy": "zero3", "workers": 4, "shard": 2},
    "pipeline x2": {"strategy": "pipeline", "workers": 2},
    "pipeline x data 2x2": {"strategy": "pipeline", "workers": 4, "stages": 2},
    "model x2": {"strategy": "model", "workers": 2},
    "deepspeed zero3 x2": {"strategy": "zero3", "engine": "deepspeed", "workers": 2},
    "horovod x2": {"strategy": "ddp", "engine": "horovod", "workers": 2},
}
AFTER: dict[str, dict[str, Any]] = {
    "single": {"strategy": "single", "workers": 1},
    "zero3 x4": {"strategy": "zero3", "workers": 4},
    "pipeline x2": {"strategy": "pipeline", "workers": 2},
    "ddp x2": {"strategy": "ddp", "workers": 2},
    "deepspeed zero3 x2": {"strategy": "zero3", "engine": "deepspeed", "workers": 2},
}
TOLERANCE = {"fp64": 1e-9, "fp32": 1e-4}
"""AdamW divides by the gradients' size: float32's rounding grows over the steps"""


@pytest.fixture(scope="module")
def unbroken(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The losses of one process that was never interrupted, by precision."""
    return {
        kind["precision"]: completed(pool, tmp_path_factory.mktemp("whole"), **RECIPE, **kind).losses for kind in (EXACT, SMOOTH)
    }


@pytest.mark.parametrize("before", BEFORE)
def test_a_checkpoint_goes_on_under_any_other_strategy(
    pool: Pool, tmp_path: Path, unbroken: dict[str, list[float]], before: str
) -> None:
    source = BEFORE[before]
    for engine in {source.get("engine", "torch")}:
        if not installed(engine):
            pytest.skip(f"{engine} is not installed: `make engines`")
    kinds = [SMOOTH] if source.get("engine") == "deepspeed" else [EXACT, SMOOTH] if before == "ddp x2" else [EXACT]
    for kind in kinds:
        out = tmp_path / kind["precision"]
        first = completed(pool, out, **RECIPE, **kind, **source, stop_after_epoch=1)
        limit = TOLERANCE[kind["precision"]]
        for after, target in AFTER.items():
            deepspeed = target.get("engine") == "deepspeed"
            if deepspeed and (kind is EXACT or not installed("deepspeed")):
                continue
            copy = out / after / first.run
            shutil.copytree(out / first.run, copy)
            second = completed(pool, copy.parent, resume=copy, **{"engine": "torch", **target})
            assert second.attempts[-1].first_step == 4
            assert second.losses[4:7] == pytest.approx(unbroken[kind["precision"]][4:7], rel=limit), after
            assert second.losses[:4] == first.losses
