"""Clips and ensembles train under every strategy as they do in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab.launch.pool import Pool
from tests.trainings import SPREAD, completed, final, largest_difference

CLIPS: dict[str, Any] = {
    "model": "cnn_lstm", "model_args": {"width": 2, "hidden": 3}, "data": "synthetic-clips", "frames": 3, "train_limit": 48,
    "test_limit": 8,
}  # fmt: skip
ENSEMBLE: dict[str, Any] = {"model": "ensemble", "model_args": {"members": 2, "width": 2, "average": "probabilities"}}


def apart(pool: Pool, out: Path, strategy: str, **values: Any) -> float:
    """The largest difference from ``single`` of any tensor after two steps in float64."""
    common = {"steps": 2, "precision": "fp64", "batch_norm": "sync", **values}
    alone, spread = (completed(pool, out, **common, **given) for given in ({}, {"strategy": strategy, "workers": 2}))
    return largest_difference(final(out, alone), final(out, spread))


@pytest.mark.parametrize("strategy", [*SPREAD, "pipeline"])
def test_clips_train_as_in_one_process(pool: Pool, tmp_path: Path, strategy: str) -> None:
    assert apart(pool, tmp_path, strategy, **CLIPS) < 1e-12


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_an_ensemble_trains_as_in_one_process(pool: Pool, tmp_path: Path, strategy: str) -> None:
    assert apart(pool, tmp_path, strategy, **ENSEMBLE) < 1e-12


def test_the_record_tells_what_an_ensemble_averages(pool: Pool, tmp_path: Path) -> None:
    record = completed(pool, tmp_path, steps=1, **ENSEMBLE)
    assert record.notes[0] == (
        "ensemble of 2 x basic_cnn, trained together: the loss is that of the mean of the members' probabilities"
    )
