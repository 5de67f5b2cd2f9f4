"""The small trainings of these tests, and how far two of them are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalelab.record.schema import TrainRecord
from tests.trainings import final, largest_difference

ZERO = ("ddp", "zero1", "zero2", "zero3")
SAME: dict[str, Any] = {
    "precision": "fp32", "smooth": True, "batch_norm": "sync", "epochs": 2, "momentum": 0.9, "weight_decay": 0.01,
    "schedule": "cosine", "warmup_epochs": 1, "deepspeed_config": None,
}  # fmt: skip
ADAM: dict[str, Any] = {**SAME, "optimizer": "adamw", "lr": 0.001}
CLOSE = 5e-6
"""float32's rounding over a few steps; a bug is 1e-2"""


def apart(out: Path, record: TrainRecord, alone: tuple[Path, TrainRecord]) -> float:
    """The largest difference of losses, parameters, buffers and the optimizer's slots."""
    losses = max(abs(a - b) for a, b in zip(record.losses, alone[1].losses, strict=True))
    assert record.accuracy == pytest.approx(alone[1].accuracy)
    return max(losses, largest_difference(final(out, record), final(*alone)))
